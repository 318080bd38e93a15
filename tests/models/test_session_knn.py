import math
from collections import defaultdict
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.dataset import Sessions
from models.evaluation import evaluate
from models.session_knn import S_KNN, V_SKNN, VMIS_KNN, SessionKNN, SessionKNNConfig

N = 6
MASKED = -math.inf


def after(model: SessionKNN, *items: int) -> list[float]:
    """Scores after a session of these items."""
    session = Sessions.from_lists([[*items, 0]], model.n_items)
    return model.scores(model.states(session)[-1:])[0].tolist()


def by_hand(
    train: list[list[int]], prefix: list[int], config: SessionKNNConfig, n_items: int = N
) -> list[float]:
    """The definition, session by session."""
    prefix = prefix[-config.last_steps :]
    support = defaultdict(int)
    for session in train:
        for item in session:
            support[item] += 1
    candidates = [n for n, session in enumerate(train) if set(session) & set(prefix)]
    similar = []
    for n in candidates[-config.n_recent :]:
        shared = set(train[n]) & set(prefix)
        # A repeated item counts where it was seen last.
        back = {item: prefix[::-1].index(item) for item in shared}
        similarity = sum(
            ((len(prefix) - back[item]) / len(prefix)) ** config.position_power
            for item in sorted(shared, key=back.__getitem__)
        )
        similarity /= math.sqrt(len(set(train[n]))) if config.is_cosine else 1
        fade = max(0, 1 - 0.1 * (min(back.values()) + 1)) if config.is_fading else 1
        similar.append((similarity, n, fade))
    scores = [0.0] * n_items
    for similarity, n, fade in sorted(similar)[-config.n_neighbours :]:
        for item in set(train[n]):
            idf = math.log(max(1, len(train) / support[item]))
            scores[item] += similarity * fade * (config.idf_base + config.idf_weight * idf)
    scores[prefix[-1]] = MASKED
    return scores


def test_s_knn_is_the_cosine_of_sets_by_hand():
    # Shared with {0, 1}: both of session 0, one of two in session 1, one of three in session 2.
    train = Sessions.from_lists([[0, 1, 2], [1, 3], [4, 0, 0, 5]], N)
    scores = after(SessionKNN(train, S_KNN), 0, 1)
    one, two, three = 2 / 3**0.5, 1 / 2**0.5, 1 / 3**0.5
    assert scores == pytest.approx([one + three, MASKED, one, two, three, three])


def test_vmis_knn_weighs_positions_fading_votes_and_rare_items_by_hand():
    train = Sessions.from_lists([[0, 2], [1, 2], [1, 3]], N)
    scores = after(SessionKNN(train, VMIS_KNN), 0, 1)
    # Session 0 shares the older of two steps (1/2, fading to 0.8), the others the latest (1, 0.9).
    rare, common = math.log(3 / 1), math.log(3 / 2)
    expected = [0.5 * 0.8 * rare, MASKED, (0.5 * 0.8 + 0.9) * common, 0.9 * rare, 0, 0]
    assert scores == pytest.approx(expected)


def test_v_sknn_squares_positions_and_adds_the_weight_of_rarity_by_hand():
    train = Sessions.from_lists([[0, 2], [1, 2], [1, 3]], N)
    scores = after(SessionKNN(train, V_SKNN), 0, 1)
    rare, common = 1 + 10 * math.log(3 / 1), 1 + 10 * math.log(3 / 2)
    expected = [0.25 * 0.8 * rare, MASKED, (0.25 * 0.8 + 0.9) * common, 0.9 * rare, 0, 0]
    assert scores == pytest.approx(expected)


def test_only_the_most_recent_are_candidates_and_only_the_most_similar_vote():
    train = Sessions.from_lists([[0, 1, 2], [0, 3], [0, 4], [5, 4]], N)
    plain = replace(S_KNN, n_recent=2)
    assert after(SessionKNN(train, plain), 1, 0)[2:] == pytest.approx([0, 0.5**0.5, 0.5**0.5, 0])
    nearest = replace(S_KNN, n_neighbours=1)
    assert after(SessionKNN(train, nearest), 1, 0)[2:] == pytest.approx([2 / 3**0.5, 0, 0, 0])
    # Between the equally similar the later session wins.
    assert after(SessionKNN(train, nearest), 0)[1:] == pytest.approx([0, 0, 0, 0.5**0.5, 0])


def test_steps_beyond_the_latest_are_forgotten():
    model = SessionKNN(Sessions.from_lists([[0, 1], [2, 3]], N), replace(VMIS_KNN, last_steps=2))
    assert after(model, 0, 2, 4) == after(model, 2, 4)


def test_without_a_neighbour_nothing_is_voted_for():
    model = SessionKNN(Sessions.from_lists([[0, 1]], N))
    assert after(model, 5) == [0, 0, 0, 0, 0, MASKED]
    empty = model.scores(torch.full((1, VMIS_KNN.last_steps), -1))
    assert empty.tolist() == [[0] * N]
    assert SessionKNN(Sessions.from_lists([], N)).scores(empty.long()).shape == (1, N)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(st.integers(0, N - 1), min_size=1, max_size=6), min_size=1, max_size=12),
    st.lists(st.integers(0, N - 1), min_size=1, max_size=12),
    st.sampled_from([
        S_KNN, V_SKNN, VMIS_KNN, replace(S_KNN, n_recent=3, n_neighbours=2),
        replace(V_SKNN, n_recent=4, n_neighbours=3), replace(VMIS_KNN, n_recent=2, last_steps=3),
    ]),
)  # fmt: skip
def test_equals_the_definition(train, prefix, config):
    model = SessionKNN(Sessions.from_lists(train, N), config)
    assert after(model, *prefix) == pytest.approx(by_hand(train, prefix, config))


def test_blocks_do_not_change_scores_and_two_runs_are_equal(ring, monkeypatch):
    model = SessionKNN(ring)
    states = model.states(ring)[:300]
    whole = model.scores(states)
    assert torch.equal(SessionKNN(ring).scores(states), whole)
    monkeypatch.setattr("models.session_knn._ENTRIES_AT_ONCE", 50)
    assert torch.equal(model.scores(states), whole)


@pytest.mark.parametrize(
    ("config", "recall", "mrr", "within"),
    [
        (S_KNN, 0.7462, 0.3848, 2e-4), (V_SKNN, 0.7534, 0.3887, 0.01),
        (VMIS_KNN, 0.7518, 0.3892, 1e-3),
    ],
)  # fmt: skip
def test_equals_other_implementations_on_real_sessions(real_split, config, recall, mrr, within):
    train, test = real_split("serenade_bolcom_toy")
    figures = evaluate(SessionKNN(train, config), test)
    assert figures["recall@20"] == pytest.approx(recall, abs=within)
    assert figures["mrr@20"] == pytest.approx(mrr, abs=within)

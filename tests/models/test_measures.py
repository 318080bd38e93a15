import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from models import beyond
from models.dataset import Sessions
from models.measures import next_gains, rest_gains
from models.predictions import later_items, predict
from tests.models.score_table import ScoreTable


@pytest.fixture(scope="module")
def rectools() -> dict:
    """Sessions, lists and RecTools' figures of them (`rectools_figures.py`)."""
    found: dict = json.loads(Path(__file__).with_name("rectools.json").read_text())
    return found


def test_every_measure_equals_that_of_rectools(rectools: dict):
    n_items, lists = rectools["n_items"], torch.tensor(rectools["lists"])
    train = Sessions.from_lists(rectools["train"], n_items)
    test = Sessions.from_lists(rectools["test"], n_items)
    table = torch.zeros(len(lists), n_items)
    table.scatter_(1, lists, torch.arange(lists.shape[1], 0, -1.0).expand_as(lists))
    found = predict(ScoreTable(table), test)
    assert found.lists.tolist() == lists.tolist()
    for kind, gains in (("next", next_gains(found.ranks.served)), ("rest", rest_gains(found))):
        for measure, gain in gains.items():
            assert gain.mean() == pytest.approx(rectools["figures"][kind][measure]), measure
    expected = rectools["figures"]["lists"]
    counts = beyond.recommended_counts(found.lists, n_items)
    assert beyond.coverage(counts) == pytest.approx(expected["coverage"])
    assert beyond.novelty(found.lists, train) == pytest.approx(expected["novelty_bits"])
    support = np.bincount(np.concatenate(rectools["train"]), minlength=n_items)
    mean = beyond.mean_support(found.lists, support).mean()
    assert mean == pytest.approx(expected["popularity"])
    diversity = beyond.intra_list_diversity(found.lists, np.array(rectools["category"]))
    assert diversity == pytest.approx(expected["intra_list_diversity"])


def test_one_pass_gives_ranks_lists_and_later_places_by_hand():
    # After 0 come 1, 2 and 1 again; after 1 come 2 and 1; after 2 comes 1.
    sessions = Sessions.from_lists([[0, 1, 2, 1]], 4)
    found = predict(ScoreTable([[9, 5, 7, 7], [1, 9, 3, 2], [4, 3, 9, 5]]), sessions, k=2)
    # Items 2 and 3 tie before item 1, so neither is within the first place.
    assert sorted(found.lists[0].tolist()) == [2, 3]
    assert found.lists[1:].tolist() == [[2, 3], [3, 0]]
    assert found.ranks.served.tolist() == [3, 1, 3]
    places = list(
        zip(found.later_row.tolist(), found.later_item.tolist(), found.later_rank.tolist(),
            strict=True)
    )  # fmt: skip
    # Once each; the current item is relevant at step 1 and never listed.
    assert sorted(places) == [(0, 1, 3), (0, 2, 2), (1, 1, 3), (1, 2, 1), (2, 1, 3)]
    gains = rest_gains(found)
    assert set(gains) == {f"{measure}@1" for measure in ("recall", "precision", "mrr", "ndcg")}
    assert gains["recall@1"].tolist() == [0, 0.5, 0]


def test_rest_of_session_gains_by_hand():
    sessions = Sessions.from_lists([[0, 3, 1, 2]], 30)
    table = torch.zeros(3, 30)
    table[:, 10:15] = torch.tensor([9.0, 8, 7, 6, 5])  # never relevant
    table[0, 3], table[0, 1] = 8.5, 5.5  # ranks 2 and 6
    gains = rest_gains(predict(ScoreTable(table), sessions))
    assert gains["recall@5"][0] == pytest.approx(1 / 3)
    assert gains["recall@10"][0] == pytest.approx(2 / 3)
    assert gains["precision@10"][0] == pytest.approx(0.2)
    assert gains["mrr@10"][0] == 0.5
    ideal = 1 + 1 / math.log2(3) + 1 / 2
    assert gains["ndcg@10"][0] == pytest.approx((1 / math.log2(3) + 1 / math.log2(7)) / ideal)
    # All others tie at 0: nobody of them is among the first 20.
    assert gains["recall@20"][1:].tolist() == [0, 0]


def test_scores_that_are_no_numbers_or_not_recommended_win_nothing():
    sessions = Sessions.from_lists([[0, 1]] * 3, 6)
    nan, out = math.nan, -math.inf
    found = predict(
        ScoreTable([[0, nan, 1, 0, 0, 0], [0, out, 1, out, out, out], [nan] * 6]), sessions, k=3
    )
    assert found.later_rank.tolist() == [4, 4, 4]
    assert found.lists[1].tolist() == [2, -1, -1]


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch, ring: Sessions):
    generator = torch.Generator().manual_seed(3)
    ranker = ScoreTable(torch.rand(ring.n_predictions, ring.n_items, generator=generator))
    whole = predict(ranker, ring)
    monkeypatch.setattr("models.predictions._SCORES_AT_ONCE", 100)
    parts = predict(ranker, ring)
    assert torch.equal(whole.ranks.served, parts.ranks.served)
    for one, other in (
        (whole.lists, parts.lists), (whole.later_rank, parts.later_rank),
    ):  # fmt: skip
        assert np.array_equal(one, other)


def test_later_items_name_each_once_whatever_the_sessions_are():
    rng = np.random.default_rng(5)
    lists = [rng.integers(0, 4, rng.integers(0, 9)).tolist() for _ in range(50)]
    row, item = later_items(Sessions.from_lists(lists, 4))
    expected, n_rows = [], 0
    for session in lists:
        for at in range(len(session) - 1):
            expected += [(n_rows, one) for one in sorted(set(session[at + 1 :]))]
            n_rows += 1
    assert sorted(zip(row.tolist(), item.tolist(), strict=True)) == expected
    assert np.all(np.diff(row) >= 0)


def test_nothing_to_predict_gives_empty_predictions():
    found = predict(ScoreTable([[0.0, 1.0]]), Sessions.from_lists([[0], [], [1]], 2))
    assert len(found) == len(found.ranks.served) == len(found.later_rank) == 0


class TestBeyond:
    LISTS = np.array([[0, 1], [0, 2], [0, -1]])

    def test_coverage_and_gini_by_hand(self):
        counts = beyond.recommended_counts(self.LISTS, 5)
        assert counts.tolist() == [3, 1, 1, 0, 0]
        assert beyond.coverage(counts) == 0.6
        # Half the mean absolute difference of all pairs, relative to the mean.
        gaps = np.abs(counts[:, None] - counts[None, :]).mean() / 2 / counts.mean()
        assert beyond.gini(counts) == pytest.approx(gaps)
        assert beyond.gini(np.array([4, 4, 4])) == 0
        assert beyond.gini(np.zeros(3, dtype=np.int64)) == 0

    def test_the_bias_curve_is_what_the_most_recommended_make(self):
        counts = np.array([1, 3, 0, 1, 0])
        assert beyond.bias_curve(counts) == [
            (0.0, 0.0), (0.2, pytest.approx(0.6)), (0.4, pytest.approx(0.8)),
            (0.6, pytest.approx(1.0)), (0.8, pytest.approx(1.0)), (1.0, pytest.approx(1.0)),
        ]  # fmt: skip
        assert beyond.items_making(counts, 0.5) == 0.2
        assert beyond.items_making(counts, 0.8) == 0.4
        assert len(beyond.bias_curve(np.arange(100_000))) <= 60

    def test_popularity_lift_is_relative_to_the_sessions_own_taste(self):
        sessions = Sessions.from_lists([[2, 0, 1]], 3)
        support = np.array([8, 2, 2])
        # Profiles: mean support of [2], of [2, 0]; lists: of [0], of [1].
        lift = beyond.popularity_lift(np.array([[0], [1]]), sessions, support)
        assert lift == pytest.approx((5 - 3.5) / 3.5)

    def test_novelty_counts_sessions_not_steps(self):
        train = Sessions.from_lists([[0, 1, 0], [0, 2], [0], [0]], 4)
        # Item 0 is in all, 1 in a quarter; an item never seen counts as seen once.
        assert beyond.novelty(np.array([[0, 1]]), train) == pytest.approx((0 + 2) / 2)
        assert beyond.novelty(np.array([[3, -1], [-1, -1]]), train) == pytest.approx(2)

    def test_diversity_is_the_share_of_unlike_pairs(self):
        category = np.array([0, 0, 1, 1])
        lists = np.array([[0, 1, 2], [0, 1, -1], [3, -1, -1]])
        assert beyond.intra_list_diversity(lists, category) == pytest.approx((2 / 3 + 0) / 2)
        assert beyond.intra_list_diversity(lists[2:], category) == 0

    def test_personalisation_is_that_of_every_pair(self):
        rng = np.random.default_rng(2)
        lists = np.stack([rng.permutation(12)[:5] for _ in range(9)])
        lists[3, 2:] = -1
        lists[7] = -1
        cosines = []
        sets = [set(one[one >= 0].tolist()) for one in lists]
        for i, one in enumerate(sets):
            for other in sets[i + 1 :]:
                if one and other:
                    cosines.append(len(one & other) / math.sqrt(len(one) * len(other)))
        assert beyond.personalisation(lists, 12) == pytest.approx(1 - np.mean(cosines))
        assert beyond.personalisation(lists[:1], 12) == 0

import math
from itertools import combinations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.dataset import Sessions
from models.evaluation import evaluate
from models.item_rules import AssociationRules, Markov, SequentialRules
from models.popularity import Popularity, RecentPopularity, SessionPopularity
from models.prefixes import prefixes
from models.rivals import RIVALS

MASKED = -math.inf
TRAIN = Sessions.from_lists([[0, 1, 2], [0, 1], [2, 0, 3, 0]], 5)


def after(model, item: int) -> list[float]:
    return model.scores(torch.tensor([item]))[0].tolist()


def test_markov_counts_what_came_right_after():
    assert after(Markov(TRAIN), 0) == [MASKED, 2, 0, 1, 0]
    assert after(Markov(TRAIN), 4) == [0, 0, 0, 0, MASKED]


def test_sequential_rules_count_later_steps_less():
    assert after(SequentialRules(TRAIN), 0) == [MASKED, 2, 0.5, 1, 0]
    assert after(SequentialRules(TRAIN), 2) == pytest.approx([1 + 1 / 3, 0, MASKED, 0.5, 0])
    assert after(SequentialRules(TRAIN, n_steps=2), 2) == [1, 0, MASKED, 0.5, 0]


def test_association_rules_count_both_ways():
    assert after(AssociationRules(TRAIN), 0) == [MASKED, 2, 3, 2, 0]
    assert after(AssociationRules(TRAIN), 3) == [2, 0, 1, MASKED, 0]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(st.integers(0, 4), max_size=7), max_size=6))
def test_rules_equal_their_definition(lists):
    train = Sessions.from_lists(lists, 5)
    followed = [[0.0] * 5 for _ in range(5)]
    shared = [[0.0] * 5 for _ in range(5)]
    for session in lists:
        for (i, one), (j, other) in combinations(enumerate(session), 2):
            followed[one][other] += 1 / (j - i)
            shared[one][other] += 1
            shared[other][one] += 1
    for item in range(5):
        for table, model in ((followed, SequentialRules(train)), (shared, AssociationRules(train))):
            table[item][item] = MASKED
            assert after(model, item) == pytest.approx(table[item])


def test_recent_popularity_halves_with_later_sessions():
    model = RecentPopularity(TRAIN, half_life_sessions=1)
    scores = model.scores(model.states(Sessions.from_lists([[0, 1]], 5)))[0]
    assert scores.tolist() == [0.25 + 0.5 + 2, 0.25 + 0.5, 0.25 + 1, 1, 0]
    assert RecentPopularity(TRAIN, half_life_sessions=1e12).scores(torch.empty(1, 0))[
        0
    ].tolist() == pytest.approx(Popularity(TRAIN).scores(torch.empty(1, 0))[0].tolist())


def test_session_popularity_puts_the_sessions_items_first():
    model = SessionPopularity(TRAIN)
    scores = model.scores(model.states(Sessions.from_lists([[3, 1, 3, 0]], 5)))[-1]
    assert scores.tolist() == pytest.approx([4 / 5, 1 + 2 / 5, 2 / 5, 2 + 1 / 5, 0])


def test_prefixes_have_the_latest_step_first():
    sessions = Sessions.from_lists([[1, 2, 3, 4], [5], [], [6, 7]], 8)
    assert prefixes(sessions, 2).tolist() == [[1, -1], [2, 1], [3, 2], [6, -1]]
    assert prefixes(Sessions.from_lists([], 8), 2).shape == (0, 2)


@pytest.mark.parametrize("name", RIVALS)
def test_every_rival_ranks_the_ring_the_same_twice(name, ring):
    figures = [evaluate(RIVALS[name](ring), ring) for _ in range(2)]
    assert figures[0] == figures[1]
    if "popularity" not in name:
        assert figures[0]["recall@5"] > 0.4


@pytest.mark.parametrize(
    ("name", "recall", "mrr"),
    [
        ("session-popularity", 0.3894, 0.1173), ("markov", 0.4953, 0.2055),
        ("association-rules", 0.5130, 0.2016), ("sequential-rules", 0.5328, 0.2168),
    ],
)  # fmt: skip
def test_equal_other_implementations_on_real_sessions(real_split, name, recall, mrr):
    train, test = real_split("ga_merch_store")
    figures = evaluate(RIVALS[name](train), test)
    assert round(figures["recall@20"], 4) == recall
    assert round(figures["mrr@20"], 4) == mrr

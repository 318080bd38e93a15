import pytest
import torch

from models.bundle import read_bundle
from models.candidate import Candidate
from models.comparison import bounds, difference, ranks_as_served
from models.dataset import Sessions
from models.evaluation import rank_targets
from models.scorer import SessionScorer


def test_differences_by_hand():
    sessions = Sessions.from_lists([[0, 1, 2], [3, 4]], 30)
    ours, theirs = torch.tensor([1, 21, 2]), torch.tensor([2, 20, 2])
    found = difference(ours, theirs, sessions, seed=1)
    assert found["recall@20"]["ours"] == pytest.approx(2 / 3)
    assert found["recall@20"]["difference"] == pytest.approx(-1 / 3)
    assert found["mrr@20"]["theirs"] == pytest.approx((1 / 2 + 1 / 20 + 1 / 2) / 3)
    assert found["mrr@20"]["difference"] == pytest.approx((1 / 2 - 1 / 20) / 3)
    for one in found.values():
        assert one["low"] <= one["difference"] <= one["high"]
    same = difference(ours, ours, sessions, seed=1)["mrr@20"]
    assert (same["difference"], same["low"], same["high"]) == (0, 0, 0)
    low, high = bounds(ours, sessions, seed=1)["recall@20"]
    assert low <= 2 / 3 <= high


def test_ranks_of_a_scorer_are_those_of_evaluation(candidate: Candidate):
    scorer = SessionScorer.load(candidate.folder)
    evidence = candidate.evidence
    names = evidence.split.catalogue.item_ids
    numbered = Sessions.from_lists(
        [[scorer.index[item_id] for item_id in one] for one in evidence.holdout], scorer.n_items
    )
    expected = rank_targets(read_bundle(candidate.folder).ranker, numbered).served
    assert torch.equal(ranks_as_served(scorer, evidence.split.holdout, names), expected)


def test_items_that_a_scorer_does_not_know_are_skipped_and_never_found(candidate: Candidate):
    scorer = SessionScorer.load(candidate.folder)
    names = ["item-3", "strange", "item-4", "item-5", "item-31", "item-0", "item-1"]
    sessions = Sessions.from_lists([[0, 1, 2, 3], [1, 4], [1, 5], [6, 1, 5]], len(names))
    ranks = ranks_as_served(scorer, sessions, names).tolist()
    behind = scorer.n_items + 1
    [four, five] = (
        1 + [one.item_id for one in scorer.recommend(known, 30, exclude=known[-1:]).items].index(to)
        for known, to in ((["item-3"], "item-4"), (["item-3", "item-4"], "item-5"))
    )
    # Session by session: strange, item-4, item-5 | item-31, popular | item-0, popular |
    # strange, item-0 after item-1.
    assert ranks[:3] == [behind, four, five]
    assert ranks[3] == scorer.popular_ids.index("item-31") + 1
    assert ranks[4] == 1
    assert ranks[5] == behind
    assert 1 <= ranks[6] <= scorer.n_items

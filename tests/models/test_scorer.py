from pathlib import Path

import pytest
import torch

from models.candidate import Candidate
from models.dataset import Sessions
from models.evaluation import rank_targets
from models.scorer import Item, SessionScorer
from warehouse.settings import TrainingSettings


@pytest.fixture(scope="module")
def scorer(candidate: Candidate) -> SessionScorer:
    return SessionScorer.load(candidate.folder)


def ids(ranking) -> list[str]:
    return [one.item_id for one in ranking.items]


def test_says_what_it_is(scorer: SessionScorer, candidate: Candidate):
    assert (scorer.name, scorer.version) == ("gru4rec", candidate.version)
    assert scorer.snapshot_id == "snapshot-1"
    assert scorer.n_items == 30
    assert scorer.metrics["recall@20"] == candidate.metrics["gru4rec"]["recall@20"]
    assert f"{scorer.created_at:%Y%m%dT%H%M%SZ}" == candidate.version.split("-")[0]


def test_recommends_the_next_of_the_ring(scorer: SessionScorer):
    ranking = scorer.recommend(["item-3", "item-4"], 5)
    assert ids(ranking)[0] == "item-5"
    assert ranking.source == "gru4rec"
    assert ranking.n_known == 2
    assert {one.source for one in ranking.items} == {"gru4rec"}
    scores = [one.score for one in ranking.items]
    assert scores == sorted(scores, reverse=True)


def test_unknown_items_are_skipped_and_repeats_are_one_step(scorer: SessionScorer):
    plain = scorer.recommend(["item-3", "item-4"], 5)
    mixed = scorer.recommend(["?", "item-3", "item-3", "!", "item-4", "item-4"], 5)
    assert mixed.items == plain.items
    assert mixed.n_known == 4


@pytest.mark.parametrize("session", [[], ["nothing", "like it"]])
def test_without_a_known_item_popularity_answers_and_says_so(scorer: SessionScorer, session):
    ranking = scorer.recommend(session, 3)
    assert ids(ranking) == ["item-0", "item-1", "item-2"]
    assert ranking.source == "popularity"
    assert ranking.n_known == 0
    assert {one.source for one in ranking.items} == {"popularity"}


@pytest.mark.parametrize("session", [["item-4"], []])
def test_excluded_items_and_other_categories_are_not_given(scorer: SessionScorer, session):
    ranking = scorer.recommend(session, 30, exclude={"item-6", "item-0", "?"}, category="boats")
    expected = {f"item-{n}" for n in range(0, 32, 2)} - {"item-6", "item-0"}
    assert set(ids(ranking)) == expected
    assert len(ids(ranking)) == len(expected)


def test_popular_items_follow_where_the_model_has_too_few(scorer: SessionScorer):
    ranking = scorer.recommend(["item-4"], 40)
    assert len(ids(ranking)) == len(set(ids(ranking))) == 32
    assert [one.source for one in ranking.items] == ["gru4rec"] * 30 + ["popularity"] * 2
    assert ids(ranking)[30:] == ["item-30", "item-31"]
    assert ranking.source == "gru4rec"


def test_an_unknown_category_gives_nothing(scorer: SessionScorer):
    assert scorer.recommend(["item-4"], 5, category="sails").items == []


def test_asking_for_nothing_is_refused(scorer: SessionScorer):
    with pytest.raises(ValueError, match="`k` is: 0"):
        scorer.recommend(["item-4"], 0)


def test_knows_items_of_model_and_popularity(scorer: SessionScorer):
    assert scorer.item("item-3") == Item("item-3", "Item 3", "oars", 13.0)
    assert scorer.item("item-31") == Item("item-31", "Item 31", "oars", 41.0)
    assert scorer.item("?") is None


def test_serving_ranks_as_evaluation_does(scorer: SessionScorer, ring_lists: list[list[int]]):
    item_ids = [f"item-{item}" for item in range(30)]
    everything = [one.item_id for one in scorer.recommend(item_ids, 30).items]
    assert sorted(everything) == sorted(item_ids)
    index = {item.item_id: n for n, item in enumerate(scorer._items)}
    sessions = [[index[f"item-{item}"] for item in session] for session in ring_lists[:40]]
    ranks = rank_targets(scorer.model, Sessions.from_lists(sessions, 30))
    expected, served = iter(ranks.conservative.tolist()), iter(ranks.served.tolist())
    for session in ring_lists[:40]:
        steps = [f"item-{item}" for item in session]
        for end in range(1, len(steps)):
            target, current = steps[end], steps[end - 1]
            ranked = ids(scorer.recommend(steps[:end], 30))
            assert ranked.index(target) + 1 == next(expected)
            ranked = ids(scorer.recommend(steps[:end], 30, exclude=[current]))
            assert ranked.index(target) + 1 == next(served)


def test_weights_are_mapped_not_read_and_need_no_gradient(scorer: SessionScorer):
    assert not any(weight.requires_grad for weight in scorer.model.weights.values())
    maps = Path("/proc/self/maps")
    if not maps.exists():
        pytest.skip("no list of memory maps on this system")
    assert "model.safetensors" in maps.read_text()


def test_loading_sets_the_math_threads(candidate: Candidate):
    before = torch.get_num_threads()
    try:
        SessionScorer.load(candidate.folder, threads=2)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_refit_knows_more_than_what_was_judged(candidate: Candidate):
    assert TrainingSettings().refit
    details = candidate.details
    assert details["training"]["n_sessions"] == 600 > details["holdout"]["n_train_sessions"]

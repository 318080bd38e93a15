import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from models.bundle import read_bundle, write_bundle
from models.candidate import Candidate
from models.dataset import Sessions
from models.evaluation import rank_targets
from models.scorer import Item, Query, SessionScorer, golden_sessions, scores_after
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
    assert scorer.metrics["recall@20"] == candidate.metrics["fusion"]["recall@20"]
    assert f"{scorer.created_at:%Y%m%dT%H%M%SZ}" == candidate.version.split("-")[0]


def test_recommends_the_next_of_the_ring(scorer: SessionScorer):
    ranking = scorer.recommend(["item-3", "item-4"], 5)
    assert ids(ranking)[0] == "item-5"
    assert ranking.source == "fusion"
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


def test_an_unknown_category_gives_nothing(scorer: SessionScorer):
    assert scorer.recommend(["item-4"], 5, category="sails").items == []


def test_asking_for_nothing_is_refused(scorer: SessionScorer):
    with pytest.raises(ValueError, match="`k` is: 0"):
        scorer.recommend(["item-4"], 0)


def test_a_price_is_asked_for(scorer: SessionScorer):
    ranking = scorer.recommend(["item-4"], 40, price_min=15.0, price_max=20.0)
    assert set(ids(ranking)) == {f"item-{n}" for n in range(5, 11)}
    boats = scorer.recommend(["item-4"], 40, category="boats", price_max=16.0)
    assert set(ids(boats)) == {"item-0", "item-2", "item-4", "item-6"}
    assert ids(scorer.recommend([], 40, price_min=40.0)) == ["item-30", "item-31"]


def test_filters_leave_scores_and_order_as_they_are(fused: Path):
    scorer = SessionScorer.load(fused)
    everything = scorer.recommend(["item-3", "item-4"], 29).items
    assert len(everything) == 29
    assert "item-4" not in {one.item_id for one in everything}  # its parts never repeat an item
    some = scorer.recommend(
        ["item-3", "item-4"], 29, exclude=["item-6"], category="boats", price_max=30.0
    ).items
    wanted = {f"item-{n}" for n in range(0, 21, 2)} - {"item-4", "item-6"}
    by_model = [one for one in some if one.source != "popularity"]
    assert by_model == [one for one in everything if one.item_id in wanted]
    assert [one.item_id for one in some[len(by_model) :]] == ["item-4"]


def test_each_item_names_the_part_that_speaks_most_for_it(fused: Path):
    scorer = SessionScorer.load(fused)
    known = scorer.known(["item-3", "item-4"])
    _, parts = scores_after(scorer.ranker, [known])
    shares = {name: one.add_to for name, one in parts.items()}
    for ranked in scorer.recommend(["item-3", "item-4"], 10).items:
        of_parts = {}
        for name, add_to in shares.items():
            total = torch.zeros(1, scorer.n_items)
            add_to(total)
            of_parts[name] = float(total[0, scorer.index[ranked.item_id]])
        assert ranked.source == max(of_parts, key=of_parts.__getitem__)
        assert ranked.score == pytest.approx(sum(of_parts.values()), abs=1e-5)
    sources = {one.source for one in scorer.recommend(["item-3", "item-4"], 29).items}
    assert len(sources) > 1


def test_sessions_asked_together_are_answered_as_one_by_one(fused: Path):
    scorer = SessionScorer.load(fused)
    queries = [
        Query(["item-3", "item-4"], 5), Query([], 3), Query(["?"], 2), Query(["item-7"] * 3, 4),
        Query([f"item-{n}" for n in range(20)], 6, ["item-20"], "oars"),
    ]  # fmt: skip
    for query, together in zip(queries, scorer.recommend_each(queries), strict=True):
        alone = scorer.recommend_each([query])[0]
        assert ids(together) == ids(alone)
        assert [one.source for one in together.items] == [one.source for one in alone.items]
        for one, other in zip(together.items, alone.items, strict=True):
            assert one.score == pytest.approx(other.score, abs=1e-5)
    assert scorer.recommend_each([]) == []


def test_a_bundle_of_before_the_fusion_still_loads(bundle: Path):
    content = read_bundle(bundle)
    content = replace(content, fusion=None)
    older = bundle.with_name("older")
    write_bundle(replace(content, golden=golden_sessions(content, [[0, 1], [2]])), older)
    manifest = json.loads((older / "manifest.json").read_text())
    del manifest["items_sha256"]
    (older / "manifest.json").write_text(json.dumps(manifest))
    assert not (older / "fusion.json").exists()
    scorer = SessionScorer.load(older)
    assert scorer.weights == {"gru4rec": 1.0}
    ranking = scorer.recommend(["item-3", "item-4"], 5)
    assert (ids(ranking)[0], ranking.source) == ("item-5", "gru4rec")


def test_knows_items_of_model_and_popularity(scorer: SessionScorer):
    assert scorer.item("item-3") == Item("item-3", "Item 3", "oars", 13.0)
    assert scorer.item("item-31") == Item("item-31", "Item 31", "oars", 41.0)
    assert scorer.item("?") is None


@pytest.mark.parametrize("which", ["candidate", "fused"])
def test_serving_ranks_as_evaluation_does(
    which: str, candidate: Candidate, fused: Path, ring_lists: list[list[int]]
):
    scorer = SessionScorer.load(candidate.folder if which == "candidate" else fused)
    sessions = [[scorer.index[f"item-{item}"] for item in one] for one in ring_lists[:40]]
    ranks = iter(rank_targets(scorer.ranker, Sessions.from_lists(sessions, 30)).served.tolist())
    for session in ring_lists[:40]:
        steps = [f"item-{item}" for item in session]
        for end in range(1, len(steps)):
            ranked = ids(scorer.recommend(steps[:end], 29, exclude=[steps[end - 1]]))
            assert sorted([*ranked, steps[end - 1]]) == sorted(scorer.index)
            rank = next(ranks)
            # Of items with equal scores evaluation counts the worst place.
            place = ranked.index(steps[end]) + 1
            scores = [one.score for one in scorer.recommend(steps[:end], 30).items]
            assert place == rank or (place < rank and scores[place - 1] == scores[rank - 1])


def test_weights_are_mapped_not_read_and_need_no_gradient(scorer: SessionScorer, fused: Path):
    assert not any(weight.requires_grad for weight in scorer.model.weights.values())
    maps = Path("/proc/self/maps")
    if not maps.exists():
        pytest.skip("no list of memory maps on this system")
    assert "model.safetensors" in maps.read_text()
    fusion = SessionScorer.load(fused)
    assert str(fused / "parts.safetensors") in maps.read_text()
    assert fusion.weights["vmis-knn"] == 0.3


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

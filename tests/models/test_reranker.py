import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from models.bundle import RERANK_FILES, _hash_again, content_sha256, read_bundle
from models.candidate import Candidate
from models.dataset import Sessions
from models.evaluation import mrr_at_k, pairs, rank_targets, recall_at_k
from models.fusion import Fusion
from models.item_statistics import ItemStatistics
from models.manifest import MANIFEST, BundleCorrupt
from models.rerank_file import RERANKER, TREES, rerank_arrays
from models.rerank_learning import MIN_PREDICTIONS, Reranking, learn_order
from models.reranker import Reranked, Reranker
from models.rivals import RIVALS
from models.scorer import Query, SessionScorer
from tests.models.conftest import N_HALVES, onward_sessions

Build = Callable[..., Candidate]


def halves(n_sessions: int, seed: int = 7) -> Sessions:
    return Sessions.from_lists(onward_sessions(n_sessions, seed), N_HALVES)


@pytest.fixture(scope="module")
def fusion() -> Fusion:
    return Fusion(
        {name: RIVALS[name](halves(200)) for name in ("vmis-knn", "sequential-rules")},
        {"vmis-knn": 0.4, "sequential-rules": 0.6},
    )


@pytest.fixture(scope="module")
def statistics() -> ItemStatistics:
    return ItemStatistics.of(halves(200))


@pytest.fixture(scope="module")
def learned(fusion: Fusion, statistics: ItemStatistics) -> Reranking:
    return learn_order(fusion, halves(40, seed=8), statistics, max_predictions=10_000)


@pytest.fixture(scope="module")
def ranker(learned: Reranking, fusion: Fusion, statistics: ItemStatistics) -> Reranked:
    assert learned.order is not None
    return Reranked(fusion, Reranker(learned.order, statistics))


def test_trees_find_what_no_part_of_the_fusion_can_say(
    ranker: Reranked, learned: Reranking, fusion: Fusion
):
    later = halves(60, seed=9)
    ours, theirs = rank_targets(ranker, later).served, rank_targets(fusion, later).served
    assert recall_at_k(ours, 20) > recall_at_k(theirs, 20) + 0.1
    assert mrr_at_k(ours, 20) > 1.3 * mrr_at_k(theirs, 20)
    assert learned.differences["recall@20"]["low"] > 0
    assert learned.differences["mrr@20"]["low"] > 0
    assert {"steps since seen", "times seen"} & {*learned.importance}
    assert sum(learned.importance.values()) == pytest.approx(1, abs=0.01)
    details = learned.details
    assert (details["is_kept"], details["reason"]) == (True, None)
    assert details["n_predictions"] == halves(40, seed=8).n_predictions
    json.dumps(details)


def test_the_same_sessions_and_seed_give_the_same_trees(
    learned: Reranking, fusion: Fusion, statistics: ItemStatistics
):
    again = learn_order(fusion, halves(40, seed=8), statistics, max_predictions=10_000)
    other = learn_order(fusion, halves(40, seed=8), statistics, max_predictions=10_000, seed=1)
    orders = [one.order for one in (learned, again, other)]
    first, same, different = (
        b"".join(array.tobytes() for array in rerank_arrays(Reranker(one, statistics)).values())
        for one in orders
        if one is not None
    )
    assert first == same
    assert first != different
    assert again.details == learned.details


def test_what_does_not_help_is_not_kept_and_the_reason_is_said(
    fusion: Fusion, statistics: ItemStatistics
):
    rng = np.random.default_rng(3)
    lists = [rng.permutation(N_HALVES)[:8].tolist() for _ in range(60)]
    # The next item is any item, seen or not, in each of them.
    lists = [[*one, *rng.integers(0, N_HALVES, 8).tolist()] for one in lists]
    noise = Sessions.from_lists([_without_repeats(one) for one in lists], N_HALVES)
    found = learn_order(fusion, noise, statistics, max_predictions=10_000)
    assert found.order is None
    assert found.reason is not None
    assert "not better than the fusion beyond chance: recall@20" in found.reason
    assert found.details["is_kept"] is False
    few = learn_order(fusion, halves(40, seed=8), statistics, max_predictions=200)
    assert few.order is None
    assert 0 < few.n_predictions <= 200 < MIN_PREDICTIONS
    assert few.reason == (
        f"trees are learned from 300 predictions or more, there are: {few.n_predictions}"
    )


def _without_repeats(items: list[int]) -> list[int]:
    return [one for n, one in enumerate(items) if n == 0 or items[n - 1] != one]


def test_weights_of_targets_count(fusion: Fusion, statistics: ItemStatistics, learned: Reranking):
    sessions = halves(40, seed=8)
    weight = np.where(sessions.item_idx % 2, 4.0, 1.0).astype(np.float32)
    weighted = learn_order(
        fusion, replace(sessions, weight=weight), statistics, max_predictions=10_000
    )
    alike = learn_order(
        fusion, replace(sessions, weight=np.ones_like(weight)), statistics, max_predictions=10_000
    )
    assert weighted.importance != learned.importance
    assert alike.importance == learned.importance


def test_the_shortlist_is_reordered_and_nothing_else_is(ranker: Reranked, fusion: Fusion):
    later = halves(10, seed=9)
    current, _ = pairs(later)
    fused = fusion.scores(fusion.states(later))
    found = ranker.scores(ranker.states(later))
    # The current item is masked by the parts; it stays so, and no other item goes.
    assert torch.equal(fused == -torch.inf, found == -torch.inf)
    assert (found.gather(1, current[:, None]) == -torch.inf).all()
    assert torch.isfinite(found).sum() == found.numel() - len(found)


def test_items_beyond_the_shortlist_follow_in_fused_order(
    ranker: Reranked, fusion: Fusion, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("models.reranker.SHORTLIST", 10)
    later = halves(10, seed=9)
    fused = fusion.scores(fusion.states(later))
    found = ranker.scores(ranker.states(later))
    for one, other in zip(fused, found, strict=True):
        before, after = one.argsort(descending=True), other.argsort(descending=True)
        assert set(before[:10].tolist()) == set(after[:10].tolist())
        assert torch.equal(one[before[10:]], other[after[10:]])
        assert other[after[9]] >= other[after[10]]


def test_a_bundle_brings_back_what_was_judged(reranked: Candidate):
    assert reranked.is_passed
    assert reranked.details["served"] == "reranked"
    assert list(reranked.metrics)[:3] == ["reranked", "fusion", "gru4rec"]
    assert reranked.details["differences"]["fusion"]["recall@20"]["low"] > 0
    assert "holds_against_fusion_recall_at_20" in {check.name for check in reranked.checks}
    assert {*RERANK_FILES} <= {one.name for one in reranked.folder.iterdir()}
    content = read_bundle(reranked.folder)
    assert content.reranker is not None
    assert isinstance(content.ranker, Reranked)
    ids = [one.item_id for one in content.items]
    statistics = content.reranker.statistics
    moved = replace(statistics, popularity=np.roll(statistics.popularity, 1))
    heavier = replace(content.reranker.order, weight=content.reranker.order.weight + 1)
    digests = {
        content_sha256(content.model, content.fusion, ids, one)
        for one in (
            None, content.reranker, Reranker(content.reranker.order, moved),
            Reranker(heavier, statistics),
        )
    }  # fmt: skip
    assert len(digests) == 4


def test_serving_ranks_as_evaluation_does(reranked: Candidate):
    scorer = SessionScorer.load(reranked.folder)
    assert scorer.source == "reranked"
    assert scorer.metrics == reranked.metrics["reranked"]
    content = read_bundle(reranked.folder)
    sessions = [one[:n] for n, one in enumerate(onward_sessions(30, seed=5), start=1)]
    of_index = [scorer.known([f"item-{item}" for item in one]) for one in sessions]
    followed = Sessions.from_lists([[*one, 0] for one in of_index], scorer.n_items)
    rows = np.cumsum(followed.lengths - 1) - 1
    offline = content.ranker.scores(content.ranker.states(followed)[rows])
    queries = [Query([f"item-{item}" for item in one], 20, [f"item-{one[-1]}"]) for one in sessions]
    for query, batch, scores in zip(queries, scorer.recommend_each(queries), offline, strict=True):
        alone = scorer.recommend(query.session_items, 20, exclude=query.exclude)
        best = torch.topk(scores, 20)
        ids = [content.items[one].item_id for one in best.indices.tolist()]
        for ranking in (batch, alone):
            assert [one.item_id for one in ranking.items] == ids
            assert [one.score for one in ranking.items] == pytest.approx(
                best.values.tolist(), abs=1e-4
            )
        assert {one.source for one in batch.items} <= {"gru4rec", "vmis-knn", "sequential-rules"}
        # What was seen goes to the end.
        assert not {*ids[:5]} & {*query.session_items}


def test_filters_and_exclusions_leave_scores_as_they_are(reranked: Candidate):
    scorer = SessionScorer.load(reranked.folder)
    session = [f"item-{item}" for item in onward_sessions(1, seed=5)[0][:6]]
    whole = {one.item_id: one.score for one in scorer.recommend(session, 59).items}
    assert len(whole) == 59  # all but the current item
    assert session[-1] not in whole
    boats = scorer.recommend(session, 20, category="boats", exclude=[next(iter(whole))])
    assert len(boats.items) == 20
    for one in boats.items:
        assert int(one.item_id.removeprefix("item-")) % 2 == 0
        assert one.item_id != next(iter(whole))
        assert one.score == pytest.approx(whole[one.item_id])
    assert [one.score for one in boats.items] == sorted(
        (one.score for one in boats.items), reverse=True
    )


def test_off_by_its_setting_the_fusion_serves_alone(build: Build, tmp_path: Path):
    made = build(onward_sessions(60), tmp_path, rerank=False)
    assert made.details["served"] == "fusion"
    assert made.details["reranking"] is None
    assert not {*RERANK_FILES} & {one.name for one in made.folder.iterdir()}
    assert SessionScorer.load(made.folder).source == "fusion"


@pytest.fixture
def copied(reranked: Candidate, tmp_path: Path) -> Path:
    folder = tmp_path / "copied"
    folder.mkdir()
    for file in reranked.folder.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    return folder


@pytest.mark.parametrize(
    ("array", "change", "message"),
    [
        ("trees.threshold", lambda one: one[:-1], r"`trees\.threshold`.* should be float32 of"),
        ("trees.value", lambda one: one[:, :64], r"`trees\.value`.* should be float32 of"),
        ("trees.value", lambda one: one.double(), r"it is: float64 of"),
        ("trees.feature", lambda one: one + 50, r"points beyond the features .*there are: \d+"),
        ("trees.feature", lambda one: one - 1, r"points beyond the features"),
        ("items.popularity", lambda one: one[:-1], r"does not fit a model of this many items: 60"),
        ("items.category", lambda one: one.float(), r"`items\.category`.* does not fit"),
        ("items.category", lambda one: one - 9, r"has a code below -1: -9"),
        ("items.log_price", None, r"lacks an array that it should have: 'items\.log_price'"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(copied: Path, array: str, change, message: str):
    arrays = {name: one.clone() for name, one in load_file(copied / TREES).items()}
    changed = arrays.pop(array)
    if change is not None:
        arrays[array] = change(changed).contiguous()
    save_file(arrays, copied / TREES)
    _hash_again(copied, [TREES])
    with pytest.raises(BundleCorrupt, match=message):
        read_bundle(copied)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"features": ["oracle"]}, r"does not know: \['oracle'\]"),
        ({"shortlist": 7}, "shortlists of 100 items and 20 steps .* it has: 7 and 20"),
        ({"n_trees": 1}, r"should be int16 of \(1, 7\)"),
        ({"weight": "much"}, r"cannot be read: Expected `float`"),
    ],
)
def test_a_description_that_does_not_fit_is_refused(copied: Path, change: dict, message: str):
    described = json.loads((copied / RERANKER).read_text())
    (copied / RERANKER).write_text(json.dumps(described | change))
    _hash_again(copied, [RERANKER])
    with pytest.raises(BundleCorrupt, match=message):
        read_bundle(copied)


def test_a_file_that_is_cut_short_changed_or_left_out_is_named(copied: Path):
    whole = (copied / TREES).read_bytes()
    (copied / TREES).write_bytes(whole[:-100])
    with pytest.raises(BundleCorrupt, match=r"reranker\.safetensors should have sha256"):
        read_bundle(copied)
    _hash_again(copied, [TREES])
    with pytest.raises(BundleCorrupt, match="cannot be read"):
        read_bundle(copied)
    manifest = json.loads((copied / MANIFEST).read_text())
    del manifest["files"][TREES]
    (copied / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(BundleCorrupt, match=r"does not name: \['reranker\.safetensors'\]"):
        read_bundle(copied)


def test_a_bundle_of_before_has_no_re_ranker_and_serves(candidate: Candidate):
    content = read_bundle(candidate.folder)
    assert content.reranker is None
    assert candidate.details["reranking"]["is_kept"] is False
    assert "300 predictions or more" in candidate.details["reranking"]["reason"]
    assert SessionScorer.load(candidate.folder).source == "fusion"


def test_golden_scores_may_tip_over_in_a_few_places_not_in_many(copied: Path):
    golden = json.loads((copied / "golden.json").read_text())
    golden[0]["scores"][3] += 0.5
    for spoilt, passes in ((1, True), (8, False)):
        for one in golden[:spoilt]:
            one["scores"][4] += 0.5
        (copied / "golden.json").write_text(json.dumps(golden))
        _hash_again(copied, ["golden.json"])
        if passes:
            SessionScorer.load(copied)
        else:
            with pytest.raises(BundleCorrupt, match="does not come out as when"):
                SessionScorer.load(copied)

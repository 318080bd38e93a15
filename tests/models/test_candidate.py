import copy
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from models.bundle import read_bundle
from models.candidate import Candidate, NotEnoughData, build_candidate
from models.gate import Check, judge
from models.gate_figures import figure_checks
from models.gru4rec import GRU4Rec, GRU4RecConfig
from models.manifest import BundleCorrupt
from models.recipe import DEFAULT_WEIGHTS, weighted
from models.rivals import GATE_RIVALS
from models.scorer import SessionScorer
from models.split import Split
from tests.broken import break_candidates
from tests.models.conftest import SMALL, items_mart, popularity_mart, ring_sessions, steps_mart
from warehouse.contracts import MART_SCHEMAS
from warehouse.settings import TrainingSettings

Build = Callable[..., Candidate]
ALL_CHECKS = [
    "beats_popularity_recall_at_20", "beats_popularity_mrr_at_20",
    "holds_against_item_knn_recall_at_20", "holds_against_item_knn_mrr_at_20",
    "holds_against_v_sknn_recall_at_20", "holds_against_v_sknn_mrr_at_20",
    "holds_against_vmis_knn_recall_at_20", "holds_against_vmis_knn_mrr_at_20",
    "holds_against_sequential_rules_recall_at_20", "holds_against_sequential_rules_mrr_at_20",
    "holds_against_markov_recall_at_20", "holds_against_markov_mrr_at_20",
    "holds_against_champion", "enough_predictions", "no_leakage", "no_duplicate_pairs",
    "bundle_loads", "items_match_training", "reranker_matches_training", "finite_weights",
    "finite_scores", "golden_sessions",
    "serves_what_was_measured_recall_at_20", "serves_what_was_measured_mrr_at_20",
    "stable_first_dropped", "stable_early_swapped", "similar_sessions", "lists_differ",
    "covers_catalogue", "not_just_popular", "near_the_session", "cold_items",
    "category_coherence", "complements_and_substitutes", "unknown_items", "items_exist",
]  # fmt: skip


def failed(checks) -> set[str]:
    return {check.name for check in checks if not check.passed}


def test_a_good_candidate_passes_every_check(candidate: Candidate):
    assert [check.name for check in candidate.checks] == ALL_CHECKS
    assert candidate.is_passed
    assert set(candidate.metrics) == {"fusion", "gru4rec", *GATE_RIVALS}
    assert candidate.details["served"] == "fusion"
    assert set(candidate.details["differences"]) == set(GATE_RIVALS)
    for check in candidate.checks:
        assert check.message
    for figures in candidate.metrics.values():
        assert figures["n_predictions"] == candidate.details["holdout"]["n_predictions"] >= 20
    assert candidate.metrics["gru4rec"]["recall@1"] > 0.8
    holdout = candidate.details["holdout"]
    assert holdout["train_until"] < holdout["cut_at"] <= holdout["holdout_from"]


def test_without_refit_the_judged_model_is_the_written_one(
    build: Build, ring_lists: list[list[int]], tmp_path: Path
):
    made = build(ring_lists, tmp_path, refit=False)
    assert made.details["training"]["n_sessions"] == made.details["holdout"]["n_train_sessions"]
    assert made.is_passed


def test_the_same_marts_give_the_same_content_in_any_row_order(
    build: Build, ring_lists: list[list[int]], tmp_path: Path
):
    one = build(ring_lists[:100], tmp_path / "one")
    other = build(ring_lists[:100], tmp_path / "other")
    assert one.version.split("-")[1] == other.version.split("-")[1]
    assert one.metrics == other.metrics


@pytest.mark.parametrize(
    ("n_sessions", "changes", "message"),
    [
        (0, {}, "needs two sessions of two steps, there are: 0"),
        (1, {}, "needs two sessions of two steps, there are: 1"),
        (21, {"min_item_support": 1}, "Sessions found: 19"),
        (40, {"min_item_support": 100}, "SHALLOP_TRAINING__MIN_ITEM_SUPPORT"),
        (200, {"min_holdout_steps": 1000}, "needs 1000 predictions.*MIN_HOLDOUT_STEPS"),
    ],
)
def test_too_little_data_is_refused_with_numbers_and_remedy(
    build: Build, ring_lists: list[list[int]], tmp_path: Path, n_sessions: int, changes: dict,
    message: str,
):  # fmt: skip
    with pytest.raises(NotEnoughData, match=message):
        build(ring_lists[:n_sessions], tmp_path, **changes)
    assert list(tmp_path.iterdir()) == []


def test_a_candidate_no_better_than_popularity_is_refused(build: Build, tmp_path: Path):
    # Whatever was seen, one of two favourites follows at random: only popularity is in there.
    rng = np.random.default_rng(3)
    sessions = [
        [int(rng.integers(2, 30)), int(rng.random() < 0.3)] for _ in range(300)
    ]  # fmt: skip
    made = build(sessions, tmp_path, min_item_support=1)
    popularity = made.metrics["popularity"]
    assert popularity["recall@20"] == 1
    assert not made.is_passed
    assert "beats_popularity_recall_at_20" in failed(made.checks)
    recall = next(one for one in made.checks if one.name == "beats_popularity_recall_at_20")
    assert (recall.value, recall.threshold) == (0.0, "above 0")
    assert failed(read_bundle(made.folder).checks) == failed(made.checks)


def test_the_verdict_does_not_hide_what_was_damaged_before(
    build: Build, ring_lists: list[list[int]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    break_candidates(monkeypatch, "truncated")
    made = build(ring_lists[:100], tmp_path)
    with pytest.raises(BundleCorrupt, match=r"model\.safetensors should have sha256"):
        read_bundle(made.folder)
    stored = msgspec.json.decode((made.folder / "checks.json").read_bytes(), type=list[Check])
    assert failed(stored) == failed(made.checks) == {"bundle_loads"}


def test_gru4rec_alone_is_judged_the_same_way(
    build: Build, ring_lists: list[list[int]], tmp_path: Path
):
    made = build(ring_lists, tmp_path, fusion=False)
    assert made.is_passed
    assert [check.name for check in made.checks] == ALL_CHECKS
    assert made.details["served"] == "gru4rec"
    assert made.details["fusion"] is None
    assert set(made.metrics) == {"gru4rec", *GATE_RIVALS}
    assert read_bundle(made.folder).fusion is None


def test_without_refit_the_bundle_must_serve_exactly_what_was_measured(
    build: Build, ring_lists: list[list[int]], tmp_path: Path
):
    made = build(ring_lists, tmp_path, refit=False)
    checks = {check.name: check for check in made.checks}
    for measure in ("recall", "mrr"):
        check = checks[f"serves_what_was_measured_{measure}_at_20"]
        assert check.passed
        assert (check.value, check.threshold) == (0.0, 0.001)
        assert check.values["served"] == check.values["judged"] > 0


def test_the_champion_is_compared_on_what_it_never_saw(
    build: Build, candidate: Candidate, ring_lists: list[list[int]], tmp_path: Path
):
    champion = SessionScorer.load(candidate.folder)
    again = build(ring_lists, tmp_path / "again", champion=champion)
    [check] = [one for one in again.checks if one.name.startswith("holds_against_champion")]
    assert check.passed
    assert "trained on all but 0 predictions" in check.message
    # 200 more sessions, of which the hold-out has the last 80: backwards, which nobody knows.
    grown = [*ring_lists, *(session[::-1] for session in ring_sessions(200, seed=8))]
    worse = build(grown, tmp_path / "grown", champion=champion)
    against = worse.details["champion"]
    assert against["version"] == candidate.version
    assert against["n_predictions"] == worse.details["holdout"]["n_predictions"]
    assert against["differences"]["mrr@20"]["theirs"] < 0.3
    names = {"holds_against_champion_recall_at_20", "holds_against_champion_mrr_at_20"}
    assert names <= {check.name for check in worse.checks}
    assert not names & failed(worse.checks)


def test_a_candidate_that_is_worse_than_the_champion_is_refused(
    build: Build, candidate: Candidate, ring_lists: list[list[int]], tmp_path: Path
):
    champion = SessionScorer.load(candidate.folder)
    # The shop of before returns in the hold-out; the candidate forgot it within its window.
    backwards = [session[::-1] for session in ring_sessions(540, seed=9)]
    opened = datetime(2026, 2, 1, tzinfo=UTC)
    steps = steps_mart([*backwards, *ring_sessions(60, seed=10)], opened=opened)
    made = build_candidate(
        steps, items_mart(), popularity_mart(), training=TrainingSettings(), config=SMALL,
        snapshot_id="later", folder=tmp_path, champion=champion,
    )  # fmt: skip
    assert "holds_against_champion_mrr_at_20" in failed(made.checks)
    found = made.details["champion"]["differences"]["mrr@20"]
    assert found["theirs"] > 0.8 > found["ours"]


def test_weights_are_chosen_before_the_hold_out(candidate: Candidate):
    fusion, holdout = candidate.details["fusion"], candidate.details["holdout"]
    assert fusion["is_chosen"]
    assert fusion["n_predictions"] > 0
    assert fusion["until"] <= holdout["train_until"] < holdout["holdout_from"]
    assert sum(fusion["weights"].values()) == pytest.approx(1)


def test_too_few_sessions_to_choose_weights_by_give_the_default_ones(candidate: Candidate):
    def never(part: Split) -> GRU4Rec:
        raise AssertionError("nothing to train for")

    steps = candidate.evidence.split.train_steps
    few = weighted(steps, never, min_predictions=10_000)
    assert (few.weights, few.is_chosen, few.until) == (DEFAULT_WEIGHTS, False, None)
    assert 0 < few.n_predictions < 10_000
    one = weighted(steps.keep(steps.session == steps.session[0]), never)
    assert (one.is_chosen, one.n_predictions) == (False, 0)
    assert sum(DEFAULT_WEIGHTS.values()) == pytest.approx(1)


@pytest.mark.parametrize(
    ("part", "key", "value", "check"),
    [
        ("holdout", "n_predictions", 19, "enough_predictions"),
        ("fusion", "until", "2027-01-01T00:00:00.000000+00:00", "no_leakage"),
    ],
)
def test_what_was_measured_decides(candidate: Candidate, part: str, key: str, value, check: str):
    details = copy.deepcopy(candidate.details)
    details[part][key] = value
    assert failed(judge(details, candidate.folder, candidate.evidence)) == {check}


@pytest.mark.parametrize(
    ("rival", "difference", "is_refused"),
    [
        ("popularity", {"low": 0.01, "high": 0.2}, False),
        ("popularity", {"low": -0.01, "high": 0.2}, True),
        ("popularity", {"low": float("nan"), "high": float("nan")}, True),
        ("v-sknn", {"low": -0.01, "high": 0.02}, False),
        ("v-sknn", {"low": -0.03, "high": -0.01}, True),
        ("markov", {"low": float("nan"), "high": float("nan")}, True),
    ],
)
@pytest.mark.parametrize("measure", ["recall@20", "mrr@20"])
def test_popularity_must_be_beaten_and_no_rival_be_better_beyond_chance(
    candidate: Candidate, measure: str, rival: str, difference: dict, is_refused: bool
):
    details = copy.deepcopy(candidate.details)
    details["differences"][rival][measure] |= difference
    verb = "beats" if rival == "popularity" else "holds_against"
    name = f"{verb}_{rival.replace('-', '_')}_{measure.replace('@', '_at_')}"
    found = failed(figure_checks(details))
    assert found == ({name} if is_refused else set())


def test_steps_that_are_there_twice_are_refused(candidate: Candidate):
    steps = candidate.evidence.steps
    doubled = replace(candidate.evidence, steps=pa.concat_tables([steps, steps.slice(5, 1)]))
    checks = judge(candidate.details, candidate.folder, doubled)
    assert failed(checks) == {"no_duplicate_pairs"}


def test_a_candidate_that_breaks_the_checks_is_refused(
    candidate: Candidate, monkeypatch: pytest.MonkeyPatch
):
    def broken(*_: object, **__: object) -> None:
        raise IndexError("out of range")

    monkeypatch.setattr(SessionScorer, "recommend_each", broken)
    checks = judge(candidate.details, candidate.folder, candidate.evidence)
    assert failed(checks) == {"behaviour_checks_run"}
    assert "IndexError('out of range')" in checks[-1].message


def test_no_training_step_of_real_events_lies_in_the_hold_out(shop_data: Path, tmp_path: Path):
    table = pq.read_table(shop_data / "splits" / "ga_merch_store" / "train.parquet").slice(0, 9000)
    n_steps = table.num_rows
    time = pc.multiply(table["Time"], 1000).cast(pa.timestamp("us", "UTC"))
    columns = [
        pc.cast(table["SessionId"], pa.string()), pa.array(range(n_steps), pa.int32()),
        table["ItemId"], pa.array(["view_item"] * n_steps), time,
        pa.nulls(n_steps, pa.string()),
    ]  # fmt: skip
    known = pc.unique(table["ItemId"]).to_pylist()
    items = pa.Table.from_pylist([{"item_id": one} for one in known], schema=MART_SCHEMAS["items"])
    made = build_candidate(
        pa.table(columns, schema=MART_SCHEMAS["training_steps"]),
        items,
        MART_SCHEMAS["popularity"].empty_table(),
        training=TrainingSettings(refit=False),
        config=GRU4RecConfig(layers=(48,), n_epochs=2, n_sample=256),
        snapshot_id="s",
        folder=tmp_path,
    )
    assert failed(made.checks) == set()
    assert made.details["holdout"]["n_unseen"] > 0
    assert made.metrics["fusion"]["recall@20"] > made.metrics["popularity"]["recall@20"] * 1.2
    assert made.metrics["fusion"]["recall@20"] > made.metrics["gru4rec"]["recall@20"]


def test_a_candidate_whose_training_was_killed_is_taken_up(
    ring_lists: list[list[int]], build: Callable[..., Candidate], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    expected = build(ring_lists[:200], tmp_path / "whole")
    checkpoints = tmp_path / "checkpoints"
    monkeypatch.setattr("models.candidate.judged", killed)
    with pytest.raises(KeyboardInterrupt):
        build(ring_lists[:200], tmp_path / "first", checkpoints=checkpoints)
    monkeypatch.undo()
    with caplog.at_level("INFO"):
        again = build(ring_lists[:200], tmp_path / "again", checkpoints=checkpoints)
    for stage in ("weigh", "holdout"):
        assert f"goes on from checkpoint={checkpoints / f'{stage}.safetensors'}" in caplog.text
    assert again.metrics == expected.metrics
    assert (again.folder / "model.safetensors").read_bytes() == (
        expected.folder / "model.safetensors"
    ).read_bytes()

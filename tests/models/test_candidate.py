import copy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file, save_file

from models.bundle import read_bundle, write_bundle
from models.candidate import Candidate, NotEnoughData, build_candidate
from models.gate import judge
from models.gru4rec import GRU4RecConfig
from warehouse.contracts import MART_SCHEMAS
from warehouse.settings import TrainingSettings

Build = Callable[..., Candidate]
ALL_CHECKS = [
    "beats_popularity_recall_at_20", "beats_popularity_mrr_at_20", "enough_predictions",
    "no_leakage", "bundle_loads", "items_match_training", "finite_weights", "golden_sessions",
]  # fmt: skip


def failed(checks) -> set[str]:
    return {check.name for check in checks if not check.passed}


def test_a_good_candidate_passes_every_check(candidate: Candidate):
    assert [check.name for check in candidate.checks] == ALL_CHECKS
    assert candidate.is_passed
    assert set(candidate.metrics) == {"gru4rec", "popularity", "item-knn"}
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
    assert failed(read_bundle(made.folder).checks) == failed(made.checks)


def test_weights_that_are_no_numbers_fail(candidate: Candidate, tmp_path: Path):
    content = read_bundle(candidate.folder)
    content.model.weights["output.bias"] = torch.full((30,), torch.nan)
    write_bundle(content, tmp_path / "bundle")
    checks = judge(candidate.details, tmp_path / "bundle")
    assert failed(checks) == {"finite_weights", "golden_sessions"}


def test_other_weights_than_those_of_the_golden_sessions_fail(candidate: Candidate, tmp_path: Path):
    content = read_bundle(candidate.folder)
    content.model.weights["output.weight"] = content.model.weights["output.weight"].flip(0)
    write_bundle(content, tmp_path / "bundle")
    assert failed(judge(candidate.details, tmp_path / "bundle")) == {"golden_sessions"}


def test_a_damaged_bundle_fails_and_does_not_raise(candidate: Candidate, bundle: Path):
    weights = {n: w.clone() for n, w in load_file(bundle / "model.safetensors").items()}
    weights["output.bias"] += 1
    save_file(weights, bundle / "model.safetensors")
    assert failed(judge(candidate.details, bundle)) == {"bundle_loads"}


@pytest.mark.parametrize(
    ("part", "key", "value", "check"),
    [
        ("training", "n_items", 31, "items_match_training"),
        ("holdout", "n_predictions", 19, "enough_predictions"),
        ("holdout", "train_until", "2027-01-01T00:00:00.000000+00:00", "no_leakage"),
    ],
)
def test_what_was_measured_decides(candidate: Candidate, part: str, key: str, value, check: str):
    details = copy.deepcopy(candidate.details)
    details[part][key] = value
    assert failed(judge(details, candidate.folder)) == {check}


@pytest.mark.parametrize("measure", ["recall@20", "mrr@20"])
@pytest.mark.parametrize("worse", [0.0, float("nan")])
def test_a_figure_below_popularity_or_none_at_all_fails(
    candidate: Candidate, measure: str, worse: float
):
    details = copy.deepcopy(candidate.details)
    details["models"]["gru4rec"][measure] = worse
    expected = f"beats_popularity_{measure.replace('@', '_at_')}"
    assert failed(judge(details, candidate.folder)) == {expected}


def test_no_training_step_of_real_events_lies_in_the_hold_out(shop_data: Path, tmp_path: Path):
    table = pq.read_table(shop_data / "splits" / "ga_merch_store" / "train.parquet").slice(0, 9000)
    n_steps = table.num_rows
    time = pc.multiply(table["Time"], 1000).cast(pa.timestamp("us", "UTC"))
    columns = [
        pc.cast(table["SessionId"], pa.string()), pa.array(range(n_steps), pa.int32()),
        table["ItemId"], pa.array(["view_item"] * n_steps), time,
        pa.nulls(n_steps, pa.string()),
    ]  # fmt: skip
    made = build_candidate(
        pa.table(columns, schema=MART_SCHEMAS["training_steps"]),
        MART_SCHEMAS["items"].empty_table(),
        MART_SCHEMAS["popularity"].empty_table(),
        training=TrainingSettings(refit=False),
        config=GRU4RecConfig(layers=(48,), n_epochs=2, n_sample=256),
        snapshot_id="s",
        folder=tmp_path,
    )
    assert failed(made.checks) == set()
    assert made.details["holdout"]["n_unseen"] > 0
    assert made.metrics["gru4rec"]["recall@20"] > made.metrics["popularity"]["recall@20"] * 1.2


def test_a_candidate_whose_training_was_killed_is_taken_up(
    ring_lists: list[list[int]], build: Callable[..., Candidate], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    expected = build(ring_lists[:200], tmp_path / "whole")
    checkpoints = tmp_path / "checkpoints"
    monkeypatch.setattr("models.candidate._evaluated", killed)
    with pytest.raises(KeyboardInterrupt):
        build(ring_lists[:200], tmp_path / "first", checkpoints=checkpoints)
    monkeypatch.undo()
    with caplog.at_level("INFO"):
        again = build(ring_lists[:200], tmp_path / "again", checkpoints=checkpoints)
    assert f"goes on from checkpoint={checkpoints / 'holdout.safetensors'}" in caplog.text
    assert again.metrics == expected.metrics
    assert (again.folder / "model.safetensors").read_bytes() == (
        expected.folder / "model.safetensors"
    ).read_bytes()

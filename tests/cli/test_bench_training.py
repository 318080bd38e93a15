"""The benches of training: what they count, what they print, and what they refuse."""

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

import shallop
from cli.bench_scaling import memory_mb
from cli.bench_training import invented_sessions
from cli.ceilings import Ceilings
from cli.scaling_plot import Curve, plotted
from cli.training_load import PHASES, run_steps, work_of
from models.gru4rec import GRU4RecConfig

SMALL = GRU4RecConfig(layers=(16,), batch_size=8, n_sample=32)


def test_invented_sessions_have_a_popular_head_and_every_length() -> None:
    sessions = invented_sessions(500, 4_000)
    support = np.sort(sessions.support())[::-1]
    assert len(sessions) == 4_000
    assert sessions.lengths.min() == 2
    assert sessions.lengths.max() == 20
    assert support[:50].sum() > 0.4 * support.sum()
    again = invented_sessions(500, 4_000)
    assert np.array_equal(sessions.item_idx, again.item_idx)


@pytest.mark.parametrize("is_static", [False, True])
def test_the_steps_counted_are_those_that_ran(is_static: bool) -> None:
    timed = run_steps(invented_sessions(200, 6_000), SMALL, steps=128, is_static=is_static)
    assert timed.n_steps == 128
    assert timed.n_predictions == 128 * SMALL.batch_size


def test_phases_add_up_to_the_time_of_the_steps() -> None:
    timed = run_steps(invented_sessions(200, 600), SMALL, steps=128)
    assert timed.n_steps == 128
    assert timed.n_predictions == 128 * SMALL.batch_size
    inside = sum(timed.by_phase[phase] for phase in PHASES if phase != "schedule")
    assert 0.5 * timed.step_ms < inside <= timed.step_ms
    assert 8 < timed.columns <= SMALL.batch_size + SMALL.n_sample
    assert timed.floor_ms > 0


def test_a_whole_epoch_is_every_prediction_but_those_of_the_first_block() -> None:
    sessions = invented_sessions(200, 600)
    timed = run_steps(sessions, SMALL)
    assert timed.n_predictions == sessions.n_predictions - 64 * SMALL.batch_size


def test_the_floor_is_the_work_by_what_the_machine_can_do() -> None:
    work = work_of(GRU4RecConfig(layers=(10,), batch_size=2, momentum=0.0), 30, 1_000)
    assert work.flops == 6 * 2 * 30 * 10 + 30 * 2 * 100
    assert work.moved_bytes == 4 * (2 * 320 + 5 * (320 + 600))
    assert work.exponentials == 3 * 2 * 30
    assert Ceilings(work.flops, work.moved_bytes, work.exponentials).floor_ms(work) == 3000


def test_memory_by_formula_is_what_is_allocated() -> None:
    assert memory_mb(GRU4RecConfig(layers=(7,), momentum=0.4), 2**20, 0) == 8 * 4 * 3
    assert memory_mb(GRU4RecConfig(layers=(7,), momentum=0.0), 0, 2**20) == 13


def test_the_plot_is_an_image_with_every_value(tmp_path: Path) -> None:
    file = tmp_path / "scaling.svg"
    points = [(1_000, 5.5), (100_000, 10.25)]
    plotted(file, Curve("ms per step", points), Curve("MB", points), (11.0, 3_000.0))
    texts = [node.text for node in ElementTree.parse(file).iter() if node.text]
    assert {"ms per step", "5.5", "10.2", "1,000,000", "3e+03 by formula"} <= set(texts)


def test_splits_are_compared_with_the_figures_beside_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sessions = invented_sessions(300, 12_000)
    rows = np.repeat(np.arange(len(sessions)), sessions.lengths)
    columns = {"SessionId": rows, "ItemId": sessions.item_idx, "Time": np.arange(len(rows))}
    (tmp_path / "shop").mkdir()
    pq.write_table(pa.table(columns), tmp_path / "shop" / "train.parquet")
    official = {"events_per_second_median_epoch": 1.0, "peak_rss_mb": 123}
    labels = ("cross-entropy (A)", "bpr-max (B)")
    figures = {f"GRU4Rec official PyTorch, {label}": official for label in labels}
    (tmp_path / "reference.json").write_text(json.dumps({"shop": figures}))
    monkeypatch.setenv("COLUMNS", "200")
    result = CliRunner().invoke(
        shallop.app, ["bench", "training", "--splits", str(tmp_path)], catch_exceptions=False
    )
    assert result.exit_code == 0
    assert "shop, cross-entropy" in result.output
    assert "shop, bpr-max" in result.output
    assert "123" in result.output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(("--splits", "nowhere"), "reference.json"), (("--device", "tpu"), "`tpu`")],
)
def test_what_cannot_be_measured_is_refused(arguments: tuple[str, ...], said: str) -> None:
    result = CliRunner().invoke(shallop.app, ["bench", "training", *arguments])
    assert result.exit_code == 2
    assert said in result.output

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import optuna
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from optuna.trial import FixedTrial, TrialState

from models.config import GRU4RecConfig
from models.dataset import NotEnoughData, Steps
from models.gru4rec import GRU4Rec
from models.report.study import render_study
from models.split import Split, temporal_split
from models.training import EpochReport, TrainingDiverged
from models.tuning import (
    MEASURE,
    Budget,
    TuningError,
    importances,
    result,
    suggested,
    training_part,
    tune,
    validation_split,
)

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def split_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """200 short sessions round a ring of 12 items, one a minute."""
    rng = np.random.default_rng(1)
    started_ms = int(datetime(2026, 1, 1, tzinfo=UTC).timestamp() * 1000)
    rows = [
        {"SessionId": session, "ItemId": int(first + step) % 12,
         "Time": started_ms + session * 60_000 + step * 1000}
        for session, first in enumerate(rng.integers(0, 12, 200))
        for step in range(4)
    ]  # fmt: skip
    path = tmp_path_factory.mktemp("split") / "train.parquet"
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


@pytest.fixture(scope="module")
def split(split_file: Path) -> Split:
    return validation_split(Steps.from_split_file(split_file), 0.2, min_item_support=1)


def search(split: Split, database: Path, n_trials: int, **options):
    return tune(split, database, budget=Budget(n_trials, 600), n_epochs=2, device="cpu", **options)


def test_a_search_finds_no_worse_than_the_defaults_and_writes_what_training_reads(
    split: Split, tmp_path: Path
):
    reports = []
    tuned = search(split, tmp_path / "a.sqlite", 4, max_units=256, progress=reports.append)
    assert tuned.default_value is not None
    assert tuned.value >= tuned.default_value > 0
    assert tuned.interval is not None
    assert tuned.interval[0] <= tuned.value <= tuned.interval[1]
    assert tuned.n_complete + tuned.n_pruned == len(reports) == 4
    assert tuned.config.n_epochs == 2
    tuned.config.save(tmp_path / "best.json")
    assert GRU4RecConfig.load(tmp_path / "best.json") == tuned.config
    page = render_study(tuned)
    assert f"{tuned.value:.4f}" in page
    assert "http" not in page
    assert len(page) < 1_000_000


def test_the_same_seed_proposes_the_same_trials(split: Split, tmp_path: Path):
    params = [
        [trial.params for trial in search(split, tmp_path / name, 3).study.trials]
        for name in ("one.sqlite", "other.sqlite")
    ]
    assert params[0] == params[1]


def test_a_killed_search_goes_on_where_it_was(split_file: Path, split: Split, tmp_path: Path):
    database = tmp_path / "killed.sqlite"
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("tune_and_die.py")), split_file, database],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    tuned = search(split, database, 4)
    states = [trial.state for trial in tuned.study.trials]
    assert states.count(TrialState.FAIL) == 1
    assert sum(state in (TrialState.COMPLETE, TrialState.PRUNED) for state in states) == 4
    # What it was at is tried again, and nothing is proposed twice.
    (lost,) = (trial for trial in tuned.study.trials if trial.state == TrialState.FAIL)
    others = [trial.params for trial in tuned.study.trials if trial.number != lost.number]
    assert others.count(lost.params) == 1
    assert len({str(sorted(one.items(), key=str)) for one in others}) == 4
    # With its budget spent it only reads.
    n_before = len(tuned.study.trials)
    assert len(search(split, database, 4).study.trials) == n_before


def test_time_that_is_up_ends_a_search_within_a_trial(split: Split, tmp_path: Path, monkeypatch):
    slow = 0.2
    report = optuna.Trial.report
    monkeypatch.setattr(
        optuna.Trial, "report", lambda *given: (time.sleep(slow), report(*given))[1]
    )
    tuned = tune(
        split, tmp_path / "slow.sqlite", budget=Budget(50, 3 * slow), n_epochs=2, device="cpu"
    )
    assert 1 <= len(tuned.study.trials) < 50


def test_other_data_or_options_are_refused(split_file: Path, split: Split, tmp_path: Path):
    database = tmp_path / "study.sqlite"
    search(split, database, 1)
    other = validation_split(Steps.from_split_file(split_file), 0.3, min_item_support=1)
    with pytest.raises(TuningError, match="other data"):
        search(other, database, 2)
    with pytest.raises(TuningError, match="other options"):
        search(split, database, 2, loss="cross-entropy")


def test_two_searches_cannot_share_a_study(split: Split, tmp_path: Path):
    database = tmp_path / "study.sqlite"
    messages = []

    def second(_) -> None:
        with pytest.raises(TuningError, match="another search is at work") as refused:
            search(split, database, 2)
        messages.append(str(refused.value))

    search(split, database, 1, progress=second)
    assert len(messages) == 1


def test_a_trial_that_diverges_or_trails_is_stopped_and_the_search_goes_on(
    split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    from models import tuning

    epochs: list[int] = []
    real = tuning.train

    def unlucky(sessions, config, *, progress, **options):
        if not epochs:
            epochs.append(0)
            raise TrainingDiverged("not a number")

        def counted(report: EpochReport) -> None:
            epochs.append(report.epoch)
            progress(report)

        return real(sessions, config, progress=counted, **options)

    monkeypatch.setattr(tuning, "train", unlucky)
    tuned = tune(split, tmp_path / "s.sqlite", budget=Budget(14, 600), n_epochs=4, device="cpu",
                 max_units=64)  # fmt: skip
    assert tuned.study.trials[0].state == TrialState.PRUNED
    assert tuned.n_complete + tuned.n_pruned == 14
    # Whoever trails the median at an epoch saves the rest of its epochs.
    assert len(epochs) - 1 < 13 * 4


def test_a_trial_far_below_the_best_ends_at_its_second_epoch(
    split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    from models import tuning

    real, n_trials = tuning.train, 0

    def hopeless_after_the_first(sessions, config, *, progress, **options):
        nonlocal n_trials
        n_trials += 1
        is_first = n_trials == 1

        def without_weights(report: EpochReport) -> None:
            blank = {name: torch.zeros_like(one) for name, one in report.model.weights.items()}
            progress(replace(report, model=GRU4Rec(report.model.config, blank)))

        shown = progress if is_first else without_weights
        return real(sessions, config, progress=shown, **options)

    monkeypatch.setattr(tuning, "train", hopeless_after_the_first)
    tuned = tune(split, tmp_path / "h.sqlite", budget=Budget(2, 600), n_epochs=4, device="cpu",
                 max_units=256)  # fmt: skip
    best, other = tuned.study.trials
    assert (best.state, other.state) == (TrialState.COMPLETE, TrialState.PRUNED)
    assert list(other.intermediate_values) == [1, 2]


def test_no_complete_trial_is_said(split: Split, tmp_path: Path):
    with pytest.raises(NotEnoughData, match="give the search more time"):
        tune(split, tmp_path / "none.sqlite", budget=Budget(3, 0.0))


def test_the_space_is_that_of_the_authors():
    highest = {
        "loss": "bpr-max", "units": 512, "batch_size": 256, "learning_rate": 0.25,
        "momentum": 0.9, "dropout_embed": 0.5, "dropout_hidden": 0.7, "sample_alpha": 1.0,
        "bpreg": 2.0, "elu": 1.0,
    }  # fmt: skip
    config = suggested(FixedTrial(highest), "both")
    assert (config.layers, config.batch_size, config.n_sample) == ((512,), 256, 2048)
    assert (config.bpreg, config.elu, config.logq) == (2.0, 1.0, 0.0)
    config = suggested(FixedTrial({**highest, "loss": "cross-entropy"}), "both")
    assert (config.loss, config.bpreg, config.logq) == ("cross-entropy", 0.0, 1.0)


def test_what_the_gate_judges_by_is_never_seen(split_file: Path):
    steps = Steps.from_split_file(split_file)
    judged = temporal_split(steps, 0.1, min_item_support=1)
    part = training_part(steps, 0.1)
    cut_us = int(judged.cut_at.timestamp() * 1_000_000)
    assert part.time_us.max() < cut_us
    assert len(part) >= judged.train.n_steps
    inner = validation_split(part, 0.1, min_item_support=1)
    assert inner.holdout_from < judged.cut_at
    assert MEASURE == "mrr@20"


def test_what_mattered_is_told_once_there_are_enough_trials():
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=1))

    def only_units_matter(trial: optuna.Trial) -> float:
        config = suggested(trial, "bpr-max")
        trial.set_user_attr("config", config.to_json().decode())
        return config.layers[0] / 512

    study.optimize(only_units_matter, n_trials=9)
    assert importances(study) == {}
    assert "10 complete trials are needed" in render_study(result(study))
    study.optimize(only_units_matter, n_trials=31)
    found = importances(study)
    assert max(found, key=found.__getitem__) == "units"
    assert sum(found.values()) == pytest.approx(1)
    tuned = result(study)
    assert "PED-ANOVA" in render_study(tuned)
    assert tuned.default_value is None

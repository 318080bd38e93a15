"""Real Dagster runs of the whole refresh, killed while they train, and taken up by the next."""

import fcntl
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from assets.instance import end_dead_refresh, install_dagster_home, open_instance
from assets.resources import last_refresh, refresh_lock
from assets.triggers import refresh_after_events
from models.registry import NoChampionModel, Registry
from warehouse.settings import RefreshSettings, Settings, TrainingSettings
from warehouse.store import open_store

ROOT = Path(__file__).parents[2]
# Some seconds for each of the three trainings, with chance of every kind.
CONFIG = {
    "n_epochs": 40, "layers": [24], "n_sample": 128, "batch_size": 8, "dropout_embed": 0.0,
    "dropout_hidden": 0.1,
}  # fmt: skip
STAGES = ("weigh", "holdout", "refit")
# What ranks; the rest of a bundle has times in it.
SAME = ("model.safetensors", "config.json", "items.parquet", "fusion.json", "parts.safetensors")


def shop(folder: Path, land_sessions: Callable[..., int]) -> Settings:
    config = folder / "config.json"
    config.write_text(json.dumps(CONFIG))
    settings = Settings(
        _env_file=None, home=folder / "home",
        training=TrainingSettings(config_file=config, checkpoint_seconds=0.05),
        refresh=RefreshSettings(after_events=1),
    )  # fmt: skip
    land_sessions(settings, 250)
    return settings


def start_refresh(settings: Settings, log: Path) -> subprocess.Popen[bytes]:
    """The job `refresh` as Dagster's own command line runs it."""
    training = settings.training
    environment = {
        **os.environ, "PYTHONPATH": str(ROOT), "DAGSTER_HOME": str(install_dagster_home(settings)),
        "DAGSTER_DISABLE_TELEMETRY": "1", "SHALLOP_HOME": str(settings.home),
        "SHALLOP_TRAINING__CONFIG_FILE": str(training.config_file),
        "SHALLOP_TRAINING__CHECKPOINT_SECONDS": str(training.checkpoint_seconds),
    }  # fmt: skip
    command = [str(Path(sys.executable).with_name("dagster")), "job", "execute",
               "-m", "assets.definitions", "-j", "refresh"]  # fmt: skip
    with log.open("wb") as stream:
        return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=stream, stderr=stream,
                                start_new_session=True)  # fmt: skip


def kill_while_it_trains(settings: Settings, stage: str, chance: random.Random, log: Path) -> None:
    """SIGKILL at a random moment of this training, once it has written some checkpoints."""
    process = start_refresh(settings, log)
    path = settings.checkpoint_path / f"{stage}.safetensors"
    n_wanted, seen = chance.randint(1, 6), set[int]()
    while len(seen) < n_wanted:
        assert process.poll() is None, log.read_text()
        if path.exists():
            seen.add(path.stat().st_mtime_ns)
        time.sleep(0.002)
    time.sleep(chance.uniform(0, 0.05))
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL


def finished(settings: Settings, log: Path) -> tuple[dict[str, str], list[str]]:
    """Run to the end: hashes of the champion, and the trainings that went on from a checkpoint."""
    assert start_refresh(settings, log).wait() == 0, log.read_text()
    registry = Registry(open_store(settings))
    files = registry.manifest("gru4rec", registry.pointer().version)["files"]
    with open_instance(settings) as instance:
        event = instance.get_latest_materialization_event(dg.AssetKey("candidate_model"))
    assert event is not None
    assert event.asset_materialization is not None
    resumed: Any = event.asset_materialization.metadata["resumed_trainings"].value
    return {name: files[name] for name in SAME}, resumed


@pytest.mark.slow
def test_killed_in_every_training_it_ends_with_the_same_model(
    tmp_path: Path, land_sessions: Callable[..., int]
) -> None:
    folders = tmp_path / "whole", tmp_path / "killed"
    for folder in folders:
        folder.mkdir()
    whole, killed = (shop(folder, land_sessions) for folder in folders)
    expected, resumed = finished(whole, tmp_path / "whole.log")
    assert resumed == []
    chance = random.Random(20261121)
    for stage in STAGES:
        kill_while_it_trains(killed, stage, chance, tmp_path / f"{stage}.log")
        with pytest.raises(NoChampionModel):
            Registry(open_store(killed)).pointer()
        with open_instance(killed) as instance:  # else Dagster would wait for it for ever
            assert end_dead_refresh(instance, killed)
            assert not end_dead_refresh(instance, killed)
    found, resumed = finished(killed, tmp_path / "last.log")
    assert found == expected
    assert resumed == list(STAGES)
    assert "resumed_trainings=weigh,holdout,refit" in (tmp_path / "last.log").read_text()
    assert not killed.checkpoint_path.exists()


def test_a_killed_refresh_does_not_block_those_after_it(settings: Settings) -> None:
    with open_instance(settings) as instance:
        job = dg.job(name="refresh")(lambda: None)
        run = instance.create_run_for_job(job, status=dg.DagsterRunStatus.STARTED)
        with refresh_lock(settings, run.run_id):
            assert last_refresh(settings) == ""
            assert not end_dead_refresh(instance, settings)
        context = dg.build_sensor_context(instance=instance)
        skipped: Any = refresh_after_events(context, settings=settings)
        assert "a refresh is running" not in skipped.skip_message
        ended = instance.get_run_by_id(run.run_id)
        assert ended is not None
        assert ended.status == dg.DagsterRunStatus.FAILURE
        assert not end_dead_refresh(instance, settings)


def test_asking_for_the_last_refresh_never_refuses_the_next(settings: Settings) -> None:
    with refresh_lock(settings, "first"):
        pass
    with (settings.home / "refresh.lock").open() as asking:
        fcntl.flock(asking, fcntl.LOCK_SH)  # as `last_refresh` has it while it reads
        done = threading.Timer(0.1, fcntl.flock, (asking, fcntl.LOCK_UN))
        done.start()
        with refresh_lock(settings, "next"):
            pass
        done.join()
    assert last_refresh(settings) == "next"

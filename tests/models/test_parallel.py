"""Several processes train one network, as one process trains it."""

import signal
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from models.dataset import NotEnoughData, Sessions
from models.gru4rec import GRU4RecConfig
from models.parallel import ProcessesFailed, train_in_processes
from models.replicas import Replicas
from models.training import TrainingDiverged, train
from tests.models.killed import started

SCRIPT = Path(__file__).with_name("train_by_processes.py")


def test_every_lane_is_one_processs() -> None:
    for n_lanes in range(9):
        for n in range(1, 5):
            shares = [list(range(n_lanes))[Replicas(rank, n).lanes(n_lanes)] for rank in range(n)]
            assert [lane for share in shares for lane in share] == list(range(n_lanes))
            assert max(map(len, shares)) - min(map(len, shares)) <= 1


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"dropout_embed": 0.3, "dropout_hidden": 0.2, "elu": 0.5, "bpreg": 1.0},
        {"loss": "cross-entropy", "embedding": "separate", "layers": (16, 12), "logq": 1.0},
    ],
    ids=["shared", "separate"],
)
def test_processes_learn_what_one_learns(
    ring: Sessions, small: GRU4RecConfig, changes: dict[str, object]
) -> None:
    config = replace(small, n_epochs=2, **changes)
    weight = np.random.default_rng(3).uniform(0.5, 2, ring.n_steps).astype(np.float32)
    sessions = replace(ring, weight=weight)  # 8 lanes, towards the end fewer than processes
    one = train(sessions, config, device="cpu")
    three = train_in_processes(3, sessions, config, device="cpu")
    assert three.log.losses == pytest.approx(one.log.losses, rel=1e-4)
    for name, weights in one.model.weights.items():
        torch.testing.assert_close(three.model.weights[name], weights, rtol=1e-3, atol=1e-3)


@pytest.mark.slow
def test_they_end_with_who_asked_and_go_on_to_the_same_model(tmp_path: Path) -> None:
    path = tmp_path / "killed.safetensors"
    assert started(SCRIPT, tmp_path / "c", tmp_path / "whole", tmp_path / "whole.log").wait() == 0
    process = started(SCRIPT, path, tmp_path / "never", tmp_path / "killed.log")
    while not path.exists():
        assert process.poll() is None, (tmp_path / "killed.log").read_text()
        time.sleep(0.01)
    replicas = _processes_below(process.pid)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert len(replicas) >= 3  # torchrun and what it started
    deadline = time.monotonic() + 60
    while any(Path(f"/proc/{pid}").exists() for pid in replicas):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert started(SCRIPT, path, tmp_path / "resumed", tmp_path / "last.log").wait() == 0
    assert "training goes on from checkpoint" in (tmp_path / "last.log").read_text()
    resumed, whole = load_file(tmp_path / "resumed"), load_file(tmp_path / "whole")
    assert resumed.keys() == whole.keys()
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)


@pytest.mark.slow
def test_what_goes_wrong_in_them_is_said_by_who_asked(ring: Sessions, small: GRU4RecConfig) -> None:
    with pytest.raises(NotEnoughData, match="a session of two steps"):
        train_in_processes(2, Sessions.from_lists([[1]], 3), small, device="cpu")
    without_numbers = replace(ring, weight=np.full(ring.n_steps, np.nan, dtype=np.float32))
    with pytest.raises(TrainingDiverged, match="learning_rate"):
        train_in_processes(2, without_numbers, small, device="cpu")
    with pytest.raises(ProcessesFailed, match="SHALLOP_TRAINING__PROCESSES=1"):
        train_in_processes(2, ring, small, device="cpu", threads=-1)


def _processes_below(pid: int) -> list[int]:
    """Ids of what a process started, and what those started."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [one for child in children for one in (int(child), *_processes_below(int(child)))]

"""Trainings that are killed and go on, and checkpoints that are of something else."""

import random
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st
from safetensors.torch import load_file

from models import checkpoint as checkpoint_module
from models.checkpoint import Checkpoint
from models.dataset import Sessions
from models.gru4rec import GRU4RecConfig
from models.trainer import Trainer
from models.training import Trained, train
from tests.models.killed import started

CPU = torch.device("cpu")
SCRIPT = Path(__file__).with_name("train_with_checkpoint.py")


def assert_same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, weight in one.items():
        assert torch.equal(weight, other[name]), name


@pytest.fixture(scope="module")
def ring(ring: Sessions) -> Sessions:
    """The first sessions round the ring: some blocks of steps an epoch."""
    return Sessions(ring.item_idx[: ring.offsets[150]], ring.offsets[:151], ring.n_items)


@pytest.fixture(scope="module")
def config(small: GRU4RecConfig) -> GRU4RecConfig:
    """With chance of every kind, two layers and two epochs."""
    return replace(
        small, n_epochs=2, batch_size=4, layers=(8, 12), dropout_embed=0.2, dropout_hidden=0.1
    )


@pytest.fixture(scope="module")
def whole(ring: Sessions, config: GRU4RecConfig) -> Trained:
    """A training that nothing stopped."""
    return train(ring, config, device="cpu")


def n_blocks(sessions: Sessions, config: GRU4RecConfig) -> int:
    trainer, n = Trainer(sessions, config, CPU, 42), 0
    with torch.no_grad():
        while not trainer.is_done:
            trainer.run_block()
            n += 1
    return n


@examples(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_resumed_after_any_block_the_model_is_the_same_bit_for_bit(
    data: st.DataObject, ring: Sessions, config: GRU4RecConfig, whole: Trained, tmp_path: Path
) -> None:
    stops = data.draw(st.lists(st.integers(1, n_blocks(ring, config)), min_size=1, max_size=3))
    path = tmp_path / f"{'-'.join(map(str, stops))}.safetensors"
    done = 0
    for stop in sorted(stops):
        trainer, checkpoint = Trainer(ring, config, CPU, 42), Checkpoint(path)
        assert checkpoint.start(trainer, ring, 42) == (done > 0)
        with torch.no_grad():
            for _ in range(done, stop):
                trainer.run_block()
        checkpoint.save(trainer)
        done = stop
    resumed = train(ring, config, device="cpu", checkpoint=Checkpoint(path))
    assert resumed.log.is_resumed
    assert_same(resumed.model.weights, whole.model.weights)
    assert resumed.log.losses == whole.log.losses


@pytest.mark.slow
def test_killed_at_random_moments_it_ends_with_the_same_model(tmp_path: Path) -> None:
    chance, path = random.Random(), tmp_path / "killed.safetensors"
    assert started(SCRIPT, tmp_path / "c", tmp_path / "whole", tmp_path / "whole.log").wait() == 0
    last_written = 0
    for attempt in range(3):
        process = started(SCRIPT, path, tmp_path / "never", tmp_path / f"{attempt}.log")
        while process.poll() is None:
            if path.exists() and path.stat().st_mtime_ns > last_written:
                time.sleep(chance.uniform(0, 0.02))
                process.send_signal(signal.SIGKILL)
                process.wait()
        assert process.returncode in (-signal.SIGKILL, 0)
        last_written = path.stat().st_mtime_ns
    assert started(SCRIPT, path, tmp_path / "resumed", tmp_path / "last.log").wait() == 0
    assert "training goes on from checkpoint" in (tmp_path / "last.log").read_text()
    assert_same(load_file(tmp_path / "resumed"), load_file(tmp_path / "whole"))


def test_a_finished_training_is_not_run_again(
    ring: Sessions, config: GRU4RecConfig, whole: Trained, tmp_path: Path
) -> None:
    path = tmp_path / "c.safetensors"
    train(ring, config, device="cpu", checkpoint=Checkpoint(path))
    written = path.read_bytes()
    again = train(ring, config, device="cpu", checkpoint=Checkpoint(path))
    assert again.log.events_per_second == 0
    assert path.read_bytes() == written
    assert_same(again.model.weights, whole.model.weights)


@pytest.mark.parametrize("other", ["data", "hyperparameters", "seed", "code"])
def test_a_checkpoint_of_something_else_is_named_and_not_used(
    other: str, ring: Sessions, config: GRU4RecConfig, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    path, seed, sessions = tmp_path / "c.safetensors", 42, ring
    train(ring, replace(config, n_epochs=1), device="cpu", checkpoint=Checkpoint(path))
    config = replace(config, n_epochs=1)
    if other == "data":
        sessions = Sessions(ring.item_idx[::-1].copy(), ring.offsets, ring.n_items)
    elif other == "hyperparameters":
        config = replace(config, momentum=0.1)
    elif other == "seed":
        seed = 43
    else:
        monkeypatch.setattr(checkpoint_module, "_code_version", lambda: "of another day")
    found = train(sessions, config, device="cpu", seed=seed, checkpoint=Checkpoint(path))
    assert not found.log.is_resumed
    assert f"{path}: it is of other {other}" in caplog.text
    assert_same(found.model.weights, train(sessions, config, device="cpu", seed=seed).model.weights)


@pytest.mark.parametrize(
    "content", [b"", b"not safetensors", b"\x08\x00\x00\x00\x00\x00\x00\x00{}      "]
)
def test_a_damaged_checkpoint_is_named_and_not_used(
    content: bytes, ring: Sessions, config: GRU4RecConfig, whole: Trained, tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    path = tmp_path / "c.safetensors"
    path.write_bytes(content)
    found = train(ring, config, device="cpu", checkpoint=Checkpoint(path))
    assert f"checkpoint not used: {path}" in caplog.text
    assert_same(found.model.weights, whole.model.weights)


def test_a_checkpoint_is_written_when_it_is_due_and_replaced_whole(
    ring: Sessions, config: GRU4RecConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    path = tmp_path / "folder" / "c.safetensors"
    trainer, checkpoint = Trainer(ring, config, CPU, 42), Checkpoint(path, seconds=60)
    checkpoint.start(trainer, ring, 42)
    checkpoint.save_when_due(trainer)
    assert not path.exists()
    checkpoint.save(trainer)
    before = path.read_bytes()

    def torn(tensors: object, file: Path, metadata: object) -> None:
        file.write_bytes(before[:100])
        raise OSError("No space left on device")

    monkeypatch.setattr(checkpoint_module, "save_file", torn)
    checkpoint.save(trainer)
    assert "checkpoint not written" in caplog.text
    assert path.read_bytes() == before

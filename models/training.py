"""Training of GRU4Rec: epochs of session-parallel steps (Hidasi et al., arXiv:1511.06939)."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from models.checkpoint import Checkpoint
from models.config import GRU4RecConfig
from models.dataset import NotEnoughData, Sessions
from models.devices import math_threads, memory_of, resolve_device
from models.gru4rec import GRU4Rec
from models.replicas import ALONE, Replicas
from models.trainer import Trainer, TrainingDiverged
from models.warm_start import Start

__all__ = ["EpochReport", "Trained", "TrainingDiverged", "TrainingLog", "train"]


@dataclass(frozen=True)
class EpochReport:
    """An epoch as it ended; `loss` is the mean over predictions.

    `model` is as it was then, on its device; training goes on to change it.
    """

    epoch: int
    n_epochs: int
    loss: float
    events_per_second: float
    model: GRU4Rec


@dataclass(frozen=True)
class TrainingLog:
    """How a training went.

    `events_per_second` counts predictions, at the median epoch; it and `train_seconds` are of this
    process, which may have resumed what another began.
    """

    losses: list[float]
    events_per_second: float
    train_seconds: float
    device: str
    is_resumed: bool = False


@dataclass(frozen=True, eq=False)
class Trained:
    """A trained network, with hyperparameters as they were used, and its log.

    `squares` are Adagrad's sums by weight, which a later training may begin from with the network.
    """

    model: GRU4Rec
    log: TrainingLog
    squares: dict[str, Tensor] = field(default_factory=dict, repr=False)


def train(
    sessions: Sessions,
    config: GRU4RecConfig,
    *,
    device: str = "auto",
    seed: int = 42,
    threads: int = 1,
    progress: Callable[[EpochReport], None] | None = None,
    checkpoint: Checkpoint | None = None,
    start: Start | None = None,
    with_kernels: bool = False,
    replicas: Replicas = ALONE,
) -> Trained:
    """Learn from `sessions`; the same seed gives the same model on the same CPU.

    Begins from chance, or from the `start` that a model gives.

    With a `checkpoint`, a training that was killed goes on from it, to the same model; the file
    stays when training is done. `with_kernels`: a GPU takes those of `models.kernels`. Each of
    `replicas` calls this alike, see `models.parallel`; the first writes the checkpoints.
    Raises NotEnoughData without a single pair of steps, NoSuchDevice, and TrainingDiverged.
    """
    if not sessions.n_predictions:
        raise NotEnoughData("training needs a session of two steps, sessions read: "
                            f"{len(sessions)}")  # fmt: skip
    target_device = resolve_device(device)
    config = config.fitted_to(len(sessions))
    started = time.perf_counter()
    with math_threads(threads), memory_of(target_device), torch.no_grad():
        trainer = Trainer(
            sessions, config, target_device, seed, with_kernels=with_kernels, start=start,
            replicas=replicas,
        )  # fmt: skip
        is_resumed = checkpoint is not None and checkpoint.start(trainer, sessions, seed)
        try:
            rates = _epochs(trainer, checkpoint if replicas.rank == 0 else None, progress)
        finally:
            trainer.close()
    log = TrainingLog(
        trainer.losses, float(np.median(rates)) if rates else 0.0, time.perf_counter() - started,
        str(target_device), is_resumed,
    )  # fmt: skip
    squares = {name: tensor.to("cpu") for name, tensor in trainer.squares.items()}
    return Trained(trainer.trained_model.to("cpu"), log, squares)


def _epochs(
    trainer: Trainer, checkpoint: Checkpoint | None, progress: Callable[[EpochReport], None] | None
) -> list[float]:
    """Run what is left; predictions a second of each epoch."""
    rates: list[float] = []
    while not trainer.is_done:
        n_before, started = trainer.n_seen, time.perf_counter()
        while not trainer.run_block():
            if checkpoint:
                checkpoint.save_when_due(trainer)
        rates.append((trainer.n_seen - n_before) / (time.perf_counter() - started))
        if checkpoint and trainer.is_done:
            checkpoint.save(trainer)
        if progress:
            progress(
                EpochReport(
                    trainer.epoch,
                    trainer.config.n_epochs,
                    trainer.losses[-1],
                    rates[-1],
                    trainer.trained_model,
                )
            )
    return rates

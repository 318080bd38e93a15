"""Training of GRU4Rec: epochs of session-parallel steps (Hidasi et al., arXiv:1511.06939).

Nothing in the loop waits for the device but one look at the loss every `_PLAN_STEPS` steps.
"""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from models.config import GRU4RecConfig
from models.dataset import NotEnoughData, Sessions
from models.devices import math_threads, resolve_device
from models.dropout import Dropout
from models.gru4rec import GRU4Rec
from models.negatives import NegativeSampler
from models.plan import plan_steps
from models.schedule import Schedule, epoch_schedule
from models.step import TrainingStep

_PLAN_STEPS = 64


class TrainingDiverged(RuntimeError):
    """The loss is no longer a number."""


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
    """How a training went. `events_per_second` counts predictions, at the median epoch."""

    losses: list[float]
    events_per_second: float
    train_seconds: float
    device: str


@dataclass(frozen=True, eq=False)
class Trained:
    """A trained network, with hyperparameters as they were used, and its log."""

    model: GRU4Rec
    log: TrainingLog


def train(
    sessions: Sessions,
    config: GRU4RecConfig,
    *,
    device: str = "auto",
    seed: int = 42,
    threads: int = 1,
    progress: Callable[[EpochReport], None] | None = None,
) -> Trained:
    """Learn from `sessions`; the same seed gives the same model on the same CPU.

    Raises NotEnoughData without a single pair of steps, and TrainingDiverged.
    """
    if not sessions.n_predictions:
        raise NotEnoughData("training needs a session of two steps, sessions read: "
                            f"{len(sessions)}")  # fmt: skip
    target_device = resolve_device(device)
    config = config.fitted_to(len(sessions))
    started = time.perf_counter()
    with math_threads(threads), torch.no_grad():
        trainer = Trainer(sessions, config, target_device, seed)
        losses, rates = [], []
        for epoch in range(config.n_epochs):
            epoch_started = time.perf_counter()
            losses.append(trainer.epoch())
            rates.append(sessions.n_predictions / (time.perf_counter() - epoch_started))
            if progress:
                progress(
                    EpochReport(epoch + 1, config.n_epochs, losses[-1], rates[-1], trainer.model)
                )
    seconds = time.perf_counter() - started
    log = TrainingLog(losses, float(np.median(rates)), seconds, str(target_device))
    return Trained(trainer.model.to("cpu"), log)


class Trainer:
    """A model on its way: weights, optimiser state and sources of chance."""

    def __init__(
        self, sessions: Sessions, config: GRU4RecConfig, device: torch.device, seed: int
    ) -> None:
        weights, negatives, dropout = np.random.SeedSequence(seed).spawn(3)
        self.config = config
        self.model = GRU4Rec.initial(
            config, sessions.n_items, np.random.default_rng(weights), device=device
        )
        self._n_predictions = sessions.n_predictions
        self._schedule = epoch_schedule(sessions, config.batch_size)
        self._sampler = NegativeSampler(
            sessions.support(), config.sample_alpha, config.n_sample,
            np.random.default_rng(negatives),
        )  # fmt: skip
        self.step = TrainingStep(self.model, sessions.support(), Dropout(dropout, device))

    def epoch(self) -> float:
        """Once over all sessions; the mean loss of its predictions. Raises TrainingDiverged."""
        hidden = self.model.zero_hidden(self._schedule.inputs.shape[1])
        total = 0.0
        for block in _blocks(self._schedule, _PLAN_STEPS):
            if block.n_lanes == 1 and not self.config.n_sample:
                break  # a lone lane has no negatives left
            hidden = [state.index_select(0, block.survivors(state)) for state in hidden]
            plans = plan_steps(
                block.inputs, block.targets, self._sampler.draw(len(block.inputs)),
                self.model.n_items, is_shared=self.config.embedding == "shared",
                device=self.step.device, dtype=self.step.dtype,
            )  # fmt: skip
            keep = torch.from_numpy(~block.starts).to(self.step.device, self.step.dtype)
            has_start: list[bool] = np.any(block.starts, axis=1).tolist()
            losses = []
            for plan, keep_lane, resets in zip(plans, keep, has_start, strict=True):
                if resets:
                    hidden = [state * keep_lane[:, None] for state in hidden]
                loss, hidden = self.step(plan, hidden)
                losses.append(loss)
            total += float(torch.stack(losses).sum()) * self.config.batch_size
            if not math.isfinite(total):
                raise TrainingDiverged(
                    "the loss is no longer a number, lower `learning_rate` or `momentum`: "
                    f"{self.config.learning_rate}, {self.config.momentum}"
                )
        return total / self._n_predictions


@dataclass(frozen=True, eq=False)
class _Block:
    """Consecutive steps with the same live lanes, closed lanes left out."""

    inputs: npt.NDArray[np.int32]
    targets: npt.NDArray[np.int32]
    starts: npt.NDArray[np.bool_]
    lanes: npt.NDArray[np.int64]
    lanes_before: npt.NDArray[np.int64]

    @property
    def n_lanes(self) -> int:
        return len(self.lanes)

    def survivors(self, state: Tensor) -> Tensor:
        """Rows of the block before's hidden state that go on."""
        rows = np.searchsorted(self.lanes_before, self.lanes)
        return torch.from_numpy(rows).to(state.device)


def _blocks(schedule: Schedule, n_steps: int) -> Iterator[_Block]:
    is_live = schedule.inputs >= 0
    n_live = is_live.sum(1)
    changes = np.flatnonzero(np.diff(n_live)) + 1
    lanes = np.arange(schedule.inputs.shape[1])
    for begin, end in zip([0, *changes], [*changes, len(schedule)], strict=True):
        for start in range(int(begin), int(end), n_steps):
            rows, before = slice(start, min(start + n_steps, int(end))), lanes
            lanes = np.flatnonzero(is_live[start])
            yield _Block(
                schedule.inputs[rows][:, lanes], schedule.targets[rows][:, lanes],
                schedule.starts[rows][:, lanes], lanes, before,
            )  # fmt: skip

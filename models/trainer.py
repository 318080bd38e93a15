"""A network on its way: weights, optimiser state, and how far it has come.

All chance follows from the seed and the place in the training, so that weights, optimiser state,
hidden states and the place are all that it takes to go on from where another process ended.
"""

import math
from typing import Any

import msgspec
import numpy as np
import torch
from torch import Tensor

from models.blocks import Block, Blocks
from models.config import GRU4RecConfig
from models.dataset import Sessions
from models.dropout import Dropout
from models.gru4rec import GRU4Rec
from models.negatives import NegativeSampler
from models.plan import StepPlan, plan_steps
from models.schedule import epoch_schedule
from models.step import TrainingStep


class TrainingDiverged(RuntimeError):
    """The loss is no longer a number."""


class _Position(msgspec.Struct):
    """A place in a training; floats are hexadecimal, so that no bit is lost."""

    epoch: int
    block: int
    loss: str
    losses: list[str]


class Trainer:
    """Runs a training block by block; nothing waits for the device but one look at each block.

    `epoch` and `block` say what comes next, `losses` are those of the epochs that are done.
    """

    def __init__(
        self,
        sessions: Sessions,
        config: GRU4RecConfig,
        device: torch.device,
        seed: int,
        *,
        is_fused: bool = True,
    ) -> None:
        weights, negatives, dropout = np.random.SeedSequence(seed).spawn(3)
        self.config = config
        self.model = GRU4Rec.initial(
            config, sessions.n_items, np.random.default_rng(weights), device=device
        )
        self.epoch, self.block, self.losses = 0, 0, list[float]()
        self.n_seen = 0  # predictions that this process learned from
        self._n_predictions = sessions.n_predictions
        self._blocks = Blocks(epoch_schedule(sessions, config.batch_size))
        support = sessions.support()
        self._sampler = NegativeSampler(support, config.sample_alpha, config.n_sample, negatives)
        self._dropout = Dropout(dropout, device)
        self.step = TrainingStep(self.model, support, self._dropout, is_fused=is_fused)
        self._start_epoch()

    @property
    def is_done(self) -> bool:
        """Whether all epochs are."""
        return self.epoch == self.config.n_epochs

    def run_block(self) -> bool:
        """The next block of steps; whether it ended an epoch. Raises TrainingDiverged."""
        block = self._blocks[self.block]
        # A lone lane has no negatives left.
        if block.n_lanes > 1 or self.config.n_sample:
            self._loss += self._steps(block)
            if not math.isfinite(self._loss):
                raise TrainingDiverged(
                    "the loss is no longer a number, lower `learning_rate` or `momentum`: "
                    f"{self.config.learning_rate}, {self.config.momentum}"
                )
        self.block += 1
        self.n_seen += block.inputs.size
        if self.block < len(self._blocks):
            return False
        self.losses.append(self._loss / self._n_predictions)
        self.epoch += 1
        self._start_epoch()
        return True

    def run_epoch(self) -> float:
        """What is left of an epoch; its mean loss over predictions. Raises TrainingDiverged."""
        while not self.run_block():
            pass
        return self.losses[-1]

    def _start_epoch(self) -> None:
        self.block, self._loss = 0, 0.0
        self._hidden = self.model.zero_hidden(self._blocks[0].n_lanes)

    def _steps(self, block: Block) -> float:
        """Run a block; the sum of its losses over predictions."""
        survivors = torch.from_numpy(block.survivors).to(self.step.device)
        hidden = [state.index_select(0, survivors) for state in self._hidden]
        self._dropout.begin(self.epoch, self.block)
        keep = torch.from_numpy(~block.starts).to(self.step.device, self.step.dtype)
        has_start: list[bool] = np.any(block.starts, axis=1).tolist()
        losses = []
        for plan, keep_lane, resets in zip(self._plans(block), keep, has_start, strict=True):
            if resets:
                hidden = [state * keep_lane[:, None] for state in hidden]
            loss, hidden = self.step(plan, hidden)
            losses.append(loss)
        self._hidden = hidden
        return float(torch.stack(losses).sum()) * self.config.batch_size

    def _plans(self, block: Block) -> list[StepPlan]:
        return plan_steps(
            block.inputs, block.targets,
            self._sampler.draw(self.epoch, self.block, block.n_steps), self.model.n_items,
            is_shared=self.config.embedding == "shared", device=self.step.device,
            dtype=self.step.dtype,
        )  # fmt: skip

    def tensors(self) -> dict[str, Tensor]:
        """All tensors of the state by name, themselves and not copies."""
        optimizer = self.step.optimizer
        parts = {
            "weight": self.model.weights,
            "accumulated": optimizer.accumulated,
            "velocity": optimizer.velocity,
            "hidden": {str(layer): state for layer, state in enumerate(self._hidden)},
        }
        return {
            f"{part}.{name}": tensor for part, named in parts.items()
            for name, tensor in named.items()
        }  # fmt: skip

    def position(self) -> dict[str, Any]:
        """Where the training stands, as values of JSON."""
        losses = [loss.hex() for loss in self.losses]
        return msgspec.structs.asdict(_Position(self.epoch, self.block, self._loss.hex(), losses))

    def resume(self, tensors: dict[str, Tensor], position: dict[str, Any]) -> None:
        """Go on from a state that `tensors` and `position` gave.

        Raises ValueError, and changes nothing, where they are not of such a training.
        """
        own = self.tensors()
        expected = {name: t.shape[1:] if name.startswith("hidden.") else t.shape
                    for name, t in own.items()}  # fmt: skip
        found = {name: t.shape[1:] if name.startswith("hidden.") else t.shape
                 for name, t in tensors.items()}  # fmt: skip
        if found != expected:
            raise ValueError(f"expected tensors of {expected}, found: {found}")
        place = msgspec.convert(position, _Position)
        for name, tensor in own.items():
            if not name.startswith("hidden."):
                tensor.copy_(tensors[name])
        device = self.step.device
        self._hidden = [tensors[f"hidden.{n}"].to(device) for n in range(len(self._hidden))]
        self.epoch, self.block = place.epoch, place.block
        self._loss = float.fromhex(place.loss)
        self.losses = [float.fromhex(loss) for loss in place.losses]

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

from models.ahead import Ahead
from models.blocks import Block, Blocks
from models.config import GRU4RecConfig
from models.dataset import Sessions
from models.dropout import Dropout
from models.graphed import GraphedSteps
from models.gru4rec import GRU4Rec, Hidden, weight_shapes
from models.kernels import check_kernels
from models.negatives import NegativeSampler
from models.plan import StepPlan, plan_steps
from models.replicas import ALONE, Replicas
from models.schedule import epoch_schedule
from models.step import TrainingStep
from models.warm_start import Start


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
        is_static: bool | None = None,
        with_kernels: bool = False,
        start: Start | None = None,
        replicas: Replicas = ALONE,
    ) -> None:
        """`is_fused`: take compiled passes where there are any. `is_static`: take steps of one
        shape but for the last of an epoch; see `models.graphed`, on one GPU unless said otherwise.
        `with_kernels`: take those of `models.kernels`. `start`: begin from what a model has
        learned, not from chance. Raises NoKernels.
        """
        if with_kernels:
            check_kernels(device, replicas.n)
        on_one_gpu = device.type == "cuda" and replicas.n == 1
        self._is_static = on_one_gpu if is_static is None else is_static
        self._is_fused, self.replicas = is_fused, replicas
        self._n_items = sessions.n_items
        weights, negatives, dropout = np.random.SeedSequence(seed).spawn(3)
        self.config = config
        self.model = GRU4Rec.initial(
            config, sessions.n_items, np.random.default_rng(weights), device=device
        )
        support = sessions.support()
        if self._is_static:
            self.model, support = _with_spare_item(self.model), np.append(support, 1)
        self.epoch, self.block, self.losses = 0, 0, list[float]()
        self.n_seen = 0  # predictions that this process learned from
        self._total_weight = sessions.total_weight()
        self._blocks = Blocks(epoch_schedule(sessions, config.batch_size))
        self.sampler = NegativeSampler(
            sessions.support(), config.sample_alpha, config.n_sample, negatives
        )
        self._dropout = Dropout(dropout, device)
        self.step = TrainingStep(
            self.model, support, self._dropout, is_fused=is_fused, with_kernels=with_kernels,
            replicas=replicas,
        )  # fmt: skip
        self.start = start
        if start is not None:
            start.put_into(self.model.weights, self.step.optimizer.accumulated)
        self._graphed: GraphedSteps | None = None
        self._ahead: Ahead[list[StepPlan]] | None = None
        self._start_epoch()

    @property
    def trained_model(self) -> GRU4Rec:
        """The network as it is now, its tables without what steps of one shape need."""
        return GRU4Rec(self.config, self._own_rows(self.model.weights))

    @property
    def squares(self) -> dict[str, Tensor]:
        """Adagrad's sums of squares by weight, likewise."""
        return self._own_rows(self.step.optimizer.accumulated)

    def _own_rows(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: tensors[name][: shape[0]] for name, shape in
                weight_shapes(self.config, self._n_items).items()}  # fmt: skip

    def close(self) -> None:
        """End the threads that plan ahead."""
        if self._ahead is not None:
            self._ahead.close()
            self._ahead = None

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
        self.losses.append(self._loss / self._total_weight)
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
        if self._is_static and block.n_lanes == self._blocks[0].n_lanes:
            self._dropout.begin(self.epoch, self.block)
            return self._static_steps(block, hidden)
        lanes, starts = self.replicas.lanes(block.n_lanes), block.starts
        self._dropout.begin(self.epoch, self.block, block.n_lanes, lanes)
        plans = self.plans(self.epoch, self.block, self.step.device)
        if self.replicas.n > 1:
            hidden, starts = [state[lanes] for state in hidden], starts[:, lanes]
            plans = [plan.of(lanes) for plan in plans]
        losses, hidden = self.step.steps(plans, starts, hidden)
        self._hidden = [self.replicas.gathered(state, block.n_lanes) for state in hidden]
        return float(self.replicas.total(losses.sum())) * self.config.batch_size

    def _static_steps(self, block: Block, hidden: Hidden) -> float:
        if self._graphed is None:
            self._graphed = GraphedSteps(
                self.step, block.n_lanes, self.config.n_sample, self._dropout,
                is_weighted=block.weights is not None,
            )  # fmt: skip
        if self._ahead is None:
            self._ahead = Ahead(self._plans_ahead, self.config.n_epochs * len(self._blocks))
        keep = torch.from_numpy(~block.starts).to(self.step.dtype)
        plans = self._ahead[self.epoch * len(self._blocks) + self.block]
        loss, self._hidden = self._graphed.run(plans, keep, hidden)
        return float(loss) * self.config.batch_size

    def _plans_ahead(self, number: int) -> list[StepPlan]:
        """Plans, on the CPU, of a block counted through all epochs."""
        return self.plans(*divmod(number, len(self._blocks)), torch.device("cpu"))

    def plans(self, epoch: int, number: int, device: torch.device) -> list[StepPlan]:
        """What each step of a block touches; it follows from the seed and the place."""
        block = self._blocks[number]
        return plan_steps(
            block.inputs, block.targets, self.sampler.draw(epoch, number, block.n_steps),
            self.model.n_items, is_shared=self.config.embedding == "shared", device=device,
            dtype=self.step.dtype, weights=block.weights, is_fused=self._is_fused,
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


def _with_spare_item(model: GRU4Rec) -> GRU4Rec:
    """One more row of zeros at the end of each table."""
    weights = dict(model.weights)
    for name in ("input.weight", "output.weight", "output.bias"):
        if name in weights:
            table = weights[name]
            weights[name] = torch.cat([table, table.new_zeros(1, *table.shape[1:])])
    return GRU4Rec(model.config, weights)

"""Training of GRU4Rec: session-parallel steps, gradients written out, one pass of Adagrad each.

The gradient reaches one step back (the hidden state of the step before is a constant), so forward
and backward are one straight line and need no autograd; `tests/models` holds them against it.
Losses are summed over live lanes and divided by the batch size, in the tail of an epoch too.
"""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from models.cells import CellCache, reset_after_gradient, reset_before_gradient
from models.config import GRU4RecConfig
from models.dataset import NotEnoughData, Sessions
from models.devices import math_threads, resolve_device
from models.dropout import Dropout
from models.gru4rec import GRU4Rec, Hidden
from models.losses import bpr_max, cross_entropy
from models.negatives import NegativeSampler, column_weights
from models.optimizer import Adagrad
from models.plan import StepPlan, plan_steps
from models.schedule import Schedule, epoch_schedule

_PLAN_STEPS = 64


class TrainingDiverged(RuntimeError):
    """The loss is no longer a number."""


@dataclass(frozen=True)
class EpochReport:
    """An epoch as it ended; `loss` is the mean over predictions."""

    epoch: int
    n_epochs: int
    loss: float
    events_per_second: float


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
                progress(EpochReport(epoch + 1, config.n_epochs, losses[-1], rates[-1]))
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


class TrainingStep:
    """One update of the weights from one mini-batch."""

    def __init__(
        self, model: GRU4Rec, support: npt.NDArray[np.int64], dropout: Dropout | None = None
    ) -> None:
        self.model = model
        self.config = model.config
        output = model.weights["output.weight"]
        self.device, self.dtype = output.device, output.dtype
        self.optimizer = Adagrad(model.weights, self.config.learning_rate, self.config.momentum)
        self._log_support = torch.from_numpy(np.log(np.maximum(support, 1))).to(output)
        self._dropout = dropout

    def __call__(self, plan: StepPlan, hidden: Hidden) -> tuple[Tensor, Hidden]:
        """Loss of the step (0-d, left on the device) and the hidden states to carry on."""
        config, weights = self.config, self.model.weights
        is_shared = config.embedding == "shared"
        covers_all = plan.n_scored == self.model.n_items  # then rows are 0..n_items-1
        table = weights["output.weight"]
        if not covers_all:
            table = table.index_select(0, plan.rows)
        output = table[: plan.n_scored]
        if is_shared:
            input_rows = table
        else:
            input_rows = weights["input.weight"].index_select(0, plan.input_rows)
        inputs = input_rows.index_select(0, plan.input)

        masks = self._masks(len(inputs))
        caches: list[CellCache] = []
        layer_inputs: list[Tensor] = []
        after: Hidden = []
        value = inputs if masks[0] is None else inputs * masks[0]
        for layer, before in enumerate(hidden):
            layer_inputs.append(value)
            value, cache = self.model.cell(layer, value, before)
            mask = masks[layer + 1]
            value = value if mask is None else value * mask
            caches.append(cache)
            after.append(value)

        bias = weights["output.bias"].index_select(0, plan.rows[: plan.n_scored])
        scores = torch.addmm(bias, value, output.T)  # (B, H) @ (H, n_scored)
        loss, d_scores = self._loss(scores, plan)
        d_output = d_scores.T @ value
        d_bias = d_scores.sum(0)
        d_value = d_scores @ output

        for layer in reversed(range(len(hidden))):
            mask = masks[layer + 1]
            d_value = d_value if mask is None else d_value * mask
            d_value = self._layer_gradient(layer, d_value, layer_inputs[layer], caches[layer])
        d_value = d_value if masks[0] is None else d_value * masks[0]

        if is_shared:
            d_rows = d_output
            if len(plan.rows) > plan.n_scored:
                d_rows = d_output.new_zeros(len(plan.rows), d_output.shape[1])
                d_rows[: plan.n_scored] = d_output
            d_rows.index_add_(0, plan.input, d_value)
        else:
            d_rows = d_output
            d_inputs = d_value.new_zeros(len(plan.input_rows), d_value.shape[1])
            d_inputs.index_add_(0, plan.input, d_value)
            self.optimizer.step_rows("input.weight", plan.input_rows, input_rows, d_inputs)
        if covers_all:
            self.optimizer.step("output.weight", d_rows)
            self.optimizer.step("output.bias", d_bias)
        else:
            self.optimizer.step_rows("output.weight", plan.rows, table, d_rows)
            self.optimizer.step_rows("output.bias", plan.rows[: plan.n_scored], bias, d_bias)
        return loss.sum() / config.batch_size, after

    def _masks(self, n_lanes: int) -> list[Tensor | None]:
        """Dropout of the input, then of each layer's output; None where nothing drops."""
        config = self.config
        if self._dropout is None:
            return [None] * (len(config.layers) + 1)
        outputs = [
            self._dropout.mask((n_lanes, size), config.dropout_hidden) for size in config.layers
        ]
        if config.embedding != "none":
            return [
                self._dropout.mask((n_lanes, config.input_size), config.dropout_embed),
                *outputs,
            ]
        # Without embeddings there is no input to drop: the first layer's output stands in for it.
        first = self._dropout.mask((n_lanes, config.layers[0]), config.dropout_embed)
        if first is not None:
            outputs[0] = first if outputs[0] is None else first * outputs[0]
        return [None, *outputs]

    def _loss(self, scores: Tensor, plan: StepPlan) -> tuple[Tensor, Tensor]:
        config, scale = self.config, 1.0 / self.config.batch_size
        if config.loss == "bpr-max":
            return bpr_max(scores, plan.target, plan.count, config.elu, config.bpreg, scale)
        log_weight = column_weights(
            plan.count, plan.target_count,
            self._log_support.index_select(0, plan.rows[: plan.n_scored]),
            config.sample_alpha, config.logq,
        )  # fmt: skip
        own = self._log_support.index_select(0, plan.target_idx) * -config.logq
        return cross_entropy(scores, plan.target, log_weight, own, scale)

    def _layer_gradient(
        self, layer: int, d_hidden: Tensor, inputs: Tensor, cache: CellCache
    ) -> Tensor:
        """Move the weights of a layer; the gradient with respect to its inputs."""
        weights, name, move = self.model.weights, f"gru.{layer}", self.optimizer.step
        if layer == 0 and self.config.embedding == "none":
            gradient = reset_before_gradient(d_hidden, cache, weights[f"{name}.weight_new"])
            d_inputs = gradient.x_gates
            move(f"{name}.bias", gradient.x_gates.sum(0))
        else:
            gradient = reset_after_gradient(d_hidden, cache)
            d_inputs = gradient.x_gates @ weights[f"{name}.weight_ih"]
            move(f"{name}.weight_ih", gradient.x_gates.T @ inputs)
            move(f"{name}.bias_ih", gradient.x_gates.sum(0))
        for weight, d_weight in gradient.recurrent.items():
            move(f"{name}.{weight}", d_weight)
        return d_inputs


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

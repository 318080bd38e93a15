"""One training step: forward and backward as one straight line, then one pass of Adagrad.

The hidden state of the step before is a constant to the gradient (no back-propagation through
time), so no autograd is needed; the tests hold every weight against it. The loss is summed over
live lanes and divided by the batch size, in the tail of an epoch too.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from models.buffers import Buffers
from models.dropout import Dropout
from models.fused import fused_for
from models.fused_step import FusedStep, blas_product
from models.gru4rec import GRU4Rec, Hidden
from models.kernels import Kernels
from models.layers import TrainingLayer
from models.losses import bpr_max, cross_entropy
from models.negatives import column_weights
from models.optimizer import Adagrad
from models.plan import StepPlan
from models.replicas import ALONE, Replicas


class TrainingStep:
    """One update of the weights from one mini-batch."""

    def __init__(
        self,
        model: GRU4Rec,
        support: npt.NDArray[np.int64],
        dropout: Dropout | None = None,
        *,
        is_fused: bool = True,
        with_kernels: bool = False,
        replicas: Replicas = ALONE,
    ) -> None:
        """`is_fused`: take the compiled passes of `models.fused` where there are any.
        `with_kernels`: take those of `models.kernels`, in any case.

        With `replicas`, plans are of this process's lanes, and so is the loss of a step.
        """
        self.model = model
        self.config = model.config
        output = model.weights["output.weight"]
        self.device, self.dtype = output.device, output.dtype
        self._log_support = torch.tensor(
            np.log(np.maximum(support, 1)), device=self.device, dtype=self.dtype
        )
        self.kernels = Kernels(self.config, self._log_support) if with_kernels else None
        is_fused = is_fused and not with_kernels
        self.fused = fused_for(self.device, self.dtype) if is_fused else None
        self.optimizer = Adagrad(
            model.weights, self.config.learning_rate, self.config.momentum, self.fused, replicas,
            self.kernels,
        )  # fmt: skip
        self._dropout = dropout
        self._buffers = Buffers(self.device, self.dtype)
        self.layers = [
            TrainingLayer(model, layer, self.optimizer, self._buffers)
            for layer in range(len(self.config.layers))
        ]
        # The step in one call moves weights as it goes; replicas sum gradients before.
        product = blas_product(self.dtype) if self.fused and replicas.n == 1 else None
        self.fused_step = (
            FusedStep(model, self.optimizer, self._log_support, self.fused, product)
            if self.fused and product and self.config.embedding != "none"
            else None
        )

    def __call__(self, plan: StepPlan, hidden: Hidden) -> tuple[Tensor, Hidden]:
        """Loss of the step (0-d, left on the device) and the hidden states to carry on."""
        if self.fused_step:
            losses, hidden = self.fused_step([plan], hidden, self._masks)
            return losses[0], hidden
        masks = self._masks(plan.input.shape[0])
        weights, n_scored = self.model.weights, plan.n_scored
        is_shared = self.config.embedding == "shared"
        table = weights["output.weight"]
        if not plan.covers_all:  # else rows are 0..n_items-1
            table = self.gathered("output.weight", plan.rows)
        output = table[:n_scored]
        input_rows = table if is_shared else self.gathered("input.weight", plan.input_rows)
        inputs = input_rows.index_select(0, plan.input)

        value = inputs if masks[0] is None else inputs.mul_(masks[0])
        after: Hidden = []
        for layer, before, mask in zip(self.layers, hidden, masks[1:], strict=True):
            value = layer.forward(value, before, mask)
            after.append(value)

        bias = weights["output.bias"].index_select(0, plan.rows[:n_scored])
        scores = self._buffers("scores", value.shape[0], n_scored)
        torch.mm(value, output.T, out=scores)  # (B, H) @ (H, n_scored)
        loss, d_scores, d_bias = self.loss(scores, bias, plan)
        if plan.weight is not None and not self.kernels:  # which weigh as they go
            loss = loss.mul_(plan.weight)
            d_bias = d_scores.mul_(plan.weight[:, None]).sum(0)
        d_rows = self._buffers("d_rows", *(table if is_shared else output).shape)
        d_value = self.score_gradients(d_scores, value, output, d_rows[:n_scored])

        for layer in reversed(self.layers):
            d_value = layer.backward(d_value)
        d_value = d_value if masks[0] is None else d_value.mul_(masks[0])

        if self.kernels:
            self._move_rows(self.kernels, plan, d_rows[:n_scored], d_bias, d_value)
            return loss.sum() / self.config.batch_size, after
        if is_shared:
            d_rows[n_scored:].zero_()
            d_rows.index_add_(0, plan.input, d_value)
        else:
            d_inputs = self._buffers("d_inputs", *input_rows.shape).zero_()
            d_inputs.index_add_(0, plan.input, d_value)
            self.optimizer.step_rows("input.weight", plan.input_rows, input_rows, d_inputs)
        if plan.covers_all:
            self.optimizer.step("output.weight", d_rows)
            self.optimizer.step("output.bias", d_bias)
        else:
            self.optimizer.step_rows("output.weight", plan.rows, table, d_rows)
            self.optimizer.step_rows("output.bias", plan.rows[:n_scored], bias, d_bias)
        return loss.sum() / self.config.batch_size, after

    def steps(
        self, plans: Sequence[StepPlan], starts: npt.NDArray[np.bool_], hidden: Hidden
    ) -> tuple[Tensor, Hidden]:
        """K steps: their losses (K,) and the states to carry on.

        `starts` (K, B): a lane begins a session there, with a state of zeros.
        """
        keep = torch.from_numpy(~starts).to(self.device, self.dtype).contiguous()
        if self.fused_step:
            return self.fused_step(plans, hidden, self._masks, keep)
        losses = []
        has_start: list[bool] = np.any(starts, axis=1).tolist()
        for plan, keep_lane, resets in zip(plans, keep, has_start, strict=True):
            if resets:
                hidden = [state * keep_lane[:, None] for state in hidden]
            loss, hidden = self(plan, hidden)
            losses.append(loss)
        return torch.stack(losses), hidden

    def _move_rows(
        self, kernels: Kernels, plan: StepPlan, d_output: Tensor, d_bias: Tensor, d_value: Tensor
    ) -> None:
        """Move what items have, inputs' gradients (B, E) added on the way."""
        of, lanes = self.optimizer.moved, (plan.input, d_value)
        is_shared, bias = self.config.embedding == "shared", (of("output.bias"), d_bias)
        kernels.move_rows(
            of("output.weight"), plan.rows, d_output, lanes if is_shared else None, bias
        )
        if not is_shared:
            kernels.move_rows(of("input.weight"), plan.input_rows, lanes=lanes)

    def score_gradients(
        self, d_scores: Tensor, value: Tensor, output: Tensor, d_output: Tensor
    ) -> Tensor:
        """Fills `d_output` (n_scored, H); the gradient with respect to `value`, (B, H)."""
        torch.mm(d_scores.T, value, out=d_output)
        return d_scores @ output

    def gathered(self, name: str, rows: Tensor) -> Tensor:
        """The `rows` (R,) of a table, in memory of their own."""
        table = self.model.weights[name]
        values = self._buffers(name, rows.shape[0], table.shape[1])
        if self.fused:
            self.fused.gather(table, rows, values)
        else:
            torch.index_select(table, 0, rows, out=values)
        return values

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

    def loss(self, scores: Tensor, bias: Tensor, plan: StepPlan) -> tuple[Tensor, Tensor, Tensor]:
        """Loss by lane (B,), d_scores and d_bias, from scores without their bias; uses them up."""
        config, scale = self.config, 1.0 / self.config.batch_size
        if self.kernels:
            return self.kernels.loss(scores, bias, plan)
        if config.loss == "bpr-max":
            options = (plan.target, plan.count, config.elu, config.bpreg, scale)
            if self.fused:
                loss, d_bias = self.fused.bpr_max(scores, bias, *options)
                return loss, scores, d_bias
            loss, d_scores = bpr_max(scores.add_(bias), *options)
            return loss, d_scores, d_scores.sum(0)
        log_weight = column_weights(
            plan.count, plan.target_count,
            self._log_support.index_select(0, plan.rows[: plan.n_scored]),
            config.sample_alpha, config.logq,
        )  # fmt: skip
        own = self._log_support.index_select(0, plan.target_idx) * -config.logq
        if self.fused:
            loss, d_bias = self.fused.cross_entropy(
                scores, bias, plan.target, log_weight.exp_(), own.exp_(), scale
            )
            return loss, scores, d_bias
        loss, d_scores = cross_entropy(scores.add_(bias), plan.target, log_weight, own, scale)
        return loss, d_scores, d_scores.sum(0)

"""One training step: forward and backward as one straight line, then one pass of Adagrad.

The hidden state of the step before is a constant to the gradient (no back-propagation through
time), so no autograd is needed; the tests hold every weight against it. The loss is summed over
live lanes and divided by the batch size, in the tail of an epoch too.
"""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from models.cells import CellCache, reset_after_gradient, reset_before_gradient
from models.dropout import Dropout
from models.gru4rec import GRU4Rec, Hidden
from models.losses import bpr_max, cross_entropy
from models.negatives import column_weights
from models.optimizer import Adagrad
from models.plan import StepPlan


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

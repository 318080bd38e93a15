"""A GRU layer while it learns: forward, and backward with the move of its weights.

B parallel sessions, H units, E columns of the input. Between the two calls a layer keeps what the
gradient needs; the cells themselves and their gradients are in `models.cells`.
"""

import torch
from torch import Tensor

from models.buffers import Buffers
from models.cells import CellCache, reset_after_gradient, reset_before_gradient
from models.fused import Fused
from models.gru4rec import GRU4Rec
from models.optimizer import Adagrad

Factors = dict[str, tuple[Tensor, Tensor | None]]  # of each gradient: see cells.CellGradient


class TrainingLayer:
    """Layer number `layer` of `model`."""

    def __init__(
        self, model: GRU4Rec, layer: int, optimizer: Adagrad, buffers: Buffers,
        fused: Fused | None,
    ) -> None:  # fmt: skip
        self._model, self._layer, self._name = model, layer, f"gru.{layer}"
        self._optimizer, self._buffers = optimizer, buffers
        self._is_original = layer == 0 and model.config.embedding == "none"
        self._fused = None if self._is_original else fused

    def forward(self, inputs: Tensor, before: Tensor, mask: Tensor | None) -> Tensor:
        """State (B, H) after `inputs` (B, E), dropped out by `mask` (B, H)."""
        self._inputs, self._before, self._mask = inputs, before, mask
        if self._fused is None:
            after, self._cache = self._model.cell(self._layer, inputs, before)
            return after if mask is None else after * mask
        n_rows, size = before.shape
        self._x_gates = self._buffers(f"{self._name}.x", n_rows, 3 * size)
        self._h_gates = self._buffers(f"{self._name}.h", n_rows, 3 * size)
        torch.mm(inputs, self._weight("weight_ih").T, out=self._x_gates)
        torch.mm(before, self._weight("weight_hh").T, out=self._h_gates)
        return self._fused.gru_forward(
            self._x_gates, self._h_gates, self._weight("bias_ih"), self._weight("bias_hh"), before,
            mask,
        )  # fmt: skip

    def backward(self, d_after: Tensor) -> Tensor:
        """Move the weights; the gradient with respect to the inputs, (B, E).

        `d_after` (B, H) is used up.
        """
        d_inputs, factors = self._gradient(d_after)
        for name, (left, right) in factors.items():
            if right is None:
                gradient = left.sum(0)
            else:
                gradient = self._buffers("d_weight", left.shape[1], right.shape[1])
                torch.mm(left.T, right, out=gradient)
            self._optimizer.step(f"{self._name}.{name}", gradient)
        return d_inputs

    def _gradient(self, d_after: Tensor) -> tuple[Tensor, Factors]:
        if self._fused is not None:
            d_x, d_h = self._x_gates, self._h_gates
            self._fused.gru_backward(d_after, d_x, d_h, self._before, self._mask)
            recurrent: Factors = {"weight_hh": (d_h, self._before), "bias_hh": (d_h, None)}
        else:
            d_cell = d_after if self._mask is None else d_after.mul_(self._mask)
            if self._is_original:
                return self._original_gradient(d_cell, self._cache)
            d_x, recurrent = reset_after_gradient(d_cell, self._cache)
        own: Factors = {"weight_ih": (d_x, self._inputs), "bias_ih": (d_x, None)}
        return d_x @ self._weight("weight_ih"), {**own, **recurrent}

    def _original_gradient(self, d_cell: Tensor, cache: CellCache) -> tuple[Tensor, Factors]:
        d_x, recurrent = reset_before_gradient(d_cell, cache, self._weight("weight_new"))
        return d_x, {"bias": (d_x, None), **recurrent}

    def _weight(self, name: str) -> Tensor:
        return self._model.weights[f"{self._name}.{name}"]

"""A GRU layer while it learns: forward, and backward with the move of its weights.

B parallel sessions, H units, E columns of the input. Between the two calls a layer keeps what the
gradient needs; the cells themselves and their gradients are in `models.cells`.
"""

import torch
from torch import Tensor

from models.buffers import Buffers
from models.cells import reset_after_gradient, reset_before_gradient
from models.gru4rec import GRU4Rec
from models.optimizer import Adagrad

Factors = dict[str, tuple[Tensor, Tensor | None]]  # of each gradient: see cells.CellGradient


class TrainingLayer:
    """Layer number `layer` of `model`."""

    def __init__(self, model: GRU4Rec, layer: int, optimizer: Adagrad, buffers: Buffers) -> None:
        self._model, self._layer, self._name = model, layer, f"gru.{layer}"
        self._optimizer, self._buffers = optimizer, buffers
        self._is_original = layer == 0 and model.config.embedding == "none"

    def forward(self, inputs: Tensor, before: Tensor, mask: Tensor | None) -> Tensor:
        """State (B, H) after `inputs` (B, E), dropped out by `mask` (B, H)."""
        self._inputs, self._mask = inputs, mask
        after, self._cache = self._model.cell(self._layer, inputs, before)
        return after if mask is None else after * mask

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
        d_cell = d_after if self._mask is None else d_after.mul_(self._mask)
        if self._is_original:
            d_x, recurrent = reset_before_gradient(d_cell, self._cache, self._weight("weight_new"))
            return d_x, {"bias": (d_x, None), **recurrent}
        d_x, recurrent = reset_after_gradient(d_cell, self._cache)
        own: Factors = {"weight_ih": (d_x, self._inputs), "bias_ih": (d_x, None)}
        return d_x @ self._weight("weight_ih"), {**own, **recurrent}

    def _weight(self, name: str) -> Tensor:
        return self._model.weights[f"{self._name}.{name}"]

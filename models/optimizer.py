"""Adagrad with momentum, for whole tensors and for the touched rows of a table.

acc += g², v = momentum v - rate g / sqrt(acc + 1e-6), w += v; acc starts at 0. A row's gradients
are summed before they are squared, and rows that a step does not touch keep weight, acc and v as
they are (Duchi et al. 2011; the heavy ball of Hidasi & Karatzoglou's trainer).
"""

import torch
from torch import Tensor

_EPSILON = 1e-6


class Adagrad:
    """State of the optimiser for `weights`, which it changes in place."""

    def __init__(self, weights: dict[str, Tensor], learning_rate: float, momentum: float) -> None:
        self._weights = weights
        self._rate = learning_rate
        self._momentum = momentum
        self.accumulated = {name: torch.zeros_like(weight) for name, weight in weights.items()}
        self.velocity = (
            {name: torch.zeros_like(weight) for name, weight in weights.items()} if momentum else {}
        )

    def step(self, name: str, gradient: Tensor) -> None:
        """Move a whole tensor. `gradient` is used up."""
        accumulated = self.accumulated[name].addcmul_(gradient, gradient)
        scale = accumulated.add(_EPSILON).rsqrt_()
        if not self._momentum:
            self._weights[name].addcmul_(gradient, scale, value=-self._rate)
            return
        velocity = self.velocity[name].mul_(self._momentum)
        velocity.addcmul_(gradient, scale, value=-self._rate)
        self._weights[name].add_(velocity)

    def step_rows(self, name: str, rows: Tensor, weight: Tensor, gradient: Tensor) -> None:
        """Move the distinct `rows` (R,) of a table by their summed `gradient` (R, ...).

        `weight` are these rows as gathered for the step, (R, ...); it is used up.
        """
        accumulated = self.accumulated[name].index_select(0, rows).addcmul_(gradient, gradient)
        _assign(self.accumulated[name], rows, accumulated)
        scale = accumulated.add_(_EPSILON).rsqrt_()
        if not self._momentum:
            _assign(self._weights[name], rows, weight.addcmul_(gradient, scale, value=-self._rate))
            return
        velocity = self.velocity[name].index_select(0, rows).mul_(self._momentum)
        velocity.addcmul_(gradient, scale, value=-self._rate)
        _assign(self.velocity[name], rows, velocity)
        _assign(self._weights[name], rows, weight.add_(velocity))


def _assign(table: Tensor, rows: Tensor, values: Tensor) -> None:
    """table[rows] = values"""
    if table.device.type == "cpu":  # NumPy copies rows three times as fast as index_copy_
        table.numpy()[rows.numpy()] = values.numpy()
    else:
        table.index_copy_(0, rows, values)

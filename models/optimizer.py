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

    def step_rows(self, name: str, rows: Tensor, gradient: Tensor) -> None:
        """Move the distinct `rows` (R,) of a table by their summed `gradient` (R, ...)."""
        # index_add_ on distinct rows is an assignment, and twice as fast as index_copy_ on a CPU.
        self.accumulated[name].index_add_(0, rows, gradient * gradient)
        scale = self.accumulated[name].index_select(0, rows).add_(_EPSILON).rsqrt_()
        if not self._momentum:
            change = scale.mul_(gradient).mul_(-self._rate)
        else:
            before = self.velocity[name].index_select(0, rows)
            change = (before * self._momentum).addcmul_(gradient, scale, value=-self._rate)
            self.velocity[name].index_add_(0, rows, change - before)
        self._weights[name].index_add_(0, rows, change)

"""Adagrad with momentum, for whole tensors and for the touched rows of a table.

acc += g², v = momentum v - rate g / sqrt(acc + 1e-6), w += v; acc starts at 0. A row's gradients
are summed before they are squared, and rows that a step does not touch keep weight, acc and v as
they are (Duchi et al. 2011; the heavy ball of Hidasi & Karatzoglou's trainer).

On a CPU a step is one pass over memory where there is compiled code for it (`models.fused`), on a
GPU where kernels are asked for (`models.kernels`).
"""

from torch import Tensor

from models.buffers import zeros
from models.fused import Fused
from models.kernels import Kernels, Moved
from models.replicas import ALONE, Replicas

_EPSILON = 1e-6


class Adagrad:
    """State of the optimiser for `weights`, which it changes in place.

    `accumulated` is acc of each weight; `velocity` is v, empty without momentum. Gradients are
    summed over `replicas` before they are squared.
    """

    def __init__(
        self, weights: dict[str, Tensor], learning_rate: float, momentum: float,
        fused: Fused | None = None, replicas: Replicas = ALONE, kernels: Kernels | None = None,
    ) -> None:  # fmt: skip
        self._weights = weights
        self._rate = learning_rate
        self._momentum = momentum
        self.accumulated = _zeros_like(weights)
        self.velocity = _zeros_like(weights) if momentum else {}
        self._fused, self._kernels = fused, kernels
        self._replicas = replicas

    def moved(self, name: str) -> Moved:
        """A tensor of weights and its state, for the kernels that move it."""
        return Moved(self._weights[name], self.accumulated[name], self.velocity.get(name))

    def step(self, name: str, gradient: Tensor) -> None:
        """Move a whole tensor; its `gradient` is used up."""
        gradient = self._replicas.total(gradient)
        moved = self.moved(name)
        if self._kernels:
            self._kernels.move(moved, gradient)
        elif self._fused:
            self._fused.adagrad(*moved, None, gradient, self._rate, self._momentum)
        else:
            self._move(*moved, gradient)

    def step_rows(self, name: str, rows: Tensor, weight: Tensor, gradient: Tensor) -> None:
        """Move the distinct `rows` (R,) of a table by their summed `gradient` (R, ...).

        `weight` are these rows as gathered for the step, (R, ...); both are used up.
        """
        gradient = self._replicas.total(gradient)
        table, accumulated, velocity = self.moved(name)
        if self._fused:
            self._fused.adagrad(
                table, accumulated, velocity, rows, gradient, self._rate, self._momentum
            )
            return
        row_accumulated = accumulated.index_select(0, rows)
        row_velocity = None if velocity is None else velocity.index_select(0, rows)
        self._move(weight, row_accumulated, row_velocity, gradient)
        _assign(accumulated, rows, row_accumulated)
        if velocity is not None and row_velocity is not None:
            _assign(velocity, rows, row_velocity)
        _assign(table, rows, weight)

    def _move(
        self, weight: Tensor, accumulated: Tensor, velocity: Tensor | None, gradient: Tensor
    ) -> None:
        accumulated.addcmul_(gradient, gradient)
        moved = weight if velocity is None else velocity.mul_(self._momentum)
        moved.addcmul_(gradient, accumulated.add(_EPSILON).rsqrt_(), value=-self._rate)
        if velocity is not None:
            weight.add_(velocity)


def _zeros_like(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: zeros(w.shape, w.device, w.dtype) for name, w in weights.items()}


def _assign(table: Tensor, rows: Tensor, values: Tensor) -> None:
    """table[rows] = values"""
    if table.device.type == "cpu":  # NumPy copies rows three times as fast as index_copy_
        table.numpy()[rows.numpy()] = values.numpy()
    else:
        table.index_copy_(0, rows, values)

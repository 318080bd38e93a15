"""Adagrad's step as Triton kernels: for whole tensors, and for the rows that a step touches.

What they compute is in `optimizer.py`. A row's program finds the lanes whose input it was, adds
their gradients in the order of the lanes (so that the same training gives the same bits again,
which atomic additions do not), and moves the row and its bias.

R rows, H columns of the table, B lanes. Pointers are to dense tensors; the learning rate and the
momentum are compiled in, in the precision of the weights.
"""

import triton
import triton.language as tl
from torch import Tensor

from models.kernels import Moved

_UNITS = 1024  # columns of a row that one program takes
_LANES = 1024  # lanes that it looks at at once
_VALUES = 1024  # of a whole tensor


def move(moved: Moved, gradient: Tensor, *, rate: float, momentum: float) -> None:
    """Move a whole tensor by its `gradient`."""
    n = gradient.numel()
    _move[(triton.cdiv(n, _VALUES),)](*moved, gradient, n, rate, momentum, _VALUES, num_warps=4)


def move_rows(
    moved: Moved, rows: Tensor, gradient: Tensor | None, lanes: tuple[Tensor, Tensor] | None,
    bias: tuple[Moved, Tensor] | None, *, rate: float, momentum: float,
) -> None:  # fmt: skip
    """Move the distinct `rows` (R,) of a table, whose gradient is the sum of both that are given.

    `gradient` (U, H) is of the first U rows, `lanes` are each lane's place (B,) among all and its
    gradient (B, H). `bias` are the table's biases and the gradient (U,) of those of the first rows.
    """
    n_rows, n_units = rows.shape[0], moved.weight.shape[1]
    units = min(_UNITS, triton.next_power_of_2(n_units))
    place, of_lanes = lanes or (None, None)
    biases, of_biases = bias or ((None, None, None), None)
    n_lanes = 0 if place is None else place.shape[0]
    _move_rows[(n_rows, triton.cdiv(n_units, units))](
        *moved, *biases, rows, gradient, place, of_lanes, of_biases,
        0 if gradient is None else gradient.shape[0], n_lanes, n_units, rate, momentum, units,
        min(_LANES, triton.next_power_of_2(max(n_lanes, 1))), num_warps=max(1, units // 128),
    )  # fmt: skip


@triton.jit
def _adagrad(
    weight, accumulated, velocity, at, is_value, gradient,
    RATE: tl.constexpr, MOMENTUM: tl.constexpr,
):  # fmt: skip
    """The weights `at` some places, and their state, one step of `gradient` further."""
    total = tl.load(accumulated + at, mask=is_value, other=0.0) + gradient * gradient
    tl.store(accumulated + at, total, mask=is_value)
    change = -RATE * gradient * tl.rsqrt(total + 1e-6)
    if velocity is not None:
        change += MOMENTUM * tl.load(velocity + at, mask=is_value, other=0.0)
        tl.store(velocity + at, change, mask=is_value)
    found = tl.load(weight + at, mask=is_value, other=0.0)
    tl.store(weight + at, found + change, mask=is_value)


@triton.jit
def _move(
    weight, accumulated, velocity, gradient, n,
    RATE: tl.constexpr, MOMENTUM: tl.constexpr, VALUES: tl.constexpr,
):  # fmt: skip
    at = tl.program_id(0).to(tl.int64) * VALUES + tl.arange(0, VALUES)
    is_value = at < n
    found = tl.load(gradient + at, mask=is_value, other=0.0)
    _adagrad(weight, accumulated, velocity, at, is_value, found, RATE, MOMENTUM)


@triton.jit(do_not_specialize=["n_summed", "n_lanes"], do_not_specialize_on_alignment=["rows"])
def _move_rows(
    weight, accumulated, velocity, bias, bias_accumulated, bias_velocity, rows, gradient, place,
    of_lanes, of_biases, n_summed, n_lanes, n_units,
    RATE: tl.constexpr, MOMENTUM: tl.constexpr, UNITS: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    item = tl.load(rows + row)
    units = tl.program_id(1) * UNITS + tl.arange(0, UNITS)
    is_unit = units < n_units
    total = tl.zeros((UNITS,), weight.dtype.element_ty)
    if gradient is not None:
        is_given = is_unit & (row < n_summed)
        total += tl.load(gradient + row * n_units + units, mask=is_given, other=0.0)
    if place is not None:
        for start in range(0, n_lanes, LANES):
            lanes = start + tl.arange(0, LANES)
            is_own = tl.load(place + lanes, mask=lanes < n_lanes, other=-1) == row
            lane = start - 1
            for _ in range(tl.sum(is_own.to(tl.int32))):
                lane = tl.min(tl.where(is_own & (lanes > lane), lanes, n_lanes))
                at = lane.to(tl.int64) * n_units + units
                total += tl.load(of_lanes + at, mask=is_unit, other=0.0)
    _adagrad(
        weight, accumulated, velocity, item * n_units + units, is_unit, total, RATE, MOMENTUM
    )  # fmt: skip
    if bias is not None:
        has_bias = (row < n_summed) & (tl.program_id(1) == 0)
        found = tl.load(of_biases + row, mask=has_bias, other=0.0)
        _adagrad(bias, bias_accumulated, bias_velocity, item, has_bias, found, RATE, MOMENTUM)

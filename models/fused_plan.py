"""Plans of steps and draws of chance as compiled code, equal to those of NumPy to the bit.

Sorting two thousand items a step takes longer than a GPU takes for the step; marking bits does not.
While this code runs, other threads of Python do too. Memory layouts are those of `fused_plan.h`.
"""

from ctypes import Structure, byref, c_double, c_int64, c_void_p

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from models.arrays import Ints
from models.fused import TYPES, compiled
from models.touched import Touched

_OUT = ("rows", "bounds", "n_scored", "count", "target_count", "target", "input", "input_rows",
        "input_bounds")  # fmt: skip


class _Lanes(Structure):
    _fields_ = [
        *((name, c_int64) for name in ("n_steps", "n_lanes", "n_sample", "n_items", "is_shared")),
        *((name, c_void_p) for name in ("inputs", "targets", "negatives")),
    ]


class _Touched(Structure):
    _fields_ = [(name, c_void_p) for name in _OUT]


def touched_rows(
    inputs: npt.NDArray[np.integer],
    targets: npt.NDArray[np.integer],
    negatives: npt.NDArray[np.integer],
    n_items: int,
    *,
    is_shared: bool,
) -> Touched | None:
    """`touched.touched_rows`, or None where there is no compiled code."""
    library = compiled()
    if library is None:
        return None
    read = [np.ascontiguousarray(one, np.int64) for one in (inputs, targets, negatives)]
    n_steps, n_lanes = inputs.shape
    n_sample = negatives.shape[1]
    lanes = _Lanes(
        n_steps, n_lanes, n_sample, n_items, is_shared, *(one.ctypes.data for one in read)
    )
    n_scored, n_inputs = n_steps * (n_lanes + n_sample), n_steps * n_lanes
    sizes = (n_scored + n_inputs * is_shared, n_steps + 1, n_steps, n_scored, n_scored, n_inputs,
             n_inputs, n_inputs * (not is_shared), (n_steps + 1) * (not is_shared))  # fmt: skip
    room = dict(zip(_OUT, (np.empty(size, np.int64) for size in sizes), strict=True))
    library.touched(byref(lanes), byref(_Touched(*(one.ctypes.data for one in room.values()))))
    n_columns = int(room["n_scored"].sum())
    return Touched(
        room["rows"][: room["bounds"][-1]], room["bounds"], room["n_scored"],
        room["count"][:n_columns], room["target_count"][:n_columns],
        room["target"].reshape(n_steps, n_lanes), room["input"].reshape(n_steps, n_lanes),
        None if is_shared else room["input_rows"][: room["input_bounds"][-1]],
        None if is_shared else room["input_bounds"],
    )  # fmt: skip


def drawn(
    uniform: npt.NDArray[np.float64], cumulative: npt.NDArray[np.float64], bucket_start: Ints
) -> Ints | None:
    """The item of each number, see `negatives.NegativeSampler`; None without compiled code."""
    library = compiled()
    if library is None:
        return None
    items = np.empty(uniform.shape, np.int64)
    numbers, starts = np.ascontiguousarray(uniform), np.ascontiguousarray(bucket_start)
    library.drawn(
        c_void_p(numbers.ctypes.data), c_int64(numbers.size), c_void_p(cumulative.ctypes.data),
        c_void_p(starts.ctypes.data), c_int64(starts.size), c_void_p(items.ctypes.data),
    )  # fmt: skip
    return items


def kept(
    bits: npt.NDArray[np.uint16], dropped: int, scale: float, dtype: torch.dtype
) -> Tensor | None:
    """0 where a number is below `dropped`, else `scale`; None without compiled code."""
    library = compiled()
    if library is None or dtype not in TYPES:
        return None
    out = torch.empty(bits.size, dtype=dtype)
    library[f"kept_{TYPES[dtype]}"](
        c_void_p(bits.ctypes.data), c_int64(bits.size), c_int64(dropped), c_double(scale),
        c_void_p(out.data_ptr()),
    )  # fmt: skip
    return out

"""The passes of a training step over memory as compiled code, where this machine has a compiler.

PyTorch makes a pass over memory for each operation; `fused_losses.h` makes one for a whole loss and
its gradient, `fused_rows.h` one for a whole optimiser step, `fused_step.h` makes a step of them and
of the products of `fused_products.h`, and `fused_plan.h` says what steps touch. They are compiled
once per version and kept under the user's cache folder. Without a C++ compiler training takes the
same steps in PyTorch.
"""

import ctypes
import platform
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from warehouse.compiled import compiled_library

_SOURCE = Path(__file__).with_name("fused.cpp")
_SOURCES = (_SOURCE, *sorted(_SOURCE.parent.glob("fused*.h")))
_FLAGS: tuple[str, ...] = (
    "-O3", "-march=native", "-std=c++17", "-fopenmp-simd", "-fno-math-errno",
    "-fno-trapping-math", "-ffp-contract=fast", "-fPIC", "-shared",
)  # fmt: skip
if platform.machine() in ("x86_64", "AMD64"):  # the default there is half of what AVX-512 has
    _FLAGS += ("-mprefer-vector-width=512",)
TYPES = {torch.float32: "float32", torch.float64: "float64"}
_POINTER, _INT, _REAL = ctypes.c_void_p, ctypes.c_int64, ctypes.c_double
_ARGUMENTS: dict[str, list[Any]] = {
    "bpr_max": [_POINTER] * 4 + [_INT] * 2 + [_REAL] * 3 + [_POINTER] * 3,
    "cross_entropy": [_POINTER] * 5 + [_INT] * 2 + [_REAL] + [_POINTER] * 2,
    "gather": [_POINTER] * 2 + [_INT] * 2 + [_POINTER],
    "adagrad": [_POINTER] * 5 + [_INT] * 2 + [_REAL] * 2,
    "steps": [_POINTER] * 3 + [_INT] + [_POINTER] * 3,
    "steps_room": [_POINTER] * 2 + [_INT],
}
_RESULTS = {"steps_room": _INT}


class Fused:
    """The compiled passes, for dense CPU tensors of one `dtype`."""

    def __init__(self, library: ctypes.CDLL, dtype: torch.dtype) -> None:
        self._library, self._type = library, TYPES[dtype]
        self._bpr_max = self.function("bpr_max")
        self._cross_entropy = self.function("cross_entropy")
        self._gather = self.function("gather")
        self._adagrad = self.function("adagrad")

    def function(self, name: str) -> Callable[..., Any]:
        """The function `name` of the library, for this type."""
        found = self._library[f"{name}_{self._type}"]
        found.argtypes, found.restype = _ARGUMENTS[name], _RESULTS.get(name)
        return found

    def bpr_max(
        self, scores: Tensor, bias: Tensor, target: Tensor, count: Tensor, elu: float,
        bpreg: float, scale: float,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """`losses.bpr_max` of `scores + bias`: loss (B,), d_bias (U,); scores become d_scores."""
        n_rows, n_columns = scores.shape
        loss, d_bias = scores.new_empty(n_rows), torch.empty_like(bias)
        work = scores.new_empty(2 * n_columns)
        self._bpr_max(
            scores.data_ptr(), bias.data_ptr(), target.data_ptr(), count.data_ptr(), n_rows,
            n_columns, elu, bpreg, scale, loss.data_ptr(), d_bias.data_ptr(), work.data_ptr(),
        )  # fmt: skip
        return loss, d_bias

    def cross_entropy(
        self, scores: Tensor, bias: Tensor, target: Tensor, weight: Tensor,
        target_weight: Tensor, scale: float,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """`losses.cross_entropy` of `scores + bias`, as `bpr_max` does it; no log of weights."""
        n_rows, n_columns = scores.shape
        loss, d_bias = scores.new_empty(n_rows), torch.empty_like(bias)
        self._cross_entropy(
            scores.data_ptr(), bias.data_ptr(), target.data_ptr(), weight.data_ptr(),
            target_weight.data_ptr(), n_rows, n_columns, scale, loss.data_ptr(),
            d_bias.data_ptr(),
        )  # fmt: skip
        return loss, d_bias

    def gather(self, table: Tensor, rows: Tensor, out: Tensor) -> None:
        """`out` (R, C) becomes the `rows` (R,) of `table`."""
        self._gather(table.data_ptr(), rows.data_ptr(), *out.shape, out.data_ptr())

    def adagrad(
        self, weight: Tensor, accumulated: Tensor, velocity: Tensor | None, rows: Tensor | None,
        gradient: Tensor, rate: float, momentum: float,
    ) -> None:  # fmt: skip
        """A step of `optimizer.Adagrad` for `rows` of a table, or from its first row on."""
        n_rows = gradient.shape[0]
        self._adagrad(
            weight.data_ptr(), accumulated.data_ptr(), _pointer(velocity), _pointer(rows),
            gradient.data_ptr(), n_rows, gradient.numel() // n_rows, rate, momentum,
        )  # fmt: skip


def _pointer(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


def fused_for(device: torch.device, dtype: torch.dtype) -> Fused | None:
    """The compiled passes for tensors of this kind, or None where there are none."""
    if device.type != "cpu" or dtype not in TYPES:
        return None
    library = compiled()
    return None if library is None else Fused(library, dtype)


@lru_cache(maxsize=1)
def compiled() -> ctypes.CDLL | None:
    """The compiled code, or None where there is no compiler; the log says so."""
    return compiled_library(_SOURCES, _FLAGS, "training runs on PyTorch's own passes")

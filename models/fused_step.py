"""A whole training step as one call of compiled code.

PyTorch takes some forty calls for a step, which small networks feel, and writes each gradient to
memory before the optimiser reads it; here it is used while a cache holds it. Its products are those
of the BLAS in PyTorch, found by name in its library.
The memory layouts here are those of `fused_step.h`.
"""

import ctypes
from collections.abc import Callable
from ctypes import POINTER, Structure, byref, c_double, c_int64, c_void_p
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from models.buffers import Buffers
from models.fused import Fused
from models.gru4rec import GRU4Rec, Hidden
from models.optimizer import Adagrad
from models.plan import StepPlan

PHASES = ("forward", "loss", "backward", "optimiser")
_PRODUCTS = {torch.float32: "sgemm_", torch.float64: "dgemm_"}
_GATES = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


class _Parameter(Structure):
    _fields_ = [(name, c_void_p) for name in ("weight", "accumulated", "velocity")]


class _Layer(Structure):
    _fields_ = [("n_inputs", c_int64), ("size", c_int64), *((name, _Parameter) for name in _GATES)]


class _Network(Structure):
    _fields_ = [
        *((name, c_int64) for name in ("n_layers", "is_shared", "is_bpr_max")),
        *((name, c_double) for name in ("learning_rate", "momentum", "elu", "bpreg", "batch_size")),
        ("product", c_void_p), ("layers", POINTER(_Layer)),
        *((name, _Parameter) for name in ("input", "output", "bias")),
        ("as_target", c_void_p), ("as_sample", c_void_p),
    ]  # fmt: skip


class _Plan(Structure):
    _fields_ = [
        *((name, c_int64) for name in ("n_lanes", "n_rows", "n_scored", "n_input_rows")),
        *((name, c_void_p) for name in ("rows", "item_idx", "input_rows", "input", "target",
                                        "target_idx", "count", "target_count", "weight")),
    ]  # fmt: skip


class _States(Structure):
    _fields_ = [(name, c_void_p) for name in ("before", "after", "drop", "drop_input")]


class FusedStep:
    """The step of `models.step`, for a network whose layers all have the cell `reset_after`."""

    def __init__(
        self, model: GRU4Rec, optimizer: Adagrad, log_support: Tensor, fused: Fused,
        product: int,
    ) -> None:  # fmt: skip
        """`product` is the address that `blas_product` gives."""
        config, n_layers = model.config, len(model.config.layers)
        self._call, self._room_of = fused.function("step"), fused.function("step_room")
        self._buffers = Buffers(torch.device("cpu"), log_support.dtype)
        self._seconds: ctypes.Array[c_double] | None = None

        def parameter(name: str) -> _Parameter:
            tensors = (model.weights.get(name), optimizer.accumulated.get(name),
                       optimizer.velocity.get(name))  # fmt: skip
            return _Parameter(
                *(None if tensor is None else tensor.data_ptr() for tensor in tensors)
            )

        sizes = (config.input_size, *config.layers)
        layers = [
            _Layer(sizes[n], sizes[n + 1], *(parameter(f"gru.{n}.{name}") for name in _GATES))
            for n in range(n_layers)
        ]
        # As `negatives.column_weights` has them, for all items at once.
        as_target = torch.exp(log_support * -config.logq)
        as_sample = torch.exp(log_support * (-config.sample_alpha * config.logq))
        self._kept_alive = as_target, as_sample, model, optimizer
        self._network = _Network(
            n_layers, config.embedding == "shared", config.loss == "bpr-max",
            config.learning_rate, config.momentum, config.elu, config.bpreg, config.batch_size,
            product, (_Layer * n_layers)(*layers), parameter("input.weight"),
            parameter("output.weight"), parameter("output.bias"), as_target.data_ptr(),
            as_sample.data_ptr(),
        )  # fmt: skip

    def __call__(
        self, plan: StepPlan, hidden: Hidden, masks: list[Tensor | None]
    ) -> tuple[Tensor, Hidden]:
        """Loss (0-d) and the states to carry on; `masks` as `TrainingStep` draws them."""
        after = [torch.empty_like(state) for state in hidden]
        rows = plan.rows.data_ptr()
        laid_out = _Plan(
            plan.input.shape[0], plan.rows.shape[0], plan.n_scored, plan.input_rows.shape[0],
            None if plan.covers_all else rows, rows, plan.input_rows.data_ptr(),
            plan.input.data_ptr(), plan.target.data_ptr(), plan.target_idx.data_ptr(),
            plan.count.data_ptr(), plan.target_count.data_ptr(), _pointer(plan.weight),
        )  # fmt: skip
        pointers = [_pointers(tensors) for tensors in (hidden, after, masks[1:])]
        states = _States(*map(ctypes.addressof, pointers), _pointer(masks[0]))
        network, laid_out_at = byref(self._network), byref(laid_out)
        room = self._buffers("step", self._room_of(network, laid_out_at))
        loss = room.new_empty(())
        self._call(
            network, laid_out_at, byref(states), room.data_ptr(), loss.data_ptr(), self._seconds
        )
        return loss, after

    def timed(self) -> Callable[[], dict[str, float]]:
        """Have steps take the time from now on: the thread's CPU seconds by phase until now."""
        seconds = self._seconds = (c_double * len(PHASES))()
        return lambda: dict(zip(PHASES, seconds, strict=True))


def _pointer(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


def _pointers(tensors: Any) -> Any:
    return (c_void_p * len(tensors))(*map(_pointer, tensors))


@lru_cache
def blas_product(dtype: torch.dtype) -> int | None:
    """Address of the matrix product of PyTorch's own BLAS; None where it has none by that name."""
    for library in sorted((Path(torch.__file__).parent / "lib").glob("libtorch_cpu.*")):
        try:
            found = ctypes.CDLL(str(library))[_PRODUCTS[dtype]]
        except (OSError, AttributeError):
            continue
        return ctypes.cast(found, c_void_p).value
    return None

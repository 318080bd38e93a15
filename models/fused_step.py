"""Whole training steps as one call of compiled code.

PyTorch takes some forty calls for a step, which small networks feel, and writes each gradient to
memory before the optimiser reads it; here it is used while a cache holds it. Products without rows
of tables are those of the BLAS in PyTorch, found by name in its library. Some steps are laid out at
once: between two of them Python takes several times as long as for many in a row.
The memory layouts here are those of `fused_layout.h`.
"""

import ctypes
from collections.abc import Callable, Sequence
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
_AT_ONCE = 8  # steps; their dropout masks wait in a cache
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
    _fields_ = [(name, c_void_p) for name in ("before", "after", "drop", "drop_input", "keep")]


class FusedStep:
    """The steps of `models.step`, for a network whose layers all have the cell `reset_after`."""

    def __init__(
        self, model: GRU4Rec, optimizer: Adagrad, log_support: Tensor, fused: Fused,
        product: int,
    ) -> None:  # fmt: skip
        """`product` is the address that `blas_product` gives."""
        config, n_layers = model.config, len(model.config.layers)
        self._call, self._room_of = fused.function("steps"), fused.function("steps_room")
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
        self, plans: Sequence[StepPlan], hidden: Hidden,
        masks: Callable[[int], list[Tensor | None]], keep: Tensor | None = None,
    ) -> tuple[Tensor, Hidden]:  # fmt: skip
        """Losses (K,) and the states to carry on; `masks` draws those of a step of so many lanes.

        `keep` (K, B) is zero where a lane begins a session.
        """
        states = hidden if keep is None else [state.clone() for state in hidden]
        # The states before a step and after it change places with each step.
        both = states, [torch.empty_like(state) for state in states]
        places = [_pointers(tensors) for tensors in both]
        losses = torch.empty(len(plans), dtype=both[1][0].dtype)
        if len(plans) > 1 and keep is None:
            raise ValueError("several steps overwrite the states they begin from, pass `keep`")
        for start in range(0, len(plans), _AT_ONCE):
            numbers = range(start, min(start + _AT_ONCE, len(plans)))
            drops = [masks(plans[n].input.shape[0]) for n in numbers]
            drop_places = [_pointers(drop[1:]) for drop in drops]
            laid_out = (_States * len(numbers))(*(
                _States(
                    ctypes.addressof(places[n % 2]), ctypes.addressof(places[1 - n % 2]),
                    ctypes.addressof(drop_place), _pointer(drop[0]),
                    None if keep is None else keep[n].data_ptr(),
                )
                for n, drop, drop_place in zip(numbers, drops, drop_places, strict=True)
            ))  # fmt: skip
            self._run([plans[n] for n in numbers], laid_out, losses[start:])
        return losses, both[len(plans) % 2]

    def _run(self, plans: list[StepPlan], states: Any, losses: Tensor) -> None:
        n, network = len(plans), byref(self._network)
        laid_out = (_Plan * n)(*map(_laid_out, plans))
        room = self._buffers("steps", self._room_of(network, laid_out, n))
        self._call(network, laid_out, states, n, room.data_ptr(), losses.data_ptr(), self._seconds)

    def timed(self) -> Callable[[], dict[str, float]]:
        """Have steps take the time from now on: the thread's CPU seconds by phase until now."""
        seconds = self._seconds = (c_double * len(PHASES))()
        return lambda: dict(zip(PHASES, seconds, strict=True))


def _laid_out(plan: StepPlan) -> _Plan:
    rows = plan.rows.data_ptr()
    return _Plan(
        plan.input.shape[0], plan.rows.shape[0], plan.n_scored, plan.input_rows.shape[0],
        None if plan.covers_all else rows, rows, plan.input_rows.data_ptr(),
        plan.input.data_ptr(), plan.target.data_ptr(), plan.target_idx.data_ptr(),
        plan.count.data_ptr(), plan.target_count.data_ptr(), _pointer(plan.weight),
    )  # fmt: skip


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

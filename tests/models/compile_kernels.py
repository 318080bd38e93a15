"""Compiles what steps of training launch for GPUs of the compute capabilities that are given.

No GPU is needed: steps run on CPU tensors, and a launch compiles its kernel instead. Prints, as
JSON, what of a kernel lies in registers and memory, and how many launches a step takes.
"""

import json
import re
import subprocess
import sys
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import numpy as np
import torch
import triton
from torch.utils._python_dispatch import TorchDispatchMode
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.runtime.jit import JITFunction

from models.gru4rec import GRU4Rec, GRU4RecConfig
from models.plan import plan_steps
from models.step import TrainingStep

_DUMP = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
_TYPES = {torch.float32: "*fp32", torch.int64: "*i64"}
_FORMS = {
    "bpr-max": {"loss": "bpr-max"},
    "cross-entropy": {"loss": "cross-entropy", "logq": 1.0},
}
_N_ITEMS = 5000


class Launches(TorchDispatchMode):
    """Counts operations that a GPU would launch something for."""

    def __init__(self) -> None:
        super().__init__()
        self.n = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.n += not func.is_view and func is not torch.ops.aten.empty.memory_format
        self.n -= func in (torch.ops.aten.new_empty.default, torch.ops.aten.empty_like.default)
        return func(*args, **(kwargs or {}))


def plans(config: GRU4RecConfig) -> list:
    rng = np.random.default_rng(1)
    inputs, targets = rng.integers(0, _N_ITEMS, (2, 1, config.batch_size))
    negatives = rng.integers(0, _N_ITEMS, (1, config.n_sample))
    return plan_steps(
        inputs, targets, negatives, _N_ITEMS, is_shared=True, device=torch.device("cpu"),
        dtype=torch.float32,
    )  # fmt: skip


def step(config: GRU4RecConfig, *, with_kernels: bool) -> None:
    """One step after a first one."""
    model = GRU4Rec.initial(config, _N_ITEMS, np.random.default_rng(1))
    support = np.ones(_N_ITEMS, np.int64)
    run = TrainingStep(model, support, is_fused=False, with_kernels=with_kernels)
    [plan] = plans(config)
    hidden = model.zero_hidden(config.batch_size)
    with torch.no_grad():
        run(plan, hidden)
        launched.clear()
        with Launches() as counted:
            run(plan, hidden)
    launched.append(("", counted.n))


launched: list[Any] = []


def noted(self: JITFunction, *args: Any, grid: Any, warmup: bool, num_warps: int, **_: Any) -> None:
    launched.append((self, (args, num_warps)))


def compiled(kernel: JITFunction, args: tuple, num_warps: int, capability: int) -> dict[str, Any]:
    signature, constants, attributes = {}, {}, {}
    for at, (parameter, value) in enumerate(zip(kernel.params, args, strict=True)):
        if parameter.is_constexpr or value is None:
            signature[parameter.name], constants[(at,)] = "constexpr", value
        elif isinstance(value, torch.Tensor):
            signature[parameter.name] = _TYPES[value.dtype]
            attributes[(at,)] = [["tt.divisibility", 16]]
        else:
            signature[parameter.name] = "i32"
    made = triton.compile(
        ASTSource(kernel, signature, constants, attributes),
        target=GPUTarget("cuda", capability, 32), options={"num_warps": num_warps},
    )  # fmt: skip
    with NamedTemporaryFile(suffix=".cubin") as file:
        file.write(made.asm["cubin"])
        file.flush()
        usage = subprocess.run(
            [_DUMP, "-res-usage", file.name], capture_output=True, text=True, check=True
        ).stdout
    used = {name: int(number) for name, number in re.findall(r"(REG|STACK|LOCAL):(\d+)", usage)}
    return {
        "kernel": kernel.__name__, "capability": capability, "warps": num_warps,
        "registers": used["REG"], "spilled_bytes": used["STACK"] + used["LOCAL"],
    }  # fmt: skip


if __name__ == "__main__":
    JITFunction.run = noted
    report: dict[str, Any] = {"compiled": [], "launches": {}}
    kernels: dict[str, Any] = {}
    for form, options in _FORMS.items():
        config = GRU4RecConfig(batch_size=80, n_sample=2048, **options)
        report["launches"][form] = {}
        for has_kernels in (True, False):
            step(config, with_kernels=has_kernels)
            _, n = launched.pop()
            name = "with kernels" if has_kernels else "without"
            report["launches"][form][name] = n + len(launched)
            kernels |= {kernel.__name__: (kernel, *how) for kernel, how in launched}
    for capability in map(int, sys.argv[1:]):
        report["compiled"] += [compiled(*one, capability) for one in kernels.values()]
    sys.stdout.write(json.dumps(report, indent=1))

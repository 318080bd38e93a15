"""Checkpoints: a training that was killed goes on where its last checkpoint stands.

One safetensors file holds the tensors of the state and, in its header, JSON of the place in the
training and of what is trained: data, hyperparameters, seed, device, code. It replaces the one
before in one step. A checkpoint of anything else is named and not used.
"""

import dataclasses
import json
import logging
import os
import time
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from models.dataset import Sessions
from models.trainer import Trainer

_log = logging.getLogger(__name__)
_HEADER = "training"
# What a change of may change a training from one checkpoint on.
_CODE = (
    "blocks", "cells", "config", "dataset", "dropout", "fused", "fused_plan", "fused_step",
    "graphed", "gru4rec", "kernel_losses", "kernel_rows", "kernels", "layers", "losses",
    "negatives", "optimizer", "plan", "replicas", "schedule", "step", "touched", "trainer",
    "warm_start",
)  # fmt: skip


class Checkpoint:
    """The file `path`, written at most every `seconds`, and by whoever asks for it."""

    def __init__(self, path: Path, seconds: float = 60.0) -> None:
        self.path = path
        self._seconds = seconds

    def start(self, trainer: Trainer, sessions: Sessions, seed: int) -> bool:
        """Bring `trainer` to where the file stands; whether there was one that is of its kind."""
        self._identity = _identity(trainer, sessions, seed)
        self._saved_at = time.monotonic()
        if not self.path.exists():
            return False
        try:
            position = self._restore(trainer)
        except (SafetensorError, OSError, ValueError) as error:
            _log.warning("training starts anew, checkpoint not used: %s: %s", self.path, error)
            return False
        _log.info("training goes on from checkpoint=%s epoch=%s block=%s", self.path,
                  position["epoch"], position["block"])  # fmt: skip
        return True

    def save_when_due(self, trainer: Trainer) -> None:
        """Write if the last one is old enough."""
        if time.monotonic() - self._saved_at >= self._seconds:
            self.save(trainer)

    def save(self, trainer: Trainer) -> None:
        """Write, so that at every moment the file is whole: the one before or this one.

        Training goes on where that fails; the log says so.
        """
        self._saved_at = time.monotonic()
        try:
            self._write(trainer)
        except (OSError, SafetensorError) as error:
            _log.warning("checkpoint not written: %s: %s", self.path, error)

    def _write(self, trainer: Trainer) -> None:
        header = {"identity": self._identity, "position": trainer.position()}
        tensors = {name: tensor.contiguous() for name, tensor in trainer.tensors().items()}
        partial = self.path.with_suffix(".partial")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        save_file(tensors, partial, metadata={_HEADER: json.dumps(header)})
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(partial, self.path)

    def _restore(self, trainer: Trainer) -> dict[str, Any]:
        with safe_open(self.path, framework="pt") as file:
            header = json.loads((file.metadata() or {}).get(_HEADER, "{}"))
            identity, position = header.get("identity", {}), header.get("position", {})
            other = sorted(
                name for name, value in self._identity.items() if identity.get(name) != value
            )
            if other:
                raise ValueError(f"it is of other {', '.join(other)}")
            tensors: dict[str, Tensor] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        trainer.resume(tensors, position)
        return dict(position)


def _identity(trainer: Trainer, sessions: Sessions, seed: int) -> dict[str, str]:
    """What must be equal for the same numbers to come out."""
    data = sha256(f"{sessions.n_items}\n".encode())
    data.update(sessions.offsets.tobytes())
    data.update(sessions.item_idx.tobytes())
    if sessions.weight is not None:
        data.update(sessions.weight.tobytes())
    return {
        "data": data.hexdigest(),
        "hyperparameters": json.dumps(dataclasses.asdict(trainer.config)),
        "seed": str(seed),
        "start": trainer.start.digest() if trainer.start else "cold",
        "device": trainer.step.device.type,
        "threads": str(torch.get_num_threads()),
        "processes": str(trainer.replicas.n),
        "passes": _passes(trainer),
        "code": _code_version(),
    }


def _passes(trainer: Trainer) -> str:
    if trainer.step.kernels:
        return "kernels"
    return "compiled" if trainer.step.fused else "pytorch"


@lru_cache(maxsize=1)
def _code_version() -> str:
    """PyTorch's version and a digest of the modules that training runs through."""
    digest = sha256(torch.__version__.encode())
    for name in _CODE:
        for source in sorted(Path(__file__).parent.glob(f"{name}.*")):
            if source.suffix in (".py", ".cpp", ".h"):
                digest.update(source.read_bytes())
    return digest.hexdigest()

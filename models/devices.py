"""Where tensors are computed: the device and the number of CPU math threads."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


class NoSuchDevice(ValueError):
    """The device asked for is unknown or not in this machine."""


def resolve_device(name: str) -> torch.device:
    """`auto` is CUDA where there is a GPU, else the CPU. Raises NoSuchDevice."""
    if name not in ("auto", "cpu", "cuda"):
        raise NoSuchDevice(f"unknown device, expected one of `auto`, `cpu`, `cuda`: `{name}`")
    has_gpu = torch.cuda.is_available()
    if name == "cuda" and not has_gpu:
        raise NoSuchDevice(
            "no GPU that PyTorch can use, train on `auto` or `cpu` instead of `cuda`"
        )
    return torch.device("cuda" if name == "cuda" or (name == "auto" and has_gpu) else "cpu")


@contextmanager
def math_threads(n_threads: int) -> Iterator[None]:
    """Limit PyTorch's threads within one operation, for this process, while inside."""
    before = torch.get_num_threads()
    torch.set_num_threads(n_threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)

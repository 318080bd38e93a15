"""Where tensors are computed: the device and the number of CPU math threads."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


class NoSuchDevice(ValueError):
    """The device asked for is unknown or not in this machine."""


class DeviceTooSmall(NoSuchDevice):
    """What was to be computed does not fit into the device's memory."""


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
def memory_of(device: torch.device) -> Iterator[None]:
    """Raises DeviceTooSmall, which says what to do, where its memory does not do inside."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise DeviceTooSmall(
            f"training does not fit into the memory of `{device}`: train on `cpu`, give the GPU to "
            "this training alone, or lower `layers`, `batch_size` or `n_sample`: "
            f"{str(error).splitlines()[0]}"
        ) from error


@contextmanager
def math_threads(n_threads: int) -> Iterator[None]:
    """Limit PyTorch's threads within one operation, for this process, while inside."""
    before = torch.get_num_threads()
    torch.set_num_threads(n_threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)

"""Memory of a training: what steps use again and again, and large tables."""

import math
import mmap
from contextlib import suppress

import numpy as np
import torch
from torch import Tensor

_HUGE_PAGE = 1 << 21  # bytes


def zeros(shape: tuple[int, ...], device: torch.device, dtype: torch.dtype) -> Tensor:
    """Zeros; on a CPU in huge pages where they fill one and the system has any to give.

    The rows that a step takes lie far apart: in small pages, each costs a walk through page tables.
    """
    n_bytes = math.prod(shape) * dtype.itemsize
    advice = getattr(mmap, "MADV_HUGEPAGE", None)
    if device.type != "cpu" or n_bytes < _HUGE_PAGE or advice is None:
        return torch.zeros(shape, device=device, dtype=dtype)
    memory = mmap.mmap(-1, n_bytes + _HUGE_PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with suppress(OSError):  # a kernel without huge pages; any page will do then
        memory.madvise(advice)
    values = np.frombuffer(memory, np.uint8)
    start = -values.ctypes.data % _HUGE_PAGE  # they begin at multiples of their size
    return torch.from_numpy(values[start : start + n_bytes]).view(dtype).view(shape)


class Buffers:
    """Uninitialised tensors by name; one of a name is overwritten by the next of that name."""

    def __init__(self, device: torch.device, dtype: torch.dtype) -> None:
        self._device, self._dtype = device, dtype
        self._flat: dict[str, Tensor] = {}

    def __call__(self, name: str, *shape: int) -> Tensor:
        """A contiguous tensor of `shape`; it holds what its memory held before."""
        size = math.prod(shape)
        flat = self._flat.get(name)
        if flat is None or flat.shape[0] < size:
            # A quarter more than asked, so that sizes that vary soon stop to grow it.
            flat = zeros((size + size // 4,), self._device, self._dtype)
            self._flat[name] = flat
        return flat[:size].view(shape)

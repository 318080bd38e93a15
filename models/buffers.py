"""Memory that training steps use again and again, so that none of it is asked of the system."""

import math

import torch
from torch import Tensor


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
            flat = torch.empty(size + size // 4, device=self._device, dtype=self._dtype)
            self._flat[name] = flat
        return flat[:size].view(shape)

"""Dropout masks, seeded."""

import numpy as np
import torch
from torch import Tensor

_STEPS = 1 << 16


class Dropout:
    """Masks that keep a value, scaled by 1 / (1 - p), or set it to zero with probability p."""

    def __init__(self, seed: np.random.SeedSequence, device: torch.device) -> None:
        self._device = device
        self._rng = np.random.Generator(np.random.SFC64(seed))
        self._generator = torch.Generator(device=device)
        self._generator.manual_seed(int(seed.generate_state(1, np.uint64)[0] >> np.uint64(1)))

    def mask(self, shape: tuple[int, int], p: float) -> Tensor | None:
        """A mask of `shape`; None where `p` is 0."""
        if p == 0:
            return None
        scale = 1 / (1 - p)
        if self._device.type != "cpu":
            uniform = torch.rand(shape, generator=self._generator, device=self._device)
            return (uniform >= p) * scale
        # PyTorch's CPU generator takes ten times as long; p is rounded to 1/65536.
        bits = np.frombuffer(self._rng.bytes(2 * shape[0] * shape[1]), np.uint16)
        kept = (bits >= round(p * _STEPS)).astype(np.float32).reshape(shape)
        return torch.from_numpy(kept).mul_(scale)

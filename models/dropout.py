"""Dropout masks, seeded."""

import numpy as np
import torch
from torch import Tensor

from models.fused_plan import kept

_STEPS = 1 << 16
_DRAWN_AT_ONCE = 1 << 16
_PER_WORD = 4  # numbers of 16 bits in what the generator gives at once


class Dropout:
    """Masks that keep a value, scaled by 1 / (1 - p), or set it to zero with probability p."""

    def __init__(
        self,
        seed: np.random.SeedSequence,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self._seed, self._device, self._dtype = seed, device, dtype
        self.generator = torch.Generator(device=device)
        self.begin(0, 0)

    def begin(
        self, epoch: int, block: int, n_lanes: int | None = None, lanes: slice = slice(None)
    ) -> None:
        """Go to a block of steps: its masks follow from the seed and its number alone.

        Where only some `lanes` of `n_lanes` are asked for, they get what they have among all.
        """
        self._n_lanes, self._lanes = n_lanes, lanes
        key = (*self._seed.spawn_key, epoch, block)
        seed = np.random.SeedSequence(self._seed.entropy, spawn_key=key)
        self._bits = np.random.SFC64(seed)
        self.generator.manual_seed(int(seed.generate_state(1, np.uint64)[0] >> np.uint64(1)))
        self._drawn: dict[float, Tensor] = {}

    def mask(self, shape: tuple[int, int], p: float) -> Tensor | None:
        """A mask of `shape`, lanes and columns; None where `p` is 0."""
        if p == 0:
            return None
        if self._n_lanes is None:
            return self._of_all(shape, p)
        return self._of_all((self._n_lanes, shape[1]), p)[self._lanes]

    def _of_all(self, shape: tuple[int, int], p: float) -> Tensor:
        if self._device.type != "cpu":
            uniform = torch.rand(shape, generator=self.generator, device=self._device)
            return (uniform >= p).to(self._dtype).mul_(1 / (1 - p))
        size = shape[0] * shape[1]
        drawn = self._drawn.get(p)
        if drawn is None or drawn.shape[0] < size:
            drawn = self._draw(size * max(1, _DRAWN_AT_ONCE // size), p)
        self._drawn[p] = drawn[size:]
        return drawn[:size].view(shape)

    def _draw(self, size: int, p: float) -> Tensor:
        # PyTorch's CPU generator takes ten times as long, and its way from truth values to numbers
        # five times; p is rounded to 1/65536.
        bits = self._bits.random_raw(-(-size // _PER_WORD)).view(np.uint16)[:size]
        dropped, scale = round(p * _STEPS), 1 / (1 - p)
        mask = kept(bits, dropped, scale, self._dtype)
        if mask is None:
            is_kept = torch.from_numpy((bits >= dropped).astype(np.float32))
            mask = is_kept.to(self._dtype).mul_(scale)
        return mask

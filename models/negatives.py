"""Negative items: drawn by support, shared by all lanes of a step."""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from models.arrays import Floats
from models.fused_plan import drawn

_BUCKETS_PER_ITEM = 2
_WALKED = 8  # items beyond a bucket's first before the rest is searched


class NegativeSampler:
    """Draws items with probability proportional to support**alpha, with replacement.

    `support` is (n_items,): steps of each item in training. Alpha 0 draws uniformly, 1 by
    popularity.
    """

    def __init__(
        self, support: npt.NDArray[np.int64], alpha: float, n_sample: int,
        seed: np.random.SeedSequence,
    ) -> None:  # fmt: skip
        cumulative = np.cumsum(support.astype(np.float64) ** alpha)
        self._cumulative = cumulative / cumulative[-1]
        self._cumulative[-1] = 1.0
        # A power of two, so that a number times it is exact.
        n_buckets = 1 << (_BUCKETS_PER_ITEM * len(support) - 1).bit_length()
        self._bucket_start = np.searchsorted(
            self._cumulative, np.arange(n_buckets) / n_buckets, side="right"
        )
        self._n_sample = n_sample
        self._seed = seed

    def draw(self, epoch: int, block: int, n_steps: int) -> npt.NDArray[np.int64]:
        """Items for the `n_steps` steps of a block, (n_steps, n_sample).

        They follow from the seed, the epoch and the block, not from what was drawn before.
        """
        key = (*self._seed.spawn_key, epoch, block)
        seed = np.random.SeedSequence(self._seed.entropy, spawn_key=key)
        return self._items(np.random.default_rng(seed).random((n_steps, self._n_sample)))

    def _items(self, uniform: Floats) -> npt.NDArray[np.int64]:
        """np.searchsorted(cumulative, uniform, side="right"), several times as fast.

        The place of a number's bucket is at most a few items below its own: a bucket is shorter
        than most items' share (Chen & Asau, 1974).
        """
        items = drawn(uniform, self._cumulative, self._bucket_start)
        return self._walked(uniform) if items is None else items

    def _walked(self, uniform: Floats) -> npt.NDArray[np.int64]:
        """`_items` without compiled code."""
        found = self._bucket_start[(uniform * len(self._bucket_start)).astype(np.int64)]
        low = np.flatnonzero(self._cumulative[found] <= uniform)
        items, numbers = found.reshape(-1), uniform.reshape(-1)
        for _ in range(_WALKED):
            items[low] += 1
            low = low[self._cumulative[items[low]] <= numbers[low]]
        items[low] = np.searchsorted(self._cumulative, numbers[low], side="right")
        return found


def column_weights(
    count: Tensor, target_count: Tensor, log_support: Tensor, alpha: float, logq: float
) -> Tensor:
    """Log weight (U,) of each distinct item in the softmax of a step, corrected for sampling.

    `count` is how often the item occurs among targets and negatives, `target_count` among targets
    alone. Correction: every occurrence loses logq times the logarithm of what it was drawn by,
    support for a target and support**alpha for a sampled negative.
    """
    if not logq:
        return torch.log(count)
    as_target = target_count * torch.exp(log_support * -logq)
    as_sample = (count - target_count) * torch.exp(log_support * (-alpha * logq))
    return torch.log(as_target + as_sample)

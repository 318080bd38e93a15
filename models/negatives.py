"""Negative items: drawn by support, shared by all lanes of a step."""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Floats = npt.NDArray[np.float64]


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
        self._n_sample = n_sample
        self._seed = seed

    def draw(self, epoch: int, block: int, n_steps: int) -> npt.NDArray[np.int64]:
        """Items for the `n_steps` steps of a block, (n_steps, n_sample).

        They follow from the seed, the epoch and the block, not from what was drawn before.
        """
        key = (*self._seed.spawn_key, epoch, block)
        seed = np.random.SeedSequence(self._seed.entropy, spawn_key=key)
        uniform = np.random.default_rng(seed).random((n_steps, self._n_sample))
        # Ascending queries walk the table in order, several times faster than random ones; the
        # order within a step means nothing.
        uniform.sort(axis=1)
        return np.searchsorted(self._cumulative, uniform, side="right")


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

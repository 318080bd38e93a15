"""Baselines that count: how often an item occurs in training, of late, or in this session."""

import numpy as np
import torch
from torch import Tensor

from models.dataset import Sessions
from models.prefixes import NO_ITEM, prefixes

_HALF_LIVES = 10  # in the training data, for popularity of late
_SESSION_STEPS = 100  # latest ones counted


class Popularity:
    """Ranks items by their steps in `train`, the same for everybody."""

    def __init__(self, train: Sessions) -> None:
        self._support = torch.from_numpy(train.support()).to(torch.float64)

    @property
    def n_items(self) -> int:
        return len(self._support)

    def states(self, sessions: Sessions) -> Tensor:
        """Nothing, (n_predictions, 0)."""
        return torch.empty(sessions.n_predictions, 0)

    def scores(self, states: Tensor) -> Tensor:
        """Steps in training, (len(states), n_items)."""
        return self._support.expand(len(states), -1)


class RecentPopularity(Popularity):
    """Popularity in which a step counts half after every `half_life_sessions` later sessions.

    Age in sessions rather than days passes slowly at night and fast in a sale. By default a tenth
    of the training sessions.
    """

    def __init__(self, train: Sessions, half_life_sessions: float | None = None) -> None:
        half_life = half_life_sessions or max(1.0, len(train) / _HALF_LIVES)
        age = len(train) - 1 - np.repeat(np.arange(len(train)), train.lengths)
        weight = 0.5 ** (age / half_life)
        support = np.bincount(train.item_idx, weight, minlength=train.n_items)
        self._support = torch.from_numpy(support)


class SessionPopularity(Popularity):
    """Ranks the session's own items first, by their steps in it; popularity breaks ties."""

    def states(self, sessions: Sessions) -> Tensor:
        """Latest steps, the current one first, -1 where there are none, (n_predictions, steps)."""
        return prefixes(sessions, _SESSION_STEPS)

    def scores(self, states: Tensor) -> Tensor:
        """Steps in the session, plus less than one for popularity."""
        scores = (self._support / (self._support.max() + 1)).repeat(len(states), 1)
        row, column = (states != NO_ITEM).nonzero(as_tuple=True)
        item = states[row, column]
        scores.index_put_((row, item), torch.ones_like(item, dtype=scores.dtype), accumulate=True)
        return scores

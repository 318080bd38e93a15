"""Baseline: the same ranking for everybody, by how often an item occurs in training."""

import torch
from torch import Tensor

from models.dataset import Sessions


class Popularity:
    """Ranks items by their steps in `train`."""

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

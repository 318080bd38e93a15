"""Scores of the few items that a ranker has something to say about.

Votes of neighbours and rules concern some hundred items of a catalogue of tens of thousands; all
others score 0. R predictions, N items, S scores that are not 0 by definition.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from models.arrays import Floats, Ints


@dataclass(frozen=True, eq=False)
class SparseScores:
    """`score` of `item` in `row`, (S,) each, by row and then item, every pair once; else 0.

    `masked` is (R,): the item that is never recommended in a row, -1 for none. It has no score.
    """

    row: Ints
    item: Ints
    score: Floats
    masked: Ints
    n_items: int

    @classmethod
    def of(cls, row: Ints, item: Ints, score: Floats, masked: Ints, n_items: int) -> "SparseScores":
        """Without the scores of masked items."""
        is_kept = item != masked[row]
        return cls(row[is_kept], item[is_kept], score[is_kept], masked, n_items)

    def dense(self) -> Tensor:
        """Score of every item, -inf for masked ones, (R, N), float64."""
        scores = np.zeros((len(self.masked), self.n_items))
        scores[self.row, self.item] = self.score
        rows = np.flatnonzero(self.masked >= 0)
        scores[rows, self.masked[rows]] = -np.inf
        return torch.from_numpy(scores)


class SparseRanker(ABC):
    """A ranker whose scores are 0 but for few items."""

    @abstractmethod
    def sparse_scores(self, states: Tensor) -> SparseScores:
        """Scores of the items that have one, the current item masked."""

    def scores(self, states: Tensor) -> Tensor:
        """Score of every item, 0 without one, -inf for the current item, (R, N), float64."""
        return self.sparse_scores(states).dense()

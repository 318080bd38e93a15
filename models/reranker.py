"""The best items of a fusion in a better order: gradient-boosted trees over a shortlist.

Trees see what a weighted sum cannot: that the shopper has seen an item already, how popular it is
lately, how far it lies behind the first (`models.shortlist`). Items beyond the shortlist follow in
fused order, and the current item and what must not be recommended keep their scores. How the trees
are learned: `models.rerank_learning`.

R predictions, N items, C items of a shortlist.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from models.arrays import Singles
from models.dataset import Sessions
from models.fusion import Fusion
from models.item_statistics import ItemStatistics
from models.prefixes import prefixes
from models.shortlist import N_STEPS, Shortlist
from models.standardised import Standardised
from models.trees import Trees

SHORTLIST = 100


@dataclass(frozen=True, eq=False)
class Order:
    """How a shortlist is ordered: by the trees alone, or by the fused scores and `weight` times
    the trees where `adds`. `trees` look at `features`, by name and in this order.
    """

    trees: Trees
    features: tuple[str, ...]
    adds: bool
    weight: float

    @property
    def spread(self) -> float:
        """The most that scores are lifted by, beside the fused ones."""
        return self.weight * (self.trees.high - self.trees.low)

    def of(self, shortlist: Shortlist) -> Singles:
        """Scores of the shortlist's items, all of them at least its last fused one, (R, C)."""
        n_rows, length = shortlist.items.shape
        rows = shortlist.features(self.features).reshape(-1, len(self.features))
        lifted = np.float32(self.weight) * (self.trees(rows) - np.float32(self.trees.low))
        fused = shortlist.scores
        last = np.where(np.isfinite(fused), fused, np.inf).min(1, keepdims=True)
        return (fused if self.adds else last) + lifted.reshape(n_rows, length)


@dataclass(frozen=True, eq=False)
class Reranker:
    """An order, and the statistics of the items that it is applied to."""

    order: Order
    statistics: ItemStatistics

    def reorder(self, total: Tensor, of_parts: Mapping[str, Standardised], steps: Tensor) -> Tensor:
        """`total`, (R, N), with new scores for the best items of each row, in place.

        `of_parts` add up to it; `steps` are `prefixes` of N_STEPS.
        """
        shortlist = Shortlist.of(total, of_parts, steps, self.statistics, SHORTLIST)
        if not shortlist.items.size:
            return total
        scores = torch.from_numpy(self.order.of(shortlist))
        fused = torch.from_numpy(shortlist.scores)
        scores = torch.where(torch.isfinite(fused), scores, fused)
        return total.scatter_(1, torch.from_numpy(shortlist.items), scores)


@dataclass(frozen=True, eq=False)
class Reranked:
    """Ranks items by a fusion whose best are reordered."""

    fusion: Fusion
    reranker: Reranker

    @property
    def n_items(self) -> int:
        return self.fusion.n_items

    def states(self, sessions: Sessions) -> Tensor:
        """The fusion's states and the latest steps, (n_predictions, columns), float64."""
        steps = prefixes(sessions, N_STEPS).to(torch.float64)
        return torch.cat([self.fusion.states(sessions), steps], 1)

    def scores(self, states: Tensor) -> Tensor:
        """Fused scores, those of the best items lifted in their new order, (R, N), float32."""
        of_parts = self.fusion.of_parts(states[:, :-N_STEPS])
        total = self.fusion.total(of_parts)
        return self.reranker.reorder(total, of_parts, states[:, -N_STEPS:].long())

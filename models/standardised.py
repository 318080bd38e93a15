"""Scores of one part of a fusion, brought to mean 0 and deviation 1 over the catalogue.

The mean and the deviation are those of all items that the part may recommend, whatever a request
filters out later: an item's score does not depend on the filters. Sparse scores are standardised
without being written out: their zeros all become one number. R predictions, N items.
"""

from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from models.arrays import Floats, Ints, Singles
from models.evaluation import Ranker
from models.sparse import SparseRanker, SparseScores

_ROUNDING = 1e-6  # of a mean in single precision, relative


class Standardised(Protocol):
    """Standardised scores of R predictions, times a weight."""

    @property
    def n_rows(self) -> int:
        """How many predictions these are."""

    def times(self, weight: float) -> "Standardised":
        """The same, `weight` times as heavy."""

    def add_to(self, total: Tensor) -> None:
        """Add to `total`, (R, N), in place; what must not be recommended becomes -inf."""

    def at(self, row: int, item_idx: Ints) -> Floats:
        """Those of some items in one row, none of them masked."""

    def at_each(self, item_idx: Ints) -> Singles:
        """Those of some items of every row, none of them masked, (R, C) both."""


@dataclass(frozen=True, eq=False)
class DenseStandardised:
    """Of a part that scores every item; `values` is (R, N), float32."""

    values: Tensor
    weight: float

    @property
    def n_rows(self) -> int:
        return len(self.values)

    def times(self, weight: float) -> "DenseStandardised":
        return replace(self, weight=self.weight * weight)

    def add_to(self, total: Tensor) -> None:
        total.add_(self.values, alpha=self.weight)

    def at(self, row: int, item_idx: Ints) -> Floats:
        return self.weight * self.values[row].numpy()[item_idx].astype(np.float64)

    def at_each(self, item_idx: Ints) -> Singles:
        taken = np.take_along_axis(self.values.numpy(), item_idx, 1)
        return taken * np.float32(self.weight)


@dataclass(frozen=True, eq=False)
class SparseStandardised:
    """Of a part with few scores: what is 0 there is `zero` here, (R,); `values` are the others."""

    scores: SparseScores
    values: Floats
    zero: Floats

    @classmethod
    def of(cls, scores: SparseScores, weight: float) -> "SparseStandardised":
        n_rows = len(scores.masked)
        n_known = np.maximum(1, scores.n_items - (scores.masked >= 0))
        mean = np.bincount(scores.row, scores.score, minlength=n_rows) / n_known
        from_mean = scores.score - mean[scores.row]
        squares = np.bincount(scores.row, np.square(from_mean), minlength=n_rows)
        n_zeros = n_known - np.bincount(scores.row, minlength=n_rows)
        deviation = np.sqrt((squares + n_zeros * np.square(mean)) / n_known)
        scale = weight / np.where(deviation > 0, deviation, 1.0)
        return cls(scores, from_mean * scale[scores.row], -mean * scale)

    @property
    def n_rows(self) -> int:
        return len(self.zero)

    def times(self, weight: float) -> "SparseStandardised":
        return replace(self, values=self.values * weight, zero=self.zero * weight)

    def add_to(self, total: Tensor) -> None:
        found, scores = total.numpy(), self.scores
        found += self.zero.astype(np.float32)[:, None]
        found[scores.row, scores.item] += (self.values - self.zero[scores.row]).astype(np.float32)
        rows = np.flatnonzero(scores.masked >= 0)
        found[rows, scores.masked[rows]] = -np.inf

    def at(self, row: int, item_idx: Ints) -> Floats:
        start, end = np.searchsorted(self.scores.row, (row, row + 1))
        items, values = self.scores.item[start:end], self.values[start:end]
        place = np.searchsorted(items, item_idx)
        known = np.flatnonzero(place < len(items))
        known = known[items[place[known]] == item_idx[known]]
        found = np.full(len(item_idx), self.zero[row])
        found[known] = values[place[known]]
        return found

    def at_each(self, item_idx: Ints) -> Singles:
        scores, n_rows = self.scores, self.n_rows
        found = np.repeat(self.zero.astype(np.float32)[:, None], item_idx.shape[1], 1)
        if len(scores.row):
            keys = scores.row * scores.n_items + scores.item
            wanted = np.arange(n_rows)[:, None] * scores.n_items + item_idx
            place = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
            is_known = keys[place] == wanted
            found[is_known] = self.values[place[is_known]]
        return found


def standardised_scores(part: Ranker, states: Tensor, weight: float = 1.0) -> Standardised:
    """The part's scores after each of `states`, standardised, times `weight`."""
    if isinstance(part, SparseRanker):
        return SparseStandardised.of(part.sparse_scores(states), weight)
    return DenseStandardised(standardised(part.scores(states).cpu()), weight)


def _scaled(scores: Tensor, mean: Tensor) -> Tensor:
    """`standardised` of finite single-precision scores, for which doubles take ten times longer."""
    from_mean = scores - mean
    variance = torch.linalg.vecdot(from_mean, from_mean)[:, None] / scores.shape[1]
    # Where all scores are equal, they differ from their mean by its rounding.
    is_spread = variance > (mean * _ROUNDING).square_()
    return from_mean.mul_(torch.where(is_spread, variance, torch.inf).rsqrt_())


def standardised(scores: Tensor) -> Tensor:
    """Scores less their mean, in standard deviations, row by row: (R, N), float32.

    What is -inf stays so and does not count. A row without differences is 0.
    """
    if not len(scores):
        return scores.float()
    if scores.dtype == torch.float32:
        mean = scores.mean(1, keepdim=True)
        if bool(torch.isfinite(mean).all()):
            return _scaled(scores, mean)
    wide = scores.double()
    variance, mean = torch.var_mean(wide, 1, correction=0, keepdim=True)
    if bool(torch.isfinite(mean).all()):
        scale = torch.where(variance > 0, variance, 1.0).rsqrt_()
        return (wide - mean).mul_(scale).float()
    is_finite = torch.isfinite(wide)
    known = torch.where(is_finite, wide, 0.0)
    n_known = is_finite.sum(1, keepdim=True).clamp_(min=1)
    mean = known.sum(1, keepdim=True) / n_known
    known = torch.where(is_finite, known - mean, 0.0)
    deviation = (known.square().sum(1, keepdim=True) / n_known).sqrt_()
    scaled = known / torch.where(deviation > 0, deviation, 1.0)
    return torch.where(is_finite, scaled, wide).float()

"""Recall and mrr of the next item, ranked over the whole catalogue.

Every step after the first of its session is one prediction; nothing is excluded from the ranking,
ties count against the model, and figures are means over predictions (Hidasi & Czapp,
arXiv:2307.14951, on what goes wrong otherwise). GRU4Rec and the baselines pass through the same
function. P predictions, N items.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from models.dataset import Sessions

CUTOFFS = (1, 5, 10, 20)
_SCORES_AT_ONCE = 2_000_000  # bounds memory: 8 MB of float32


class Ranker(Protocol):
    """A model that can be evaluated."""

    @property
    def n_items(self) -> int:
        """Items it scores."""

    def states(self, sessions: Sessions) -> Tensor:
        """What it knows before each prediction, (n_predictions, ...), session by session."""

    def scores(self, states: Tensor) -> Tensor:
        """Score of every item after each state, (len(states), n_items)."""


@dataclass(frozen=True, eq=False)
class Ranks:
    """Rank of each target, 1 is best, (P,), int64.

    `conservative` counts ties and scores that are no numbers against the model, `standard` counts
    ties for it, `median` lies between. `served` is conservative with the current item taken out of
    the ranking, as when recommending.
    """

    conservative: Tensor
    standard: Tensor
    served: Tensor

    @property
    def median(self) -> Tensor:
        return (self.conservative + self.standard) / 2


def evaluate(ranker: Ranker, sessions: Sessions) -> dict[str, float]:
    """Figures over all predictions of `sessions`.

    `recall@k` and `mrr@k` for k in CUTOFFS; the same with the current item not recommended as
    `served_…`; recall@20 and mrr@20 with ties in the model's favour as `standard_…`; and
    `n_predictions`. Raises ValueError where there is nothing to predict.
    """
    return figures_of(rank_targets(ranker, sessions))


def figures_of(ranks: Ranks) -> dict[str, float]:
    """The figures of `evaluate` from ranks. Raises ValueError where there are none."""
    figures: dict[str, float] = {}
    for k in CUTOFFS:
        figures[f"recall@{k}"] = recall_at_k(ranks.conservative, k)
        figures[f"mrr@{k}"] = mrr_at_k(ranks.conservative, k)
    for k in CUTOFFS:
        figures[f"served_recall@{k}"] = recall_at_k(ranks.served, k)
        figures[f"served_mrr@{k}"] = mrr_at_k(ranks.served, k)
    figures["standard_recall@20"] = recall_at_k(ranks.standard, 20)
    figures["standard_mrr@20"] = mrr_at_k(ranks.standard, 20)
    figures["n_predictions"] = len(ranks.conservative)
    return figures


def recall_at_k(ranks: Tensor, k: int) -> float:
    """Share of targets ranked within the first `k`, in [0, 1].

    `ranks` is (P,), 1-based. Raises ValueError if it is empty or `k` < 1.
    """
    return float((_checked(ranks, k) <= k).double().mean())


def mrr_at_k(ranks: Tensor, k: int) -> float:
    """Mean of 1 / rank, 0 for ranks beyond `k`, in [0, 1].

    `ranks` is (P,), 1-based. Raises ValueError if it is empty or `k` < 1.
    """
    ranks = _checked(ranks, k).double()
    return float(torch.where(ranks <= k, 1 / ranks, 0.0).mean())


@torch.no_grad()
def rank_targets(ranker: Ranker, sessions: Sessions) -> Ranks:
    """Rank of the item that came next, for every prediction of `sessions`."""
    states = ranker.states(sessions)
    current, target = pairs(sessions)
    current, target = current.to(states.device), target.to(states.device)
    n_rows = max(1, _SCORES_AT_ONCE // ranker.n_items)
    parts = [
        ranks_in(ranker.scores(states[rows]), current[rows], target[rows])
        for start in range(0, len(target), n_rows)
        for rows in [slice(start, start + n_rows)]
    ]
    if not parts:
        empty = torch.empty(0, dtype=torch.int64)
        return Ranks(empty, empty, empty)
    conservative, standard, served = (
        torch.cat(column).cpu() for column in zip(*parts, strict=True)
    )
    return Ranks(conservative, standard, served)


def ranks_in(scores: Tensor, current: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Conservative, standard and served rank of each target, as in `Ranks`.

    `scores` is (B, N), the current and the target items (B,).
    """
    of_target = scores.gather(1, target[:, None])
    n_items = scores.shape[1]
    # "Not below" rather than "at least", so that NaN counts against the model.
    conservative = n_items - (scores < of_target).sum(1)
    standard = conservative - (scores == of_target).sum(1).sub_(1).clamp_(min=0)
    is_current_ahead = ~(scores.gather(1, current[:, None]) < of_target).squeeze(1)
    served = torch.where(
        current == target, n_items + 1, conservative - is_current_ahead.to(conservative.dtype)
    )
    return conservative, standard, served


def pairs(sessions: Sessions) -> tuple[Tensor, Tensor]:
    """Current and next item of every prediction, (P,) each, session by session."""
    items = sessions.item_idx.astype(np.int64)
    is_last = np.zeros(len(items), dtype=np.bool_)
    is_last[sessions.offsets[1:][sessions.lengths > 0] - 1] = True
    rows = np.flatnonzero(~is_last)
    return torch.from_numpy(items[rows]), torch.from_numpy(items[rows + 1])


def _checked(ranks: Tensor, k: int) -> Tensor:
    if k < 1:
        raise ValueError(f"a cut-off must be at least 1: {k}")
    if not len(ranks):
        raise ValueError("nothing to evaluate, ranks given: 0")
    return ranks

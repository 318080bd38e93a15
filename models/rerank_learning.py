"""How the trees of a re-ranker are learned, and whether they are worth keeping.

LambdaMART (Burges, MSR-TR-2010-82) as LightGBM grows it, on sessions that the fusion's parts never
saw: of each shortlist the item that came next is relevant. How many trees, and whether they replace
the fused scores or add to them, is chosen by cross-validation in blocks of time; what comes out is
kept only where it is better there than the fusion on recall@20 and mrr@20, both beyond chance.

P predictions, C items of a shortlist, F features.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from models.arrays import Ints, Singles
from models.comparison import MEASURES, Difference, difference
from models.dataset import Sessions
from models.evaluation import mrr_at_k, pairs, ranks_in, recall_at_k
from models.fusion import Fusion
from models.item_statistics import ItemStatistics
from models.prefixes import prefixes
from models.reranker import SHORTLIST, Order
from models.shortlist import FEATURES, N_STEPS, PART, Shortlist
from models.trees import Trees, from_lightgbm

MIN_PREDICTIONS = 300
_N_BLOCKS = 3
_N_TREES = (25, 50, 100, 150)
# Whether the fused scores stay, and the weight of the trees.
_BLENDINGS = ((False, 1.0), (True, 0.5), (True, 1.0), (True, 2.0))
_SCORES_AT_ONCE = 2_000_000
_PARAMETERS = {
    "objective": "lambdarank", "lambdarank_truncation_level": 30, "num_leaves": 7,
    "learning_rate": 0.1, "min_data_in_leaf": 500, "max_bin": 63, "bagging_freq": 1,
    "bagging_fraction": 0.5, "feature_fraction": 0.5, "use_missing": False, "num_threads": 1,
    "deterministic": True, "force_row_wise": True, "verbosity": -1,
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Reranking:
    """What was learned: the `order`, None where there is none, and then `reason` why.

    `differences` to the fusion are those of the cross-validation, on `n_predictions`; `importance`
    is by feature its share of the gain of all splits.
    """

    order: Order | None
    n_predictions: int
    reason: str | None = None
    differences: Difference = field(default_factory=dict)
    importance: dict[str, float] = field(default_factory=dict)

    @property
    def details(self) -> dict[str, Any]:
        """For metrics.json and reports."""
        order = self.order
        return {
            "is_kept": order is not None,
            "reason": self.reason,
            "n_predictions": self.n_predictions,
            "n_trees": len(order.trees) if order else 0,
            "blending": _told(order.adds, order.weight) if order else None,
            "differences": self.differences,
            "importance": self.importance,
        }


@dataclass(frozen=True, eq=False)
class _Examples:
    """Shortlists of predictions: `features` (P, C, F), fused `scores` (P, C), the `place` of the
    item that came next, -1 beyond the shortlist, its fused rank, and weights as a target.
    """

    features: Singles
    scores: Singles
    place: Ints
    rank: Tensor
    weight: npt.NDArray[np.float32] | None

    def ranks(self, scores: Singles) -> Tensor:
        """Rank of each next item when shortlists are ordered by `scores`, (P,)."""
        own = np.take_along_axis(scores, np.maximum(self.place, 0)[:, None], 1)
        ahead = torch.from_numpy((~(scores < own)).sum(1))
        return torch.where(torch.from_numpy(self.place >= 0), ahead, self.rank)


def learn_order(
    fusion: Fusion,
    sessions: Sessions,
    statistics: ItemStatistics,
    *,
    max_predictions: int,
    seed: int = 42,
) -> Reranking:
    """The order that the latest of `sessions` teach, which `fusion` and `statistics` never saw.

    At most `max_predictions` are learned from, the latest. The same input gives the same trees.
    """
    sessions = sessions.latest_predictions(max_predictions)
    n_predictions = sessions.n_predictions
    if n_predictions < MIN_PREDICTIONS:
        return Reranking(
            None, n_predictions,
            f"trees are learned from {MIN_PREDICTIONS} predictions or more, there are: "
            f"{n_predictions}",
        )  # fmt: skip
    names = (*(PART + name for name in fusion.asked), *FEATURES)
    examples = _examples(fusion, sessions, statistics, names)
    n_trees, (adds, weight), ranks = _chosen(examples, sessions, seed)
    differences = difference(ranks, examples.rank, sessions, seed)
    if any(differences[measure]["low"] <= 0 for measure in MEASURES):
        found = ", ".join(
            f"{measure} {one['difference']:+.4f} ({one['low']:+.4f} to {one['high']:+.4f})"
            for measure, one in differences.items()
        )
        return Reranking(
            None, n_predictions,
            f"on {n_predictions} predictions it is not better than the fusion beyond chance: "
            f"{found}",
            differences,
        )  # fmt: skip
    trees, gains = _grown(examples, np.arange(n_predictions), n_trees, seed)
    used = trees.used
    order = Order(trees.renumbered(used), tuple(names[one] for one in used), adds, weight)
    shares = gains / max(gains.sum(), 1e-12)
    importance = {names[one]: round(float(shares[one]), 4) for one in np.argsort(-shares)}
    return Reranking(
        order, n_predictions, None, differences,
        {name: share for name, share in importance.items() if name in order.features},
    )  # fmt: skip


@torch.inference_mode()
def _examples(
    fusion: Fusion, sessions: Sessions, statistics: ItemStatistics, names: Sequence[str]
) -> _Examples:
    states, steps = fusion.states(sessions), prefixes(sessions, N_STEPS)
    current, target = pairs(sessions)
    n_rows = max(1, _SCORES_AT_ONCE // fusion.n_items)
    features, scores, places, ranks = [], [], [], []
    for start in range(0, len(target), n_rows):
        rows = slice(start, start + n_rows)
        of_parts = fusion.of_parts(states[rows])
        total = fusion.total(of_parts)
        ranks.append(ranks_in(total, current[rows], target[rows])[2])
        shortlist = Shortlist.of(total, of_parts, steps[rows], statistics, SHORTLIST)
        features.append(shortlist.features(names))
        scores.append(shortlist.scores)
        is_next = shortlist.items == target[rows].numpy()[:, None]
        places.append(np.where(is_next.any(1), is_next.argmax(1), -1))
    weight = None
    if sessions.weight is not None:
        weight = sessions.weight[sessions.target_rows()]
    return _Examples(
        np.concatenate(features), np.concatenate(scores), np.concatenate(places), torch.cat(ranks),
        weight,
    )  # fmt: skip


def _chosen(
    examples: _Examples, sessions: Sessions, seed: int
) -> tuple[int, tuple[bool, float], Tensor]:
    """Trees, blending and ranks that do best where each block is ordered by trees of the others.

    Best is the greatest product of recall@20 and mrr@20, the first among equals.
    """
    block = np.arange(len(sessions)) * _N_BLOCKS // len(sessions)
    of_prediction = np.repeat(block, np.maximum(sessions.lengths - 1, 0))
    lifts = {n: np.empty_like(examples.scores) for n in _N_TREES}
    for one in range(_N_BLOCKS):
        here, others = np.flatnonzero(of_prediction == one), np.flatnonzero(of_prediction != one)
        trees, _ = _grown(examples, others, max(_N_TREES), seed)
        rows = examples.features[here].reshape(-1, examples.features.shape[2])
        for n, lift in lifts.items():
            lift[here] = trees.first(n)(rows).reshape(len(here), -1)
    found = []
    for n, (adds, weight) in product(_N_TREES, _BLENDINGS):
        own = examples.scores if adds else np.float32(0.0)
        found.append((n, (adds, weight), examples.ranks(own + np.float32(weight) * lifts[n])))
    return max(found, key=lambda one: recall_at_k(one[2], 20) * mrr_at_k(one[2], 20))


def _grown(
    examples: _Examples, rows: Ints, n_trees: int, seed: int
) -> tuple[Trees, npt.NDArray[np.float64]]:
    """Trees from some predictions, and the gain of each feature's splits, (F,)."""
    import lightgbm  # after torch, whose OpenMP it then shares; nothing but learning needs it

    rows = rows[examples.place[rows] >= 0]
    length, n_features = examples.features.shape[1:]
    if not len(rows):
        return Trees.empty(n_trees), np.zeros(n_features)
    relevant = np.arange(length) == examples.place[rows][:, None]
    weight = None if examples.weight is None else np.repeat(examples.weight[rows], length)
    data = lightgbm.Dataset(
        examples.features[rows].reshape(-1, n_features), relevant.ravel().astype(np.int8),
        group=np.full(len(rows), length), weight=weight, params=_PARAMETERS,
    )  # fmt: skip
    booster = lightgbm.train({**_PARAMETERS, "seed": seed}, data, n_trees)
    gains = booster.feature_importance("gain").astype(np.float64)
    return from_lightgbm(booster.dump_model(), n_trees), gains


def _told(adds: bool, weight: float) -> str:
    if not adds:
        return "in place of the fused scores"
    return f"fused scores and {weight:g} times the trees"

"""How what serves is made: GRU4Rec and its companions, weighted, and their best items re-ranked.

Weights and re-ranker are learned on the latest sessions of the training data, with parts that never
saw them, and kept when the parts are trained again on all of it. What is judged later has no part
in this. The same data and seed give the same weights and trees.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from models.dataset import NotEnoughData, Sessions, Steps
from models.fusion import Fusion, Parts, Weights, choose_weights
from models.fusion_file import GRU4REC
from models.gru4rec import GRU4Rec
from models.item_statistics import ItemStatistics
from models.item_tables import Item, described
from models.rerank_learning import Reranking, learn_order
from models.reranker import Reranked, Reranker
from models.rivals import RIVALS
from models.split import Split, temporal_split

_log = logging.getLogger(__name__)

VMIS, RULES = "vmis-knn", "sequential-rules"
COMPANIONS = (VMIS, RULES)
VALIDATION_SHARE = 0.1  # of the training sessions, the latest
# Between the weights chosen on three real shops (DECISIONS.md), where there are too few sessions.
DEFAULT_WEIGHTS: Weights = {GRU4REC: 0.7, VMIS: 0.2, RULES: 0.1}


@dataclass(frozen=True)
class Weighting:
    """The weights, what re-ranks, and the sessions that they were learned from.

    `is_chosen` is false where there were too few predictions and the weights are the default.
    `until` is the last step that had a say. `reranking` is None where none was wanted.
    """

    weights: Weights
    is_chosen: bool
    n_predictions: int
    until: datetime | None
    reranking: Reranking | None = None


@dataclass(frozen=True)
class Reranks:
    """That a re-ranker is wanted, from at most `max_predictions`, the latest; `items` are what the
    shop says of its items, by `item_id`.
    """

    items: Mapping[str, Item]
    max_predictions: int
    seed: int = 42


def parts_of(model: GRU4Rec, sessions: Sessions) -> Parts:
    """GRU4Rec and its companions, all made from `sessions`."""
    return {GRU4REC: model, **{name: RIVALS[name](sessions) for name in COMPANIONS}}


def ranker_of(
    model: GRU4Rec, sessions: Sessions, weighting: Weighting, items: Sequence[Item]
) -> Fusion | Reranked:
    """What serves by this weighting, made from `sessions`; `items` are by `item_idx`."""
    fusion = Fusion(parts_of(model, sessions), weighting.weights)
    order = weighting.reranking.order if weighting.reranking else None
    if order is None:
        return fusion
    return Reranked(fusion, Reranker(order, ItemStatistics.of(sessions, items)))


def weighted(
    steps: Steps,
    learn: Callable[[Split], GRU4Rec],
    *,
    min_item_support: int = 5,
    min_session_steps: int = 2,
    min_predictions: int = 1,
    reranks: Reranks | None = None,
) -> Weighting:
    """The weights by the latest sessions of `steps`, with parts trained on those before.

    And what re-ranks the fusion, where wanted. `learn` gives the network that the training part of
    a split teaches.
    """
    try:
        split = temporal_split(
            steps, VALIDATION_SHARE, min_item_support=min_item_support,
            min_session_steps=min_session_steps,
        )  # fmt: skip
    except NotEnoughData as error:
        return _by_default(0, str(error), reranks)
    n_predictions = split.holdout.n_predictions
    if n_predictions < min_predictions or not split.train.n_predictions:
        reason = f"there are too few predictions to learn from: {n_predictions}"
        return _by_default(n_predictions, reason, reranks)
    parts = parts_of(learn(split), split.train)
    weights = choose_weights(parts, split.holdout)
    reranking = _reranking(Fusion(parts, weights), split, reranks) if reranks else None
    return Weighting(weights, True, n_predictions, split.holdout_until, reranking)


def _by_default(n_predictions: int, reason: str, reranks: Reranks | None) -> Weighting:
    reranking = Reranking(None, n_predictions, reason) if reranks else None
    return Weighting(DEFAULT_WEIGHTS, False, n_predictions, None, reranking)


def _reranking(fusion: Fusion, split: Split, reranks: Reranks) -> Reranking:
    items = described(split.catalogue.item_ids, reranks.items)
    reranking = learn_order(
        fusion, split.holdout, ItemStatistics.of(split.train, items),
        max_predictions=reranks.max_predictions, seed=reranks.seed,
    )  # fmt: skip
    if reranking.order is None:
        _log.info("no re-ranker: %s", reranking.reason)
    else:
        _log.info(
            "learned re-ranker trees=%d predictions=%d", len(reranking.order.trees),
            reranking.n_predictions,
        )  # fmt: skip
    return reranking

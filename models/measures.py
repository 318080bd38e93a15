"""Measures of ranked lists against what came next, prediction by prediction.

All are means over predictions of the gains computed here, so that any part of the predictions can
be averaged and resampled alike. Ranks are 1-based, ties counted against the model.

Next item (one relevant item, as in Hidasi et al., arXiv:1511.06939):
    recall@k   1 where the item is among the first k (equals the hit rate)
    mrr@k      1 / rank there, 0 beyond k
    ndcg@k     1 / log2(1 + rank) there; the ideal is 1 (Järvelin & Kekäläinen 2002)

Rest of the session (every distinct item that comes later is relevant, as in Ludewig & Jannach,
arXiv:1803.09587), of a prediction with R relevant items:
    recall@k     relevant ones among the first k, divided by R
    precision@k  the same divided by k
    mrr@k        1 / rank of the first relevant one, 0 beyond k
    ndcg@k       sum of 1 / log2(1 + rank) over them, divided by that of the ideal list, which
                 begins with min(R, k) relevant items
"""

import numpy as np
from torch import Tensor

from models.arrays import Floats
from models.predictions import Predictions

CUTOFFS = (1, 5, 10, 20)
NEXT_MEASURES = ("recall", "mrr", "ndcg")
REST_MEASURES = ("recall", "precision", "mrr", "ndcg")


def next_gains(ranks: Tensor) -> dict[str, Floats]:
    """Gain of each prediction by measure and cut-off; `ranks` is (P,)."""
    rank = ranks.numpy().astype(np.float64)
    gains = {"recall": np.ones_like(rank), "mrr": 1 / rank, "ndcg": 1 / np.log2(1 + rank)}
    return {
        f"{measure}@{k}": np.where(rank <= k, gains[measure], 0.0)
        for measure in NEXT_MEASURES
        for k in CUTOFFS
    }


def rest_gains(predictions: Predictions) -> dict[str, Floats]:
    """Gain of each prediction by measure and cut-off, all later items of the session relevant.

    Cut-offs beyond the length of the lists are left out.
    """
    n_rows, row = len(predictions), predictions.later_row
    rank = predictions.later_rank.astype(np.float64)
    n_relevant = np.bincount(row, minlength=n_rows)
    gains: dict[str, Floats] = {}
    for k in CUTOFFS:
        if k > predictions.lists.shape[1]:
            continue
        is_hit = rank <= k
        n_hits = np.bincount(row, is_hit, n_rows)
        first = np.full(n_rows, np.inf)
        np.minimum.at(first, row[is_hit], rank[is_hit])
        discounted = np.bincount(row, np.where(is_hit, 1 / np.log2(1 + rank), 0.0), n_rows)
        ideal = np.concatenate([[0.0], np.cumsum(1 / np.log2(1 + np.arange(1, k + 1)))])
        best = ideal[np.minimum(n_relevant, k)]
        gains[f"recall@{k}"] = n_hits / np.maximum(n_relevant, 1)
        gains[f"precision@{k}"] = n_hits / k
        gains[f"mrr@{k}"] = 1 / first
        gains[f"ndcg@{k}"] = np.divide(discounted, best, out=np.zeros(n_rows), where=best > 0)
    return gains

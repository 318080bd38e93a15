"""How far a figure may be off by chance: percentile bootstrap over sessions (Efron 1979).

Sessions are drawn with replacement, not predictions: those of one session hang together, and
drawing them alone would make the interval too narrow.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from torch import Tensor

from models.dataset import Sessions

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """Bounds that hold the figure in 95 of 100 draws of the sessions."""

    low: float
    high: float


def figure_per_prediction(ranks: Tensor, measure: str) -> Floats:
    """What each prediction adds to `measure`, such as `recall@20` or `mrr@20`, (P,).

    `ranks` is (P,), 1-based. Raises ValueError for other measures.
    """
    name, _, cutoff = measure.partition("@")
    if name not in ("recall", "mrr") or not cutoff.isdigit() or int(cutoff) < 1:
        raise ValueError(f"a measure is `recall@k` or `mrr@k`, not: `{measure}`")
    rank = ranks.numpy().astype(np.float64)
    gain = np.ones_like(rank) if name == "recall" else 1.0 / rank
    return np.where(rank <= int(cutoff), gain, 0.0)


def interval(
    per_prediction: Floats, sessions: Sessions, *, n_resamples: int = 1000, seed: int = 42
) -> Interval:
    """95 % interval of the mean of `per_prediction`, which is (P,), session by session.

    The difference of two models' figures may be given, for an interval of the difference. Raises
    ValueError where there is nothing to resample.
    """
    n_predictions = np.maximum(sessions.lengths - 1, 0)
    has_any = n_predictions > 0
    if not has_any.any() or len(per_prediction) != n_predictions.sum():
        raise ValueError(
            f"a bootstrap needs a figure for each of the {n_predictions.sum()} predictions of the "
            f"sessions, given: {len(per_prediction)}"
        )
    counts = n_predictions[has_any]
    sums = np.add.reduceat(per_prediction, np.cumsum(counts) - counts)
    rng = np.random.default_rng(seed)
    means = np.empty(n_resamples)
    for resample in range(n_resamples):
        drawn = rng.integers(0, len(sums), len(sums))
        means[resample] = sums[drawn].sum() / counts[drawn].sum()
    low, high = np.quantile(means, (0.025, 0.975))
    return Interval(float(low), float(high))


def intervals(
    ranks: Tensor, sessions: Sessions, measures: Sequence[str], *, seed: int = 42
) -> dict[str, Interval]:
    """Interval of each measure of `ranks`, (P,)."""
    return {
        measure: interval(figure_per_prediction(ranks, measure), sessions, seed=seed)
        for measure in measures
    }

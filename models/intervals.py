"""How far a figure may be off by chance: percentile bootstrap over sessions (Efron 1979).

Sessions are drawn with replacement, not predictions: those of one session hang together, and
drawing them alone would make the interval too narrow.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from models.arrays import Floats
from models.dataset import Sessions

N_RESAMPLES = 1000
_SUMS_AT_ONCE = 8_000_000  # bounds memory: 64 MB


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


class Resampling:
    """The same draws of sessions for every figure, so that differences can be told too."""

    def __init__(
        self, sessions: Sessions, *, n_resamples: int = N_RESAMPLES, seed: int = 42
    ) -> None:
        n_predictions = np.maximum(sessions.lengths - 1, 0)
        self._counts = n_predictions[n_predictions > 0]
        self._first = np.cumsum(self._counts) - self._counts
        self._n_resamples, self._seed = n_resamples, seed

    @property
    def n_predictions(self) -> int:
        return int(self._counts.sum())

    def means(self, columns: Sequence[Floats], weights: Sequence[Floats | None]) -> Floats:
        """Weighted mean of each column in each draw, (n_resamples, n_columns).

        A column is (P,), session by session, its weights too; without weights all are 1. NaN where
        a draw has no weight at all. Raises ValueError on columns of another length, or without any
        prediction.
        """
        at_once = max(1, _SUMS_AT_ONCE // (2 * max(1, len(self._counts))))
        parts = [
            self._means(columns[start : start + at_once], weights[start : start + at_once])
            for start in range(0, len(columns), at_once)
        ]
        return np.concatenate(parts, axis=1) if parts else np.empty((self._n_resamples, 0))

    def _means(self, columns: Sequence[Floats], weights: Sequence[Floats | None]) -> Floats:
        above = np.stack(
            [
                self._sums(column if weight is None else column * weight)
                for column, weight in zip(columns, weights, strict=True)
            ],
            1,
        )
        # Weights that several columns share are added up once.
        distinct = {id(weight): weight for weight in weights}
        place = {key: number for number, key in enumerate(distinct)}
        own = [place[id(weight)] for weight in weights]
        below = np.stack([self._sums(weight) for weight in distinct.values()], 1)
        rng = np.random.default_rng(self._seed)
        n_sessions = len(self._counts)
        means = np.empty((self._n_resamples, len(columns)))
        for draw in range(self._n_resamples):
            times = np.bincount(rng.integers(0, n_sessions, n_sessions), minlength=n_sessions)
            with np.errstate(invalid="ignore"):
                means[draw] = (times @ above) / (times @ below)[own]
        return means

    def _sums(self, column: Floats | None) -> Floats:
        """Sum over the predictions of each session; of ones for None."""
        if column is None:
            return self._counts.astype(np.float64)
        if not len(column) or len(column) != self.n_predictions:
            raise ValueError(
                f"a bootstrap needs a figure for each of the {self.n_predictions} predictions of "
                f"the sessions, given: {len(column)}"
            )
        return np.add.reduceat(column.astype(np.float64), self._first)


def bounds(means: Floats) -> Interval:
    """95 % interval from the means of the draws, (n_resamples,); those without any do not count."""
    known = means[~np.isnan(means)]
    if not len(known):
        return Interval(0.0, 0.0)
    low, high = np.quantile(known, (0.025, 0.975))
    return Interval(float(low), float(high))


def interval(
    per_prediction: Floats, sessions: Sessions, *, n_resamples: int = N_RESAMPLES, seed: int = 42
) -> Interval:
    """95 % interval of the mean of `per_prediction`, which is (P,), session by session.

    The difference of two models' figures may be given, for an interval of the difference. Raises
    ValueError where there is nothing to resample.
    """
    resampling = Resampling(sessions, n_resamples=n_resamples, seed=seed)
    return bounds(resampling.means([per_prediction], [None])[:, 0])


def intervals(
    ranks: Tensor, sessions: Sessions, measures: Sequence[str], *, seed: int = 42
) -> dict[str, Interval]:
    """Interval of each measure of `ranks`, (P,)."""
    resampling = Resampling(sessions, seed=seed)
    columns = [figure_per_prediction(ranks, measure) for measure in measures]
    means = resampling.means(columns, [None] * len(columns))
    return {measure: bounds(means[:, place]) for place, measure in enumerate(measures)}

"""Which rows of the tables some training steps touch, as flat arrays over all of the steps.

K steps, B live lanes, S negatives. Input and output have one table (`is_shared`) or one each.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models.arrays import Ints


@dataclass(frozen=True, eq=False)
class Touched:
    """Step k has `rows[bounds[k]:bounds[k + 1]]`: its scored items, ascending, of which there are
    `n_scored[k]`, then, where tables are shared, the other inputs, ascending.
    """

    rows: Ints  # item_idx
    bounds: Ints  # (K + 1,)
    n_scored: Ints  # (K,)
    count: Ints  # of each scored item: occurrences among targets and negatives
    target_count: Ints  # among targets
    target: Ints  # (K, B) place of each target among its step's rows
    input: Ints  # (K, B) place of each input among its step's rows, or input rows
    input_rows: Ints | None  # of separate tables: distinct inputs, ascending, step after step
    input_bounds: Ints | None  # (K + 1,)


def touched_rows(
    inputs: npt.NDArray[np.integer],
    targets: npt.NDArray[np.integer],
    negatives: npt.NDArray[np.integer],
    n_items: int,
    *,
    is_shared: bool,
) -> Touched:
    """What steps of `inputs` and `targets` (K, B) and `negatives` (K, S) touch."""
    n_steps, n_lanes = inputs.shape
    step = np.arange(n_steps, dtype=np.int64)
    target_keys = (targets + step[:, None] * n_items).ravel()
    input_keys = (inputs + step[:, None] * n_items).ravel()
    scored_items, n_scored, counts = _distinct_by_row(np.concatenate([targets, negatives], axis=1))
    scored_step = np.repeat(step, n_scored)
    scored = scored_items + scored_step * n_items
    scored_bounds = np.concatenate([[0], np.cumsum(n_scored)])
    target_at = np.searchsorted(scored, target_keys)
    lane_step = np.repeat(step, n_lanes)
    if is_shared:
        at = np.searchsorted(scored, input_keys)
        is_scored = scored[np.minimum(at, len(scored) - 1)] == input_keys
        extra = np.unique(input_keys[~is_scored])
    else:
        extra = np.unique(input_keys)
    extra_bounds = np.searchsorted(extra, np.arange(n_steps + 1) * n_items)
    extra_at = np.searchsorted(extra, input_keys) - extra_bounds[lane_step]
    rows, bounds = scored_items, scored_bounds
    if is_shared:
        bounds = scored_bounds + extra_bounds
        rows = np.empty(bounds[-1], np.int64)
        rows[np.arange(len(scored)) + extra_bounds[scored_step]] = scored_items
        rows[np.arange(len(extra)) + scored_bounds[1:][extra // n_items]] = extra % n_items
        own = at - scored_bounds[lane_step]
        extra_at = np.where(is_scored, own, n_scored[lane_step] + extra_at)
    return Touched(
        rows, bounds, n_scored, counts, np.bincount(target_at, minlength=len(scored)),
        target_at.reshape(n_steps, n_lanes) - scored_bounds[:-1, None],
        extra_at.reshape(n_steps, n_lanes),
        None if is_shared else extra % n_items, None if is_shared else extra_bounds,
    )  # fmt: skip


def _distinct_by_row(items: npt.NDArray[np.integer]) -> tuple[Ints, Ints, Ints]:
    """Distinct values of each row, ascending, row by row; how many a row has; their counts."""
    ordered = np.sort(items.astype(np.int32), axis=1)
    is_first = np.ones(ordered.shape, np.bool_)
    np.not_equal(ordered[:, 1:], ordered[:, :-1], out=is_first[:, 1:])
    first = np.flatnonzero(is_first)
    counts = np.diff(np.append(first, ordered.size))
    return ordered.ravel()[first].astype(np.int64), is_first.sum(axis=1), counts

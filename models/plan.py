"""What some training steps touch, worked out in bulk before they run.

Inputs, targets and negatives are known ahead, so the distinct items of each step (rows of the
tables) and the places of inputs and targets among them are too. The step itself then needs no
sparse tensors: it gathers each row once, and gets each row's whole gradient from one product.

K steps, B live lanes, S negatives.
"""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class StepPlan:
    """One step. Its rows are the scored items, ascending, then (shared tables) the other inputs."""

    rows: Tensor  # (n_rows,) item_idx
    n_scored: int  # the first so many rows are targets or negatives
    count: Tensor  # (n_scored,) occurrences among targets and negatives
    target_count: Tensor  # (n_scored,) occurrences among targets
    target: Tensor  # (B,) place of each target in rows
    target_idx: Tensor  # (B,) item_idx
    input_rows: Tensor  # (n_input_rows,) item_idx of the distinct inputs; shared: same as rows
    input: Tensor  # (B,) place of each input in input_rows
    covers_all: bool  # every item is scored: rows are 0..n_items-1
    weight: Tensor | None = None  # (B,) of each target's loss; None: all count alike

    def of(self, lanes: slice) -> "StepPlan":
        """The same step for some of its lanes: what it scores and which rows it moves stay."""
        return replace(
            self, target=self.target[lanes], target_idx=self.target_idx[lanes],
            input=self.input[lanes], weight=None if self.weight is None else self.weight[lanes],
        )  # fmt: skip


def plan_steps(
    inputs: npt.NDArray[np.integer],
    targets: npt.NDArray[np.integer],
    negatives: npt.NDArray[np.integer],
    n_items: int,
    *,
    is_shared: bool,
    device: torch.device,
    dtype: torch.dtype,
    weights: npt.NDArray[np.float32] | None = None,
) -> list[StepPlan]:
    """Plans of K steps that all have B live lanes: inputs, targets and, where they count
    differently, their weights (K, B), negatives (K, S).
    """
    n_steps, n_lanes = inputs.shape
    step_base = np.arange(n_steps, dtype=np.int64)[:, None] * n_items
    target_keys = (targets + step_base).ravel()
    input_keys = (inputs + step_base).ravel()
    scored_items, n_scored, counts = _distinct_by_row(np.concatenate([targets, negatives], axis=1))
    scored = scored_items + np.repeat(step_base, n_scored)
    scored_bounds = np.concatenate([[0], np.cumsum(n_scored)])
    target_at = np.searchsorted(scored, target_keys)
    target_counts = np.bincount(target_at, minlength=len(scored))
    lane_step = np.repeat(np.arange(n_steps), n_lanes)

    if is_shared:
        at = np.searchsorted(scored, input_keys)
        is_scored = scored[np.minimum(at, len(scored) - 1)] == input_keys
        extra = np.unique(input_keys[~is_scored])
        extra_bounds = np.searchsorted(extra, np.arange(n_steps + 1) * n_items)
        extra_at = np.searchsorted(extra, input_keys)
        input_at = np.where(
            is_scored,
            at - scored_bounds[lane_step],
            n_scored[lane_step] + extra_at - extra_bounds[lane_step],
        )
    else:
        extra = np.unique(input_keys)
        extra_bounds = np.searchsorted(extra, np.arange(n_steps + 1) * n_items)
        input_at = np.searchsorted(extra, input_keys) - extra_bounds[lane_step]

    def moved(values: npt.NDArray[np.generic], kind: torch.dtype = torch.int64) -> Tensor:
        return torch.from_numpy(values).to(device=device, dtype=kind, non_blocking=True)

    scored_rows, extra_rows = moved(scored_items), moved(extra % n_items)
    count, target_count = moved(counts, dtype), moved(target_counts, dtype)
    target_place = moved(target_at.reshape(n_steps, n_lanes) - scored_bounds[:-1, None])
    input_place = moved(input_at.reshape(n_steps, n_lanes))
    target_idx = moved(np.ascontiguousarray(targets))
    weight = None if weights is None else moved(np.ascontiguousarray(weights), dtype)
    plans = []
    for step in range(n_steps):
        scored_slice = slice(int(scored_bounds[step]), int(scored_bounds[step + 1]))
        extra_slice = slice(int(extra_bounds[step]), int(extra_bounds[step + 1]))
        rows, other = scored_rows[scored_slice], extra_rows[extra_slice]
        if is_shared:
            rows = torch.cat([rows, other]) if len(other) else rows
            other = rows
        plans.append(
            StepPlan(
                rows=rows,
                n_scored=scored_slice.stop - scored_slice.start,
                count=count[scored_slice],
                target_count=target_count[scored_slice],
                target=target_place[step],
                target_idx=target_idx[step],
                input_rows=other,
                input=input_place[step],
                covers_all=scored_slice.stop - scored_slice.start == n_items,
                weight=None if weight is None else weight[step],
            )
        )
    return plans


def _distinct_by_row(items: npt.NDArray[np.integer]) -> tuple[Ints, Ints, Ints]:
    """Distinct values of each row, ascending, row by row; how many a row has; their counts."""
    ordered = np.sort(items.astype(np.int32), axis=1)
    is_first = np.ones(ordered.shape, np.bool_)
    np.not_equal(ordered[:, 1:], ordered[:, :-1], out=is_first[:, 1:])
    first = np.flatnonzero(is_first)
    counts = np.diff(np.append(first, ordered.size))
    return ordered.ravel()[first].astype(np.int64), is_first.sum(axis=1), counts

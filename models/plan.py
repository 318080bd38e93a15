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

from models import fused_plan
from models.arrays import Ints
from models.touched import touched_rows


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
    is_fused: bool = True,
) -> list[StepPlan]:
    """Plans of K steps that all have B live lanes: inputs, targets and, where they count
    differently, their weights (K, B), negatives (K, S). `is_fused`: by compiled code where there
    is any, to the same plans.
    """
    touched = None
    if is_fused:
        touched = fused_plan.touched_rows(inputs, targets, negatives, n_items, is_shared=is_shared)
    if touched is None:
        touched = touched_rows(inputs, targets, negatives, n_items, is_shared=is_shared)

    def moved(values: npt.NDArray[np.generic], kind: torch.dtype = torch.int64) -> Tensor:
        return torch.from_numpy(values).to(device=device, dtype=kind, non_blocking=True)

    rows, count = moved(touched.rows), moved(touched.count, dtype)
    target_count = moved(touched.target_count, dtype)
    target, input_place = moved(touched.target), moved(touched.input)
    target_idx = moved(np.ascontiguousarray(targets))
    weight = None if weights is None else moved(np.ascontiguousarray(weights), dtype)
    of_step = _parts(rows, touched.bounds)
    if touched.input_rows is None or touched.input_bounds is None:
        of_input = of_step
    else:
        of_input = _parts(moved(touched.input_rows), touched.input_bounds)
    n_scored: list[int] = touched.n_scored.tolist()
    columns = np.concatenate([[0], np.cumsum(touched.n_scored)])
    counts, target_counts = _parts(count, columns), _parts(target_count, columns)
    return [
        StepPlan(
            rows=of_step[step],
            n_scored=n_scored[step],
            count=counts[step],
            target_count=target_counts[step],
            target=target[step],
            target_idx=target_idx[step],
            input_rows=of_input[step],
            input=input_place[step],
            covers_all=n_scored[step] == n_items,
            weight=None if weight is None else weight[step],
        )
        for step in range(len(n_scored))
    ]


def _parts(values: Tensor, bounds: Ints) -> tuple[Tensor, ...]:
    """Step after step: `values` between two bounds."""
    return torch.split(values, np.diff(bounds).tolist())

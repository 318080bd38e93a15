"""Session-parallel mini-batches: which items a training step sees, for a whole epoch at once.

B lanes hold the first B sessions; a lane whose session ends takes the next session in order, lanes
that end together in lane order (Hidasi et al., arXiv:1511.06939, section 3.1). When no session is
left the lane closes, and the epoch goes on with fewer until the last session is done.
"""

import heapq
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models.dataset import Sessions


@dataclass(frozen=True, eq=False)
class Schedule:
    """One epoch: T steps of B lanes.

    `inputs` and `targets` are (T, B), int32, -1 where a lane is closed; `starts` is (T, B), true at
    the first step of a session. A closed lane never opens again. `weights` (T, B) are those of the
    targets' losses, None where all count alike.
    """

    inputs: npt.NDArray[np.int32]
    targets: npt.NDArray[np.int32]
    starts: npt.NDArray[np.bool_]
    weights: npt.NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self.inputs)


def epoch_schedule(sessions: Sessions, n_lanes: int) -> Schedule:
    """Every (item, next item) pair once. Sessions of a single step give none."""
    n_inputs = sessions.lengths - 1
    used = np.flatnonzero(n_inputs > 0)
    n_inputs, first = n_inputs[used], sessions.offsets[:-1][used]
    begins, lanes = _placed(n_inputs.tolist(), n_lanes)
    shape = (int((begins + n_inputs).max(initial=0)), min(n_lanes, len(used)))
    inputs, targets = np.full(shape, -1, np.int32), np.full(shape, -1, np.int32)
    starts = np.zeros(shape, np.bool_)
    within = np.arange(int(n_inputs.sum())) - np.repeat(np.cumsum(n_inputs) - n_inputs, n_inputs)
    step, lane = np.repeat(begins, n_inputs) + within, np.repeat(lanes, n_inputs)
    source = np.repeat(first, n_inputs) + within
    inputs[step, lane] = sessions.item_idx[source]
    targets[step, lane] = sessions.item_idx[source + 1]
    starts[begins, lanes] = True
    weights = None
    if sessions.weight is not None:
        weights = np.zeros(shape, np.float32)
        weights[step, lane] = sessions.weight[source + 1]
    return Schedule(inputs, targets, starts, weights)


def _placed(
    n_inputs: list[int], n_lanes: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """First step and lane of each session; the lane free first takes the next session."""
    free = [(0, lane) for lane in range(n_lanes)]
    begins, lanes = [], []
    for length in n_inputs:
        step, lane = free[0]
        heapq.heapreplace(free, (step + length, lane))
        begins.append(step)
        lanes.append(lane)
    return np.asarray(begins, dtype=np.int64), np.asarray(lanes, dtype=np.int64)

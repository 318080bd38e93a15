"""An epoch's schedule cut into blocks: consecutive steps that have the same live lanes.

A block is what is planned, run and, where asked, kept as a checkpoint at once. All but the few
blocks at the end of an epoch have every lane.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models.schedule import Schedule

BLOCK_STEPS = 64


@dataclass(frozen=True, eq=False)
class Block:
    """K steps of L live lanes, closed lanes left out: `inputs`, `targets`, `starts` are (K, L), as
    are the targets' `weights` where they count differently.

    `survivors` (L,) are the rows of the block before's hidden state that go on.
    """

    inputs: npt.NDArray[np.int32]
    targets: npt.NDArray[np.int32]
    starts: npt.NDArray[np.bool_]
    survivors: npt.NDArray[np.int64]
    weights: npt.NDArray[np.float32] | None = None

    @property
    def n_steps(self) -> int:
        return len(self.inputs)

    @property
    def n_lanes(self) -> int:
        return len(self.survivors)


class Blocks:
    """The blocks of a schedule by number."""

    def __init__(self, schedule: Schedule, n_steps: int = BLOCK_STEPS) -> None:
        self._schedule = schedule
        is_live = schedule.inputs >= 0
        changes = np.flatnonzero(np.diff(is_live.sum(1))) + 1
        starts: list[int] = []
        ends: list[int] = []
        for begin, end in zip([0, *changes], [*changes, len(schedule)], strict=True):
            cuts = range(int(begin), int(end), n_steps)
            starts += cuts
            ends += [min(cut + n_steps, int(end)) for cut in cuts]
        self._ranges = list(zip(starts, ends, strict=True))

    def __len__(self) -> int:
        return len(self._ranges)

    def __getitem__(self, number: int) -> Block:
        start, end = self._ranges[number]
        lanes, before = self._lanes(start), self._lanes(self._ranges[max(number - 1, 0)][0])
        rows, weights = slice(start, end), self._schedule.weights
        return Block(
            self._schedule.inputs[rows][:, lanes], self._schedule.targets[rows][:, lanes],
            self._schedule.starts[rows][:, lanes], np.searchsorted(before, lanes),
            None if weights is None else weights[rows][:, lanes],
        )  # fmt: skip

    def _lanes(self, step: int) -> npt.NDArray[np.int64]:
        return np.flatnonzero(self._schedule.inputs[step] >= 0)

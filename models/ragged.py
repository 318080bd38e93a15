"""Lists of different lengths in two flat arrays, read many at a time."""

from dataclasses import dataclass

import numpy as np

from models.arrays import Ints


@dataclass(frozen=True, eq=False)
class Ragged:
    """List i is `values[bounds[i]:bounds[i + 1]]`; `bounds` is (n_lists + 1,).

    Both are of any integer type; `compact` makes them as small as their largest value allows.
    """

    bounds: Ints
    values: Ints

    @classmethod
    def grouped(cls, keys: Ints, values: Ints, n_lists: int) -> "Ragged":
        """The `values` of each key in 0..n_lists-1; `keys` is sorted."""
        return cls(np.searchsorted(keys, np.arange(n_lists + 1)).astype(np.int64), values)

    def __len__(self) -> int:
        return len(self.bounds) - 1

    @property
    def lengths(self) -> Ints:
        """Values in each list, (n_lists,)."""
        return self.bounds[1:].astype(np.int64) - self.bounds[:-1]

    def lengths_of(self, lists: Ints) -> Ints:
        """Values in each of `lists`, in their shape."""
        return self.bounds[lists + 1].astype(np.int64) - self.bounds[lists]

    def entries(self, lists: Ints) -> tuple[Ints, Ints]:
        """Places in `values` of all of `lists`, and which of `lists` each belongs to."""
        starts = self.bounds[lists].astype(np.int64)
        counts = self.lengths_of(lists)
        owner = np.repeat(np.arange(len(lists)), counts)
        within = np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)
        return starts[owner] + within, owner

    def tails(self, n_values: int) -> "Ragged":
        """Only the last `n_values` of each list."""
        lengths = np.minimum(self.lengths, n_values)
        bounds = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        owner = np.repeat(np.arange(len(self)), lengths)
        places = np.arange(len(owner)) - bounds[owner] + (self.bounds[1:] - lengths)[owner]
        return Ragged(bounds, self.values[places])

    def compact(self) -> "Ragged":
        """The same lists in the smallest of uint16, int32 and int64 that holds each array."""
        return Ragged(_smallest(self.bounds), _smallest(self.values))


def _smallest(values: Ints) -> Ints:
    largest = int(values.max(initial=0))
    for kind in (np.uint16, np.int32):
        if largest <= np.iinfo(kind).max:
            return values.astype(kind)
    return values.astype(np.int64)

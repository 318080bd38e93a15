"""Sessions like this one: S-KNN, V-SKNN and VMIS-kNN as one scheme with three settings.

Past sessions that share an item with the current one are candidates, the most recent ones first.
Of those, the most similar are neighbours, and each votes for its items. S-KNN: Jannach & Ludewig
2017; V-SKNN: Ludewig & Jannach, arXiv:1803.09587; VMIS-kNN: Kersbergen et al., Serenade (SIGMOD
2022), which gets the candidates from an index of each item's most recent sessions, as we always do:
the sessions that this leaves out could not be among the most recent of the union either.

Recency is the order in which sessions began, and decides between equally similar ones. The current
item cannot come next where repeats are collapsed, so it is never recommended.

R sessions to score, N items.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from torch import Tensor

from models.arrays import Floats, Ints
from models.dataset import Sessions
from models.prefixes import prefixes
from models.ragged import Ragged
from models.sparse import SparseRanker, SparseScores

_ENTRIES_AT_ONCE = 2_000_000  # bounds memory: about 200 MB
_SCORES_AT_ONCE = 200_000  # up to here adding up over the catalogue is faster than sorting votes


@dataclass(frozen=True)
class SessionKNNConfig:
    """How neighbours are found and vote.

    `n_recent` candidates, `n_neighbours` of them kept; `last_steps` of the current session count.
    A shared item adds (position / length) ** `position_power` to the similarity, divided by the
    root of the neighbour's size where `is_cosine`. A neighbour's vote fades by 0.1 for each step
    back to the latest item it shares where `is_fading`. Votes for an item are multiplied by
    `idf_base` + `idf_weight` * ln(sessions / steps with the item).
    """

    n_neighbours: int
    n_recent: int
    last_steps: int
    position_power: int
    is_cosine: bool
    is_fading: bool
    idf_base: float
    idf_weight: float


S_KNN = SessionKNNConfig(50, 500, 100, 0, True, False, 1.0, 0.0)
V_SKNN = SessionKNNConfig(200, 2_000, 100, 2, False, True, 1.0, 10.0)
VMIS_KNN = SessionKNNConfig(100, 500, 9, 1, False, True, 0.0, 1.0)


@dataclass(frozen=True, eq=False)
class SessionIndex:
    """What neighbours are found by: R past sessions in order of time, N items.

    `items_of` has the distinct items of each session, sorted; `sessions_of` the latest sessions of
    each item, in order of time; `item_weight` is (N,), float32, what a vote for the item counts.
    """

    items_of: Ragged
    sessions_of: Ragged
    item_weight: npt.NDArray[np.float32]

    @classmethod
    def of(cls, train: Sessions, config: SessionKNNConfig) -> "SessionIndex":
        session, item = _distinct_items(train)
        by_item = np.argsort(item, kind="stable")  # sessions stay in order of time
        sessions_of = Ragged.grouped(item[by_item], session[by_item], train.n_items)
        idf = np.log(np.maximum(len(train) / np.maximum(train.support(), 1), 1.0))
        return cls(
            Ragged.grouped(session, item, len(train)).compact(),
            sessions_of.tails(config.n_recent).compact(),
            (config.idf_base + config.idf_weight * idf).astype(np.float32),
        )


class SessionKNN(SparseRanker):
    """Ranks items by the votes of similar sessions of `train`, which may be an index of them."""

    def __init__(self, train: Sessions | SessionIndex, config: SessionKNNConfig = VMIS_KNN) -> None:
        self.config = config
        self.index = train if isinstance(train, SessionIndex) else SessionIndex.of(train, config)
        self._items_of, self._sessions_of = self.index.items_of, self.index.sessions_of

    @property
    def n_items(self) -> int:
        return len(self._sessions_of)

    def states(self, sessions: Sessions) -> Tensor:
        """Latest steps, the current one first, -1 where there are none, (n_predictions, steps)."""
        return prefixes(sessions, self.config.last_steps)

    def sparse_scores(self, states: Tensor) -> SparseScores:
        """Votes for the items that have any; the current one is masked."""
        steps = states.numpy()
        found = [self._votes(steps[rows], rows.start) for rows in self._blocks(steps)]
        row, item, votes = (
            np.concatenate(column) if column else np.zeros(0, np.int64)
            for column in (zip(*found, strict=True) if found else ([], [], []))
        )
        return SparseScores.of(row, item, votes, steps[:, 0], self.n_items)

    def _blocks(self, steps: Ints) -> Iterator[slice]:
        n_entries = np.where(steps >= 0, self._sessions_of.lengths_of(steps), 0).sum(1)
        block = np.cumsum(n_entries) // _ENTRIES_AT_ONCE
        starts = np.flatnonzero(np.diff(block, prepend=-1))
        for start, end in zip(starts, [*starts[1:], len(steps)], strict=True):
            yield slice(int(start), int(end))

    def _votes(self, steps: Ints, first_row: int) -> tuple[Ints, Ints, Floats]:
        """Row counted from `first_row`, item and votes of each item voted for, in this order."""
        row, session, similarity = self._neighbours(steps)
        places, owner = self._items_of.entries(session)
        item = self._items_of.values[places]
        votes = similarity[owner] * self.index.item_weight[item]
        key = row[owner] * self.n_items + item
        if len(steps) * self.n_items <= _SCORES_AT_ONCE:
            summed = np.bincount(key, votes, minlength=len(steps) * self.n_items)
            key = np.flatnonzero(summed)
            summed = summed[key]
        else:
            key, place = np.unique(key, return_inverse=True)
            summed = np.bincount(place, votes, minlength=len(key))
        return first_row + key // self.n_items, key % self.n_items, summed.astype(np.float64)

    def _neighbours(self, steps: Ints) -> tuple[Ints, Ints, Floats]:
        """Row, session and weight of each vote, row by row."""
        row, back, item = _latest_of_each(steps)
        length = (steps >= 0).sum(1)
        weight = ((length[row] - back) / length[row]) ** self.config.position_power
        places, owner = self._sessions_of.entries(item)
        session = self._sessions_of.values[places]
        # The latest step comes first among those of a row and session.
        order = np.argsort(row[owner] * len(self._items_of) + session, kind="stable")
        row, session, owner = row[owner][order], session[order], owner[order]
        is_first = np.ones(len(row), dtype=np.bool_)
        is_first[1:] = (row[1:] != row[:-1]) | (session[1:] != session[:-1])
        first = np.flatnonzero(is_first)
        similarity = np.add.reduceat(weight[owner], first) if len(first) else np.zeros(0)
        row, session, back = row[first], session[first], back[owner[first]]
        kept = _rank_from_end(row) < self.config.n_recent
        row, session, back, similarity = row[kept], session[kept], back[kept], similarity[kept]
        if self.config.is_cosine:
            similarity = similarity / np.sqrt(self._items_of.lengths[session])
        best = np.lexsort((session, similarity, row))
        best = best[_rank_from_end(row[best]) < self.config.n_neighbours]
        if self.config.is_fading:
            similarity = similarity * np.maximum(0.0, 1.0 - 0.1 * (back + 1))
        return row[best], session[best], similarity[best]


def _distinct_items(train: Sessions) -> tuple[Ints, Ints]:
    """Every session with each of its items once, sorted."""
    session = np.repeat(np.arange(len(train)), train.lengths)
    pairs = np.unique(session * train.n_items + train.item_idx)
    return pairs // max(1, train.n_items), pairs % max(1, train.n_items)


def _latest_of_each(steps: Ints) -> tuple[Ints, Ints, Ints]:
    """Row, steps back and item of each row's distinct items, latest first."""
    row, back = np.nonzero(steps >= 0)
    item = steps[row, back]
    _, first = np.unique(row * (item.max(initial=0) + 1) + item, return_index=True)
    first.sort()
    return row[first], back[first], item[first]


def _rank_from_end(groups: Ints) -> Ints:
    """How many of the same group follow; `groups` is sorted."""
    return np.searchsorted(groups, groups, side="right") - 1 - np.arange(len(groups))

"""Sessions of steps as flat arrays.

A `Steps` table is what was read; `Sessions` is what a model sees: dense item indices, sessions one
after the other, the oldest session first (order of Hidasi et al., arXiv:1511.06939, whose ties we
define). Filters follow the usual protocol, run until nothing changes, since removing an item can
bring two equal neighbours together and removing a session can take an item below its support.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from models.arrays import Ints, Mask
from models.signals import Weights, step_weights
from warehouse.contracts import MART_SCHEMAS
from warehouse.snapshot import SchemaMismatch

SPLIT_FILE_COLUMNS = ("SessionId", "ItemId", "Time")
SPLIT_FILE_OUTCOME = "Outcome"  # which a file may have too


class NotEnoughData(RuntimeError):
    """Too few sessions or predictions to train or to judge a model."""


@dataclass(frozen=True)
class Catalogue:
    """The items that a model knows; the position of an `item_id` is its `item_idx`."""

    item_ids: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.item_ids)

    def index(self) -> dict[str, int]:
        """`item_idx` by `item_id`."""
        return {item_id: item_idx for item_idx, item_id in enumerate(self.item_ids)}


@dataclass(frozen=True, eq=False)
class Sessions:
    """Sessions one after the other, in the order in which training visits them.

    `item_idx` is (n_steps,), int32, each in 0..n_items-1; session s is
    `item_idx[offsets[s]:offsets[s + 1]]`, `offsets` is (n_sessions + 1,), int64. `weight`
    (n_steps,) is that of a step's loss as a target, None where all count alike.
    """

    item_idx: npt.NDArray[np.int32]
    offsets: Ints
    n_items: int
    weight: Weights | None = None

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def n_steps(self) -> int:
        return len(self.item_idx)

    @property
    def lengths(self) -> Ints:
        """Steps of each session, (n_sessions,)."""
        return np.diff(self.offsets)

    @property
    def n_predictions(self) -> int:
        """Pairs of an item and the next one: every step but the first of its session."""
        return int(np.maximum(self.lengths - 1, 0).sum())

    def total_weight(self) -> float:
        """Sum of the predictions' weights; without any, how many predictions there are."""
        if self.weight is None:
            return float(self.n_predictions)
        return float(self.weight[self.target_rows()].sum(dtype=np.float64))

    def target_rows(self) -> Ints:
        """Step that each prediction is about, (P,): every one but the first of its session."""
        is_first = np.zeros(self.n_steps, dtype=np.bool_)
        is_first[self.offsets[:-1][self.lengths > 0]] = True
        return np.flatnonzero(~is_first)

    def support(self) -> Ints:
        """How many steps each item has, (n_items,)."""
        return np.bincount(self.item_idx, minlength=self.n_items).astype(np.int64)

    def latest(self, n_sessions: int) -> "Sessions":
        """The last `n_sessions` of them."""
        offsets = self.offsets[len(self) - n_sessions :]
        weight = None if self.weight is None else self.weight[offsets[0] :]
        return Sessions(self.item_idx[offsets[0] :], offsets - offsets[0], self.n_items, weight)

    def latest_predictions(self, n_predictions: int) -> "Sessions":
        """The last sessions with at most `n_predictions` together, at least one session."""
        later = np.cumsum(np.maximum(self.lengths[::-1] - 1, 0))
        n_sessions = int(np.searchsorted(later, n_predictions, side="right"))
        return self.latest(min(max(n_sessions, 1), len(self)))

    @classmethod
    def from_lists(cls, sessions: Sequence[Sequence[int]], n_items: int) -> "Sessions":
        """Sessions written out as lists of `item_idx`, kept in the given order."""
        lengths = [len(session) for session in sessions]
        flat = [item_idx for session in sessions for item_idx in session]
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        return cls(np.asarray(flat, dtype=np.int32), offsets, n_items)


@dataclass(frozen=True, eq=False)
class Steps:
    """Steps as read, ordered by session, then time, then their order in the source.

    `session`, `item`, `time_us` (UTC microseconds since 1970), `row` (of the table read) and
    `weight` (None: all alike) are (n_steps,); `item` points into `item_ids`, which stand in order
    of first appearance in the source.
    """

    session: Ints
    item: Ints
    time_us: Ints
    row: Ints
    item_ids: tuple[str, ...]
    weight: Weights | None = None

    def __len__(self) -> int:
        return len(self.session)

    @classmethod
    def from_mart(
        cls, table: pa.Table, signal_weights: Mapping[str, float] | None = None
    ) -> "Steps":
        """Steps of the mart `training_steps`, weighted by outcome where weights are given.

        Raises SchemaMismatch on other columns.
        """
        expected = MART_SCHEMAS["training_steps"]
        if table.schema.names != expected.names:
            raise SchemaMismatch(
                f"training_steps should have columns {expected.names}, it has: {table.schema.names}"
            )
        by = [("session_id", "ascending"), ("occurred_at", "ascending"), ("step", "ascending")]
        order = pc.sort_indices(table, sort_keys=by)
        taken = table.take(order)
        steps = _encoded(taken["session_id"], taken["item_id"], taken["occurred_at"], "us")
        steps = replace(steps, row=order.to_numpy().astype(np.int64)[steps.row])
        return steps._weighted(table["outcome"], signal_weights) if signal_weights else steps

    @classmethod
    def from_split_file(
        cls, path: Path, signal_weights: Mapping[str, float] | None = None
    ) -> "Steps":
        """Steps of a Parquet file with SessionId, ItemId and Time in milliseconds.

        Weights that differ need the column Outcome, which names one of them in each row.
        Raises FileNotFoundError, and SchemaMismatch on a file with other contents.
        """
        if not path.is_file():
            raise FileNotFoundError(f"no such Parquet file: {path}")
        try:
            table = pq.read_table(path)
        except pa.ArrowInvalid as error:
            raise SchemaMismatch(f"not a Parquet file ({error}): {path}") from error
        missing = [name for name in SPLIT_FILE_COLUMNS if name not in table.schema.names]
        if missing:
            raise SchemaMismatch(
                f"{path} needs columns {list(SPLIT_FILE_COLUMNS)}, it lacks: {missing}"
            )
        if any(table[name].null_count for name in SPLIT_FILE_COLUMNS):
            raise SchemaMismatch(f"SessionId, ItemId and Time may not be null: {path}")
        if not pa.types.is_integer(table.schema.field("Time").type):
            raise SchemaMismatch(
                f"Time should be integer milliseconds since 1970, it is "
                f"{table.schema.field('Time').type}: {path}"
            )
        steps = _encoded(table["SessionId"], table["ItemId"], table["Time"], "ms")
        if signal_weights is None or len(set(signal_weights.values())) == 1:
            return steps
        if SPLIT_FILE_OUTCOME not in table.schema.names:
            raise SchemaMismatch(
                "weights by signal need the column Outcome (view_item, add_to_cart, purchase), add "
                f"it or give SHALLOP_TRAINING__VIEW_WEIGHT and its like the same value: {path}"
            )
        return steps._weighted(table[SPLIT_FILE_OUTCOME], signal_weights)

    def _weighted(self, outcomes: pa.ChunkedArray, signal_weights: Mapping[str, float]) -> "Steps":
        """With weights by the `outcomes` of the rows of the table read."""
        weight = step_weights(outcomes, signal_weights)
        return self if weight is None else replace(self, weight=weight[self.row])

    @property
    def until(self) -> datetime:
        """The last step, UTC."""
        return moment_of(int(self.time_us.max()))

    def starts(self) -> tuple[Ints, Ints]:
        """First row of each session, and the session of each row counted from 0."""
        is_first = np.ones(len(self), dtype=np.bool_)
        is_first[1:] = self.session[1:] != self.session[:-1]
        return np.flatnonzero(is_first), np.cumsum(is_first) - 1

    def keep(self, mask: Mask) -> "Steps":
        """The rows where `mask` is true."""
        return replace(
            self, session=self.session[mask], item=self.item[mask], time_us=self.time_us[mask],
            row=self.row[mask], weight=None if self.weight is None else self.weight[mask],
        )  # fmt: skip

    def collapsed(self) -> "Steps":
        """Without steps that repeat the item just before them in their session."""
        repeats = (self.session[1:] == self.session[:-1]) & (self.item[1:] == self.item[:-1])
        return self.keep(np.concatenate([np.ones(min(len(self), 1), dtype=np.bool_), ~repeats]))

    def filtered(self, min_item_support: int, min_session_steps: int) -> "Steps":
        """Only items and sessions with enough steps, repeats collapsed, until nothing changes."""
        steps, n_before = self, -1
        while len(steps) != n_before:
            n_before = len(steps)
            steps = steps.collapsed()
            support = np.bincount(steps.item, minlength=len(steps.item_ids))
            steps = steps.keep(support[steps.item] >= min_item_support)
            steps = steps.long_sessions(min_session_steps)
        return steps

    def long_sessions(self, min_session_steps: int) -> "Steps":
        """Those of sessions of so many steps and more."""
        _, row_session = self.starts()
        return self.keep(np.bincount(row_session)[row_session] >= min_session_steps)

    def catalogue(self) -> Catalogue:
        """The items that occur here, in order of first appearance in the source."""
        present = np.unique(self.item)
        return Catalogue(tuple(self.item_ids[code] for code in present))

    def sessions(self, catalogue: Catalogue) -> "Sessions":
        """As a model sees them: oldest session first, ties in the order of the source.

        Every item must be in `catalogue`; see `known_to`.
        """
        codes = self._codes(catalogue)
        order = self._oldest_first()
        lengths = np.bincount(self.starts()[1], minlength=len(order))
        offsets = np.concatenate([[0], np.cumsum(lengths[order])]).astype(np.int64)
        rows = self.session_rows()
        weight = None if self.weight is None else self.weight[rows]
        return Sessions(codes[self.item[rows]].astype(np.int32), offsets, len(catalogue), weight)

    def session_rows(self) -> Ints:
        """The row here of each step of `sessions`, (n_steps,)."""
        order = self._oldest_first()
        rank = np.empty_like(order)
        rank[order] = np.arange(len(order))
        return np.argsort(rank[self.starts()[1]], kind="stable")

    def _oldest_first(self) -> Ints:
        return np.argsort(self.time_us[self.starts()[0]], kind="stable")

    def known_to(self, catalogue: Catalogue) -> tuple["Steps", int]:
        """The steps whose item is in `catalogue`, and how many others were left out."""
        known = self._codes(catalogue)[self.item] >= 0
        return self.keep(known), int((~known).sum())

    def _codes(self, catalogue: Catalogue) -> Ints:
        index = catalogue.index()
        return np.asarray([index.get(item_id, -1) for item_id in self.item_ids], dtype=np.int64)


def _encoded(session: pa.ChunkedArray, item: pa.ChunkedArray, time: pa.ChunkedArray,
             unit: str) -> Steps:  # fmt: skip
    """Steps from columns of a table whose ties are already in the wanted order."""
    sessions = session.combine_chunks().dictionary_encode()
    items = item.combine_chunks().dictionary_encode()
    codes = pc.rank(sessions.dictionary, tiebreaker="dense").to_numpy().astype(np.int64)
    row_session = codes[sessions.indices.to_numpy()] if len(codes) else np.zeros(0, np.int64)
    time_us = time.cast(pa.int64()).combine_chunks().to_numpy().astype(np.int64)
    time_us = time_us * 1000 if unit == "ms" else time_us
    rows = np.lexsort((time_us, row_session))
    item_ids = tuple(items.dictionary.cast(pa.string()).to_pylist())
    row_item = items.indices.to_numpy().astype(np.int64)
    return Steps(row_session[rows], row_item[rows], time_us[rows], rows, item_ids)


def moment_of(time_us: int) -> datetime:
    """The moment of a step, in UTC."""
    return datetime.fromtimestamp(time_us // 1_000_000, UTC).replace(
        microsecond=time_us % 1_000_000
    )

"""Merges the small raw objects of closed hours, conserving every row, safe to kill at any point.

An object is named by the collector and the range of sequence numbers it holds, in order. Objects of
adjoining ranges become one, under the name of the whole range, written only where it is missing and
read back. An object goes when another of a wider range holds exactly its rows at their place: so
whoever is killed in between leaves both, and the next run finishes. The same rule removes an object
that a flusher, killed before it noted its delivery, delivers again after the merge.

Readers that see both drop repeats by `event_id`. Rows that an erasure took out of an object are
listed in it and stay accounted for (`warehouse.raw_rows`).
"""

import logging
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np

from warehouse.layout import RAW_EVENTS, RAW_REJECTED, raw_key
from warehouse.parquet import read_parquet
from warehouse.raw_rows import RawRows, WrongRowCount, concatenated
from warehouse.store import ObjectInfo, ObjectStore

logger = logging.getLogger(__name__)

# An hour is closed this long after its end: what is late lands meanwhile, or waits for another run.
SETTLE = timedelta(hours=1)
# Of the objects merged into one, so that merging takes a bounded part of memory.
MAX_BYTES = 128_000_000

_KEY = re.compile(
    r"date=(?P<date>[\d-]{10})/hour=(?P<hour>\d\d)/"
    r"(?P<collector>[^/]+)-(?P<first>\d{12,})-(?P<last>\d{12,})\.parquet$"
)


class NotConserved(RuntimeError):
    """A merged object does not hold the rows it was made from; nothing was deleted."""


@dataclass(frozen=True)
class RawObject:
    """One raw object: rows `first..last` of a collector, received in `hour`."""

    info: ObjectInfo
    hour: datetime
    collector: str
    first: int
    last: int

    @classmethod
    def of(cls, info: ObjectInfo) -> "RawObject | None":
        """None for an object that no collector named."""
        match = _KEY.search(info.key)
        if match is None:
            return None
        hour = datetime.fromisoformat(f"{match['date']}T{match['hour']}:00:00+00:00")
        return cls(info, hour, match["collector"], int(match["first"]), int(match["last"]))

    @property
    def n_rows(self) -> int:
        return self.last - self.first + 1

    def holds(self, other: "RawObject") -> bool:
        """Whether the other's range is a part of ours."""
        return self.first <= other.first and other.last <= self.last and self != other


@dataclass
class Compaction:
    """What a run did: objects merged, written, and removed, and the rows these held."""

    n_merged: int = 0
    n_written: int = 0
    n_removed: int = 0
    n_rows: int = 0


def compact(store: ObjectStore, now: datetime | None = None) -> Compaction:
    """Merge the raw objects of every closed hour. Raises NotConserved, StoreUnavailable."""
    closed_before = (now or datetime.now(UTC)) - SETTLE - timedelta(hours=1)
    done = Compaction()
    for prefix in (RAW_EVENTS, RAW_REJECTED):
        for objects in _by_hour_and_collector(store, prefix, closed_before):
            for run in _runs(_outermost(objects)):
                objects.append(_merge(store, prefix, run))
                done.n_merged += len(run)
                done.n_written += 1
                done.n_rows += objects[-1].n_rows
            done.n_removed += _remove_held(store, objects)
    if done.n_written or done.n_removed:
        logger.info(
            "compaction=done merged=%d written=%d removed=%d rows=%d",
            done.n_merged, done.n_written, done.n_removed, done.n_rows,
        )  # fmt: skip
    return done


def _by_hour_and_collector(
    store: ObjectStore, prefix: str, closed_before: datetime
) -> Iterator[list[RawObject]]:
    """The objects of each closed hour and collector, by their first row."""
    groups: dict[tuple[datetime, str], list[RawObject]] = defaultdict(list)
    for info in store.list(prefix):
        one = RawObject.of(info)
        if one is not None and one.hour <= closed_before:
            groups[one.hour, one.collector].append(one)
    for _, objects in sorted(groups.items()):
        yield sorted(objects, key=lambda one: (one.first, -one.last))


def _outermost(objects: list[RawObject]) -> list[RawObject]:
    """Those that no other one holds."""
    return [one for one in objects if not any(other.holds(one) for other in objects)]


def _runs(objects: list[RawObject]) -> Iterator[list[RawObject]]:
    """Objects of adjoining ranges, two or more, of at most MAX_BYTES together."""
    run: list[RawObject] = []
    for one in objects:
        n_bytes = sum(other.info.size for other in run) + one.info.size
        if run and (one.first != run[-1].last + 1 or n_bytes > MAX_BYTES):
            if len(run) > 1:
                yield run
            run = []
        run.append(one)
    if len(run) > 1:
        yield run


def _merge(store: ObjectStore, prefix: str, run: list[RawObject]) -> RawObject:
    """The object of a whole run, written and read back."""
    merged = concatenated([_read(store, one) for one in run])
    key = raw_key(prefix, run[0].hour, run[0].collector, run[0].first, run[-1].last)
    store.put_if_absent(key, merged.parquet())
    made = RawObject.of(store.stat(key))
    assert made is not None
    _check(_read(store, made), merged, made)
    return made


def _remove_held(store: ObjectStore, objects: list[RawObject]) -> int:
    """Delete each object whose rows a wider one holds; how many."""
    n_removed = 0
    for outer in _outermost(objects):
        held = [one for one in objects if outer.holds(one)]
        if not held:
            continue
        _take_out_erased(store, outer, held)
        rows = _read(store, outer)
        for one in held:
            _check(rows, _read(store, one), one)
        for one in held:
            store.delete(one.info.key)
            n_removed += 1
    return n_removed


def _take_out_erased(store: ObjectStore, outer: RawObject, held: list[RawObject]) -> None:
    """Take out of a merged object what an erasure took out of its parts after they were read.

    Until nothing is left to take: what is erased from here on, the erasure finds in the merged
    object too.
    """
    while True:
        rows = _read(store, outer)
        erased = [_read(store, one).erased for one in held]
        is_erased = np.isin(rows.numbers, np.concatenate(erased))
        if not is_erased.any():
            return
        store.put(outer.info.key, rows.without(is_erased).parquet())


def _read(store: ObjectStore, one: RawObject) -> RawRows:
    """The rows of an object, as many as its name says. Raises NotConserved."""
    try:
        return RawRows.of(read_parquet(store.get(one.info.key)), one.first, one.last)
    except WrongRowCount as error:
        raise NotConserved(f"an object {error}, it was left alone: `{one.info.key}`") from None


def _check(found: RawRows, expected: RawRows, one: RawObject) -> None:
    """Raises NotConserved unless the rows found account for those expected."""
    if not found.accounts_for(expected):
        raise NotConserved(
            "a merged object has other rows than the objects it stands for, nothing was deleted; "
            f"compare it with: `{one.info.key}`"
        )

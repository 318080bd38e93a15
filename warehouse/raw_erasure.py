"""Takes rows out of raw objects, everything else conserved, safe to kill at any point.

An object is replaced by one of the same name without the rows (`warehouse.raw_rows`), after the new
one was decoded and compared, and read back afterwards. Staging and compaction know objects by name
and so do not count it twice.
"""

import logging
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from warehouse.compaction import NotConserved, RawObject
from warehouse.erasure import Tombstones
from warehouse.erasure_record import Rewritten
from warehouse.parquet import read_parquet
from warehouse.person import Mask, Person, named_in
from warehouse.raw_rows import RawRows, WrongRowCount
from warehouse.store import ObjectInfo, ObjectNotFound, ObjectStore, sha256

logger = logging.getLogger(__name__)

# Which rows of an object are to go.
Select = Callable[[pa.Table], Mask]

_REJECTED_TEXTS = ("body", "message", "target", "page_url")
_WHO = ("visitor_id", "user_id", "session_id")


@dataclass(frozen=True)
class Reach:
    """Which events of a person an erasure takes: what was received or occurred by then."""

    person: Person
    erased_at: datetime
    until: datetime

    def events(self, table: pa.Table, session_column: str = "session_id") -> Mask:
        """Which rows of raw or staged events go."""
        return self.person.is_in_rows(table, session_column) & (
            _is_by(table["received_at"], self.erased_at) | _is_by(table["occurred_at"], self.until)
        )

    def rejected(self, table: pa.Table) -> Mask:
        """Which rows of rejected events go; their time is that of receipt, whatever they say."""
        reached = _is_by(table["received_at"], max(self.erased_at, self.until))
        mask = np.zeros(table.num_rows, dtype=np.bool_)
        for row in np.flatnonzero(reached):
            mask[row] = any(map(self.person.is_named_in, _texts(table, int(row))))
        return mask


@dataclass
class RawErasure:
    """Objects rewritten, and those with a kept row whose `event_id` was watched for."""

    rewritten: list[Rewritten] = field(default_factory=list)
    watched: set[str] = field(default_factory=set)

    @property
    def n_rows(self) -> int:
        return sum(one.rows_before - one.rows_after for one in self.rewritten)


def erase_rows(
    store: ObjectStore,
    prefix: str,
    select: Select,
    watch: Collection[str] = (),
    note: Callable[[Rewritten], None] = lambda _: None,
) -> RawErasure:
    """Take the selected rows out of every object under `prefix`; `note` hears of each at once.

    Objects that appear meanwhile, as of a compaction, are looked at as well, and what was rewritten
    once more. Raises NotConserved, StoreUnavailable.
    """
    done = RawErasure()
    watched = pa.array(sorted(watch), pa.string())
    seen: dict[str, tuple[int, datetime]] = {}
    while new := [info for info in store.list(prefix) if seen.get(info.key) != _stamp(info)]:
        for info in new:
            try:
                rewritten = _erase(store, info, select, watched, done)
                if rewritten is not None:
                    done.rewritten.append(rewritten)
                    note(rewritten)
            except ObjectNotFound:  # merged away meanwhile: its rows are in another object
                logger.info("erasure=merged_away key=%s", info.key)
            seen[info.key] = _stamp(info)
    return done


def raw_tables(
    store: ObjectStore, prefix: str, columns: Collection[str] = ()
) -> Iterator[pa.Table]:
    """The rows of each object under `prefix`, whole or some columns."""
    for info in list(store.list(prefix)):
        try:
            data = store.get(info.key)
        except ObjectNotFound:
            continue
        yield read_parquet(data, columns=list(columns) or None)


def holding_any(
    store: ObjectStore, prefix: str, event_ids: Collection[str], but: Collection[str] = ()
) -> set[str]:
    """Keys of the objects under `prefix`, `but` these, in which one of the events is."""
    wanted = pa.array(sorted(event_ids), pa.string())
    return {
        info.key
        for info in list(store.list(prefix))
        if info.key not in but
        and pc.any(
            pc.is_in(
                read_parquet(store.get(info.key), columns=["event_id"])["event_id"],
                value_set=wanted,
            )
        ).as_py()
    }


def hidden_events(table: pa.Table, tombstones: Tombstones) -> Mask:
    """Which rows of raw events were erased, by the digests of their ids."""
    mask = np.zeros(table.num_rows, dtype=np.bool_)
    if not len(tombstones) or not table.num_rows:
        return mask
    visitors, users, sessions, times = (table[name].to_pylist() for name in (*_WHO, "occurred_at"))
    for row, occurred_at in enumerate(times):
        mask[row] = tombstones.hides(visitors[row], users[row], sessions[row], occurred_at)
    return mask


def hidden_rejected(table: pa.Table, tombstones: Tombstones) -> Mask:
    """Which rows of rejected events were erased, by the digests of the ids that they name."""
    mask = np.zeros(table.num_rows, dtype=np.bool_)
    if len(tombstones):
        for row in range(table.num_rows):
            mask[row] = any(tombstones.hides_any(named_in(one)) for one in _texts(table, row))
    return mask


def _texts(table: pa.Table, row: int) -> list[bytes | str]:
    """All of a rejected event that may name somebody."""
    texts = (table[name][row].as_py() for name in _REJECTED_TEXTS if name in table.column_names)
    return [text for text in texts if text]


def _erase(
    store: ObjectStore, info: ObjectInfo, select: Select, watched: pa.Array, done: RawErasure
) -> Rewritten | None:
    rewritten = None
    data = store.get(info.key)
    rows = read_rows(info, data)
    mask = select(rows.table)
    if mask.any():
        kept = rows.without(mask)
        new = kept.parquet()
        again = read_rows(info, new)
        if not (again.table.equals(kept.table) and rows.accounts_for(again)):
            raise NotConserved(f"a rewritten object has other rows, left as it was: `{info.key}`")
        store.put(info.key, new)
        if sha256(store.get(info.key)) != sha256(new):
            raise NotConserved(f"the store has other bytes than were written to: `{info.key}`")
        rewritten = Rewritten(info.key, len(mask), kept.table.num_rows, sha256(data), sha256(new))
        logger.info("erasure=rewritten key=%s rows=%d", info.key, int(mask.sum()))
        rows = kept
    if len(watched) and pc.any(pc.is_in(rows.table["event_id"], value_set=watched)).as_py():
        done.watched.add(info.key)
    return rewritten


def read_rows(info: ObjectInfo, data: bytes) -> RawRows:
    """The rows of an object's bytes. Raises NotConserved."""
    try:
        table = read_parquet(data)
        named = RawObject.of(info)
        if named is None:  # not a collector's: nobody goes by its numbers
            return RawRows.of(table.replace_schema_metadata(None), 1, table.num_rows)
        return RawRows.of(table, named.first, named.last)
    except (WrongRowCount, pa.ArrowInvalid) as error:
        raise NotConserved(
            f"an object is not what its name says, look at it first: {error}: `{info.key}`"
        ) from None


def _stamp(info: ObjectInfo) -> tuple[int, datetime]:
    return info.size, info.modified_at


def _is_by(column: pa.ChunkedArray, moment: datetime) -> Mask:
    found = pc.less_equal(column, pa.scalar(moment.astimezone(UTC), pa.timestamp("us", "UTC")))
    mask: Mask = pc.fill_null(found, True).combine_chunks().to_numpy(zero_copy_only=False)
    return mask

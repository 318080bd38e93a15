"""Looks again, everywhere, for what an erasure removed."""

from collections import Counter
from collections.abc import Iterator

import pyarrow as pa

from cli.holdings import holdings
from ingest.outbox_file import EVENTS, REJECTED, OutboxFile
from ingest.rows import table_of
from warehouse import layout, snapshot, staged
from warehouse.erasure import Tombstones, digest
from warehouse.erasure_record import Record
from warehouse.person import Person
from warehouse.raw_erasure import Reach, hidden_events, hidden_rejected, raw_tables
from warehouse.settings import Settings
from warehouse.snapshot_erasure import snapshot_ids
from warehouse.store import ObjectNotFound, ObjectStore


class NotOfThisErasure(ValueError):
    """An id that a record has no digest of."""


def found_by_digest(
    settings: Settings, store: ObjectStore, record: Record, key: bytes
) -> Counter[str]:
    """Rows, by place, whose ids are those erased: nobody needs to know them for this."""
    stones = Tombstones(key, [one for kind in record.tombstones.values() for one in kind])
    found: Counter[str] = Counter()
    for place, table in _tables(settings, store):
        hidden = hidden_rejected if place.endswith("rejected") else hidden_events
        found[place] += int(hidden(table, stones).sum())
    for snapshot_id in snapshot_ids(store):
        try:
            sessions = snapshot.read_mart(store, snapshot_id, "sessions").to_pylist()
        except ObjectNotFound:
            continue
        found["mart_sessions"] += sum(
            stones.hides(row["visitor_id"], row["user_id"], row["session_id"], row["started_at"])
            for row in sessions
        )
    return +found


def found_by_id(
    settings: Settings, store: ObjectStore, record: Record, person: Person, key: bytes
) -> Counter[str]:
    """What is held, by place, about a person whose ids are known; texts and logs as well.

    Raises NotOfThisErasure.
    """
    untils = {one.digest: one.until for kind in record.tombstones.values() for one in kind}
    for kind, ids in person.by_kind().items():
        for one in ids:
            if digest(key, kind, one) not in untils:
                raise NotOfThisErasure(f"erasure {record.id} was not of this {kind}: `{one}`")
    reach = Reach(person, record.erased_at, max(untils.values()))
    return Counter(held.place for held in holdings(settings, store, reach))


def _tables(settings: Settings, store: ObjectStore) -> Iterator[tuple[str, pa.Table]]:
    for prefix, place in (
        (layout.RAW_EVENTS, "raw_events"),
        (layout.RAW_REJECTED, "raw_rejected"),
    ):
        for table in raw_tables(store, prefix):
            yield place, table
    if settings.outbox_path.exists():
        file = OutboxFile(settings.outbox_path)
        try:
            for stream, place in ((EVENTS, "outbox_events"), (REJECTED, "outbox_rejected")):
                for (piece,) in file.rows("select lines from batch where stream = ?", stream):
                    yield place, table_of(stream, [piece])
        finally:
            file.close()
    for table in staged.staged_tables(settings.warehouse_path):
        names = ["session_id" if n == "client_session_id" else n for n in table.column_names]
        yield "staged_events", table.rename_columns(names)

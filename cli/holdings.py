"""Everything that is held about a person, place by place: what export writes and erase removes."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from ingest import erasing
from ingest.outbox_file import EVENTS, REJECTED, OutboxFile
from ingest.rows import table_of
from warehouse import layout, staged
from warehouse.parquet import read_parquet
from warehouse.raw_erasure import Reach, raw_tables
from warehouse.settings import Settings
from warehouse.snapshot_erasure import sessions_in, snapshot_ids
from warehouse.store import ObjectNotFound, ObjectStore

# What each place is, for the README of an export.
PLACES = {
    "raw_events": "events as the collector keeps them",
    "raw_rejected": "events that the collector refused, with their original bytes",
    "outbox_events": "events that wait to be shipped into raw",
    "outbox_rejected": "refused events that wait to be shipped into raw",
    "live_sessions": "the latest items of sessions, kept for recommending",
    "staged_events": "the ids of events in the warehouse (their content is that of raw_events)",
    "mart_sessions": "one row a session, in each exported snapshot",
    "mart_training_steps": "the items of sessions, in each exported snapshot",
    "traces": "other objects and files that name the person",
}

# Of these no id can be read as text; a bundle's tables are of items.
_BINARY = (".safetensors",)


@dataclass(frozen=True)
class Held:
    """One thing held: where, and what."""

    place: str
    row: dict[str, Any]


def holdings(
    settings: Settings, store: ObjectStore, reach: Reach, mart_sessions: Iterable[str] = ()
) -> Iterator[Held]:
    """All that is held about a person, in the places' order. Raises StoreUnavailable.

    `mart_sessions` are sessions to look for in the snapshots beside those of the person.
    """
    yield from _rows("raw_events", raw_tables(store, layout.RAW_EVENTS), reach)
    yield from _rows("raw_rejected", raw_tables(store, layout.RAW_REJECTED), reach)
    yield from _of_outbox(settings.outbox_path, reach)
    for table in staged.staged_tables(settings.warehouse_path):
        for row in table.filter(pa.array(reach.events(table, "client_session_id"))).to_pylist():
            yield Held("staged_events", row)
    yield from _of_snapshots(store, reach, mart_sessions)
    yield from traces(settings, store, reach)


def traces(settings: Settings, store: ObjectStore, reach: Reach) -> Iterator[Held]:
    """Objects and files, beside those with rows, in which a long id stands."""
    for folder in (layout.MODELS, layout.REPORTS):
        for info in list(store.list(folder)):
            if not info.key.endswith(_BINARY) and _names(store, info.key, reach):
                yield Held("traces", {"object": info.key})
    for path in home_files(settings):
        try:
            text = path.read_bytes().decode("utf-8", "replace")
        except FileNotFoundError:
            continue
        if reach.person.stands_in(text):
            yield Held("traces", {"file": str(path)})


def home_files(settings: Settings) -> Iterator[Path]:
    """Files of this home that may repeat what was in an event: of dbt and of Dagster."""
    for folder in (settings.home / "dbt", settings.dagster_path):
        yield from (path for path in sorted(folder.rglob("*")) if path.is_file())


def _of_outbox(path: Path, reach: Reach) -> Iterator[Held]:
    if not path.exists():
        return
    file = OutboxFile(path)
    try:
        for stream, place in ((EVENTS, "outbox_events"), (REJECTED, "outbox_rejected")):
            found = file.rows("select lines from batch where stream = ?", stream)
            yield from _rows(place, (table_of(stream, [piece]) for (piece,) in found), reach)
        for row in erasing.sessions_of(file, reach.person, reach.until):
            yield Held("live_sessions", row)
    finally:
        file.close()


def _rows(place: str, tables: Iterable[pa.Table], reach: Reach) -> Iterator[Held]:
    for table in tables:
        mask = reach.rejected(table) if place.endswith("rejected") else reach.events(table)
        for row in table.filter(pa.array(mask)).to_pylist():
            yield Held(place, row)


def _of_snapshots(store: ObjectStore, reach: Reach, mart_sessions: Iterable[str]) -> Iterator[Held]:
    also = set(mart_sessions)
    for snapshot_id in snapshot_ids(store):
        session_ids = sessions_in(store, snapshot_id, reach.person, reach.until, also)
        for mart in ("sessions", "training_steps") if session_ids else ():
            try:
                data = store.get(layout.mart_key(snapshot_id, mart))
            except ObjectNotFound:
                continue
            for row in read_parquet(data).to_pylist():
                if row["session_id"] in session_ids:
                    yield Held(f"mart_{mart}", {"snapshot_id": snapshot_id, **row})


def _names(store: ObjectStore, key: str, reach: Reach) -> bool:
    try:
        data = store.get(key)
    except ObjectNotFound:
        return False
    if key.endswith(".parquet"):
        rows = read_parquet(data).to_pylist()
        return any(reach.person.stands_in(str(value)) for row in rows for value in row.values())
    return reach.person.stands_in(data.decode("utf-8", "replace"))

"""The plan of an erasure: who and until when, kept in the home until everything is done.

Plans are readable by us alone, and written before anything is removed: until an erasure is over,
they are the only way to know what is left to do.
"""

import os
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from uuid import uuid4

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from warehouse import layout, staged
from warehouse.erasure import FOR_EVER
from warehouse.expansion import expanded
from warehouse.person import Person
from warehouse.raw_erasure import Reach, raw_tables
from warehouse.settings import Settings
from warehouse.store import ObjectStore, sync_folder

_WHO = ("visitor_id", "user_id", "session_id")


class Plan(msgspec.Struct, kw_only=True):
    """Who is erased, as written down before anything is."""

    id: str
    erased_at: datetime
    until: datetime
    given: dict[str, list[str]]
    person: dict[str, list[str]]
    mart_sessions: list[str]
    event_ids: list[str]
    first_received_at: datetime | None

    @property
    def reach(self) -> Reach:
        return Reach(Person.of(self.person), self.erased_at, self.until)


def make_plan(
    settings: Settings, store: ObjectStore, given: Person, erased_at: datetime, is_forever: bool
) -> Plan:
    """Whom the ids given are about, and when their events were; nothing is changed."""
    person = expanded(given, lambda: _seen_together(settings, store))
    everything = Reach(person, erased_at, FOR_EVER if is_forever else erased_at)
    until, first_received_at, sessions = everything.until, None, set(person.sessions)
    for table in raw_tables(store, layout.RAW_EVENTS):
        rows = table.filter(pa.array(everything.events(table)))
        if rows.num_rows:
            until = max(until, pc.max(rows["occurred_at"]).as_py())
            first = pc.min(rows["received_at"]).as_py()
            first_received_at = min(first, first_received_at or first)
            sessions |= {one for one in rows["session_id"].to_pylist() if one}
    path = settings.warehouse_path
    event_ids = staged.event_ids(path, lambda table: everything.events(table, "client_session_id"))
    return Plan(
        id=f"{erased_at:%Y%m%dT%H%M%SZ}-{uuid4().hex[:6]}",
        erased_at=erased_at,
        until=until,
        given={kind: sorted(ids) for kind, ids in given.by_kind().items()},
        person={kind: sorted(ids) for kind, ids in person.by_kind().items()},
        mart_sessions=sorted(sessions | staged.sessions_of_events(path, event_ids)),
        event_ids=sorted(event_ids),
        first_received_at=first_received_at,
    )


def _seen_together(settings: Settings, store: ObjectStore) -> Iterator[pa.Table]:
    """Who was seen with whom, in raw and in the warehouse."""
    yield from raw_tables(store, layout.RAW_EVENTS, _WHO)
    for table in staged.staged_tables(settings.warehouse_path):
        table = table.select(["visitor_id", "user_id", "client_session_id"])
        yield table.rename_columns(list(_WHO))


def keep_plan(settings: Settings, plan: Plan) -> None:
    """Write a plan down, readable by us alone, whole or not at all."""
    path = _path(settings, plan)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    for left in path.parent.glob("*.partial"):  # of a run that was killed
        left.unlink()
    partial = path.with_suffix(".partial")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(msgspec.json.encode(plan))
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)
    sync_folder(path.parent)


def kept_plans(settings: Settings) -> Iterator[Plan]:
    """Plans of erasures that were begun and are not over, the oldest first."""
    for path in sorted(_folder(settings).glob("*.json")):
        yield msgspec.json.decode(path.read_bytes(), type=Plan)


def forget_plan(settings: Settings, plan: Plan) -> None:
    """Its erasure is over."""
    _path(settings, plan).unlink()
    sync_folder(_folder(settings))


def _folder(settings: Settings) -> Path:
    return settings.home.absolute() / "erasing"


def _path(settings: Settings, plan: Plan) -> Path:
    return _folder(settings) / f"{plan.id}.json"

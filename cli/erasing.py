"""An erasure, phase by phase; killed in any of them, the next run goes on where it was.

The plan (who, and until when) is written into the home before anything is removed, readable by us
alone, and deleted at the end: until then it is the only way to know what is left to do. Each phase
may run again. The refresh's lock is held: dbt and compaction find the objects that they listed.
"""

import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from time import monotonic, sleep
from uuid import uuid4

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from assets.erasing import forget_runs
from assets.resources import RefreshRunning, refresh_lock
from cli.holdings import home_files, traces
from ingest import erasing
from ingest.flusher import Flusher
from ingest.outbox import Outbox
from models.erasures import BundleErasure, mark
from warehouse import erasure_record, followed_erasures, layout, snapshot_erasure, staged
from warehouse.erasure import FOR_EVER, Tombstone, digest, key_id, make_key, read_key
from warehouse.erasure_record import Record, Rewritten
from warehouse.expansion import expanded
from warehouse.person import Person
from warehouse.raw_erasure import RawErasure, Reach, erase_rows, raw_tables
from warehouse.settings import Settings
from warehouse.store import ObjectNotFound, ObjectStore, open_store, sync_folder

Say = Callable[[str], None]

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


@dataclass
class Done:
    """What an erasure has done so far; `keep` writes it into the record."""

    keep: Callable[["Done"], object]
    objects: list[Rewritten] = field(default_factory=list)
    removed: Counter[str] = field(default_factory=Counter)
    models: set[str] = field(default_factory=set)
    notes: set[str] = field(default_factory=set)

    def note(self, rewritten: Rewritten, place: str) -> None:
        self.objects.append(rewritten)
        self.removed[place] += rewritten.rows_before - rewritten.rows_after
        self.keep(self)


def erase(
    settings: Settings, given: Person, say: Say, *, is_forever: bool = False,
    wait_seconds: float = 3600,
) -> Record:  # fmt: skip
    """Erase a person everywhere in this home and its store; the sealed record.

    Raises RefreshRunning after `wait_seconds`, and StoreUnavailable, OutboxBroken, NotConserved:
    run again, it goes on.
    """
    store = open_store(settings)
    erased_at = datetime.now(UTC)
    with locked(settings, wait_seconds, say), _outbox(settings) as outbox:
        if outbox:
            say("shipping what waits in the outbox")
            Flusher(outbox, store, settings.ingest).drain()
        say("looking for ids that belong together")
        plan = make_plan(settings, store, given, erased_at, is_forever)
        for left in _folder(settings).glob("*.partial"):  # of a run that was killed
            left.unlink()
        _write(settings, plan)
        return _carry_out(settings, store, outbox, plan, say)


def finish(settings: Settings, say: Say, wait_seconds: float = 3600) -> list[Record]:
    """Carry out what earlier runs were killed in; their records."""
    done = []
    for path in sorted(_folder(settings).glob("*.json")):
        plan = msgspec.json.decode(path.read_bytes(), type=Plan)
        say(f"going on with erasure {plan.id}, begun {plan.erased_at:%Y-%m-%d %H:%M:%S} UTC")
        store = open_store(settings)
        with locked(settings, wait_seconds, say), _outbox(settings) as outbox:
            done.append(_carry_out(settings, store, outbox, plan, say))
    return done


def make_plan(
    settings: Settings, store: ObjectStore, given: Person, erased_at: datetime, is_forever: bool
) -> Plan:
    """Whom the ids given are about, and when their events were; nothing is changed."""
    person = expanded(given, lambda: seen_together(settings, store))
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


def _carry_out(
    settings: Settings, store: ObjectStore, outbox: Outbox | None, plan: Plan, say: Say
) -> Record:
    key, reach = make_key(settings), plan.reach
    record = _begun(plan, key)
    done = _resumed(
        store, plan, lambda so_far: _write_record(store, record, so_far, key, is_over=False)
    )
    done.keep(done)
    if outbox:
        say("closing the outbox to them")
        stones = [stone for kind in record.tombstones.values() for stone in kind]
        erasing.remember(outbox.file, stones)
        Flusher(outbox, store, settings.ingest).drain()
        done.removed["live_sessions"] += erasing.forget_sessions(outbox.file, reach.person)
    say("taking sessions out of the mart snapshots")
    _erase_snapshots(store, plan, done)
    say("rewriting raw objects")
    raw = _erase_raw(store, plan, done)
    say("rebuilding the warehouse file")
    done.removed["staged_events"] += staged.rebuild_without(
        settings.warehouse_path, plan.event_ids, raw.watched
    )
    say("sweeping reports, logs and what was left behind")
    _sweep(settings, store, reach, done)
    if outbox:
        say("rewriting the outbox file")
        outbox.file.rewrite()
    record = _write_record(store, record, done, key, is_over=True)
    followed_erasures.remember(settings, [record.id])
    _path(settings, plan).unlink()
    sync_folder(_folder(settings))
    return record


def _erase_snapshots(store: ObjectStore, plan: Plan, done: Done) -> None:
    """Mark the models first: which snapshots they are of is known until these are rewritten."""
    kept = snapshot_erasure.snapshot_ids(store)
    person, until, also = plan.reach.person, plan.until, plan.mart_sessions
    sessions = {one: snapshot_erasure.sessions_in(store, one, person, until, also) for one in kept}
    touched = {one: found for one, found in sessions.items() if found}
    mark_of = BundleErasure(plan.id, plan.erased_at)
    done.models |= set(mark(store, mark_of, touched, kept, plan.first_received_at))
    for snapshot_id, session_ids in touched.items():
        for rewritten in snapshot_erasure.erase_sessions(store, snapshot_id, session_ids):
            done.note(rewritten, "mart_rows")


def _erase_raw(store: ObjectStore, plan: Plan, done: Done) -> RawErasure:
    erase_rows(
        store,
        layout.RAW_REJECTED,
        plan.reach.rejected,
        note=lambda rewritten: done.note(rewritten, "raw_rejected"),
    )
    return erase_rows(
        store,
        layout.RAW_EVENTS,
        plan.reach.events,
        plan.event_ids,
        note=lambda rewritten: done.note(rewritten, "raw_events"),
    )


def _sweep(settings: Settings, store: ObjectStore, reach: Reach, done: Done) -> None:
    """Remove reports, logs and leftovers with a trace; versions that the store keeps of anything.

    What cannot be removed, because it is pinned by its hash, is noted.
    """
    for held in list(traces(settings, store, reach)):
        if "object" in held.row and held.row["object"].startswith(f"{layout.REPORTS}/"):
            store.delete(held.row["object"])
            done.removed["reports"] += 1
        elif "object" in held.row:
            done.notes.add(f"an id is left in an object of a model: {held.row['object']}")
    done.removed["dagster_runs"] += forget_runs(settings, reach.person)
    for path in home_files(settings):
        if settings.dagster_path not in path.parents and _stands_in(path, reach.person):
            path.unlink()
            done.removed["log_files"] += 1
    for left in settings.duckdb_temp_path.glob("*"):
        left.unlink(missing_ok=True)
    for prefix in (layout.RAW_EVENTS, layout.RAW_REJECTED, layout.MARTS, layout.REPORTS):
        done.removed["old_versions"] += store.purge(prefix)


def _stands_in(path: Path, person: Person) -> bool:
    try:
        return person.stands_in(path.read_bytes().decode("utf-8", "replace"))
    except FileNotFoundError:
        return False


def _begun(plan: Plan, key: bytes) -> Record:
    return Record(
        id=plan.id,
        erased_at=plan.erased_at,
        is_forever=plan.until == FOR_EVER,
        code_version=version("shallop"),
        given={kind: len(ids) for kind, ids in plan.given.items() if ids},
        key_id=key_id(key),
        tombstones={
            kind: [Tombstone(one, plan.until) for one in sorted(digest(key, kind, i) for i in ids)]
            for kind, ids in plan.person.items()
            if ids
        },
    )


def _resumed(store: ObjectStore, plan: Plan, keep: Callable[[Done], object]) -> Done:
    """What the record says that earlier runs have done; nothing in the first."""
    try:
        before = erasure_record.read(store, plan.id)
    except ObjectNotFound:
        return Done(keep)
    notes = {*before.notes, "killed and resumed; what it was doing then may not be counted"}
    return Done(keep, before.objects, Counter(before.removed), set(before.models), notes)


def _write_record(
    store: ObjectStore, record: Record, done: Done, key: bytes, *, is_over: bool
) -> Record:
    so_far = msgspec.structs.replace(
        record,
        state="done" if is_over else "begun",
        finished_at=datetime.now(UTC) if is_over else None,
        objects=done.objects,
        removed={place: n for place, n in sorted(done.removed.items()) if n},
        models=sorted(done.models),
        notes=sorted(done.notes),
    )
    return erasure_record.write(store, so_far, key)


def seen_together(settings: Settings, store: ObjectStore) -> Iterator[pa.Table]:
    """Who was seen with whom, in raw and in the warehouse."""
    yield from raw_tables(store, layout.RAW_EVENTS, _WHO)
    for table in staged.staged_tables(settings.warehouse_path):
        table = table.select(["visitor_id", "user_id", "client_session_id"])
        yield table.rename_columns(list(_WHO))


@contextmanager
def locked(settings: Settings, wait_seconds: float, say: Say) -> Iterator[None]:
    """Hold the refresh's lock, waiting for it. Raises RefreshRunning."""
    deadline, said = monotonic() + wait_seconds, False
    while True:
        try:
            with refresh_lock(settings, "erase"):
                yield
            return
        except RefreshRunning as error:
            if monotonic() > deadline:
                raise
            if not said:
                say(f"waiting: {error}")
            said = True
            sleep(0.2)


@contextmanager
def _outbox(settings: Settings) -> Iterator[Outbox | None]:
    """This home's outbox, where it has one."""
    if not settings.outbox_path.exists():
        yield None
        return
    outbox = Outbox(settings.outbox_path, settings.ingest, read_key(settings))
    try:
        yield outbox
    finally:
        outbox.close()


def _folder(settings: Settings) -> Path:
    return settings.home.absolute() / "erasing"


def _path(settings: Settings, plan: Plan) -> Path:
    return _folder(settings) / f"{plan.id}.json"


def _write(settings: Settings, plan: Plan) -> None:
    """Keep a plan, readable by us alone, whole or not at all."""
    path = _path(settings, plan)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(msgspec.json.encode(plan))
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)
    sync_folder(path.parent)

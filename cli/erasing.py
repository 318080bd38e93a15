"""An erasure, phase by phase; killed in any of them, the next run goes on where it was.

The plan (who, and until when) is written into the home before anything is removed, readable by us
alone, and deleted at the end: until then it is the only way to know what is left to do. Each phase
may run again. The refresh's lock is held: dbt and compaction find the objects that they listed.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from time import monotonic, sleep

import msgspec

from assets.erasing import forget_runs
from assets.resources import RefreshRunning, refresh_lock
from cli.erasure_plan import Plan, forget_plan, keep_plan, kept_plans, make_plan
from cli.holdings import home_files, traces
from ingest import erasing
from ingest.flusher import Flusher
from ingest.outbox import Outbox
from models.erasures import BundleErasure, mark
from warehouse import erasure_record, followed_erasures, layout, snapshot_erasure, staged
from warehouse.erasure import FOR_EVER, Tombstone, digest, key_id, make_key, read_key
from warehouse.erasure_record import Record, Rewritten
from warehouse.person import Person
from warehouse.raw_erasure import RawErasure, Reach, erase_rows
from warehouse.settings import Settings
from warehouse.store import ObjectNotFound, ObjectStore, open_store

Say = Callable[[str], None]


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
        keep_plan(settings, plan)
        return _carry_out(settings, store, outbox, plan, say)


def finish(settings: Settings, say: Say, wait_seconds: float = 3600) -> list[Record]:
    """Carry out what earlier runs were killed in; their records."""
    done = []
    for plan in kept_plans(settings):
        say(f"going on with erasure {plan.id}, begun {plan.erased_at:%Y-%m-%d %H:%M:%S} UTC")
        store = open_store(settings)
        with locked(settings, wait_seconds, say), _outbox(settings) as outbox:
            done.append(_carry_out(settings, store, outbox, plan, say))
    return done


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
    forget_plan(settings, plan)
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

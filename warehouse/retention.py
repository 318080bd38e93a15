"""What is older than it may be: raw, rejected, their staged rows, mart snapshots, reports.

Staged rows of an hour go before its objects do, and an object that staging has not read stays until
it has, however old.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from warehouse import layout, snapshot, staged
from warehouse.compaction import RawObject
from warehouse.parquet import read_parquet
from warehouse.raw_erasure import holding_any
from warehouse.snapshot_erasure import snapshot_ids
from warehouse.store import ObjectInfo, ObjectStore


@dataclass(frozen=True)
class Freed:
    """What went, or would: how many of it, and their bytes in the store."""

    what: str
    n: int
    n_bytes: int = 0


def cutoff(days: int, now: datetime | None = None) -> datetime | None:
    """What was received before this may go; None keeps everything."""
    return (now or datetime.now(UTC)) - timedelta(days=days) if days else None


def expired_objects(store: ObjectStore, prefix: str, before: datetime | None) -> list[ObjectInfo]:
    """Objects of hours that ended before a moment; those that no collector named stay."""
    if before is None:
        return []
    named = ((info, RawObject.of(info)) for info in store.list(prefix))
    return [
        info for info, one in named if one is not None and one.hour + timedelta(hours=1) <= before
    ]


def expire_raw(
    store: ObjectStore, warehouse: Path, before: datetime | None, *, is_dry: bool
) -> list[Freed]:
    """Remove raw events, and their staged rows, of hours that ended before a moment.

    Staging is asked first: where it holds such hours, also of a run that was killed, it is rebuilt
    without them. Raises StoreUnavailable.
    """
    if before is None:
        return []
    staged_ids, gone = _staged(warehouse, before)
    old = expired_objects(store, layout.RAW_EVENTS, before)
    expired = [info for info in old if _is_read(store, info, staged_ids)]
    if gone and not is_dry:
        expired_keys = {info.key for info in expired}
        reload = holding_any(store, layout.RAW_EVENTS, gone, expired_keys)
        staged.rebuild_without(warehouse, gone, reload)
    return [
        Freed("staged events", len(gone)),
        _removed(store, "raw objects", expired, is_dry),
        Freed("raw objects kept until they are staged", len(old) - len(expired)),
    ]


def expire_rejected(store: ObjectStore, before: datetime | None, *, is_dry: bool) -> Freed:
    """Remove rejected events of hours that ended before a moment."""
    expired = expired_objects(store, layout.RAW_REJECTED, before)
    return _removed(store, "rejected objects", expired, is_dry)


def expire_snapshots(
    store: ObjectStore, keep: int, pinned: Collection[str], *, is_dry: bool
) -> Freed:
    """Remove all but the latest `keep` snapshots, the published one, and those pinned."""
    found = snapshot_ids(store)
    kept = {*found[-keep:], *pinned}
    try:
        kept.add(snapshot.latest(store).snapshot_id)
    except snapshot.NoSnapshot:
        kept.update(found)
    old = [
        info
        for info in store.list(layout.MARTS)
        if info.key.count("/") == 2 and info.key.split("/")[1] not in kept
    ]
    return _removed(store, "mart snapshots' objects", old, is_dry)


def expire_reports(store: ObjectStore, keep: int, *, is_dry: bool) -> Freed:
    """Remove all but the drift reports of the latest `keep` snapshots that have one."""
    by_snapshot: dict[str, list[ObjectInfo]] = {}
    for info in store.list(layout.report_key("drift", "").rstrip("/")):
        name = info.key.rsplit("/", 1)[1]
        by_snapshot.setdefault(name.split("-")[0].split(".")[0], []).append(info)
    old = [info for one in sorted(by_snapshot)[:-keep] for info in by_snapshot[one]]
    return _removed(store, "drift reports", old, is_dry)


def _staged(warehouse: Path, before: datetime) -> tuple[set[str], set[str]]:
    """Ids of all staged events, and of those in objects of hours that ended before a moment."""
    every: set[str] = set()
    gone: set[str] = set()
    for table in staged.staged_tables(warehouse):
        columns = (table[name].to_pylist() for name in ("event_id", "raw_object"))
        for event_id, address in zip(*columns, strict=True):
            every.add(event_id)
            one = staged.named(address)
            if one is not None and one.hour + timedelta(hours=1) <= before:
                gone.add(event_id)
    return every, gone


def _is_read(store: ObjectStore, info: ObjectInfo, staged_ids: set[str]) -> bool:
    """Whether every event of an object is staged, from it or from another."""
    table = read_parquet(store.get(info.key), columns=["event_id"])
    return staged_ids.issuperset(table["event_id"].to_pylist())


def _removed(store: ObjectStore, what: str, objects: Iterable[ObjectInfo], is_dry: bool) -> Freed:
    n = n_bytes = 0
    folders = set()
    for info in objects:
        if not is_dry:
            store.delete(info.key)
            folders.add(info.key.rpartition("/")[0])
        n, n_bytes = n + 1, n_bytes + info.size
    for folder in folders:
        store.purge(folder)
    return Freed(what, n, n_bytes)

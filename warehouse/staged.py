"""Rows taken out of `warehouse.duckdb`, so that no page of the file holds them any more.

DuckDB leaves deleted rows in free blocks: staging is copied into a new file that takes the old
one's place. All other tables follow from staging, and the next refresh builds them. Whoever calls
these functions holds the refresh's lock: dbt alone opens the file otherwise.
"""

import logging
import os
from collections.abc import Callable, Collection, Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import duckdb
import pyarrow as pa

from warehouse.compaction import RawObject
from warehouse.person import Mask
from warehouse.store import ObjectInfo, sync_folder

logger = logging.getLogger(__name__)

_STAGING = "stg_shop__events"
_COLUMNS = (
    "event_id", "visitor_id", "user_id", "client_session_id", "page_url", "referrer", "extra",
    "occurred_at", "received_at", "raw_object",
)  # fmt: skip
_BATCH_ROWS = 100_000
_NEVER = datetime(1970, 1, 1, tzinfo=UTC)


def staged_tables(path: Path) -> Iterator[pa.Table]:
    """What tells whose they are of the staged events; nothing before the first build."""
    if not path.exists():
        return
    with closing(duckdb.connect(str(path), read_only=True)) as connection:
        if _has(connection, _STAGING):
            connection.execute("set TimeZone = 'UTC'")
            found = connection.execute(f"select {', '.join(_COLUMNS)} from {_STAGING}")
            for batch in found.to_arrow_reader(_BATCH_ROWS):
                yield pa.Table.from_batches([batch])


def sessions_of_events(path: Path, event_ids: Collection[str]) -> set[str]:
    """Ids of the sessions, as the last build knew them, that these events belong to."""
    if not path.exists() or not event_ids:
        return set()
    with closing(duckdb.connect(str(path), read_only=True)) as connection:
        if not _has(connection, "session_events"):
            return set()
        connection.register("wanted", _ids(event_ids))
        found = connection.execute(
            "select distinct session_id from session_events where event_id in (from wanted)"
        )
        return {session_id for (session_id,) in found.fetchall()}


def event_ids(path: Path, select: Callable[[pa.Table], Mask]) -> set[str]:
    """Ids of the staged events that `select` marks."""
    found: set[str] = set()
    for table in staged_tables(path):
        found |= set(table.filter(pa.array(select(table)))["event_id"].to_pylist())
    return found


def rebuild_without(path: Path, gone: Collection[str], reload: Collection[str] = ()) -> int:
    """Put a file of staging alone, without the events `gone`, in the place of `path`.

    Rows of objects that overlap those of `reload` (keys) are left out too, so that the next build
    reads these again. The number of staged events of `gone` that went.
    """
    if not path.exists():
        return 0
    for left in path.parent.glob(f"{path.name}.*.partial*"):  # of a run that was killed
        left.unlink()
    partial = path.with_name(f"{path.name}.{uuid4().hex}.partial")
    n_before, n_kept = _copied(path, partial, gone, reload)
    os.replace(partial, path)
    path.with_name(f"{path.name}.wal").unlink(missing_ok=True)
    sync_folder(path.parent)
    logger.info("warehouse=rebuilt staged_before=%d removed=%d", n_before, n_before - n_kept)
    return n_before - n_kept


def _copied(
    path: Path, partial: Path, gone: Collection[str], reload: Collection[str]
) -> tuple[int, int]:
    """Copy staging; its rows before, and those that are not `gone`."""
    with closing(duckdb.connect(str(path))) as old:
        old.execute("force checkpoint")  # a log that is left would be taken for the new file's
        has_staging = _has(old, _STAGING)
    with closing(duckdb.connect(str(partial))) as new:
        if not has_staging:
            return 0, 0
        new.execute(f"attach '{_escaped(path)}' as old (read_only)")
        new.register("gone", _ids(gone))
        source = f"old.main.{_STAGING}"
        new.execute(
            f"create table {_STAGING} as from {source} where event_id not in (select id from gone)"
        )
        n_before = _count(new, source)
        n_kept = _count(new, _STAGING)
        for raw_object in _overlapping(new, reload):
            new.execute(f"delete from {_STAGING} where raw_object = ?", (raw_object,))
        new.execute("detach old")
        new.execute("force checkpoint")
    return n_before, n_kept


def _overlapping(connection: duckdb.DuckDBPyConnection, keys: Collection[str]) -> list[str]:
    """Staged objects that hold numbers of the collector and range of one of the keys."""
    if not keys:
        return []
    wanted = [one for key in keys if (one := named(key))]
    found = connection.execute(f"select distinct raw_object from {_STAGING}").fetchall()
    return [
        address
        for (address,) in found
        if (staged := named(address)) is not None
        and any(
            staged.collector == one.collector
            and staged.first <= one.last
            and one.first <= staged.last
            for one in wanted
        )
    ]


def named(address: str) -> RawObject | None:
    """The collector, hour and range in the address of a staged object."""
    return RawObject.of(ObjectInfo(address, 0, _NEVER))


def _has(connection: duckdb.DuckDBPyConnection, table: str) -> bool:
    found = connection.execute(
        "select 1 from information_schema.tables where table_name = ?", (table,)
    )
    return found.fetchone() is not None


def _count(connection: duckdb.DuckDBPyConnection, table: str) -> int:
    row = connection.execute(f"select count(*) from {table}").fetchone()
    assert row is not None
    return int(row[0])


def _ids(values: Collection[str]) -> pa.Table:
    return pa.table({"id": pa.array(sorted(values), pa.string())})


def _escaped(path: Path) -> str:
    return str(path).replace("'", "''")

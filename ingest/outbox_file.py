"""The outbox's SQLite file: its tables, its connections, and transactions that are durable.

WAL with `synchronous=FULL`: a transaction that was left without an error survives a crash and a
power cut. A row of `batch` holds rows of its stream (`ingest.rows`), numbered `first_seq..last_seq`
without gaps within their stream, never across an hour of `received_at`.
"""

import fcntl
import os
import sqlite3
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep
from typing import Any
from uuid import uuid4

from warehouse.store import sync_folder

SCHEMA_VERSION = 4
EVENTS = "events"
REJECTED = "rejected"

_OUR_FAULTS = (sqlite3.IntegrityError, sqlite3.DataError, sqlite3.ProgrammingError)
_BUSY_SECONDS = 10.0
_WAL_PAGES = 16_000  # 64 MB: `ingest.checkpoints` moves them on before a writer has to
_KEPT_PAGES = 4_096  # 16 MB that stay free within the file
_SHRINK_PAGES = 512

_TABLES = """
create table collector (id text not null);
create table stream (
    name text primary key,
    n_in integer not null default 0,   -- rows ever appended, also the last sequence number given
    n_out integer not null default 0,  -- rows shipped
    n_folded integer not null default 0  -- rows that the session table has taken in
) without rowid;
create table batch (
    stream text not null,
    first_seq integer not null,
    last_seq integer not null,
    received_at integer not null,      -- of its first row, microseconds
    lines blob not null,               -- see ingest.rows
    n_bytes integer not null default 0,  -- that they take unpacked, 0 where they are not packed
    primary key (stream, first_seq)
);
create table shipment (                -- the range being shipped, at most one per stream
    stream text primary key,
    first_seq integer not null,
    last_seq integer not null,
    received_at integer not null
) without rowid;
create table rejection (reason text primary key, n integer not null) without rowid;
create table session (
    key text primary key,
    visitor_id text,
    seen_at integer not null,          -- last event on our clock, microseconds
    steps text not null                -- one JSON array a line, in the order they came
);
create index session_visitor on session (visitor_id);
insert into stream (name) values ('events'), ('rejected')
"""
# Erased ids, as digests (`warehouse.erasure`); `version` tells every process of a change.
_TOMBSTONES = """
create table erasure (version integer not null);
insert into erasure values (0);
create table tombstone (digest text primary key, until text not null) without rowid
"""
# Live sessions start anew; the events that made them are in the outbox or in raw.
_FROM_1 = """
alter table stream add column n_folded integer not null default 0;
update stream set n_folded = n_in;
drop table session;
create table session (
    key text primary key, visitor_id text, seen_at integer not null, steps text not null
);
create index session_visitor on session (visitor_id)
"""
_FROM_3 = "alter table batch add column n_bytes integer not null default 0"


class OutboxBroken(RuntimeError):
    """The outbox cannot be used; nothing of what was being written is kept or acknowledged."""


class OutboxFile:
    """One process's view of the file; whoever reads or writes borrows a connection."""

    def __init__(self, path: Path) -> None:
        """Open the file, making it with a new `collector_id` where missing. Raises OutboxBroken."""
        self.path = path
        self._idle: deque[sqlite3.Connection] = deque()
        self._turn = threading.Lock()
        self._write_lock: int | None = None
        self._inode: int | None = None
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with self.transaction() as connection:
                self.collector_id = _migrate(connection, path)
            sync_folder(path.parent)
            self._inode = path.stat().st_ino
        except OSError as error:
            raise OutboxBroken(f"cannot make the outbox: `{error}`") from error

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """A write transaction, durable when left without an error. Raises OutboxBroken.

        What breaks a rule of the tables is a fault of ours, and raised as SQLite says it.
        """
        try:
            with self._borrowed() as connection, self._turn_to_write():
                connection.execute("begin immediate")
                self._check_that_it_is_there()
                yield connection
                connection.execute("commit")
        except _OUR_FAULTS:
            raise
        except (OSError, sqlite3.Error) as error:
            raise OutboxBroken(
                f"cannot write the outbox at {self.path}, is its disk full or read-only? `{error}`"
            ) from error

    def rows(self, sql: str, *values: object) -> list[Any]:
        """All rows of a query. Raises OutboxBroken."""
        try:
            with self._borrowed() as connection:
                return connection.execute(sql, values).fetchall()
        except sqlite3.Error as error:
            raise OutboxBroken(f"cannot read the outbox at {self.path}: `{error}`") from error

    def row(self, sql: str, *values: object) -> Any:
        """The first row of a query, None where there is none. Raises OutboxBroken."""
        rows = self.rows(sql, *values)
        return rows[0] if rows else None

    @contextmanager
    def alone(self, task: str) -> Iterator[bool]:
        """Whether no other process is at this task; the system frees the lock with ours."""
        lock = os.open(self.path.with_suffix(f".{task}.lock"), os.O_RDWR | os.O_CREAT, 0o644)
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
            else:
                yield True
        finally:
            os.close(lock)

    def shrink(self) -> bool:
        """Move some of the file's end into its free pages and cut it off; whether there is more.

        After an outage the file would else keep the size that it had. A step is short, so that a
        writer hardly waits; some free pages stay, since new events need them at once.
        """
        n_free = self.row("pragma freelist_count")[0] - _KEPT_PAGES
        if n_free <= 0:
            return False
        with self.transaction() as connection:
            n_pages = min(n_free, _SHRINK_PAGES)
            connection.execute(f"pragma incremental_vacuum({n_pages})").fetchall()
        return bool(n_free > _SHRINK_PAGES)

    def checkpoint(self) -> None:
        """Move the WAL into the file: most of it beside those who write.

        What came meanwhile is moved while they wait: only a WAL that was moved as a whole is
        written from its beginning again, and grows no further. Raises OutboxBroken.
        """
        self.row("pragma wal_checkpoint(passive)")
        try:
            with self._turn_to_write():
                self.row("pragma wal_checkpoint(passive)")
        except OSError as error:
            raise OutboxBroken(f"cannot lock the outbox at {self.path}: `{error}`") from error

    def rewrite(self) -> None:
        """Leave no byte of what was deleted, in the file or its WAL. Raises OutboxBroken.

        Writers wait meanwhile; whoever reads is waited for.
        """
        try:
            with self._borrowed() as connection, self._turn_to_write():
                connection.execute("vacuum")
                deadline = monotonic() + _BUSY_SECONDS
                while connection.execute("pragma wal_checkpoint(truncate)").fetchone()[0]:
                    if monotonic() > deadline:
                        raise OutboxBroken(
                            f"a process keeps reading the outbox, end it and try again: "
                            f"`{self.path}`"
                        )
                    sleep(0.02)
        except (OSError, sqlite3.Error) as error:
            raise OutboxBroken(f"cannot rewrite the outbox at {self.path}: `{error}`") from error

    def close(self) -> None:
        """Close the connections; the last process to do so tidies the WAL away."""
        while self._idle:
            self._idle.pop().close()
        with self._turn:
            if self._write_lock is not None:
                os.close(self._write_lock)
                self._write_lock = None

    @contextmanager
    def _turn_to_write(self) -> Iterator[None]:
        """Wait for our turn among threads and processes, awake the moment that it comes.

        SQLite itself tries again after sleeps of up to 100 ms.
        """
        with self._turn:
            if self._write_lock is None:
                path = self.path.with_suffix(".write.lock")
                self._write_lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
            fcntl.flock(self._write_lock, fcntl.LOCK_EX)
            try:
                yield
            finally:
                fcntl.flock(self._write_lock, fcntl.LOCK_UN)

    @contextmanager
    def _borrowed(self) -> Iterator[sqlite3.Connection]:
        """A connection for one use; after an error, which also ends its transaction, a new one."""
        try:
            connection = self._idle.pop()
        except IndexError:
            connection = self._connect()
        try:
            yield connection
        except BaseException:
            connection.close()
            raise
        self._idle.append(connection)

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self.path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False
        )
        try:
            # Says something only to a file that is empty yet, and before its journal is chosen.
            connection.execute("pragma auto_vacuum = incremental")
            _enter_wal(connection)
            connection.execute("pragma synchronous = full")
            connection.execute(f"pragma wal_autocheckpoint = {_WAL_PAGES}")
        except sqlite3.Error:
            connection.close()
            raise
        return connection

    def _check_that_it_is_there(self) -> None:
        """Writing on into a deleted file would lose what was acknowledged."""
        try:
            is_ours = self._inode in (None, self.path.stat().st_ino)
        except FileNotFoundError:
            is_ours = False
        if not is_ours:
            raise OutboxBroken(
                f"the outbox was removed or replaced while in use, restart the app: `{self.path}`"
            )


def _enter_wal(connection: sqlite3.Connection) -> None:
    """Journal into a WAL; SQLite itself does not wait where another process is just doing so."""
    deadline = monotonic() + _BUSY_SECONDS
    while True:
        try:
            connection.execute("pragma journal_mode = wal").fetchone()
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or monotonic() > deadline:
                raise
            sleep(0.01)
        else:
            return


def _migrate(connection: sqlite3.Connection, path: Path) -> str:
    """Make the tables where missing; the collector's id."""
    version = connection.execute("pragma user_version").fetchone()[0]
    if version not in range(SCHEMA_VERSION + 1):
        raise OutboxBroken(
            f"the outbox at {path} was written by another version of Shallop, its tables have "
            f"version: `{version}`"
        )
    if version == 0:
        for statement in _TABLES.split(";\n"):
            connection.execute(statement)
        connection.execute("insert into collector values (?)", (uuid4().hex[:12],))
    if version == 1:
        for statement in _FROM_1.split(";\n"):
            connection.execute(statement)
    if version < 3:
        for statement in _TOMBSTONES.split(";\n"):
            connection.execute(statement)
    if version in (1, 2, 3):
        connection.execute(_FROM_3)
    connection.execute(f"pragma user_version = {SCHEMA_VERSION}")
    return str(connection.execute("select id from collector").fetchone()[0])

"""Erasure in the outbox file: its tombstones, its live sessions, and the bytes it leaves."""

import sqlite3
import threading
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path

from ingest.moments import microseconds
from ingest.outbox_file import OutboxFile
from warehouse.erasure import EraseKeyMissing, Tombstone, Tombstones, read_key_file
from warehouse.person import Person

_SELECT = "select digest, until from tombstone"


class ErasedIds:
    """The tombstones of an outbox file as one process knows them. Safe from any thread."""

    def __init__(self, file: OutboxFile, key: bytes | None = None) -> None:
        """`key` reads them; None: that of the file `privacy.key` beside the outbox."""
        self._file = file
        self._key = key
        self._known: tuple[int, Tombstones] = (0, Tombstones(b"", ()))
        self._lock = threading.Lock()

    def of_version(self, connection: sqlite3.Connection, version: int) -> Tombstones:
        """Those of a version that was read in the same transaction. Raises EraseKeyMissing."""
        with self._lock:
            if self._known[0] != version:
                stones = [
                    Tombstone(digest, datetime.fromisoformat(until))
                    for digest, until in connection.execute(_SELECT)
                ]
                self._known = version, Tombstones(self._readable(stones), stones)
            return self._known[1]

    def now(self) -> Tombstones:
        """Those of this moment. Raises EraseKeyMissing, OutboxBroken."""
        if self._file.row("select version from erasure")[0] == self._known[0]:
            return self._known[1]
        with self._file.transaction() as connection:
            (version,) = connection.execute("select version from erasure").fetchone()
            return self.of_version(connection, version)

    @property
    def key(self) -> bytes | None:
        """The key of the tombstones; None before the first erasure."""
        return self._key or read_key_file(self._path)

    @property
    def _path(self) -> Path:
        return self._file.path.with_name("privacy.key")

    def _readable(self, stones: list[Tombstone]) -> bytes:
        key = self.key
        if key is None and stones:
            raise EraseKeyMissing(self._path)
        return key or b""


def remember(file: OutboxFile, stones: Iterable[Tombstone]) -> bool:
    """Add tombstones, or let those that are there reach further; whether anything changed.

    What is committed after this is checked against them, in every process. Raises OutboxBroken.
    """
    known = _known(file.rows(_SELECT))
    new = {
        stone.digest: stone.until
        for stone in stones
        if stone.digest not in known or stone.until > known[stone.digest]
    }
    if not new:
        return False
    with file.transaction() as connection:
        connection.executemany(
            "insert into tombstone values (?, ?) "
            "on conflict (digest) do update set until = max(until, excluded.until)",
            [(digest, _text(until)) for digest, until in new.items()],
        )
        connection.execute("update erasure set version = version + 1")
    return True


def forget_sessions(file: OutboxFile, person: Person) -> int:
    """Delete the live sessions of a person, in every worker's memory too; how many."""
    keys = [f"s:{one}" for one in person.sessions] + [f"v:{one}" for one in person.visitors]
    n_sessions = 0
    with file.transaction() as connection:
        for column, values in (("key", keys), ("visitor_id", list(person.visitors))):
            for value in values:
                done = connection.execute(f"delete from session where {column} = ?", (value,))
                n_sessions += done.rowcount
        connection.execute("update erasure set version = version + 1")
    return n_sessions


def sessions_of(file: OutboxFile, person: Person, until: datetime) -> list[dict[str, object]]:
    """The live sessions of a person last seen by `until`, as the table keeps them."""
    keys = {f"s:{one}" for one in person.sessions} | {f"v:{one}" for one in person.visitors}
    found = file.rows("select key, visitor_id, seen_at, steps from session order by key")
    return [
        {"key": key, "visitor_id": visitor_id, "seen_at": seen_at, "steps": steps.splitlines()}
        for key, visitor_id, seen_at, steps in found
        if (key in keys or visitor_id in person.visitors) and seen_at <= microseconds(until)
    ]


def _known(rows: Iterable[tuple[str, str]]) -> Mapping[str, datetime]:
    return {digest: datetime.fromisoformat(until) for digest, until in rows}


def _text(moment: datetime) -> str:
    """A time as text that sorts as it does."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds")

"""Tombstones: what was erased stays erased, though nobody can read from them who it was.

A tombstone is a keyed digest (HMAC-SHA256) of an id, and the moment up to which its events are
hidden. The records of all erasures (`warehouse.erasure_record`) carry them; whoever takes events in
asks `Tombstones.hides` first: the collector in the transaction that keeps an event, the flusher,
and every import that goes past them.
"""

import hmac
import os
from collections.abc import Iterable
from datetime import UTC, datetime
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Literal

import msgspec

from warehouse.person import Named
from warehouse.settings import Settings

Kind = Literal["visitor", "user", "session"]

FOR_EVER = datetime(9999, 1, 1, tzinfo=UTC)


class EraseKeyMissing(RuntimeError):
    """There are tombstones, but not the secret key that reads them."""

    def __init__(self, path: Path) -> None:
        super().__init__(
            "erased events cannot be told from others without the key of the tombstones, restore "
            f"it from your backup or set SHALLOP_PRIVACY__KEY: `{path}`"
        )


class Tombstone(msgspec.Struct, frozen=True):
    """One erased id: its digest, and until when what occurred is hidden (`FOR_EVER`: always)."""

    digest: str
    until: datetime


class Tombstones:
    """All erased ids, as digests under one key; empty ones hide nothing and cost nothing."""

    def __init__(self, key: bytes, stones: Iterable[Tombstone]) -> None:
        self._key = key
        self._until: dict[str, datetime] = {}
        for stone in stones:
            self._until[stone.digest] = max(stone.until, self._until.get(stone.digest, stone.until))

    def __len__(self) -> int:
        return len(self._until)

    def hides(
        self,
        visitor_id: str | None,
        user_id: str | None,
        session_id: str | None,
        occurred_at: datetime,
    ) -> bool:
        """Whether an event of these ids was erased, and so must not be stored again.

        True where one of the ids was erased and the event occurred (UTC, the client's clock) no
        later than that erasure reaches: a visitor who comes back afterwards is kept, unless erased
        `--forever`. Ids that are None or empty hide nothing.
        """
        return bool(self._until) and any(
            value and self._reaches(kind, value, occurred_at)
            for kind, value in (("visitor", visitor_id), ("user", user_id), ("session", session_id))
        )

    def hides_any(self, named: Named) -> bool:
        """`hides` for a rejected event, by the ids its bytes name and at whatever time."""
        return bool(self._until) and any(
            digest(self._key, kind, value) in self._until
            for kind, values in named.by_kind().items()
            for value in values
        )

    def _reaches(self, kind: str, value: str, occurred_at: datetime) -> bool:
        until = self._until.get(digest(self._key, kind, value))
        return until is not None and occurred_at <= until


@lru_cache(maxsize=65_536)
def digest(key: bytes, kind: str, value: str) -> str:
    """HMAC-SHA256 of an id of some kind, as hex."""
    return hmac.digest(key, f"{kind}\0{value}".encode("utf-8", "surrogatepass"), sha256).hex()


def key_id(key: bytes) -> str:
    """Tells keys apart without telling the key."""
    return hmac.digest(key, b"key id", sha256).hex()[:16]


def read_key(settings: Settings) -> bytes | None:
    """The key of the tombstones: of the settings, else of the home's file; None before the first
    erasure.
    """
    return settings.privacy.key.get_secret_value().encode() or read_key_file(
        settings.privacy_key_path
    )


def read_key_file(path: Path) -> bytes | None:
    """The key in a file; None where there is none."""
    try:
        return path.read_bytes().strip() or None
    except FileNotFoundError:
        return None


def make_key(settings: Settings) -> bytes:
    """The key of the tombstones, made where there is none yet, in a file that we alone may read."""
    key = read_key(settings)
    if key is None:
        path = settings.privacy_key_path
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(os.urandom(32).hex().encode())
            file.flush()
            os.fsync(file.fileno())
        key = read_key(settings)
        assert key is not None
    return key

"""The file that holds a box's keys, and its keys as a running app sees them.

One JSON file under SHALLOP_HOME, mode 0600, replaced as a whole. Every worker looks at it at most
once a second, so a revoked key is refused within a second, without a restart.
"""

import fcntl
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic
from typing import Literal

import msgspec

from api.keys import Key
from warehouse.origins import Origins
from warehouse.store import sync_folder

logger = logging.getLogger(__name__)

LOOK_SECONDS = 1.0

_VERSION = 1


class KeysUnreadable(RuntimeError):
    """The file of keys is there and cannot be read."""


class _Content(msgspec.Struct, forbid_unknown_fields=True):
    version: int
    keys: list[Key]


_decode = msgspec.json.Decoder(_Content).decode


def read(path: Path) -> dict[str, Key] | None:
    """The keys by id, revoked ones too; None where no file is. Raises KeysUnreadable."""
    try:
        content = _decode(path.read_bytes())
        for key in content.keys:
            Origins(key.origins)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:  # of msgspec, of an origin, of UTF-8
        raise KeysUnreadable(
            f"the keys at {path} cannot be read, restore the file or correct it: `{error}`"
        ) from None
    if content.version != _VERSION:
        raise KeysUnreadable(
            f"the keys at {path} were written by another version of Shallop, expected version "
            f"{_VERSION}: `{content.version}`"
        )
    return {key.id: key for key in content.keys}


@contextmanager
def changing(path: Path) -> Iterator[dict[str, Key]]:
    """The keys, to be changed; written on leaving without an error. One process at a time.

    Raises KeysUnreadable, OSError.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path.parent, os.O_RDONLY)  # locked itself: no file of another owner
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        keys = read(path) or {}
        yield keys
        _write(path, keys)
    finally:
        os.close(descriptor)


def _write(path: Path, keys: dict[str, Key]) -> None:
    content = _Content(_VERSION, list(keys.values()))
    data = msgspec.json.format(msgspec.json.encode(content), indent=1)
    temporary = path.with_suffix(".new")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    if os.geteuid() == 0:  # as in `docker compose exec --user root`: the app must read it too
        owner = path.parent.stat()
        os.chown(temporary, owner.st_uid, owner.st_gid)
    temporary.replace(path)
    sync_folder(path.parent)


@dataclass(frozen=True)
class KeyState:
    """The keys at one look. `error` says what is wrong with the file.

    `is_locked`: the file is wrong and no earlier look found it right, so no key can be told good.
    """

    keys: dict[str, Key] = field(default_factory=dict)
    is_required: bool = False
    is_locked: bool = False
    error: str | None = None
    origins: Origins = field(default_factory=Origins)

    def n_usable(self, now: datetime) -> dict[str, int]:
        """Keys that are good now, by kind."""
        counts = {"write": 0, "secret": 0}
        for key in self.keys.values():
            counts[key.kind] += key.is_usable(now)
        return counts


class KeyHolder:
    """The keys as this process knows them; a file that turns bad leaves the last good ones."""

    def __init__(
        self,
        path: Path,
        mode: Literal["auto", "always", "never"],
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self.path = path
        self.mode = mode
        self._clock = clock
        self._next_look = float("-inf")
        self._seen: object = "nothing yet"
        self._state = KeyState()

    def look(self) -> KeyState:
        """The keys, at most a second old."""
        now = self._clock()
        if now >= self._next_look and self.mode != "never":
            self._next_look = now + LOOK_SECONDS
            seen = _signature(self.path)
            if seen != self._seen:
                self._seen = seen
                self._state = self._read()
        return self._state

    def _read(self) -> KeyState:
        """What the file says now, and a line in the log where that is another thing than before."""
        known = self._state.keys
        try:
            found = read(self.path)
            if found is None and known:
                raise KeysUnreadable(f"the keys have vanished, restore the file: `{self.path}`")
        except KeysUnreadable as error:
            logger.error("keys_unreadable n_kept=%d error=%r", len(known), str(error))
            return KeyState(known, True, not known, str(error), self._state.origins)
        keys = found or {}
        is_required = self.mode == "always" or bool(keys)
        state = KeyState(keys, is_required, origins=_origins_of(keys))
        if is_required:
            logger.info("keys_read n_write=%(write)d n_secret=%(secret)d", state.n_usable(_now()))
        return state


def _origins_of(keys: dict[str, Key]) -> Origins:
    """Origins that some usable key allows: whose pages may read our answers."""
    now = _now()
    return Origins(origin for key in keys.values() if key.is_usable(now) for origin in key.origins)


def _signature(path: Path) -> object:
    """Changes whenever the file does, by our hand or another's."""
    try:
        found = path.stat()
    except OSError as error:
        return error.errno
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _now() -> datetime:
    return datetime.now(UTC)

"""How far a replay over HTTP has come, on disk: a replay that was killed goes on from there.

One small file for each history (by its content) and collector. It may lag behind what the
collector has: what is sent again has the same ids, and is the same events.
"""

import hashlib
import os
from collections import Counter
from pathlib import Path
from time import monotonic

import msgspec

from warehouse.store import sync_folder

_SAVE_EVERY_SECONDS = 0.5


class State(msgspec.Struct):
    """The first `n_events` of a history are answered for: so many accepted, or rejected."""

    n_events: int = 0
    accepted: int = 0
    rejected: dict[str, int] = msgspec.field(default_factory=dict)


class Progress:
    """The state of one replay; a file that cannot be read counts as none."""

    def __init__(self, folder: Path, digest: str, url: str) -> None:
        name = hashlib.sha256(f"{digest} {url}".encode()).hexdigest()[:32]
        self.path = folder / f"{name}.json"
        self.state = State()
        self._saved_at = 0.0
        try:
            self.state = msgspec.json.decode(self.path.read_bytes(), type=State)
        except (FileNotFoundError, msgspec.DecodeError):
            folder.mkdir(parents=True, exist_ok=True)

    def forget(self) -> None:
        """Begin anew."""
        self.state = State()
        self.save()

    def advance(self, n_events: int, accepted: int, rejected: Counter[str]) -> None:
        """The next events are answered for; saved now and then."""
        self.state.n_events += n_events
        self.state.accepted += accepted
        self.state.rejected = dict(Counter(self.state.rejected) + rejected)
        if monotonic() - self._saved_at > _SAVE_EVERY_SECONDS:
            self.save()

    def save(self) -> None:
        """Make the state durable: whole, or as it was before."""
        temporary = self.path.with_suffix(f".{os.getpid()}.partial")
        with temporary.open("wb") as file:
            file.write(msgspec.json.encode(self.state))
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, self.path)
        sync_folder(self.path.parent)
        self._saved_at = monotonic()

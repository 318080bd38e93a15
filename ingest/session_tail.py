"""Live sessions as one process reads them: the table, and what is in the outbox but not in it yet.

The end of the outbox is read once and kept in memory, in segments that are dropped when the table
has them. A step may be in both for a while: reading drops repeats.
"""

import threading
from collections import deque
from dataclasses import dataclass, field
from datetime import UTC, datetime

from ingest.outbox_file import EVENTS, OutboxFile
from ingest.sessions import (
    FOLD_EVENTS,
    SessionEvent,
    SessionPart,
    add,
    decode_session_events,
    items_of,
    microseconds,
    session_key,
    steps_of_row,
)
from warehouse.settings import IngestSettings

_MAX_SESSIONS_OF_VISITOR = 20

_TAIL = """
select stream.n_folded, batch.last_seq, batch.lines, erasure.version
from erasure, stream left join batch
on batch.stream = stream.name and batch.first_seq > max(stream.n_folded, ?)
where stream.name = ? order by batch.first_seq
"""


@dataclass
class _Segment:
    """What the events up to `last_seq`, from the end of the segment before, add to sessions."""

    last_seq: int = 0
    n_events: int = 0
    parts: dict[str, SessionPart] = field(default_factory=dict)
    keys: dict[str, set[str]] = field(default_factory=dict)  # of a visitor's sessions

    def add(self, last_seq: int, events: list[SessionEvent]) -> None:
        add(self.parts, events)
        for event in events:
            if event.visitor_id:
                self.keys.setdefault(event.visitor_id, set()).add(session_key(event))
        self.n_events += len(events)
        self.last_seq = last_seq


class SessionTail:
    """Reads sessions of one outbox file. Methods are safe from any thread."""

    def __init__(self, file: OutboxFile, settings: IngestSettings) -> None:
        self.file = file
        self.settings = settings
        self._segments: deque[_Segment] = deque()
        self._read_to = 0
        self._erasure = 0
        self._lock = threading.Lock()

    def items(self, name: str, *, by_visitor: bool = True) -> list[str]:
        """Item ids of the session, else (`by_visitor`) of the visitor's live session, of that name.

        Raises OutboxBroken.
        """
        now = microseconds(datetime.now(UTC))
        with self._lock:
            self._read()  # before the table: what is folded meanwhile is then in both
            key = f"s:{name}"
            found = self._found(key)
            if found and found.seen_at < now - self.settings.session_ttl_seconds * 1_000_000:
                found = None
            if found is None and by_visitor:
                seen_after = now - self.settings.session_gap_seconds * 1_000_000
                key, found = self._latest_of_visitor(name, seen_after)
        if found is None:
            return []
        gap_seconds = self.settings.session_gap_seconds if key.startswith("v:") else None
        return items_of(found.steps, self.settings.session_max_steps, gap_seconds)

    def _read(self) -> None:
        """Read on to the end of the outbox, and forget what the table has."""
        found = self.file.rows(_TAIL, self._read_to, EVENTS)
        if found[0][3] != self._erasure:  # what was read may be erased: read the file anew
            self._erasure = found[0][3]
            self._segments.clear()
            found = self.file.rows(_TAIL, 0, EVENTS)
        for _, last_seq, lines, _ in found:
            if last_seq is None:  # nothing new
                break
            if not self._segments or self._segments[-1].n_events >= FOLD_EVENTS:
                self._segments.append(_Segment())
            self._segments[-1].add(last_seq, decode_session_events(lines))
            self._read_to = last_seq
        while self._segments and self._segments[0].last_seq <= found[0][0]:
            self._segments.popleft()

    def _found(self, key: str) -> SessionPart | None:
        """A session, None where it has no step."""
        row = self.file.row("select visitor_id, seen_at, steps from session where key = ?", key)
        found = SessionPart(row[0], row[1], steps_of_row(row[2])) if row else SessionPart()
        for segment in self._segments:
            part = segment.parts.get(key)
            if part is not None:
                found.visitor_id = part.visitor_id or found.visitor_id
                found.seen_at = max(found.seen_at, part.seen_at)
                found.steps += part.steps
        return found if found.has_items else None

    def _latest_of_visitor(
        self, visitor_id: str, seen_after: int
    ) -> tuple[str, SessionPart | None]:
        """The visitor's session that was seen last, if that was not before `seen_after`."""
        keys = {
            key
            for (key,) in self.file.rows(
                "select key from session where visitor_id = ? order by seen_at desc limit ?",
                visitor_id,
                _MAX_SESSIONS_OF_VISITOR,
            )
        }
        for segment in self._segments:
            keys |= segment.keys.get(visitor_id, set())
        sessions = ((key, self._found(key)) for key in keys)
        live = [
            (key, found)
            for key, found in sessions
            if found and found.visitor_id == visitor_id and found.seen_at >= seen_after
        ]
        return max(live, key=lambda one: one[1].seen_at, default=("", None))

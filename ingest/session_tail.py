"""Live sessions as one process reads them: the table, and what is in the outbox but not in it yet.

The end of the outbox is read once and kept in memory, in segments that are dropped when the table
has them. A step may be in both for a while: reading drops repeats.
"""

import threading
from collections import deque
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import groupby

from ingest.moments import microseconds
from ingest.outbox_file import EVENTS, OutboxFile
from ingest.rows import are_columns, events_table, lines_of
from ingest.session_columns import SCHEMA, session_rows
from ingest.sessions import (
    FOLD_EVENTS,
    SessionPart,
    add,
    decode_session_events,
    items_of,
    session_key,
    steps_of_row,
)
from warehouse.settings import IngestSettings

_MAX_SESSIONS_OF_VISITOR = 20

_TAIL = """
select stream.n_folded, erasure.version, batch.first_seq, batch.last_seq, batch.lines
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

    def add_lines(self, lines: bytes) -> None:
        """Add few events: one by one."""
        events = decode_session_events(lines)
        add(self.parts, events)
        for event in events:
            if event.visitor_id:
                self.keys.setdefault(event.visitor_id, set()).add(session_key(event))

    def add_columns(self, pieces: list[bytes]) -> None:
        """Add events that the outbox has as columns: many at once."""
        rows = session_rows(events_table(pieces, SCHEMA)).columns[:4]
        for key, *added in zip(*(column.to_pylist() for column in rows), strict=True):
            self.parts.setdefault(key, SessionPart()).add(*added)
            if added[0]:
                self.keys.setdefault(added[0], set()).add(key)


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
        if found[0][1] != self._erasure:  # what was read may be erased: read the file anew
            self._erasure = found[0][1]
            self._segments.clear()
            found = self.file.rows(_TAIL, 0, EVENTS)
        new = [row[2:] for row in found if row[2] is not None]
        for is_columns, group in groupby(new, key=lambda row: are_columns(row[2])):
            self._add(is_columns, list(group))
        while self._segments and self._segments[0].last_seq <= found[0][0]:
            self._segments.popleft()

    def _add(self, is_columns: bool, rows: list[tuple[int, int, bytes]]) -> None:
        """Take in adjoining rows of the outbox (first_seq, last_seq, piece), all of one kind."""
        if not self._segments or self._segments[-1].n_events >= FOLD_EVENTS:
            self._segments.append(_Segment())
        segment = self._segments[-1]
        pieces = [piece for *_, piece in rows]
        if is_columns:
            segment.add_columns(pieces)
        else:
            segment.add_lines(b"".join(map(lines_of, pieces)))
        segment.n_events += sum(last_seq - first_seq + 1 for first_seq, last_seq, _ in rows)
        segment.last_seq = self._read_to = rows[-1][1]

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

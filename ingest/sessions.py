"""Live session state: the latest items of each session, as the recommender reads them.

A session is known by the client's `session_id`, or, where events carry none, by the `visitor_id`
until a gap of inactivity. Steps are read in the order of the marts (`occurred_at`, `event_id`,
place in the event), so that what is served ranks as what was trained.

State is a fold over the outbox. An event that was appended is part of its session at once: what is
not folded into the table yet is read from the outbox itself (`SessionTail`). Folding takes a few
thousand events together, and is done before their rows leave the outbox.
"""

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import accumulate

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from ingest import session_columns
from ingest.moments import microseconds
from ingest.outbox_file import EVENTS, OutboxFile
from ingest.rows import events_table
from ingest.session_columns import session_rows
from warehouse.contracts import STEP_EVENT_NAMES
from warehouse.settings import IngestSettings

# occurred_at in microseconds, event_id, place in the event's items, item_id. Where a gap ends a
# session, an event without items is one too, with an empty item_id: it keeps the session alive.
Step = tuple[int, str, int, str]

FOLD_EVENTS = 2_000

_STEP_EVENT_NAMES = frozenset(STEP_EVENT_NAMES)
_PURGE_ROWS = 2_000
_STEP_LENGTH = 360  # of the longest step in a row, in characters

_encode = msgspec.json.Encoder().encode
_decode_steps = msgspec.json.Decoder(Step).decode_lines

# Rows are [key, visitor_id, seen_at, where their steps begin in :steps, how many bytes they take]:
# as text within the rows, steps would be parsed for each of these. Of an empty blob substr is null.
_UPSERT = """
insert into session (key, visitor_id, seen_at, steps)
select value ->> 0, value ->> 1, value ->> 2,
    coalesce(cast(substr(:steps, value ->> 3, value ->> 4) as text), '')
from json_each(:rows) where true
on conflict (key) do update set
    visitor_id = coalesce(excluded.visitor_id, visitor_id),
    seen_at = max(seen_at, excluded.seen_at),
    steps = case
        when length(steps) < :max_length then steps
        else substr(steps, -:max_length / 2 + instr(substr(steps, -:max_length / 2), char(10)))
    end || excluded.steps
"""
_TOUCH = """
update session set
    visitor_id = coalesce(value ->> 1, visitor_id),
    seen_at = max(seen_at, value ->> 2),
    steps = steps || coalesce(cast(substr(:steps, value ->> 3, value ->> 4) as text), '')
from json_each(:rows) where session.key = value ->> 0
"""
_UNFOLDED = """
select n_folded, version, last_seq, lines
from erasure, stream join batch on batch.stream = stream.name
    and batch.first_seq > n_folded and batch.first_seq <= n_folded + ?
where stream.name = ? order by batch.first_seq
"""
_MOVE = """
update stream set n_folded = ?
where name = ? and n_folded = ? and (select version from erasure) = ?
"""


class _Item(msgspec.Struct, gc=False):
    item_id: str | None = None


class SessionEvent(msgspec.Struct, gc=False):
    """What a session needs of an event in the outbox."""

    event_id: str
    event_name: str
    occurred_at: datetime
    received_at: datetime
    session_id: str | None = None
    visitor_id: str | None = None
    items: list[_Item] | None = None


decode_session_events = msgspec.json.Decoder(SessionEvent).decode_lines


@dataclass(slots=True)
class SessionPart:
    """What some events add to a session: `seen_at` on our clock, in microseconds."""

    visitor_id: str | None = None
    seen_at: int = 0
    steps: list[Step] = field(default_factory=list)

    def add(self, visitor_id: str | None, seen_at: int, steps: str) -> None:
        """Take in what further events add; `steps` as in a row of the table."""
        self.visitor_id = visitor_id or self.visitor_id
        self.seen_at = max(self.seen_at, seen_at)
        self.steps += steps_of_row(steps)

    @property
    def has_items(self) -> bool:
        return any(step[3] for step in self.steps)


def session_key(event: SessionEvent) -> str:
    """Key of the session that an event belongs to."""
    return f"s:{event.session_id}" if event.session_id else f"v:{event.visitor_id}"


def add(parts: dict[str, SessionPart], events: Iterable[SessionEvent]) -> None:
    """Take `events` into `parts`, by the key of their session."""
    received_at, seen_at = None, 0
    for event in events:
        session_id, visitor_id = event.session_id, event.visitor_id
        key = session_key(event)
        part = parts.get(key)
        if part is None:
            part = parts[key] = SessionPart()
        if visitor_id:
            part.visitor_id = visitor_id
        if event.received_at != received_at:  # all events of a request have the same
            received_at = event.received_at
            seen_at = microseconds(received_at)
        if seen_at > part.seen_at:
            part.seen_at = seen_at
        if event.event_name in _STEP_EVENT_NAMES:
            occurred_at = microseconds(event.occurred_at)
            for place, item in enumerate(event.items or ()):
                if item.item_id:
                    part.steps.append((occurred_at, event.event_id, place, item.item_id))
        elif not session_id:
            part.steps.append((microseconds(event.occurred_at), event.event_id, 0, ""))


def fold(file: OutboxFile, settings: IngestSettings, n_events: int = FOLD_EVENTS) -> bool:
    """Take about `n_events` of the events not folded yet into the table; False where none is.

    What they add is worked out before the transaction, which others wait for, and given up where
    another process was first or a person was erased meanwhile.
    """
    found = file.rows(_UNFOLDED, n_events, EVENTS)
    if not found:
        return False
    folded, version, *_ = found[0]
    rows = session_rows(events_table((row[3] for row in found), session_columns.SCHEMA))
    with file.transaction() as connection:
        moved = connection.execute(_MOVE, (found[-1][2], EVENTS, folded, version))
        if moved.rowcount:
            _store(connection, rows, settings)
    return True


def leave_out(file: OutboxFile) -> int:
    """Pass over the next row of the outbox, which no fold can take; how many events it has."""
    found = file.rows(_UNFOLDED, 1, EVENTS)
    if not found:
        return 0
    folded, version, last_seq, _ = found[0]
    with file.transaction() as connection:
        moved = connection.execute(_MOVE, (last_seq, EVENTS, folded, version))
    return int(last_seq - folded) * moved.rowcount


def n_unfolded(file: OutboxFile) -> int:
    """Events in the outbox that are not in the table yet."""
    return int(file.row("select n_in - n_folded from stream where name = ?", EVENTS)[0])


def purge(file: OutboxFile, after_row: int, settings: IngestSettings) -> int:
    """Forget sessions idle for too long among the rows that follow `after_row`.

    Gives the row to go on from, 0 at the end of the table: a slice at a time, so that the writer
    never waits long.
    """
    oldest = microseconds(datetime.now(UTC)) - settings.session_ttl_seconds * 1_000_000
    last_row = file.row(
        "select max(rowid) from (select rowid from session where rowid > ? order by rowid limit ?)",
        after_row,
        _PURGE_ROWS,
    )[0]
    if last_row is None:
        return 0
    with file.transaction() as connection:
        connection.execute(
            "delete from session where rowid > ? and rowid <= ? and seen_at < ?",
            (after_row, last_row, oldest),
        )
    return int(last_row)


def steps_of_row(steps: str) -> list[Step]:
    """The steps that a row of the table holds."""
    return _decode_steps(steps)


def items_of(steps: Iterable[Step], max_steps: int, gap_seconds: int | None) -> list[str]:
    """Item ids in order, repeats collapsed, the latest `max_steps`.

    With `gap_seconds` only of the steps since the last gap as long. An event that was sent again
    counts once, at its first time, also where a client that names no time gave it another.
    """
    first: dict[tuple[str, int], Step] = {}
    for step in sorted(steps):
        first.setdefault((step[1], step[2]), step)
    ordered = list(first.values())
    if gap_seconds is not None:
        ordered = ordered[_after_last_gap(ordered, gap_seconds * 1_000_000) :]
    items: list[str] = []
    for *_, item_id in ordered:
        if item_id and (not items or items[-1] != item_id):
            items.append(item_id)
    return items[-max_steps:]


def _after_last_gap(ordered: list[Step], gap: int) -> int:
    """Index of the first step that follows the last gap."""
    for index in range(len(ordered) - 1, 0, -1):
        if ordered[index][0] - ordered[index - 1][0] > gap:
            return index
    return 0


def _store(connection: sqlite3.Connection, rows: pa.RecordBatch, settings: IngestSettings) -> None:
    """Add to the rows of the sessions; one without a step is not worth a row until it has one.

    Steps are put after those that are there, in one statement: rows are put in order when read.
    `rows` (`session_columns.ROWS`) are sorted by key, so that neighbours share pages.
    """
    max_length = 2 * settings.session_max_steps * _STEP_LENGTH
    for statement, has_items in ((_UPSERT, 1), (_TOUCH, 0)):
        chosen = rows.filter(pc.equal(rows["has_items"], has_items))
        if not chosen.num_rows:
            continue
        key, visitor_id, seen_at, steps = (
            chosen[name].to_pylist() for name in ("key", "visitor_id", "seen_at", "steps")
        )
        texts = [text.encode() for text in steps]
        lengths = [len(text) for text in texts]
        starts = accumulate(lengths, initial=1)
        index = list(zip(key, visitor_id, seen_at, starts, lengths, strict=False))
        values = {"rows": _encode(index).decode(), "steps": b"".join(texts)}
        connection.execute(statement, values | {"max_length": max_length})

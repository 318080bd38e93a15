"""Live session state: the latest items of each session, as the recommender reads them.

A session is known by the client's `session_id`, or, where events carry none, by the `visitor_id`
until a gap of inactivity. Steps are kept in the order of the marts (`occurred_at`, `event_id`,
place in the event), so that what is served ranks as what was trained.
"""

import sqlite3
from dataclasses import dataclass, field
from datetime import UTC, datetime

import msgspec

from ingest.contract import Event
from ingest.outbox_file import OutboxFile
from warehouse.contracts import STEP_EVENT_NAMES
from warehouse.settings import IngestSettings

# occurred_at in microseconds, event_id, place in the event's items, item_id
Step = tuple[int, str, int, str]

_STEP_EVENT_NAMES = frozenset(STEP_EVENT_NAMES)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_decode_steps = msgspec.json.Decoder(list[Step]).decode
_encoder = msgspec.json.Encoder()
_PURGE_ROWS = 2_000


def microseconds(moment: datetime) -> int:
    """Whole microseconds since 1970 of a time with a zone."""
    passed = moment - _EPOCH
    return (passed.days * 86_400 + passed.seconds) * 1_000_000 + passed.microseconds


def from_microseconds(passed: int) -> datetime:
    """The UTC time that many microseconds after 1970."""
    return datetime.fromtimestamp(passed // 1_000_000, UTC).replace(microsecond=passed % 1_000_000)


@dataclass
class LiveSession:
    """One session's row: times in microseconds, `seen_at` on our clock, `last_at` on theirs."""

    key: str
    visitor_id: str | None = None
    seen_at: int = 0
    last_at: int = 0
    steps: list[Step] = field(default_factory=list)

    @classmethod
    def load(
        cls, key: str, visitor_id: str | None, seen_at: int, last_at: int, steps: str
    ) -> "LiveSession":
        return cls(key, visitor_id, seen_at, last_at, _decode_steps(steps))

    def row(self) -> tuple[str, str | None, int, int, str]:
        """The row as `load` takes it."""
        steps = _encoder.encode(self.steps).decode()
        return self.key, self.visitor_id, self.seen_at, self.last_at, steps

    def add(self, event: Event, gap_seconds: int) -> None:
        """Take in one event; one that belongs to an earlier session of the visitor is passed by."""
        occurred_at = microseconds(event.occurred_at)
        if event.session_id is None and self.last_at:
            gap = gap_seconds * 1_000_000
            if occurred_at > self.last_at + gap:
                self.steps.clear()
            elif occurred_at < self.last_at - gap and occurred_at < self._first_at() - gap:
                return
        if event.visitor_id:
            self.visitor_id = event.visitor_id
        if occurred_at > self.last_at:
            self.last_at = occurred_at
        if event.event_name in _STEP_EVENT_NAMES:
            for place, item in enumerate(event.items or ()):
                if item.item_id:
                    self.steps.append((occurred_at, event.event_id, place, item.item_id))

    def settle(self, seen_at: int, max_steps: int) -> None:
        """Put the steps in order, after the events received until `seen_at` were added.

        Repeats of an item are collapsed when read, so that a late event can still come between.
        """
        self.seen_at = max(self.seen_at, seen_at)
        if len(self.steps) > 1:
            self.steps = sorted(set(self.steps))[-2 * max_steps :]

    def _first_at(self) -> int:
        return min((step[0] for step in self.steps), default=self.last_at)


def session_key(event: Event) -> str:
    """Key of the row that an event belongs to."""
    return f"s:{event.session_id}" if event.session_id else f"v:{event.visitor_id}"


def update(connection: sqlite3.Connection, events: list[Event], settings: IngestSettings) -> None:
    """Take `events`, sorted by `received_at`, into the rows of their sessions."""
    keys = {session_key(event) for event in events}
    found = connection.execute(
        "select json_group_array(json_array(key, visitor_id, seen_at, last_at, steps)) "
        "from session where key in (select value from json_each(?))",
        (_encoder.encode(list(keys)).decode(),),
    ).fetchone()[0]
    known = {row[0]: LiveSession.load(*row) for row in msgspec.json.decode(found)}
    changed = [session.row() for session in _touched(events, known, settings)]
    connection.execute(
        "insert into session (key, visitor_id, seen_at, last_at, steps) "
        "select value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4 "
        "from json_each(?) where true on conflict (key) do update set "
        "visitor_id = excluded.visitor_id, seen_at = excluded.seen_at, "
        "last_at = excluded.last_at, steps = excluded.steps",
        (_encoder.encode(changed).decode(),),
    )


def steps(file: OutboxFile, key: str, settings: IngestSettings) -> list[str]:
    """Item ids of the session, else of the visitor's live session, that `key` names."""
    now = microseconds(datetime.now(UTC))
    found = file.row(
        "select steps from session where key = ? and seen_at >= ?",
        f"s:{key}",
        now - settings.session_ttl_seconds * 1_000_000,
    ) or file.row(
        "select steps from session where visitor_id = ? and seen_at >= ? "
        "order by seen_at desc limit 1",
        key,
        now - settings.session_gap_seconds * 1_000_000,
    )
    return _items_of(found[0], settings.session_max_steps) if found else []


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


def _items_of(steps: str, max_steps: int) -> list[str]:
    """Item ids of a row's steps, repeats collapsed, the latest `max_steps`."""
    items: list[str] = []
    for *_, item_id in _decode_steps(steps):
        if not items or items[-1] != item_id:
            items.append(item_id)
    return items[-max_steps:]


def _touched(
    events: list[Event], known: dict[str, LiveSession], settings: IngestSettings
) -> list[LiveSession]:
    """The sessions that `events`, sorted by `received_at`, change, given the rows `known` so far.

    A session without a step is not worth a row until it has one.
    """
    changed: dict[str, LiveSession] = {}
    for event in events:
        key = session_key(event)
        session = changed.get(key)
        if session is None:
            session = changed[key] = known.get(key) or LiveSession(key)
        session.add(event, settings.session_gap_seconds)
    seen_at = microseconds(events[-1].received_at)
    for session in changed.values():
        session.settle(seen_at, settings.session_max_steps)
    return [session for session in changed.values() if session.steps or session.key in known]

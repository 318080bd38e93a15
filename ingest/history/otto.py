"""OTTO's data set: JSON lines of `{"session": 42, "events": [{"aid": …, "ts": …, "type": …}]}`.

`ts` is epoch milliseconds, `type` one of `clicks`, `carts`, `orders`:
https://github.com/otto-de/recsys-dataset#data-format. Also read are tables with the columns
`session`, `aid`, `ts`, `type`, as the data is often passed on. A row is one event, in both. What is
called a session there is all that one visitor did in weeks, so it becomes the visitor; our sessions
are cut by their gaps.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl

from ingest.history.files import Tally, frames, records
from ingest.history.formats import Format, Source
from ingest.history.mapping import From, TableMapping, events_of
from ingest.history.times import TimeFormat

_COLUMNS = ("session", "aid", "ts", "type")
_MAPPING = TableMapping(
    {
        "occurred_at": From(("ts",)),
        "event_name": From(("type",)),
        "visitor_id": From(("session",)),
    },
    {"item_id": From(("aid",))},
    {"clicks": "view_item", "carts": "add_to_cart", "orders": "purchase"},
    TimeFormat("ms"),
)


def _role_of(names: list[str]) -> str | None:
    if {"session", "events"} <= set(names):
        return "sessions"
    return "table" if set(_COLUMNS) <= set(names) else None


def _read(source: Source, tally: Tally) -> Iterator[pl.DataFrame]:
    for file in source.of("sessions"):
        yield from events_of(_exploded(file, tally), _MAPPING, tally, source.options.max_items)
    for file in source.of("table"):
        rows = frames(file, tally, _COLUMNS)
        yield from events_of(rows, _MAPPING, tally, source.options.max_items)


def _exploded(file: Path, tally: Tally) -> Iterator[pl.DataFrame]:
    """A row for each event of each session."""
    lines = Tally()
    n_bad = 0
    for sessions in records(file, lines):
        tally.n_rows += lines.skipped.total() - n_bad
        n_bad = lines.skipped.total()
        rows: list[tuple[Any, ...]] = []
        for session in sessions:
            events = session.get("events")
            if not isinstance(events, list) or not events:
                tally.n_rows += 1
                tally.skip("a session without events")
                continue
            rows += [_row(session.get("session"), event) for event in events]
        tally.n_rows += len(rows)
        schema = dict.fromkeys(_COLUMNS, pl.String)
        yield pl.DataFrame(rows, schema=schema, orient="row")
    tally.n_rows += lines.skipped.total() - n_bad
    tally.skipped.update(lines.skipped)


def _row(session: Any, event: Any) -> tuple[str | None, ...]:
    fields = event if isinstance(event, dict) else {}
    values = (session, fields.get("aid"), fields.get("ts"), fields.get("type"))
    return tuple(None if value is None else str(value) for value in values)


OTTO = Format(
    name="otto",
    expects="`session` and `events` (JSON lines), or `session`, `aid`, `ts`, `type`",
    role_of=_role_of,
    events=frozenset({"sessions", "table"}),
    read=_read,
)

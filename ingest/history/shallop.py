"""Our own forms: events as the collector takes them or raw keeps them, and simple tables.

A simple table has `event_time`, `event_type` (`view`, `add_to_cart`, `remove_from_cart`,
`purchase`, or a name of ours), `item_id`, one of `session_id` and `user_id`, and may have `price`,
`quantity`, `title`, `category`, `currency`. What shops know about their items beside the events is
a file `items.*` with `item_id` and any of `title`, `category`, `price`.
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import polars as pl

from ingest.history.files import Tally, records
from ingest.history.formats import Format, Options, Source, table_reader
from ingest.history.frame import from_events
from ingest.history.mapping import From, TableMapping
from ingest.history.times import TimeFormat

EVENT_NAMES = {"view": "view_item", "cart": "add_to_cart"}

_NEEDED = frozenset({"event_time", "event_type", "item_id"})
_WHO = frozenset({"session_id", "user_id"})
# Columns of our own events that the collector sets anew.
_SET_ANEW = frozenset({"received_at", "ip_prefix", "source", "schema_version", "date", "hour"})


def _role_of(names: list[str]) -> str | None:
    if "event_name" in names and "event_timestamp" not in names:
        return "events"
    if set(names) >= _NEEDED and _WHO & set(names):
        return "table"
    if "item_id" in names and not {"event_time", "event_type"} & set(names):
        return "items"
    return None


def _mappings(options: Options) -> dict[str, TableMapping]:
    fields = {
        "occurred_at": From(("event_time",)),
        "event_name": From(("event_type",)),
        "session_id": From(("session_id",)),
        "visitor_id": From(("user_id", "session_id")),
        "user_id": From(("user_id",)),
        "currency": From(("currency",)),
    }
    items = {
        "item_id": From(("item_id",)),
        "item_name": From(("title",)),
        "item_category": From(("category",)),
        "price": From(("price",)),
        "quantity": From(("quantity",)),
    }
    time = TimeFormat(timezone=options.timezone)
    return {"table": TableMapping(fields, items, EVENT_NAMES, time)}


_read_tables = table_reader(_mappings)


def _read(source: Source, tally: Tally) -> Iterator[pl.DataFrame]:
    for file in source.of("events"):
        for rows in records(file, tally):
            yield from_events([_own(row) for row in rows])
    yield from _read_tables(source, tally)


def _own(row: dict[str, Any]) -> dict[str, Any]:
    event = {
        name: value for name, value in row.items() if value is not None and name not in _SET_ANEW
    }
    occurred_at = event.get("occurred_at")
    if isinstance(occurred_at, datetime):
        zoned = occurred_at if occurred_at.tzinfo else occurred_at.replace(tzinfo=UTC)
        event["occurred_at"] = zoned.isoformat()
    if isinstance(event.get("items"), list):
        event["items"] = [
            {key: value for key, value in item.items() if value is not None}
            if isinstance(item, dict)
            else item
            for item in event["items"]
        ]
    return event


SHALLOP = Format(
    name="shallop",
    expects="a column `event_name` (our own events), or `event_time`, `event_type`, `item_id` and "
    "`session_id` or `user_id`; beside them may lie `items` with `item_id`",
    role_of=_role_of,
    events=frozenset({"events", "table"}),
    read=_read,
)

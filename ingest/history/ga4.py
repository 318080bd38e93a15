"""Google Analytics 4, its export to BigQuery, taken out as Parquet or JSON lines.

Tables `events_YYYYMMDD`, https://support.google.com/analytics/answer/7029846: `event_timestamp`
(UTC microseconds), `event_name`, `event_params` (a list of `key` and a `value` with one of
`string_value`, `int_value`, `double_value`, `float_value`), `user_pseudo_id`, `user_id`,
`ecommerce`, `items`. JSON from BigQuery has its integers as text. Events that our vocabulary has no
name for (`session_start`, `scroll`) are left out, counted by name. `ga_session_id` is the second in
which a session began: unique with its visitor, so the session is
`<user_pseudo_id>.<ga_session_id>`, as of the Measurement Protocol.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl

from ingest.history.files import Tally, records
from ingest.history.formats import Format, Source
from ingest.history.frame import from_events
from ingest.protocols.ga4 import EVENTS
from ingest.protocols.values import as_amount, as_count, as_items, as_text, session_of

_NEEDED = frozenset({"event_timestamp", "event_name", "user_pseudo_id"})
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_VALUES = ("string_value", "int_value", "double_value", "float_value")
_TAKEN = frozenset(
    {"event_timestamp", "event_name", "event_params", "user_pseudo_id", "user_id", "items"}
)
# What Google writes where it knows nothing.
_NOTHING = (None, "", "(not set)")


def _read(source: Source, tally: Tally) -> Iterator[pl.DataFrame]:
    for file in source.of("events"):
        for rows in records(file, tally):
            events = [event for row in rows if (event := _event(row, tally)) is not None]
            if events:
                yield from_events(events)


def _event(row: dict[str, Any], tally: Tally) -> dict[str, Any] | None:
    name = as_text(row.get("event_name"))
    if not isinstance(name, str) or name not in EVENTS:
        tally.skip(f"no event of ours stands for {name}")
        return None
    occurred_at = _time(row.get("event_timestamp"))
    if occurred_at is None:
        tally.skip("a row without a time")
        return None
    params = _params(row.get("event_params"))
    visitor_id = as_text(row.get("user_pseudo_id")) or as_text(row.get("user_id"))
    ecommerce = _present(row.get("ecommerce"))
    value = as_amount(params.pop("value", ecommerce.pop("purchase_revenue", None)))
    items = [_item(item) for item in row.get("items") or ()]
    lists = {item.pop("item_list_id", None) for item in items} - {None}
    rest = {key: row[key] for key in row if key not in _TAKEN and key != "ecommerce"}
    extra = rest | {"event_params": params, "ecommerce": ecommerce}
    return {
        "event_name": EVENTS[name],
        "occurred_at": occurred_at.isoformat(),
        "visitor_id": visitor_id,
        "user_id": as_text(row.get("user_id")),
        "session_id": session_of(visitor_id, params.pop("ga_session_id", None)),
        "items": as_items(items, {"item_list_index": "index"}) or None,
        "item_list_id": params.pop("item_list_id", None)
        or (lists.pop() if len(lists) == 1 else None),
        "recommendation_id": as_text(params.pop("recommendation_id", None)),
        "value": value,
        "currency": as_text(params.pop("currency", None)),
        "page_url": params.pop("page_location", None),
        "referrer": params.pop("page_referrer", None),
        "extra": _json_object(extra) or None,
    }


def _time(micros: Any) -> datetime | None:
    micros = as_count(micros)
    try:
        return None if micros is None else _EPOCH + timedelta(microseconds=micros)
    except (TypeError, OverflowError):
        return None


def _params(sent: Any) -> dict[str, Any]:
    """`event_params` as an object, each with the one value that it has."""
    params = {}
    for param in sent or ():
        values = param.get("value") or {}
        value = next((values[kind] for kind in _VALUES if values.get(kind) is not None), None)
        if value is not None:
            params[param["key"]] = value
    return params


def _item(sent: dict[str, Any]) -> dict[str, Any]:
    """An item with the fields of ours; all else that Google adds goes to `extra`."""
    item = _present(sent)
    if as_count(item.get("quantity")) == 0:
        del item["quantity"]
    categories = [item.pop(f"item_category{n}", None) for n in ("", 2, 3, 4, 5)]
    category = "/".join(part for part in categories if part)
    return item | ({"item_category": category} if category else {})


def _present(fields: Any) -> dict[str, Any]:
    """An object without what says that nothing is known."""
    if not isinstance(fields, dict):
        return {}
    return {key: value for key, value in fields.items() if value not in _NOTHING and value != []}


def _json_object(fields: dict[str, Any]) -> dict[str, Any]:
    """Without what is null or empty, at any depth."""
    found = {}
    for key, value in fields.items():
        kept = _json_object(value) if isinstance(value, dict) else value
        if kept not in (None, "", {}, []):
            found[key] = kept
    return found


GA4 = Format(
    name="ga4-bigquery",
    expects="`event_timestamp`, `event_name`, `user_pseudo_id` (and `event_params`, `items`, …)",
    role_of=lambda names: "events" if set(names) >= _NEEDED else None,
    events=frozenset({"events"}),
    read=_read,
)

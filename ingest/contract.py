"""The event contract: what clients may send, what is kept, and how it becomes Arrow.

`Event` has the fields of `warehouse.contracts.RAW_EVENT_SCHEMA` (tested equal). `SentEvent` is the
part of it that a client may send.
"""

from datetime import datetime
from typing import Annotated, Any

import msgspec
import pyarrow as pa
import pyarrow.json as pa_json
from msgspec import Meta

from warehouse.contracts import RAW_EVENT_SCHEMA

_UUID = r"\A[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}\Z"

_EventId = Annotated[str, Meta(pattern=_UUID)]
_Id = Annotated[str, Meta(max_length=256)]
_ItemId = Annotated[str, Meta(min_length=1, max_length=256)]
_Text = Annotated[str, Meta(max_length=2048)]
_Url = Annotated[str, Meta(max_length=8192)]
_Amount = Annotated[float, Meta(ge=0)]
_Count = Annotated[int, Meta(ge=0, le=2**31 - 1)]
_Time = Annotated[datetime, Meta(tz=True)]


class EventItem(msgspec.Struct, gc=False, omit_defaults=True, forbid_unknown_fields=True):
    """One item of an event; `price` in the event's `currency`, `index` in a list from 0."""

    item_id: _ItemId | None = None
    item_name: _Text | None = None
    item_category: _Text | None = None
    price: _Amount | None = None
    quantity: _Count | None = None
    index: _Count | None = None


class Event(msgspec.Struct, gc=False, kw_only=True, omit_defaults=True):
    """One accepted event, as the outbox and raw keep it. Times are UTC, `extra` is JSON text.

    As JSON a field without a value is left out: half of an event's text would be such fields.
    """

    event_id: str
    event_name: str
    occurred_at: datetime
    received_at: datetime
    visitor_id: str | None = None
    user_id: str | None = None
    session_id: str | None = None
    items: list[EventItem] | None = None
    item_list_id: str | None = None
    recommendation_id: str | None = None
    value: float | None = None
    currency: str | None = None
    page_url: str | None = None
    referrer: str | None = None
    user_agent: str | None = None
    ip_prefix: str | None = None
    consent: str | None = None
    source: str | None = None
    schema_version: int
    extra: str | None = None


class SentEvent(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    """One event as a client sends it; `occurred_at` also as whole epoch milliseconds."""

    event_id: _EventId | None = None
    event_name: str | None = None
    occurred_at: _Time | int | None = None
    visitor_id: _Id | None = None
    user_id: _Id | None = None
    session_id: _Id | None = None
    items: list[EventItem] | None = None
    item_list_id: _Id | None = None
    recommendation_id: _Id | None = None
    value: _Amount | None = None
    currency: _Id | None = None
    page_url: _Url | None = None
    referrer: _Url | None = None
    user_agent: _Text | None = None
    consent: _Text | None = None
    extra: dict[str, Any] | str | None = None


_encode_lines = msgspec.json.Encoder().encode_lines


def to_arrow(events: list[Event]) -> pa.Table:
    """The events as a table of RAW_EVENT_SCHEMA."""
    return table_from_lines(_encode_lines(events))


def table_from_lines(lines: bytes, schema: pa.Schema = RAW_EVENT_SCHEMA) -> pa.Table:
    """A table of RAW_EVENT_SCHEMA, or of a part of it, from events as JSON lines.

    Arrow parses them without Python's lock, so that shipping does not slow the collector. One
    block: an event may be longer than Arrow's default, and the same lines give the same table.
    """
    if not lines:
        return schema.empty_table()
    unexpected = "error" if schema is RAW_EVENT_SCHEMA else "ignore"
    return pa_json.read_json(
        pa.BufferReader(lines),
        read_options=pa_json.ReadOptions(use_threads=False, block_size=len(lines) + 1),
        parse_options=pa_json.ParseOptions(
            explicit_schema=schema, unexpected_field_behavior=unexpected
        ),
    ).cast(schema)

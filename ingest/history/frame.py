"""Events of history in columns: one frame is some events, before they have ids.

What a cell holds that the contract cannot (a price that is no number) is not lost: it is kept
beside, in `unread` for the event and in `unread_items` for each item, as JSON to be sent in its
place, so that the collector's rules refuse it by name.
"""

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import polars as pl

from ingest.lenient import sent_event
from ingest.rules import InvalidEvent, extra_text

ITEM = pl.Struct(
    {
        "item_id": pl.String,
        "item_name": pl.String,
        "item_category": pl.String,
        "price": pl.Float64,
        "quantity": pl.Int32,
        "index": pl.Int32,
    }
)
FIELDS: dict[str, pl.DataType | type[pl.DataType]] = {
    "event_id": pl.String,
    "event_name": pl.String,
    "occurred_at": pl.Datetime("us", "UTC"),
    "visitor_id": pl.String,
    "user_id": pl.String,
    "session_id": pl.String,
    "items": pl.List(ITEM),
    "item_list_id": pl.String,
    "recommendation_id": pl.String,
    "value": pl.Float64,
    "currency": pl.String,
    "page_url": pl.String,
    "referrer": pl.String,
    "user_agent": pl.String,
    "consent": pl.String,
    "extra": pl.String,
}
SCHEMA: dict[str, pl.DataType | type[pl.DataType]] = FIELDS | {
    "unread": pl.String,
    "unread_items": pl.List(pl.String),
    "n_rows": pl.UInt32,
}

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


def completed(frame: pl.DataFrame) -> pl.DataFrame:
    """The frame with every column of SCHEMA, in its order; what it has not is null."""
    defaults = {"n_rows": pl.lit(1)}
    return frame.select(
        (pl.col(name) if name in frame.columns else defaults.get(name, pl.lit(None)))
        .cast(kind)
        .alias(name)
        for name, kind in SCHEMA.items()
    )


def from_events(events: list[dict[str, Any]]) -> pl.DataFrame:
    """Events as the collector takes them, in columns; what is wrong in one is kept in `unread`."""
    rows = [_row(event) for event in events]
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")


def bodies(frame: pl.DataFrame) -> list[bytes]:
    """Each event as the JSON object that POST /events takes."""
    notes = zip(frame["unread"].to_list(), frame["unread_items"].to_list(), strict=True)
    return [
        _body(event, unread, unread_items)
        for event, (unread, unread_items) in zip(
            frame.select(FIELDS.keys()).iter_rows(named=True), notes, strict=True
        )
    ]


def _row(event: dict[str, Any]) -> tuple[Any, ...]:
    try:
        sent = sent_event({key: value for key, value in event.items() if value is not None})
        occurred_at = _moment(sent.occurred_at)
        extra = None if sent.extra is None else extra_text(sent.extra)
    except (InvalidEvent, RecursionError, OverflowError):
        return (*(None for _ in FIELDS), _encode(event).decode(), None, 1)
    items = [msgspec.structs.asdict(item) for item in sent.items or ()]
    values = msgspec.structs.asdict(sent) | {
        "occurred_at": occurred_at,
        "items": items or None,
        "extra": extra,
    }
    return (*(values[name] for name in FIELDS), None, None, 1)


def _moment(sent: datetime | int | None) -> datetime | None:
    """A time in UTC; a number is epoch milliseconds. Raises OverflowError."""
    if isinstance(sent, int):
        return _EPOCH + timedelta(milliseconds=sent)
    return sent and sent.astimezone(UTC)


def _body(
    event: dict[str, Any], unread: str | None, unread_items: list[str | None] | None
) -> bytes:
    sent = {name: value for name, value in event.items() if value is not None}
    if "items" in sent:
        sent["items"] = [_present(item) for item in sent["items"]]
    for number, text in enumerate(unread_items or ()):
        if text is not None:
            sent["items"][number] |= _decode(text)
    return _encode(sent if unread is None else sent | _decode(unread))


def _present(item: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in item.items() if value is not None}

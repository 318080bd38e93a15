"""The collector's rules on events in columns, for those that go into raw without HTTP.

Nearly all events keep every rule, and that is seen in columns. What is not surely right goes one
by one through the code that answers POST /events, which accepts it or says what is wrong: so no
event is judged otherwise here than there (tested equal).
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import reduce
from operator import and_

import polars as pl
import pyarrow as pa

from ingest.contract import Event, to_arrow
from ingest.events import InvalidBody, decode_json, request_context
from ingest.history.frame import FIELDS, bodies
from ingest.protocols.routes import REPLAY_SOURCE
from ingest.rules import Context
from warehouse.contracts import (
    EVENT_NAMES,
    EVENT_SCHEMA_VERSION,
    ITEM_EVENT_NAMES,
    RAW_EVENT_SCHEMA,
)
from warehouse.settings import IngestSettings

_IDS = ("visitor_id", "user_id", "session_id", "item_list_id", "recommendation_id", "currency")
# Of which the collector takes empty text for none.
_EMPTY_IS_NONE = ("visitor_id", "user_id", "session_id", "user_agent")
_TEXTS = ("user_agent", "consent")
_URLS = ("page_url", "referrer")
_EARLIEST = datetime(2000, 1, 1, tzinfo=UTC)
# The most bytes of JSON that a byte of text may take, and that names and marks take.
_ESCAPED, _EVENT_FRAME, _ITEM_FRAME = 6, 1_000, 200


@dataclass(frozen=True)
class Refused:
    """An event that was not accepted: a short code, the words, and what would have been sent."""

    reason: str
    message: str
    body: bytes


@dataclass(frozen=True)
class Judged:
    """Events to keep, as raw has them, and those refused."""

    accepted: pa.Table
    refused: list[Refused]


class Judge:
    """Judges events as the collector would that receives them at `received_at`."""

    def __init__(self, limits: IngestSettings, received_at: datetime) -> None:
        self._context: Context = request_context(
            limits=limits, received_at=received_at, ip=None, user_agent=None, source=REPLAY_SOURCE
        )
        self._is_right = reduce(and_, _rules(limits, received_at)).fill_null(False)

    def judged(self, frame: pl.DataFrame) -> Judged:
        is_right = frame.select(self._is_right).to_series()
        right = self._as_raw(frame.filter(is_right))
        if is_right.all():
            return Judged(right, [])
        events, refused = self._one_by_one(frame.filter(~is_right))
        return Judged(pa.concat_tables([right, to_arrow(events)]), refused)

    def _one_by_one(self, frame: pl.DataFrame) -> tuple[list[Event], list[Refused]]:
        events: list[Event] = []
        refused: list[Refused] = []
        for body in bodies(frame):
            try:
                decoded = decode_json(body, self._context)
            except InvalidBody as error:
                refused.append(Refused(error.reason, error.message, body))
                continue
            events += decoded.events
            refused += [Refused(why.reason, why.message, raw) for why, raw in decoded.rejected]
        return events, refused

    def _as_raw(self, frame: pl.DataFrame) -> pa.Table:
        """Accepted events with what the collector adds."""
        nullable = {name: pl.when(pl.col(name) != "").then(pl.col(name)) for name in _EMPTY_IS_NONE}
        added = {
            "received_at": pl.lit(self._context.received_at).cast(FIELDS["occurred_at"]),
            "ip_prefix": pl.lit(None, pl.String),
            "source": pl.lit(REPLAY_SOURCE),
            "schema_version": pl.lit(EVENT_SCHEMA_VERSION, pl.Int16),
        }
        made = nullable | added | {"event_id": pl.col("event_id").str.to_lowercase()}
        made["items"] = pl.when(pl.col("items").list.len() > 0).then(pl.col("items"))
        columns = [made.get(name, pl.col(name)).alias(name) for name in RAW_EVENT_SCHEMA.names]
        return frame.select(columns).to_arrow().cast(RAW_EVENT_SCHEMA)


def _rules(limits: IngestSettings, received_at: datetime) -> list[pl.Expr]:
    """What holds of an event that is surely right; `ingest.rules` has them in words."""
    items, name = pl.col("items"), pl.col("event_name")
    latest = received_at + timedelta(seconds=limits.max_future_seconds)
    n_items = items.list.len().fill_null(0)
    has_item_id = items.list.eval(_of_item("item_id").is_not_null()).list.any().fill_null(False)
    return [
        pl.col("unread").is_null(),
        pl.col("unread_items").is_null(),
        name.is_in(EVENT_NAMES),
        (pl.col("visitor_id").fill_null("") != "") | (pl.col("session_id").fill_null("") != ""),
        pl.col("occurred_at").is_between(
            pl.lit(_EARLIEST).cast(FIELDS["occurred_at"]),
            pl.lit(latest).cast(FIELDS["occurred_at"]),
        ),
        pl.col("event_id").str.contains(r"^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$"),
        *(_at_most(field, 256) for field in _IDS),
        *(_at_most(field, 2048) for field in _TEXTS),
        *(_at_most(field, 8192) for field in _URLS),
        _is_amount(pl.col("value")),
        n_items <= limits.max_event_items,
        items.list.eval(_is_right_item()).list.all().fill_null(True),
        ~name.is_in(ITEM_EVENT_NAMES) | has_item_id,
        _most_bytes() <= limits.max_body_bytes,
    ]


def _of_item(field: str) -> pl.Expr:
    return pl.element().struct.field(field)


def _is_right_item() -> pl.Expr:
    length = _of_item("item_id").str.len_chars()
    return (
        length.is_between(1, 256).fill_null(True)
        & (_of_item("item_name").str.len_chars() <= 2048).fill_null(True)
        & (_of_item("item_category").str.len_chars() <= 2048).fill_null(True)
        & _is_amount(_of_item("price"))
        & (_of_item("quantity") >= 0).fill_null(True)
        & (_of_item("index") >= 0).fill_null(True)
    )


def _at_most(field: str, n_characters: int) -> pl.Expr:
    return (pl.col(field).str.len_chars() <= n_characters).fill_null(True)


def _is_amount(value: pl.Expr) -> pl.Expr:
    return ((value >= 0) & value.is_finite()).fill_null(True)


def _most_bytes() -> pl.Expr:
    """No fewer bytes than the event takes as JSON."""
    texts = [pl.col(name) for name in (*_IDS, *_TEXTS, *_URLS, "extra")]
    of_items = pl.sum_horizontal(
        _of_item(name).str.len_bytes().fill_null(0)
        for name in ("item_id", "item_name", "item_category")
    )
    items = pl.col("items").list.eval(of_items * _ESCAPED + _ITEM_FRAME).list.sum().fill_null(0)
    return (
        pl.sum_horizontal(text.str.len_bytes().fill_null(0) for text in texts) * _ESCAPED
        + items
        + _EVENT_FRAME
    )

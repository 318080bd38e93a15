"""The rules that an event must keep, and what is said when it does not.

Every message names the field, what it must be, and ends with what was sent.
"""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import msgspec

from ingest.contract import Event, EventItem, SentEvent
from ingest.traces import kept_agent, reduced
from warehouse.contracts import EVENT_NAMES, EVENT_SCHEMA_VERSION, ITEM_EVENT_NAMES
from warehouse.settings import IngestSettings

KNOWN_NAMES = frozenset(EVENT_NAMES)
NAMES_WITH_ITEMS = frozenset(ITEM_EVENT_NAMES)
# Before this, a number is rather a time in seconds than in milliseconds.
EARLIEST = datetime(2000, 1, 1, tzinfo=UTC)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_EXPECTED = {
    "event_id": "a UUID like `3f2504e0-4f89-41d3-9a0c-0305e82c3301`",
    "event_name": "text",
    "occurred_at": "RFC 3339 text with a zone, like `2026-01-31T12:00:00Z`, or whole epoch "
    "milliseconds",
    "items": "an array of objects, each with an `item_id`",
    "item_id": "text of 1 to 256 characters",
    "price": "a finite number of at least 0, without quotes",
    "value": "a finite number of at least 0, without quotes",
    "quantity": "a whole number from 0 to 2147483647, without quotes or fraction",
    "index": "a whole number from 0 to 2147483647, without quotes or fraction",
    "item_name": "text of at most 2048 characters",
    "item_category": "text of at most 2048 characters",
    "user_agent": "text of at most 2048 characters",
    "consent": "text of at most 2048 characters",
    "page_url": "text of at most 8192 characters",
    "referrer": "text of at most 8192 characters",
    "extra": "a JSON object",
}
_REASONS = (
    ("length <=", "too_long"),
    ("length >=", "empty"),
    ("matching regex", "bad_event_id"),
    ("RFC3339", "bad_timestamp"),
    ("timezone", "bad_timestamp"),
    (">=", "out_of_range"),
    ("<=", "out_of_range"),
    ("range", "out_of_range"),
)

_decode_any = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode
# What decoding may raise on bytes that a stranger chose; the first includes ValidationError.
DECODE_ERRORS = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class InvalidEvent(ValueError):
    """One event is wrong."""

    def __init__(self, field: str, reason: str, message: str) -> None:
        super().__init__(message)
        self.field = field
        self.reason = reason
        self.message = message


def _new_id() -> str:
    return str(uuid4())


class Context(msgspec.Struct, frozen=True, gc=False):
    """What a request adds to each of its events, and the limits that they must keep.

    `mint` gives the id of an event that came without one.
    """

    limits: IngestSettings
    received_at: datetime
    ip_prefix: str | None
    user_agent: str | None
    source: str
    mint: Callable[[], str] = _new_id

    def accept(self, sent: SentEvent) -> Event:
        """The event to keep. Raises InvalidEvent."""
        name = sent.event_name
        if name not in KNOWN_NAMES:
            raise _unknown_name(name)
        if not (sent.session_id or sent.visitor_id):
            raise InvalidEvent(
                "session_id",
                "missing_visitor",
                "an event needs a `session_id` or a `visitor_id`, send at least one, not empty",
            )
        items = sent.items
        if items and len(items) > self.limits.max_event_items:
            raise InvalidEvent(
                "items",
                "too_many_items",
                f"an event may have {self.limits.max_event_items} items, "
                f"split it, it has: `{len(items)}`",
            )
        if name in NAMES_WITH_ITEMS and not _names_an_item(items):
            raise InvalidEvent(
                "items",
                "missing_items",
                f'this event needs `"items": [{{"item_id": …}}]` with at least one item: `{name}`',
            )
        return Event(
            event_id=sent.event_id.lower() if sent.event_id else self.mint(),
            event_name=name,
            occurred_at=self.time_of(sent.occurred_at),
            received_at=self.received_at,
            visitor_id=sent.visitor_id or None,
            user_id=sent.user_id or None,
            session_id=sent.session_id or None,
            items=items or None,
            item_list_id=sent.item_list_id,
            recommendation_id=sent.recommendation_id,
            value=sent.value,
            currency=sent.currency,
            page_url=sent.page_url,
            referrer=sent.referrer,
            user_agent=self.agent_of(sent.user_agent),
            ip_prefix=self.ip_prefix,
            consent=sent.consent,
            source=self.source,
            schema_version=EVENT_SCHEMA_VERSION,
            extra=self.extra_of(sent.extra),
        )

    def agent_of(self, sent: str | None) -> str | None:
        """What may be kept of an event's browser: the event's own word, else the request's."""
        return kept_agent(sent or self.user_agent, self.limits)

    def extra_of(self, sent: dict[str, Any] | str | None) -> str | None:
        """`extra` as it may be kept. Raises InvalidEvent."""
        return reduced(extra_text(sent), self.limits) if sent is not None else None

    @property
    def latest(self) -> datetime:
        """What `occurred_at` may be at most."""
        return self.received_at + timedelta(seconds=self.limits.max_future_seconds)

    def time_of(self, sent: datetime | int | None) -> datetime:
        """`occurred_at` in UTC, neither before the year 2000 nor further ahead than allowed."""
        if sent is None:
            return self.received_at
        try:
            if isinstance(sent, int):
                occurred_at = _EPOCH + timedelta(milliseconds=sent)
            else:
                occurred_at = sent.astimezone(UTC)
        except OverflowError:
            raise InvalidEvent(
                "occurred_at", "bad_timestamp", f"{_must('occurred_at')}: `{sent}`"
            ) from None
        if occurred_at < EARLIEST:
            raise InvalidEvent(
                "occurred_at",
                "bad_timestamp",
                "`occurred_at` is before the year 2000, if it is a number send epoch milliseconds, "
                f"not seconds: `{sent}`",
            )
        if occurred_at > self.received_at and occurred_at > self.latest:
            raise InvalidEvent(
                "occurred_at",
                "future_timestamp",
                f"`occurred_at` is more than {self.limits.max_future_seconds} s ahead of our clock "
                f"({self.received_at.isoformat()}), check the sender's clock and zone: `{sent}`",
            )
        return occurred_at


def _names_an_item(items: list[EventItem] | None) -> bool:
    if not items:
        return False
    return bool(items[0].item_id) or any(item.item_id for item in items)


def extra_text(extra: dict[str, Any] | str) -> str:
    """`extra` as JSON text of an object. Raises InvalidEvent."""
    if isinstance(extra, dict):
        return _encode(extra).decode()
    try:
        if isinstance(_decode_any(extra), dict):
            return extra
    except DECODE_ERRORS:
        pass
    raise InvalidEvent("extra", "bad_type", f"{_must('extra')}: `{shown(extra)}`")


def explained(error: msgspec.ValidationError, fields: dict[str, Any]) -> InvalidEvent:
    """The decoder's complaint as ours: which field, what it must be, and what was sent."""
    found = re.search(r"`\$\.(.+)`$", str(error))
    path = found[1] if found else ""
    value: Any = fields
    for name, index in re.findall(r"(\w+)|\[(\d+)\]", path):
        value = value[int(index)] if index else value[name]
    reason = next((code for part, code in _REASONS if part in str(error)), "bad_type")
    return InvalidEvent(path, reason, f"{_must(path)}: `{shown(value)}`")


def shown(value: Any) -> str:
    """`value` as JSON text, short enough for a message."""
    text = value if isinstance(value, str) else _encode(value).decode()
    return text if len(text) <= 100 else f"{text[:100]}…"


def _unknown_name(name: str | None) -> InvalidEvent:
    known = ", ".join(f"`{known}`" for known in EVENT_NAMES)
    if name is None:
        return InvalidEvent(
            "event_name", "missing_event_name", f"`event_name` is missing, send one of {known}"
        )
    return InvalidEvent(
        "event_name",
        "unknown_event_name",
        f"unknown `event_name`, expected one of {known}: `{shown(name)}`",
    )


def _must(path: str) -> str:
    """What the field at `path` has to be, for a message."""
    name = path.rsplit(".", 1)[-1].split("[")[0]
    if path.endswith("]"):
        return f"`{path}` must be an object with an `item_id`"
    return f"`{path}` must be {_EXPECTED.get(name, 'text of at most 256 characters')}"

"""Google Analytics 4, Measurement Protocol: events that servers and apps send.

https://developers.google.com/analytics/devguides/collection/protocol/ga4/reference. Its vocabulary
is ours; events of it that we have no use for are rejected as `unmapped_event`.
"""

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from ingest.contract import SentEvent
from ingest.events import (
    Decoded,
    InvalidBody,
    Rejection,
    check_count,
    check_size,
    decoded_each,
    on_behalf_of,
)
from ingest.lenient import decode_mended, fields_of, sent_event
from ingest.protocols.values import (
    as_count,
    as_items,
    event_id_from,
    take,
    taken_fields,
    unmapped,
)
from ingest.rules import DECODE_ERRORS, Context, InvalidEvent, shown
from warehouse.contracts import EVENT_NAMES

SOURCE = "ga4_mp"

EVENTS = {name: name for name in EVENT_NAMES} | {
    "search": "view_search_results",
    "screen_view": "page_view",
}
# Where an event has our fields, `request` being what was sent beside it; the first that has a value
# counts.
FIELDS = {
    "event_id": ("params.event_id",),
    "occurred_at": ("timestamp_micros", "request.timestamp_micros"),
    "visitor_id": ("request.client_id", "request.app_instance_id", "request.user_id"),
    "user_id": ("request.user_id",),
    "session_id": ("params.session_id", "params.ga_session_id"),
    "items": ("params.items",),
    "item_list_id": ("params.item_list_id",),
    "recommendation_id": ("params.recommendation_id",),
    "value": ("params.value",),
    "currency": ("params.currency",),
    "page_url": ("params.page_location",),
    "referrer": ("params.page_referrer",),
    "user_agent": ("request.user_agent",),
    "consent": ("request.consent",),
}
# Google's codes of what is wrong, by ours; any other is VALUE_INVALID.
_VALIDATION_CODES = {
    "missing_event_name": "VALUE_REQUIRED",
    "missing_items": "VALUE_REQUIRED",
    "missing_visitor": "VALUE_REQUIRED",
    "unmapped_event": "NAME_INVALID",
    "out_of_range": "VALUE_OUT_OF_BOUNDS",
    "too_long": "VALUE_OUT_OF_BOUNDS",
    "too_many_items": "EXCEEDED_MAX_ENTITIES",
    "too_many_events": "EXCEEDED_MAX_ENTITIES",
}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_encode = msgspec.json.Encoder().encode
_decode_parts = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_raws = msgspec.json.Decoder(list[msgspec.Raw]).decode


class ValidationMessage(msgspec.Struct, rename="camel"):
    """What Google's validation server says of one mistake."""

    field_path: str
    description: str
    validation_code: str


def decode(body: bytes, context: Context) -> Decoded:
    """The events of a request. Raises InvalidBody."""
    check_size(body, context.limits)
    try:
        parts = decode_mended(_decode_parts, body)
        sent = parts.pop("events", msgspec.Raw(b"null"))
        # A client library for Python sends a single event without an array around it.
        events = [sent] if bytes(sent).lstrip()[:1] == b"{" else _decode_raws(sent)
    except DECODE_ERRORS as error:
        raise InvalidBody(
            "not_events",
            f'send `{{"client_id": …, "events": […]}}` as JSON: `{error}`',
            status=400,
        ) from None
    check_count(len(events), context.limits)
    is_whole = len(events) == 1 and events[0] is not sent
    raws = [body if is_whole else _encode(parts | {"events": [event]}) for event in events]
    return decoded_each(raws, context, lambda index, raw: _read(index, raw, context))


def validation_messages(outcome: Decoded | InvalidBody) -> list[ValidationMessage]:
    """What is wrong with a request, as /debug/mp/collect says it; empty when nothing is."""
    if isinstance(outcome, InvalidBody):
        return [_message("events", outcome.message, outcome.reason)]
    return [
        _message(_field_path(rejection), rejection.message, rejection.reason)
        for rejection, _ in outcome.rejected
    ]


def _message(field_path: str, description: str, reason: str) -> ValidationMessage:
    code = _VALIDATION_CODES.get(reason, "VALUE_INVALID")
    return ValidationMessage(field_path, description, code)


def _field_path(rejection: Rejection) -> str:
    """Where in the request a field of ours came from."""
    name, bracket, rest = rejection.field.partition("[")
    place = FIELDS.get(name, (name,))[0]
    if place.startswith("request."):
        return place.removeprefix("request.")
    return f"events[{rejection.index}].{place}{bracket}{rest}".rstrip(".")


def _read(index: int, raw: bytes, context: Context) -> tuple[SentEvent, Context]:
    request = fields_of(raw)
    (event,) = request.pop("events")
    if not isinstance(event, dict):
        raise InvalidEvent("", "not_an_object", f"an event must be an object: `{shown(event)}`")
    event_name = our_name(event.get("name"), "name")
    own_context = on_behalf_of(context, take(request, "ip_override"))
    sent = _encode(event).decode()
    fields = event | ({"request": request} if request else {})
    known = taken_fields(fields, FIELDS)
    micros = as_count(take(fields, *FIELDS["occurred_at"]))
    event_id = event_id_from(SOURCE, take(fields, *FIELDS["event_id"]))
    if event_id is None and micros is not None:
        # The protocol has no ids: what is sent again in the same words is the same event.
        event_id = event_id_from(SOURCE, f"{known['visitor_id']} {micros} {index} {sent}")
    known |= {
        "event_id": event_id,
        "event_name": event_name,
        "occurred_at": _time(micros),
        "items": as_items(take(fields, *FIELDS["items"]), {}),
    }
    return sent_event(known | {"extra": fields}), own_context


def our_name(name: Any, field: str) -> str:
    """Our name of a GA4 event that is named in `field`. Raises InvalidEvent."""
    if not isinstance(name, str) or not name:
        raise InvalidEvent(
            field, "missing_event_name", f"an event needs its `{field}` as text: `{shown(name)}`"
        )
    if name not in EVENTS:
        raise unmapped(field, name)
    return EVENTS[name]


def _time(micros: Any) -> datetime | None:
    if micros is None:
        return None
    try:
        return _EPOCH + timedelta(microseconds=micros)
    except (TypeError, OverflowError):
        raise InvalidEvent(
            "occurred_at",
            "bad_timestamp",
            f"`timestamp_micros` must be whole microseconds since 1970: `{shown(micros)}`",
        ) from None

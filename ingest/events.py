"""A request's body into events: decoded, checked, and accepted or rejected one by one.

Our own JSON is read here, other protocols in `ingest.protocols` by the same rules. A body is
decoded in one call where all of it is right, and event by event only where something is not, so
that one wrong event never costs the others. What an event carries beyond the contract is kept as
JSON in `extra`.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar

import msgspec

from ingest.contract import Event, EventItem, SentEvent
from ingest.rules import DECODE_ERRORS, Context, InvalidEvent, explained, extra_text, shown
from ingest.traces import kept_address, kept_agent, reduced_bytes, reduced_message
from warehouse.settings import IngestSettings

_MAX_USER_AGENT = 2048
_SENT_FIELDS = frozenset(SentEvent.__struct_fields__)
_ITEM_FIELDS = frozenset(EventItem.__struct_fields__)
# Any escape of a JSON text; a pair of surrogates or a lone one is captured.
_ESCAPE = re.compile(
    rb"\\(?:u([dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})"
    rb"|u([dD][89a-fA-F][0-9a-fA-F]{2})|.)",
    re.DOTALL,
)

# Reads one event of a request, by its place there: the event, and whose it is.
Read = Callable[[int, bytes], tuple[SentEvent, Context]]
T = TypeVar("T")

_decode_body = msgspec.json.Decoder(SentEvent | list[SentEvent]).decode
_decode_event = msgspec.json.Decoder(SentEvent).decode
_decode_any = msgspec.json.Decoder().decode
_decode_raw = msgspec.json.Decoder(msgspec.Raw).decode
_decode_raws = msgspec.json.Decoder(list[msgspec.Raw]).decode


class Rejection(msgspec.Struct):
    """Why the event at `index` of a request was not accepted; `reason` is a short code."""

    index: int
    field: str
    message: str
    reason: str


class Origin(msgspec.Struct, frozen=True):
    """What is kept of a request beside its rejected bytes, so that they can be read again.

    `page_url` is the page that a pixel was on. Of a body that was refused as a whole, `target` is
    the path it was sent to, with the query where that holds events, and `encoding` how the kept
    bytes are packed.
    """

    user_agent: str | None = None
    ip_prefix: str | None = None
    page_url: str | None = None
    target: str | None = None
    encoding: str | None = None

    @classmethod
    def of(
        cls,
        context: Context,
        *,
        page_url: str | None = None,
        target: str | None = None,
        encoding: str | None = None,
    ) -> "Origin":
        """What may be kept of the request of `context`."""
        agent = kept_agent(context.user_agent, context.limits)
        return cls(agent, context.ip_prefix, page_url, target, encoding)


_NO_ORIGIN = Origin()


@dataclass(slots=True)
class Decoded:
    """What became of a request's events; of a rejected one its original bytes are kept, but for
    what may not be kept of its sender (`ingest.traces`).

    `n_minted` accepted events came without an `event_id` and were given one. `n_erased` are of a
    person who was erased; the outbox takes them out of both lists and keeps nothing of them.
    """

    events: list[Event]
    rejected: list[tuple[Rejection, bytes]]
    received_at: datetime
    source: str
    n_minted: int = 0
    n_erased: int = 0
    origin: Origin = _NO_ORIGIN


class InvalidBody(ValueError):
    """A body in which no single events can be told apart; `status` is the HTTP status for it."""

    def __init__(
        self,
        reason: str,
        message: str,
        *,
        status: int,
        field: str = "body",
        remedy: str | None = None,
    ) -> None:
        super().__init__(message)
        self.field = field
        self.reason = reason
        self.message = message
        self.status = status
        self.remedy = remedy


def decode_events(
    body: bytes,
    *,
    limits: IngestSettings,
    received_at: datetime,
    ip: str | None,
    user_agent: str | None,
    source: str,
) -> Decoded:
    """The events of a request's JSON body: one object, or an array of them.

    `received_at` has a zone. Raises InvalidBody where the body as a whole cannot be read.
    """
    context = request_context(
        limits=limits, received_at=received_at, ip=ip, user_agent=user_agent, source=source
    )
    return decode_json(body, context)


def decode_json(body: bytes, context: Context) -> Decoded:
    """`decode_events` of a request whose context is known. Raises InvalidBody."""
    try:
        sent = _decode_body(body)
    except DECODE_ERRORS:
        pass
    else:
        decoded = decoded_whole(sent if isinstance(sent, list) else [sent], body, context)
        if decoded is not None:
            return decoded
    return decoded_each(
        _split(body, context.limits), context, lambda _, raw: (_decode_leniently(raw), context)
    )


def request_context(
    *,
    limits: IngestSettings,
    received_at: datetime,
    ip: str | None,
    user_agent: str | None,
    source: str,
) -> Context:
    """What a request adds to each of its events; `received_at` has a zone."""
    return Context(
        limits=limits,
        received_at=received_at.astimezone(UTC),
        ip_prefix=kept_address(ip, limits) if ip else None,
        user_agent=user_agent[:_MAX_USER_AGENT] if user_agent else None,
        source=source,
    )


def on_behalf_of(context: Context, ip: Any) -> Context:
    """The context of an event that a server sent for the visitor at this address."""
    if not (isinstance(ip, str) and ip):
        return context
    return msgspec.structs.replace(context, ip_prefix=kept_address(ip, context.limits))


def decoded_whole(events: list[SentEvent], body: bytes, context: Context) -> Decoded | None:
    """All events of a body accepted at once, or None where one is wrong. Raises InvalidBody."""
    if len(body) > context.limits.max_body_bytes:
        return None
    check_count(len(events), context.limits)
    try:
        accepted = [context.accept(event) for event in events]
    except (InvalidEvent, RecursionError):
        return None
    n_minted = sum(event.event_id is None for event in events)
    return Decoded(accepted, [], context.received_at, context.source, n_minted)


def decoded_each(
    raws: Sequence[bytes], context: Context, read: Read, *, page_url: str | None = None
) -> Decoded:
    """Every event read by itself, accepted or rejected with its bytes."""
    origin = Origin.of(context, page_url=page_url)
    decoded = Decoded([], [], context.received_at, context.source, origin=origin)
    for index, raw in enumerate(raws):
        try:
            event, its_context = read(index, raw)
            decoded.events.append(its_context.accept(event))
            decoded.n_minted += event.event_id is None
        except InvalidEvent as error:
            message = reduced_message(error.field, error.message, context.limits)
            rejection = Rejection(index, error.field, message, error.reason)
            decoded.rejected.append((rejection, reduced_bytes(raw, context.limits)))
        except RecursionError:
            # What could just be read cannot be written: that takes a few more frames.
            rejection = Rejection(index, "", "the event is nested too deep, flatten it", "too_deep")
            decoded.rejected.append((rejection, reduced_bytes(raw, context.limits)))
    return decoded


def check_count(n_events: int, limits: IngestSettings) -> None:
    if not n_events:
        raise InvalidBody("empty_batch", "no events, send at least one: `[]`", status=422)
    if n_events > limits.max_batch_events:
        raise InvalidBody(
            "too_many_events",
            f"a request may have {limits.max_batch_events} events, send smaller batches, it has: "
            f"`{n_events}`",
            status=413,
        )


def check_size(body: bytes, limits: IngestSettings) -> None:
    """Raises InvalidBody where a body is longer than it may be."""
    if len(body) > limits.max_body_bytes:
        raise InvalidBody(
            "body_too_large",
            f"a body may have {limits.max_body_bytes} bytes, send smaller batches, it has: "
            f"`{len(body)}`",
            status=413,
        )


def _split(body: bytes, limits: IngestSettings) -> list[bytes]:
    """The original bytes of each event in a body. Raises InvalidBody."""
    check_size(body, limits)
    start = body.lstrip(b" \t\r\n")[:1]
    try:
        raws = _raw_events(body)
    except DECODE_ERRORS as error:
        raise InvalidBody(
            "invalid_json",
            f"the body is not JSON, send one event or an array of events: `{error}`",
            status=400,
        ) from None
    if start not in (b"[", b"{"):
        raise InvalidBody(
            "not_events",
            "expected one event (an object) or an array of events: "
            f"`{shown(bytes(raws[0]).decode('utf-8', 'replace'))}`",
            status=422,
        )
    check_count(len(raws), limits)
    return [bytes(raw) for raw in raws]


def _raw_events(body: bytes) -> list[msgspec.Raw]:
    if body.lstrip().startswith(b"["):
        return decode_mended(_decode_raws, body)
    return [decode_mended(_decode_raw, body)]


def decode_mended(decode: Callable[[bytes], T], body: bytes) -> T:
    """The body decoded. Browsers cut texts in the middle of an emoji: that is mended."""
    try:
        return decode(body)
    except msgspec.DecodeError:
        mended = _ESCAPE.sub(_without_lone_surrogate, body)
        if mended == body:
            raise
        return decode(mended)


def _without_lone_surrogate(escape: re.Match[bytes]) -> bytes:
    return rb"\ufffd" if escape[2] else escape[0]


def _decode_leniently(raw: bytes) -> SentEvent:
    """One event, its unknown fields moved to `extra`. Raises InvalidEvent."""
    try:
        return _decode_event(raw)
    except DECODE_ERRORS:
        pass
    return sent_event(fields_of(raw))


def fields_of(raw: bytes) -> dict[str, Any]:
    """One event as the object that it must be. Raises InvalidEvent."""
    try:
        fields = decode_mended(_decode_any, raw)
    except DECODE_ERRORS as error:
        raise InvalidEvent(
            "", "invalid_json", f"the event is not JSON in UTF-8: `{error}`"
        ) from None
    if not isinstance(fields, dict):
        raise InvalidEvent("", "not_an_object", f"an event must be an object: `{shown(fields)}`")
    return fields


def sent_event(fields: dict[str, Any]) -> SentEvent:
    """The event of these fields, the unknown of them moved to `extra`. Raises InvalidEvent."""
    known = {key: value for key, value in fields.items() if key in _SENT_FIELDS}
    unknown = {key: value for key, value in fields.items() if key not in _SENT_FIELDS}
    if isinstance(known.get("items"), list):
        known["items"], unknown_of_items = _split_items(known["items"])
        if any(unknown_of_items):
            unknown["items"] = unknown_of_items
    try:
        event = msgspec.convert(known, SentEvent)
    except msgspec.ValidationError as error:
        raise explained(error, known) from None
    if unknown:
        event.extra = unknown | _extra_fields(event.extra)
    return event


def _split_items(items: list[Any]) -> tuple[list[Any], list[dict[str, Any]]]:
    """Items with the fields of the contract, and for each the fields outside of it."""
    known: list[Any] = []
    unknown: list[dict[str, Any]] = []
    for item in items:
        if not isinstance(item, dict):
            known.append(item)
            unknown.append({})
            continue
        known.append({key: value for key, value in item.items() if key in _ITEM_FIELDS})
        unknown.append({key: value for key, value in item.items() if key not in _ITEM_FIELDS})
    return known, unknown


def _extra_fields(extra: dict[str, Any] | str | None) -> dict[str, Any]:
    if isinstance(extra, str):
        extra = _decode_any(extra_text(extra))
    return extra if isinstance(extra, dict) else {}

"""A request's body into events: decoded, checked, and accepted or rejected one by one.

Our own JSON is read here, other protocols in `ingest.protocols` by the same rules. A body is
decoded in one call where all of it is right, and event by event (`ingest.lenient`) only where
something is not, so that one wrong event never costs the others.
"""

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from ingest.columns import MIN_TOGETHER, Together, accepted_together, decode_together
from ingest.contract import Event, SentEvent
from ingest.lenient import decode_leniently, raw_events
from ingest.reader import read
from ingest.rules import DECODE_ERRORS, Context, InvalidEvent, shown
from ingest.traces import kept_address, kept_agent, reduced_bytes, reduced_message
from warehouse.settings import IngestSettings

_MAX_USER_AGENT = 2048
_BATCH_BYTES = 4_096  # a body as long may hold many events
# Reads one event of a request, by its place there: the event, and whose it is.
Read = Callable[[int, bytes], tuple[SentEvent, Context]]

_decode_one = msgspec.json.Decoder(SentEvent).decode
_decode_body = msgspec.json.Decoder(SentEvent | list[SentEvent]).decode


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


class Decoded(msgspec.Struct):
    """What became of a request's events; of a rejected one its original bytes are kept, but for
    what may not be kept of its sender (`ingest.traces`).

    `n_minted` accepted events came without an `event_id` and were given one. `n_erased` are of a
    person who was erased; the outbox takes them out of both lists and keeps nothing of them.
    """

    events: Sequence[Event]
    rejected: list[tuple[Rejection, bytes]]
    received_at: datetime
    source: str
    n_minted: int = 0
    n_erased: int = 0
    origin: Origin = _NO_ORIGIN

    def persons(self) -> Iterator[tuple[str | None, str | None, str | None, datetime]]:
        """Visitor, user, session and `occurred_at` of each event."""
        if isinstance(self.events, Together):
            yield from self.events.persons()
        else:
            for event in self.events:
                yield event.visitor_id, event.user_id, event.session_id, event.occurred_at


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
    is_long = len(body) >= _BATCH_BYTES
    decoded = _batch(body, context) if is_long else _one(body, context)
    if decoded is not None:
        return decoded
    try:
        sent = _decode_body(body)
    except DECODE_ERRORS:
        pass
    else:
        decoded = decoded_whole(sent if isinstance(sent, list) else [sent], body, context)
        if decoded is not None:
            return decoded
    return decoded_each(
        _split(body, context.limits), context, lambda _, raw: (decode_leniently(raw), context)
    )


def _one(body: bytes, context: Context) -> Decoded | None:
    """The event of a body that is one, None where it is none or not right."""
    if body[:1] != b"{" or len(body) > context.limits.max_body_bytes:
        return None
    try:
        sent = _decode_one(body)
        event = context.accept(sent)
    except (*DECODE_ERRORS, InvalidEvent):
        return None
    n_minted = int(sent.event_id is None)
    return Decoded([event], [], context.received_at, context.source, n_minted)


def _batch(body: bytes, context: Context) -> Decoded | None:
    """All events of a large batch, None where one is not surely right."""
    if len(body) > context.limits.max_body_bytes:
        return None
    batch = read(body, context)
    if batch is not None and batch.num_rows >= MIN_TOGETHER:
        events = Together(batch, context.received_at)
        return Decoded(events, [], context.received_at, context.source)
    try:
        return _together(decode_together(body), context)
    except DECODE_ERRORS:
        return None


def _together(sent: Sequence[SentEvent], context: Context) -> Decoded | None:
    """Many events accepted by looks at whole columns; None where one is not surely right."""
    if not MIN_TOGETHER <= len(sent) <= context.limits.max_batch_events:
        return None
    events = accepted_together(sent, context)
    if events is None:
        return None
    return Decoded(events, [], context.received_at, context.source)


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
        received_at=received_at if received_at.tzinfo is UTC else received_at.astimezone(UTC),
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
    decoded = _together(events, context)
    if decoded is not None:
        return decoded
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
    events: list[Event] = []
    origin = Origin.of(context, page_url=page_url)
    decoded = Decoded(events, [], context.received_at, context.source, origin=origin)
    for index, raw in enumerate(raws):
        try:
            event, its_context = read(index, raw)
            events.append(its_context.accept(event))
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
        raws = raw_events(body)
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

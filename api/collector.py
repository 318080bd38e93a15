"""POST /events: events in, acknowledged once they are durable. A bare ASGI endpoint (api.front).

`Collector.keep` does the same for the endpoints of other protocols (api.protocols).
"""

import logging
from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache, partial

import msgspec
from starlette.types import Receive, Scope

from api.body import read_body
from api.errors import ErrorDetail, Refused, refused, shown
from api.front import Reply
from api.keys import blanked
from api.metrics import Metrics
from api.seldom import Seldom
from ingest.allowance import Allowance
from ingest.appending import OutboxFull
from ingest.events import Decoded, InvalidBody, Origin, Rejection, decode_json, request_context
from ingest.outbox import Outbox
from ingest.outbox_file import OutboxBroken
from ingest.protocols import ndjson
from ingest.protocols.routes import SOURCE
from ingest.rules import Context
from ingest.traces import reduced
from warehouse.settings import IngestSettings

logger = logging.getLogger(__name__)

RETRY_AFTER_SECONDS = 5

_encode = msgspec.json.Encoder().encode
# `sendBeacon` sends text/plain: a type that needs no preflight. `curl --data` names a form.
_JSON_TYPES = ("", "application/json", "text/plain", "application/x-www-form-urlencoded")
_NDJSON_TYPES = ("application/x-ndjson", "application/ndjson", "application/jsonl")

# Reads a request's body. Raises InvalidBody.
Decode = Callable[[bytes, Context], Decoded]


class EventsReply(msgspec.Struct, omit_defaults=True):
    """What became of the events of one request.

    `errors` has one entry for each rejected event; `minted_event_ids` counts accepted events that
    came without an `event_id`: sent again, they would count twice. `erased` events are of a person
    who was erased: they are acknowledged, so that nobody sends them again, and not kept.
    """

    accepted: int
    rejected: int
    errors: list[Rejection]
    minted_event_ids: int = 0
    erased: int = 0


class NothingAccepted(msgspec.Struct):
    """The first rejection as the error, and all of them in `errors`."""

    error: ErrorDetail
    accepted: int
    rejected: int
    errors: list[Rejection]


class Collector:
    """The endpoint of POST /events."""

    methods = ("POST",)

    def __init__(
        self,
        outbox: Outbox,
        settings: IngestSettings,
        metrics: Metrics,
        charge: Callable[[int], None],
    ) -> None:
        """`charge` counts a request's events for its caller, and raises Refused beyond its rate."""
        self.outbox = outbox
        self.settings = settings
        self.metrics = metrics
        self._refused_bytes = Allowance(settings.refused_bytes_per_hour)
        self._charge = charge
        self._seldom = Seldom()

    async def answer(self, scope: Scope, receive: Receive) -> Reply:
        headers = dict(scope["headers"])
        source, decode = _reading(headers.get(b"content-type", b""))
        return reply_to(await self.take(scope, receive, headers, source, decode))

    async def take(
        self,
        scope: Scope,
        receive: Receive,
        headers: dict[bytes, bytes],
        source: str,
        decode: Decode,
        *,
        query: str = "",
    ) -> Decoded:
        """The events of a request, once they are durable.

        Raises Refused: of a body that is refused as a whole after it was kept as rejected, together
        with `query` where that holds events too.
        """
        context = self.context(scope, headers, source)
        sent = await read_body(receive, headers, self.settings.max_body_bytes)
        try:
            decoded = decode(sent.unpacked(self.settings.max_body_bytes), context)
        except InvalidBody as error:
            target = scope["path"].removeprefix(scope.get("root_path", ""))
            kept = sent.to_keep(self.settings)
            if query:
                target = f"{target}?{reduced(query, self.settings)}"
            origin = Origin.of(context, target=target, encoding=kept.encoding)
            await self.keep_refused(kept.data, error, context, origin)
            raise refused(error) from None
        await self.keep(decoded)
        return decoded

    async def keep_refused(
        self, body: bytes, error: InvalidBody, context: Context, origin: Origin
    ) -> None:
        """Keep a body that is refused as a whole, within the allowance. Raises Refused (503).

        One that holds no events is not worth keeping.
        """
        if error.reason == "empty_batch" or not body.strip():
            return
        if not self._refused_bytes.take(len(body)):
            self.metrics.bodies_not_kept.labels(context.source).inc()
            if self._seldom.is_due("refused_bytes"):
                logger.warning("body=not_kept source=%s reason=%s", context.source, error.reason)
            return
        rejection = Rejection(0, error.field, error.message, error.reason)
        await self.keep(
            Decoded([], [(rejection, body)], context.received_at, context.source, origin=origin)
        )

    def context(self, scope: Scope, headers: dict[bytes, bytes], source: str) -> Context:
        """What this request adds to each of its events."""
        client = scope.get("client")
        return request_context(
            limits=self.settings,
            received_at=datetime.now(UTC),
            ip=client[0] if client else None,
            user_agent=headers.get(b"user-agent", b"").decode("latin-1") or None,
            source=source,
        )

    async def keep(self, decoded: Decoded) -> None:
        """Return once a request's events are durable, and counted. Raises Refused (429, 503)."""
        self._charge(len(decoded.events) + len(decoded.rejected))
        try:
            await self.outbox.append(decoded)
        except (OutboxFull, OutboxBroken) as error:
            raise self.unavailable(error) from None
        self.count(decoded)

    def plain(self, scope: Scope, headers: dict[bytes, bytes], body: bytes) -> Decoded | None:
        """The one event of a request that holds one, right, as JSON and not packed; None for all
        else. Nothing is done with it yet.
        """
        source, decode = _reading(headers.get(b"content-type", b""))
        if decode is not decode_json or b"content-encoding" in headers:
            return None
        try:
            decoded = decode(blanked(body), self.context(scope, headers, source))
        except InvalidBody:
            return None
        return decoded if len(decoded.events) == 1 and not decoded.rejected else None

    def count(self, decoded: Decoded) -> None:
        """Count what became durable."""
        self.metrics.count_accepted(decoded.source, len(decoded.events))
        if decoded.n_erased:
            self.metrics.events_erased.labels(decoded.source).inc(decoded.n_erased)
        for rejection, _ in decoded.rejected:
            self.metrics.events_rejected.labels(decoded.source, rejection.reason).inc()

    def unavailable(self, error: OutboxFull | OutboxBroken) -> Refused:
        """What is said of events that are not durable."""
        code, message = "outbox_full", str(error)
        if isinstance(error, OutboxBroken):
            if self._seldom.is_due("outbox_broken"):
                logger.error("outbox_broken error=%r", message)
            code, message = (
                "outbox_broken", "events cannot be made durable right now, /status says why"
            )  # fmt: skip
        return Refused(
            503,
            code,
            message,
            remedy=f"nothing of this request was kept: send it again in {RETRY_AFTER_SECONDS} s",
            headers={"Retry-After": str(RETRY_AFTER_SECONDS)},
        )


@lru_cache(maxsize=1024)
def _all_accepted(n_events: int) -> bytes:
    return _encode(EventsReply(n_events, 0, []))


def reply_to(decoded: Decoded) -> Reply:
    """What is said of events that are durable."""
    if decoded.events and not (decoded.rejected or decoded.n_minted or decoded.n_erased):
        return Reply(202, _all_accepted(len(decoded.events)))
    errors = [rejection for rejection, _ in decoded.rejected]
    if decoded.events or decoded.n_erased:
        accepted = EventsReply(
            len(decoded.events), len(errors), errors, decoded.n_minted, decoded.n_erased
        )
        return Reply(202, _encode(accepted))
    first = errors[0]
    why = ErrorDetail(
        first.reason, first.message, first.field or None, "correct the events and send them again"
    )
    return Reply(422, _encode(NothingAccepted(why, 0, len(errors), errors)))


@lru_cache(maxsize=256)
def _reading(content_type: bytes) -> tuple[str, Decode]:
    """What events of this type are, and how they are read."""
    media_type = content_type.split(b";")[0].strip().lower().decode("latin-1")
    if media_type in _NDJSON_TYPES:
        return ndjson.SOURCE, ndjson.decode
    if media_type in _JSON_TYPES:
        return SOURCE, decode_json
    return SOURCE, partial(_unsupported, media_type)


def _unsupported(media_type: str, body: bytes, context: Context) -> Decoded:
    raise InvalidBody(
        "unsupported_media_type",
        f"events come as JSON, not as: `{shown(media_type)}`",
        status=415,
        field="Content-Type",
        remedy="send `Content-Type: application/json`, or `application/x-ndjson` with an event "
        "a line (a beacon's text/plain is fine too)",
    )

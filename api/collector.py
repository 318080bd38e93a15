"""POST /events: events in, acknowledged once they are durable. A bare ASGI endpoint (api.front)."""

import logging
from datetime import UTC, datetime

import msgspec
from starlette.types import Receive, Scope

from api.errors import ErrorDetail, Refused, shown
from api.front import ClientGone, Reply
from api.metrics import Metrics
from api.seldom import Seldom
from ingest.events import Decoded, InvalidBody, Rejection, decode_events
from ingest.outbox import Outbox, OutboxFull
from ingest.outbox_file import OutboxBroken
from warehouse.settings import IngestSettings

logger = logging.getLogger(__name__)

PATH = "/events"
SOURCE = "events"  # of what comes in here, as the column `source` names it
RETRY_AFTER_SECONDS = 5

_encode = msgspec.json.Encoder().encode
# `sendBeacon` sends text/plain: a type that needs no preflight.
_ACCEPTED_TYPES = ("application/json", "text/plain")


class EventsReply(msgspec.Struct, omit_defaults=True):
    """What became of the events of one request.

    `errors` has one entry for each rejected event; `minted_event_ids` counts accepted events that
    came without an `event_id`: sent again, they would count twice.
    """

    accepted: int
    rejected: int
    errors: list[Rejection]
    minted_event_ids: int = 0


class NothingAccepted(msgspec.Struct):
    """The first rejection as the error, and all of them in `errors`."""

    error: ErrorDetail
    accepted: int
    rejected: int
    errors: list[Rejection]


class Collector:
    """The endpoint of POST /events."""

    method = "POST"

    def __init__(self, outbox: Outbox, settings: IngestSettings, metrics: Metrics) -> None:
        self.outbox = outbox
        self.settings = settings
        self.metrics = metrics
        self._seldom = Seldom()

    async def answer(self, scope: Scope, receive: Receive) -> Reply:
        headers = dict(scope["headers"])
        _check_type(headers)
        body = await read_body(receive, headers, self.settings.max_body_bytes)
        client = scope.get("client")
        decoded = self._decoded(
            body, client[0] if client else None, headers.get(b"user-agent", b"")
        )
        await self._keep(decoded)
        self.metrics.events_accepted.inc(len(decoded.events))
        for rejection, _ in decoded.rejected:
            self.metrics.events_rejected.labels(rejection.reason).inc()
        return _reply(decoded)

    def _decoded(self, body: bytes, ip: str | None, user_agent: bytes) -> Decoded:
        try:
            return decode_events(
                body,
                limits=self.settings,
                received_at=datetime.now(UTC),
                ip=ip,
                user_agent=user_agent.decode("latin-1") or None,
                source=SOURCE,
            )
        except InvalidBody as error:
            raise Refused(error.status, error.reason, error.message, field=error.field) from None

    async def _keep(self, decoded: Decoded) -> None:
        retry = {"Retry-After": str(RETRY_AFTER_SECONDS)}
        remedy = f"nothing of this request was kept: send it again in {RETRY_AFTER_SECONDS} s"
        try:
            await self.outbox.append(decoded)
        except OutboxFull as error:
            raise Refused(503, "outbox_full", str(error), remedy=remedy, headers=retry) from None
        except OutboxBroken as error:
            if self._seldom.is_due("outbox_broken"):
                logger.error("outbox_broken error=%r", str(error))
            raise Refused(
                503,
                "outbox_broken",
                "events cannot be made durable right now, /status says why",
                remedy=remedy,
                headers=retry,
            ) from None


def _reply(decoded: Decoded) -> Reply:
    errors = [rejection for rejection, _ in decoded.rejected]
    if decoded.events:
        accepted = EventsReply(len(decoded.events), len(errors), errors, decoded.n_minted)
        return Reply(202, _encode(accepted))
    first = errors[0]
    why = ErrorDetail(
        first.reason, first.message, first.field or None, "correct the events and send them again"
    )
    return Reply(422, _encode(NothingAccepted(why, 0, len(errors), errors)))


async def read_body(receive: Receive, headers: dict[bytes, bytes], limit: int) -> bytes:
    """The request's body of at most `limit` bytes. Raises Refused (413), ClientGone.

    Counted while it comes in, since `Content-Length` may be missing.
    """
    declared = headers.get(b"content-length", b"")
    if declared.isdigit() and len(declared) < 20 and int(declared) > limit:
        raise _too_large(limit)
    message = await receive()
    body: bytes = message.get("body", b"")
    while message.get("more_body") and len(body) <= limit:
        message = await receive()
        body += message.get("body", b"")
    if message["type"] == "http.disconnect":
        raise ClientGone
    if len(body) > limit:
        raise _too_large(limit)
    return body


def _too_large(limit: int) -> Refused:
    return Refused(
        413,
        "body_too_large",
        f"a request body may have this many bytes: `{limit}`",
        field="body",
        remedy="send smaller batches, or raise SHALLOP_INGEST__MAX_BODY_BYTES",
    )


def _check_type(headers: dict[bytes, bytes]) -> None:
    content_type = (
        headers.get(b"content-type", b"").split(b";")[0].strip().lower().decode("latin-1")
    )
    if content_type and content_type not in _ACCEPTED_TYPES:
        raise Refused(
            415,
            "unsupported_media_type",
            f"events come as JSON, not as: `{shown(content_type)}`",
            field="Content-Type",
            remedy="send `Content-Type: application/json` (a beacon's text/plain is fine too)",
        )
    encoding = headers.get(b"content-encoding", b"identity").decode("latin-1")
    if encoding.lower() != "identity":
        raise Refused(
            415,
            "unsupported_encoding",
            f"a compressed body is not read: `{shown(encoding)}`",
            field="Content-Encoding",
            remedy="send the JSON as it is, without Content-Encoding",
        )

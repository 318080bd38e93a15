"""Other protocols than our own, each answered as its clients expect. Bare ASGI endpoints.

A body that can be read is acknowledged even where all of its events are rejected: these clients
would drop them, or send the same again, while here the rejected are kept for a replay.
"""

from base64 import b64decode
from functools import partial

import msgspec
from starlette.types import Receive, Scope

from api.body import read_body
from api.collector import Collector
from api.errors import Refused, refused
from api.front import Endpoint, Reply
from ingest.events import Decoded, InvalidBody, Origin
from ingest.protocols import ga4, ga4_web, pixel, segment
from ingest.protocols.routes import GA4_PATH, GA4_WEB_PATH, PIXEL_PATH, SEGMENT_CALLS
from ingest.traces import reduced_bytes

GA4_DEBUG_PATH = "/debug/mp/collect"
# Where Segment's library for browsers counts its own doings: no events of a shop.
SEGMENT_METRICS_PATH = "/v1/m"

GIF = b64decode("R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7")
_GIF_HEADERS = {"Cache-Control": "no-store, max-age=0"}

_encode = msgspec.json.Encoder().encode


class SegmentReply(msgspec.Struct):
    """What Segment's libraries wait for."""

    success: bool = True


class ValidationReply(msgspec.Struct, rename="camel"):
    """What is wrong with a Measurement Protocol request; empty when nothing is."""

    validation_messages: list[ga4.ValidationMessage]


_SUCCESS = _encode(SegmentReply())


def endpoints(collector: Collector) -> dict[str, Endpoint]:
    """The endpoints of all protocols, by path."""
    return {
        GA4_PATH: Ga4Endpoint(collector),
        GA4_DEBUG_PATH: Ga4DebugEndpoint(collector),
        GA4_WEB_PATH: Ga4WebEndpoint(collector),
        PIXEL_PATH: PixelEndpoint(collector),
        SEGMENT_METRICS_PATH: SegmentMetricsEndpoint(collector),
        **{path: SegmentEndpoint(collector, call) for path, call in SEGMENT_CALLS.items()},
    }


class SegmentEndpoint:
    """One call of Segment's HTTP API; `call` is None for batches."""

    methods = ("POST",)

    def __init__(self, collector: Collector, call: str | None) -> None:
        self._collector = collector
        self._decode = partial(segment.decode, call=call)

    async def answer(self, scope: Scope, receive: Receive) -> Reply:
        headers = dict(scope["headers"])
        await self._collector.take(scope, receive, headers, segment.SOURCE, self._decode)
        return Reply(200, _SUCCESS)


class SegmentMetricsEndpoint:
    """Lets the counts of Segment's library go."""

    methods = ("POST",)

    def __init__(self, collector: Collector) -> None:
        self._limit = collector.settings.max_body_bytes

    async def answer(self, scope: Scope, receive: Receive) -> Reply:
        await read_body(receive, dict(scope["headers"]), self._limit)
        return Reply(200, _SUCCESS)


class Ga4Endpoint:
    """POST /mp/collect."""

    methods = ("POST",)

    def __init__(self, collector: Collector) -> None:
        self._collector = collector

    async def answer(self, scope: Scope, receive: Receive) -> Reply:
        headers = dict(scope["headers"])
        await self._collector.take(scope, receive, headers, ga4.SOURCE, ga4.decode)
        return Reply(204, b"")


class Ga4DebugEndpoint:
    """POST /debug/mp/collect: says what is wrong, and keeps nothing."""

    methods = ("POST",)

    def __init__(self, collector: Collector) -> None:
        self._collector = collector

    async def answer(self, scope: Scope, receive: Receive) -> Reply:
        headers = dict(scope["headers"])
        limit = self._collector.settings.max_body_bytes
        context = self._collector.context(scope, headers, ga4.SOURCE)
        sent = await read_body(receive, headers, limit)
        outcome: Decoded | InvalidBody
        try:
            outcome = ga4.decode(sent.unpacked(limit), context)
        except InvalidBody as error:
            outcome = error
        return Reply(200, _encode(ValidationReply(ga4.validation_messages(outcome))))


class Ga4WebEndpoint:
    """/g/collect: what the GA4 tag for browsers sends, itself or by a proxy."""

    methods = ("POST", "GET")

    def __init__(self, collector: Collector) -> None:
        self._collector = collector

    async def answer(self, scope: Scope, receive: Receive) -> Reply:
        query = scope["query_string"]
        decode = partial(ga4_web.decode, query)
        await self._collector.take(
            scope, receive, dict(scope["headers"]), ga4_web.SOURCE, decode,
            query=query.decode("latin-1"),
        )  # fmt: skip
        return Reply(204, b"")


class PixelEndpoint:
    """GET /pixel.gif: always the image, so that nothing breaks on a page or in a mail."""

    methods = ("GET",)

    def __init__(self, collector: Collector) -> None:
        self._collector = collector

    def refusal(self, error: Refused) -> Reply:
        return _gif(error.status, error.headers | {"X-Shallop-Error": error.detail.code})

    async def answer(self, scope: Scope, receive: Receive) -> Reply:
        headers = dict(scope["headers"])
        context = self._collector.context(scope, headers, pixel.SOURCE)
        page_url = headers.get(b"referer", b"").decode("latin-1") or None
        query = scope["query_string"]
        try:
            decoded = pixel.decode(query, context, page_url=page_url)
        except InvalidBody as error:
            origin = Origin.of(context, page_url=page_url, target=PIXEL_PATH)
            kept = reduced_bytes(query, context.limits)
            await self._collector.keep_refused(kept, error, context, origin)
            raise refused(error) from None
        await self._collector.keep(decoded)
        rejected = {"X-Shallop-Error": decoded.rejected[0][0].reason} if decoded.rejected else {}
        return _gif(200, rejected)


def _gif(status: int, headers: dict[str, str]) -> Reply:
    return Reply(status, GIF, _GIF_HEADERS | headers, b"image/gif")

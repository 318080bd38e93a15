"""Other protocols than our own, each answered as its clients expect. Bare ASGI endpoints.

A body that can be read is acknowledged even where all of its events are rejected: these clients
would drop them, or send the same again, while here the rejected are kept for a replay.
"""

from base64 import b64decode

import msgspec
from starlette.types import Receive, Scope

from api.body import read_body
from api.collector import Collector, refused
from api.errors import Refused
from api.front import Endpoint, Reply
from ingest.events import Decoded, InvalidBody
from ingest.protocols import ga4, pixel, segment

GA4_PATH = "/mp/collect"
GA4_DEBUG_PATH = "/debug/mp/collect"
PIXEL_PATH = "/pixel.gif"
# Of Segment: the call of each path, None for batches; the short ones are the browser's.
SEGMENT_CALLS = {
    "/v1/track": "track",
    "/v1/page": "page",
    "/v1/screen": "screen",
    "/v1/identify": "identify",
    "/v1/group": "group",
    "/v1/alias": "alias",
    "/v1/batch": None,
    "/v1/import": None,
    "/v1/t": "track",
    "/v1/p": "page",
    "/v1/s": "screen",
    "/v1/i": "identify",
    "/v1/g": "group",
    "/v1/a": "alias",
    "/v1/b": None,
}
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
        PIXEL_PATH: PixelEndpoint(collector),
        SEGMENT_METRICS_PATH: SegmentMetricsEndpoint(collector),
        **{path: SegmentEndpoint(collector, call) for path, call in SEGMENT_CALLS.items()},
    }


class SegmentEndpoint:
    """One call of Segment's HTTP API; `call` is None for batches."""

    method = "POST"

    def __init__(self, collector: Collector, call: str | None) -> None:
        self._collector = collector
        self._call = call

    async def answer(self, scope: Scope, receive: Receive) -> Reply:
        headers = dict(scope["headers"])
        body = await read_body(receive, headers, self._collector.settings.max_body_bytes)
        context = self._collector.context(scope, headers, segment.SOURCE)
        try:
            decoded = segment.decode(body, context, call=self._call)
        except InvalidBody as error:
            raise refused(error) from None
        await self._collector.keep(decoded)
        return Reply(200, _SUCCESS)


class SegmentMetricsEndpoint:
    """Reads the counts of Segment's library and lets them go."""

    method = "POST"

    def __init__(self, collector: Collector) -> None:
        self._limit = collector.settings.max_body_bytes

    async def answer(self, scope: Scope, receive: Receive) -> Reply:
        await read_body(receive, dict(scope["headers"]), self._limit)
        return Reply(200, _SUCCESS)


class Ga4Endpoint:
    """POST /mp/collect."""

    method = "POST"

    def __init__(self, collector: Collector) -> None:
        self._collector = collector

    async def answer(self, scope: Scope, receive: Receive) -> Reply:
        outcome = await self._read(scope, receive)
        if isinstance(outcome, InvalidBody):
            raise refused(outcome)
        await self._collector.keep(outcome)
        return Reply(204, b"")

    async def _read(self, scope: Scope, receive: Receive) -> Decoded | InvalidBody:
        headers = dict(scope["headers"])
        body = await read_body(receive, headers, self._collector.settings.max_body_bytes)
        try:
            return ga4.decode(body, self._collector.context(scope, headers, ga4.SOURCE))
        except InvalidBody as error:
            return error


class Ga4DebugEndpoint(Ga4Endpoint):
    """POST /debug/mp/collect: says what is wrong, and keeps nothing."""

    async def answer(self, scope: Scope, receive: Receive) -> Reply:
        outcome = await self._read(scope, receive)
        return Reply(200, _encode(ValidationReply(ga4.validation_messages(outcome))))


class PixelEndpoint:
    """GET /pixel.gif: always the image, so that nothing breaks on a page or in a mail."""

    method = "GET"

    def __init__(self, collector: Collector) -> None:
        self._collector = collector

    def refusal(self, error: Refused) -> Reply:
        return _gif(error.status, error.headers | {"X-Shallop-Error": error.detail.code})

    async def answer(self, scope: Scope, receive: Receive) -> Reply:
        headers = dict(scope["headers"])
        context = self._collector.context(scope, headers, pixel.SOURCE)
        page_url = headers.get(b"referer", b"").decode("latin-1") or None
        try:
            decoded = pixel.decode(scope["query_string"], context, page_url=page_url)
            await self._collector.keep(decoded)
        except InvalidBody as error:
            return _gif(error.status, {"X-Shallop-Error": error.reason})
        rejected = {"X-Shallop-Error": decoded.rejected[0][0].reason} if decoded.rejected else {}
        return _gif(200, rejected)


def _gif(status: int, headers: dict[str, str]) -> Reply:
    return Reply(status, GIF, _GIF_HEADERS | headers, b"image/gif")

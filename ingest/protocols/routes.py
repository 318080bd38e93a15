"""Where each protocol is spoken, and the same reading for what came in live and what is replayed.

A rejected event is kept as a whole request of that one event, a body that was refused as a whole
with the path (and, of /g/collect, the query) it was sent to.
"""

from ingest.bodies import unpacked
from ingest.events import Decoded, InvalidBody, Origin, decode_json
from ingest.protocols import ga4, ga4_web, ndjson, pixel, segment
from ingest.rules import Context

EVENTS_PATH = "/events"
GA4_PATH = "/mp/collect"
GA4_WEB_PATH = "/g/collect"
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

# As the column `source` names it: JSON sent to /events, and what a replay wrote past the collector.
SOURCE = "json"
REPLAY_SOURCE = "replay"


def read_again(body: bytes, context: Context, origin: Origin) -> Decoded:
    """The events of what was rejected, as its route would have them now. Raises InvalidBody."""
    if origin.target is None:
        return _read_event(body, context, origin)
    path, _, query = origin.target.partition("?")
    whole = unpacked(body, origin.encoding or "identity", context.limits.max_body_bytes)
    if path == EVENTS_PATH:
        is_lines = context.source == ndjson.SOURCE
        return ndjson.decode(whole, context) if is_lines else decode_json(whole, context)
    if path in SEGMENT_CALLS:
        return segment.decode(whole, context, call=SEGMENT_CALLS[path])
    if path == GA4_PATH:
        return ga4.decode(whole, context)
    if path == GA4_WEB_PATH:
        return ga4_web.decode(query.encode("latin-1"), whole, context)
    if path == PIXEL_PATH:
        return pixel.decode(whole, context, page_url=origin.page_url)
    raise _unknown("path", path)


def _read_event(raw: bytes, context: Context, origin: Origin) -> Decoded:
    """One event that was rejected. Raises InvalidBody."""
    if context.source == segment.SOURCE:
        return segment.decode(b'{"batch":[%s]}' % raw, context, call=None)
    if context.source == ga4.SOURCE:
        return ga4.decode(raw, context)
    if context.source == ga4_web.SOURCE:
        return ga4_web.decode(raw, b"", context)
    if context.source == pixel.SOURCE:
        return pixel.decode(raw, context, page_url=origin.page_url)
    if context.source == ndjson.SOURCE:
        return ndjson.decode(raw, context)
    if context.source in (SOURCE, REPLAY_SOURCE):
        return decode_json(raw, context)
    raise _unknown("source", context.source)


def _unknown(what: str, value: str) -> InvalidBody:
    return InvalidBody(
        f"unknown_{what}", f"this version of Shallop reads no such {what}: `{value}`", status=400
    )

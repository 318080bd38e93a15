"""What the OpenAPI document says of other protocols than our own."""

from typing import Any

from api import openapi_bodies as bodies
from api import protocols
from api.openapi_parts import answer, error, parameter, retry
from api.protocols import SegmentReply, ValidationReply
from ingest.protocols import pixel, routes
from warehouse.settings import Settings

STRUCTS = (SegmentReply, ValidationReply)

_MESSAGE: dict[str, Any] = {
    "type": "track",
    "event": "Product Viewed",
    "messageId": "3f2504e0-4f89-41d3-9a0c-0305e82c3301",
    "anonymousId": "v-1",
    "timestamp": "2026-01-31T12:00:00Z",
    "properties": {"product_id": "mug-blue", "name": "Blue mug", "price": 12.5},
}
_GA4 = {
    "client_id": "1234567890.1769860800",
    "timestamp_micros": 1769860800000000,
    "events": [{"name": "view_item", "params": {"items": [{"item_id": "mug-blue"}]}}],
}
_VERSION = parameter("v", "Version of the protocol.", "2", {"enum": ["2"]}) | {"required": True}
_REJECTED = "Events that are rejected, or that no event of ours stands for, are kept and counted."


def paths(settings: Settings) -> dict[str, Any]:
    """The operations of every protocol's paths."""
    limits = settings.ingest
    refusals = {
        "400": error("The body is no JSON object, or not gzip as it says."),
        "405": error("Not a POST."),
        "413": error(
            f"More than {limits.max_body_bytes} bytes or {limits.max_batch_events} events."
        ),
        "415": error("Compressed otherwise than by gzip."),
        "422": error("No events."),
        "503": retry("The outbox is full or broken; nothing of the request was kept."),
    }
    return {
        routes.GA4_PATH: {"post": _ga4(refusals, limits.max_batch_events)},
        routes.GA4_WEB_PATH: {
            "post": _ga4_web(refusals, "post"),
            "get": _ga4_web(refusals, "get"),
        },
        protocols.GA4_DEBUG_PATH: {"post": _ga4_debug(limits.max_batch_events)},
        **{
            path: {"post": _segment(path, call, refusals, limits.max_batch_events)}
            for path, call in routes.SEGMENT_CALLS.items()
        },
        protocols.SEGMENT_METRICS_PATH: {"post": _segment_metrics()},
        routes.PIXEL_PATH: {"get": _pixel()},
    }


def _ga4(refusals: dict[str, Any], max_events: int) -> dict[str, Any]:
    return {
        "tags": ["events"],
        "operationId": "post_ga4",
        "summary": "Google Analytics 4, Measurement Protocol",
        "description": f"Acknowledged once durable. {_REJECTED} Query parameters are not read.",
        "requestBody": _body(bodies.ga4_request(max_events), _GA4),
        "responses": {"204": {"description": "The accepted events are durable."}, **refusals},
    }


def _ga4_web(refusals: dict[str, Any], method: str) -> dict[str, Any]:
    document = {
        "tags": ["events"],
        "operationId": f"{method}_ga4_web",
        "summary": "Google Analytics 4, as its tag for browsers sends it",
        "description": "One event in the query, or one a line of the body over what the query says "
        f"of all. Acknowledged once durable. {_REJECTED}",
        "parameters": [
            _VERSION,
            *(
                parameter(name, description)
                for name, description in bodies.ga4_web_parameters().items()
            ),
        ],
        "responses": {"204": {"description": "The accepted events are durable."}, **refusals},
    }
    if method == "post":
        lines = {"schema": {"type": "string"}, "example": "en=page_view&_et=10"}
        document["requestBody"] = {"required": False, "content": {"text/plain": lines}}
    return document


def _ga4_debug(max_events: int) -> dict[str, Any]:
    return {
        "tags": ["events"],
        "operationId": "post_ga4_debug",
        "summary": "What is wrong with a Measurement Protocol request?",
        "description": "Nothing is kept.",
        "requestBody": _body(bodies.ga4_request(max_events), _GA4),
        "responses": {
            "200": answer("Empty when all is well.", "ValidationReply", {"validationMessages": []}),
            "405": error("Not a POST."),
        },
    }


def _segment(
    path: str, call: str | None, refusals: dict[str, Any], max_events: int
) -> dict[str, Any]:
    what = f"a {call} call" if call else "a batch of calls"
    example = _MESSAGE | {"type": call} if call else {"batch": [_MESSAGE]}
    schema = bodies.segment_message(call) if call else bodies.segment_batch(max_events)
    return {
        "tags": ["segment"],
        "operationId": f"post_segment_{path.rsplit('/', 1)[-1]}",
        "summary": f"Segment: {what}",
        "description": f"Acknowledged once durable. {_REJECTED} Credentials are not looked at.",
        "requestBody": _body(schema, example),
        "responses": {
            "200": answer("The accepted events are durable.", "SegmentReply", {"success": True}),
            **refusals,
        },
    }


def _segment_metrics() -> dict[str, Any]:
    return {
        "tags": ["segment"],
        "operationId": "post_segment_m",
        "summary": "Segment: what its browser library counts of itself",
        "description": "Read and let go: these are no events of a shop.",
        "requestBody": _body({"type": "object"}, {"series": []}),
        "responses": {
            "200": answer("Read.", "SegmentReply", {"success": True}),
            "405": error("Not a POST."),
        },
    }


def _pixel() -> dict[str, Any]:
    gif = {"image/gif": {"schema": {"type": "string", "format": "binary"}}}
    why = {"description": "Why nothing was accepted.", "schema": {"type": "string"}}
    image = {"content": gif, "headers": {"X-Shallop-Error": why}}
    names = dict.fromkeys((*pixel.EVENT_PARAMETERS, *pixel.ITEM_PARAMETERS))
    return {
        "tags": ["events"],
        "operationId": "get_pixel",
        "summary": "An event in the address of an image",
        "description": "Always a 1×1 GIF, no cookie. Other parameters are kept in `extra`; those "
        f"of items may be repeated. {_REJECTED}",
        "parameters": [parameter(name, _PARAMETERS.get(name, "As of an event.")) for name in names],
        "responses": {
            "200": image | {"description": "Accepted, or kept as rejected."},
            "405": error("Not a GET."),
            "413": image | {"description": "The query string is longer than a body may be."},
            "503": image | {"description": "The outbox is full or broken; nothing was kept."},
        },
    }


_PARAMETERS = dict.fromkeys(
    pixel.ITEM_PARAMETERS, "Of the item; the n-th value is of the n-th `item_id`."
)


def _body(schema: dict[str, Any], example: Any) -> dict[str, Any]:
    content = {"schema": schema, "example": example}
    return {"required": True, "content": {"application/json": content, "text/plain": content}}

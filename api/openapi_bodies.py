"""JSON schemas of what other protocols post, for the OpenAPI document.

They say which names are read; whatever else is sent beside them is kept in `extra`.
"""

from typing import Any

from ingest.protocols import ga4, ga4_web, segment
from ingest.protocols.routes import SEGMENT_CALLS

_TEXT: dict[str, Any] = {"type": "string", "maxLength": 256}
_ID: dict[str, Any] = {"type": ["string", "integer"]}
_AMOUNT: dict[str, Any] = {"type": ["number", "string", "null"]}
_WHEN: dict[str, Any] = {"type": "string", "format": "date-time"}

_ITEM: dict[str, Any] = {
    "type": "object",
    "properties": {
        "item_id": _ID,
        "item_name": _TEXT,
        "item_category": _TEXT,
        "price": _AMOUNT,
        "quantity": {"type": ["integer", "string", "null"]},
        "index": {"type": ["integer", "string", "null"]},
    },
}
_PRODUCT: dict[str, Any] = {
    "type": "object",
    "properties": dict.fromkeys(segment.ITEM_FIELDS, _TEXT)
    | {"product_id": _ID, "price": _AMOUNT, "quantity": {"type": ["integer", "string", "null"]}},
}


def ga4_request(max_events: int) -> dict[str, Any]:
    """Body of the Measurement Protocol."""
    event = {
        "type": "object",
        "required": ["name"],
        "properties": {
            "name": {"anyOf": [{"enum": list(ga4.EVENTS)}, {"type": "string"}]},
            "timestamp_micros": {"type": "integer", "minimum": 0},
            "params": {
                "type": "object",
                "properties": {
                    "items": {"type": "array", "items": _ITEM, "maxItems": 200},
                    "currency": _TEXT,
                    "value": _AMOUNT,
                    "session_id": _ID,
                    "event_id": _TEXT,
                    "page_location": {"type": "string"},
                    "page_referrer": {"type": "string"},
                },
            },
        },
    }
    return {
        "type": "object",
        "required": ["events"],
        "properties": {
            "client_id": _TEXT,
            "user_id": _TEXT,
            "timestamp_micros": {"type": "integer", "minimum": 0},
            "consent": {"type": "object"},
            "events": {
                "anyOf": [
                    {"type": "array", "items": event, "minItems": 1, "maxItems": max_events},
                    event,
                ]
            },
        },
    }


def segment_message(call: str | None) -> dict[str, Any]:
    """Body of one `call` of Segment, or one message of a batch, which names its call itself."""
    properties = {
        "messageId": _TEXT,
        "anonymousId": _ID,
        "userId": _ID,
        "timestamp": _WHEN,
        "event": {"anyOf": [{"enum": list(segment.EVENTS)}, {"type": "string"}]},
        "properties": {
            **_PRODUCT,
            "properties": _PRODUCT["properties"]
            | {
                "products": {"type": "array", "items": _PRODUCT, "maxItems": 200},
                "currency": _TEXT,
                "value": _AMOUNT,
                "revenue": _AMOUNT,
                "url": {"type": "string"},
            },
        },
        "context": {
            "type": "object",
            "properties": {
                "ip": {"type": "string"},
                "userAgent": {"type": "string"},
                "page": {"type": "object", "properties": {"url": {"type": "string"}}},
            },
        },
    }
    if call is not None:
        return {"type": "object", "properties": properties}
    calls = sorted({name for name in SEGMENT_CALLS.values() if name})
    return {
        "type": "object",
        "required": ["type"],
        "properties": {"type": {"enum": calls}} | properties,
    }


def segment_batch(max_events: int) -> dict[str, Any]:
    """Body of a batch of Segment."""
    return {
        "type": "object",
        "required": ["batch"],
        "properties": {
            "batch": {
                "type": "array",
                "items": segment_message(None),
                "minItems": 1,
                "maxItems": max_events,
            },
            "sentAt": _WHEN,
            "context": {"type": "object"},
        },
    }


def ga4_web_parameters() -> dict[str, str]:
    """Query parameters of /g/collect by name, and what each is."""
    ours = {place: field for field, places in ga4_web.FIELDS.items() for place in places}
    return {
        "tid": "The shop's measurement id; not looked at.",
        "en": "Name of the event, in the words of GA4.",
        **{place: f"`{field}` of the event." for place, field in ours.items()},
        "_p": "The page that was loaded.",
        "_s": "Number of the request among the page's.",
        "pr1": "The first item, `id…~nm…~pr…~qt…`; `pr2` the second, and so on.",
    }

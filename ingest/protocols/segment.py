"""Segment's HTTP API: calls of its libraries, single and in batches.

https://segment.com/docs/connections/sources/catalog/libraries/server/http-api/, names and
properties of its e-commerce spec, version 2 and the names of version 1.
"""

import re
from typing import Any

import msgspec

from ingest.contract import SentEvent
from ingest.events import Decoded, InvalidBody, check_count, check_size, decoded_each, on_behalf_of
from ingest.lenient import decode_mended, fields_of, sent_event
from ingest.protocols.values import (
    as_item,
    as_items,
    as_time,
    event_id_from,
    is_uuid,
    take,
    taken_fields,
    unmapped,
)
from ingest.rules import DECODE_ERRORS, Context, InvalidEvent, shown
from warehouse.contracts import EVENT_NAMES

SOURCE = "segment"

# Names of track calls. Capitals do not matter, nor whether words are parted by a space or by `_`.
EVENTS = {
    "Products Searched": "view_search_results",
    "Product List Viewed": "view_item_list",
    "Product List Filtered": "view_item_list",
    "Viewed Product Category": "view_item_list",
    "Product Clicked": "select_item",
    "Clicked Product": "select_item",
    "Product Viewed": "view_item",
    "Viewed Product": "view_item",
    "Product Added": "add_to_cart",
    "Added Product": "add_to_cart",
    "Product Removed": "remove_from_cart",
    "Removed Product": "remove_from_cart",
    "Checkout Started": "begin_checkout",
    "Started Checkout": "begin_checkout",
    "Order Completed": "purchase",
    "Completed Order": "purchase",
} | {name: name for name in EVENT_NAMES}
# Calls that are no track call.
CALLS = {"page": "page_view", "screen": "page_view"}
UNMAPPED_CALLS = ("identify", "group", "alias")
# Of a product; the first of several that has a value counts.
ITEM_FIELDS = {
    "product_id": "item_id",
    "sku": "item_id",
    "id": "item_id",
    "name": "item_name",
    "category": "item_category",
    "position": "index",
}
# Where a message has our fields; of several places the first that has a value counts.
FIELDS = {
    "event_id": ("messageId",),
    "occurred_at": ("timestamp", "originalTimestamp"),
    "visitor_id": ("anonymousId", "userId"),
    "user_id": ("userId",),
    "session_id": ("properties.session_id", "context.sessionId", "context.session_id"),
    "items": ("properties.products", "properties.items"),
    "item_list_id": ("properties.list_id", "properties.item_list_id"),
    "recommendation_id": ("properties.recommendation_id",),
    "value": ("properties.value", "properties.revenue", "properties.total"),
    "currency": ("properties.currency",),
    "page_url": ("context.page.url", "properties.page_url"),
    "referrer": ("context.page.referrer",),
    "user_agent": ("context.userAgent",),
    "consent": ("context.consent",),
}
# Of a page call the properties are the page's.
PAGE_FIELDS = FIELDS | {
    "page_url": ("properties.url", "context.page.url"),
    "referrer": ("properties.referrer", "context.page.referrer"),
}
# Events whose properties are those of the one product.
_OF_ONE_PRODUCT = ("view_item", "select_item", "add_to_cart", "remove_from_cart")
_WORDS = re.compile(r"[\s_-]+")

_encode = msgspec.json.Encoder().encode
_decode_parts = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_raws = msgspec.json.Decoder(list[msgspec.Raw]).decode

_Parts = dict[str, msgspec.Raw]


def _key(name: str) -> str:
    return _WORDS.sub(" ", name).strip().lower()


_EVENTS_BY_KEY = {_key(name): ours for name, ours in EVENTS.items()}


def decode(body: bytes, context: Context, *, call: str | None) -> Decoded:
    """The events of one `call` (`track`, `page`, …), or of a batch where it is None.

    Raises InvalidBody.
    """
    check_size(body, context.limits)
    parts = _parts(body)
    # The public key of a source; whose it is, is not kept with every event.
    parts.pop("writeKey", None)
    if call is None:
        messages = _batch(parts)
        check_count(len(messages), context.limits)
        shared = {name: part for name, part in parts.items() if name != "batch"}
    else:
        messages = [_encode(parts)]
        shared = {"type": msgspec.Raw(_encode(call))}
    raws = [_with_shared(message, shared) for message in messages]
    return decoded_each(raws, context, lambda _, raw: _read(raw, context))


def _parts(body: bytes) -> _Parts:
    try:
        return decode_mended(_decode_parts, body)
    except msgspec.ValidationError as error:
        raise InvalidBody(
            "not_an_object", f"the body must be a JSON object: `{error}`", status=400
        ) from None
    except DECODE_ERRORS as error:
        raise InvalidBody(
            "invalid_json", f"the body is not JSON, send an object: `{error}`", status=400
        ) from None


def _batch(parts: _Parts) -> list[bytes]:
    try:
        return [bytes(raw) for raw in _decode_raws(parts.get("batch", b"null"))]
    except DECODE_ERRORS as error:
        raise InvalidBody(
            "not_events",
            f'send `{{"batch": […]}}` with an array of messages: `{error}`',
            status=400,
            field="batch",
        ) from None


def _with_shared(message: bytes, shared: _Parts) -> bytes:
    """A message together with what a batch says of all its messages; its own comes first."""
    if not shared and b"writeKey" not in message:
        return message
    try:
        parts = shared | _decode_parts(message)
    except DECODE_ERRORS:
        return message  # no object: rejected as it is
    parts.pop("writeKey", None)
    return _encode(parts)


def _read(raw: bytes, context: Context) -> tuple[SentEvent, Context]:
    message = fields_of(raw)
    event_name = _event_name(message)
    own_context = on_behalf_of(context, take(message, "context.ip"))
    places = PAGE_FIELDS if message["type"] in CALLS else FIELDS
    message_id = message.get("messageId")
    if is_uuid(message_id):
        del message["messageId"]
    known = taken_fields(message, places) | {
        "event_id": event_id_from(SOURCE, message_id),
        "event_name": event_name,
        "occurred_at": as_time(take(message, *places["occurred_at"])),
        "items": _items(message, event_name),
    }
    return sent_event(known | {"extra": message}), own_context


def _event_name(message: dict[str, Any]) -> str:
    call = message.get("type")
    if call == "track":
        name = message.get("event")
        if not isinstance(name, str) or not name:
            raise InvalidEvent(
                "event",
                "missing_event_name",
                f"a track call needs the name of its `event` as text: `{shown(name)}`",
            )
        ours = _EVENTS_BY_KEY.get(_key(name))
        if ours is None:
            raise unmapped("event", name)
        return ours
    if isinstance(call, str) and call in CALLS:
        return CALLS[call]
    if call in UNMAPPED_CALLS:
        raise unmapped("type", call)
    calls = ", ".join(f"`{known}`" for known in ("track", *CALLS, *UNMAPPED_CALLS))
    raise InvalidEvent("type", "unknown_call", f"`type` must be one of {calls}: `{shown(call)}`")


def _items(message: dict[str, Any], event_name: str) -> Any:
    """A message's products: listed, or the one that its properties are about."""
    products = take(message, *FIELDS["items"])
    if products or event_name not in _OF_ONE_PRODUCT:
        return as_items(products, ITEM_FIELDS)
    product: dict[str, Any] = {}
    for theirs, ours in (ITEM_FIELDS | {"price": "price", "quantity": "quantity"}).items():
        if ours not in product and (value := take(message, f"properties.{theirs}")) is not None:
            product[ours] = value
    return [as_item(product, {})]

"""Segment's calls as our events: names, places of the fields, ids, batches."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import msgspec
import pytest

from ingest.contract import EventItem
from ingest.events import Decoded, InvalidBody, request_context
from ingest.protocols import segment
from warehouse.contracts import EVENT_NAMES
from warehouse.settings import IngestSettings

RECEIVED_AT = datetime(2026, 3, 1, 12, tzinfo=UTC)


def read(body: Any, call: str | None = "track", **limits: Any) -> Decoded:
    context = request_context(
        limits=IngestSettings(**limits),
        received_at=RECEIVED_AT,
        ip="203.0.113.77",
        user_agent="library/1.0",
        source=segment.SOURCE,
    )
    data = body if isinstance(body, bytes) else msgspec.json.encode(body)
    return segment.decode(data, context, call=call)


def track(event: str = "Product Viewed", **fields: Any) -> dict[str, Any]:
    return {
        "type": "track",
        "event": event,
        "messageId": "3f2504e0-4f89-41d3-9a0c-0305e82c3301",
        "anonymousId": "anon-1",
        "timestamp": "2026-03-01T11:00:00.123Z",
        "properties": {"product_id": "mug", "name": "Mug", "price": 12.5},
        **fields,
    }


def extra(decoded: Decoded) -> Any:
    return msgspec.json.decode(decoded.events[0].extra or "null")


def test_a_track_call_is_an_event() -> None:
    body = track(
        userId="u-1",
        writeKey="public",
        context={
            "ip": "192.0.2.9",
            "userAgent": "Browser/2",
            "page": {"url": "https://shop/mug", "referrer": "https://search", "title": "Mug"},
            "library": {"name": "analytics.js"},
            "sessionId": "sess-1",
            "consent": {"categoryPreferences": {"Ads": False}},
        },
        properties={
            "product_id": 17, "sku": "M-17", "name": "Mug", "category": "Mugs", "price": "12.50",
            "quantity": "2", "position": 3, "currency": "EUR", "value": 25, "brand": "Acme",
            "list_id": "home", "recommendation_id": "r-1",
        },
    )  # fmt: skip
    (event,) = read(body).events
    assert event.event_id == body["messageId"]
    assert event.event_name == "view_item"
    assert event.occurred_at == datetime(2026, 3, 1, 11, 0, 0, 123_000, tzinfo=UTC)
    assert (event.visitor_id, event.user_id, event.session_id) == ("anon-1", "u-1", "sess-1")
    assert event.items == [EventItem("17", "Mug", "Mugs", 12.5, 2, 3)]
    assert (event.value, event.currency, event.item_list_id) == (25.0, "EUR", "home")
    assert event.recommendation_id == "r-1"
    assert (event.page_url, event.referrer) == ("https://shop/mug", "https://search")
    assert (event.user_agent, event.ip_prefix) == ("Browser/2", "192.0.2.0/24")
    assert event.consent == '{"categoryPreferences":{"Ads":false}}'
    assert event.source == "segment"
    # What has no place of its own stays, but neither the key nor the whole address.
    assert msgspec.json.decode(event.extra or "") == {
        "type": "track",
        "event": "Product Viewed",
        "properties": {"sku": "M-17", "brand": "Acme"},
        "context": {"page": {"title": "Mug"}, "library": {"name": "analytics.js"}},
    }


def test_an_order_is_a_purchase() -> None:
    products = [
        {"product_id": "a", "sku": "A", "price": 5, "quantity": 2, "coupon": "X"},
        {"sku": "B", "price": 1},
    ]
    properties = {"order_id": "o-1", "revenue": 11, "total": 15, "products": products}
    decoded = read(track("Order Completed", properties=properties))
    (event,) = decoded.events
    assert (event.event_name, event.value) == ("purchase", 11.0)
    assert event.items == [EventItem("a", price=5.0, quantity=2), EventItem("B", price=1.0)]
    assert extra(decoded)["properties"] == {"order_id": "o-1", "total": 15}
    assert extra(decoded)["items"] == [{"sku": "A", "coupon": "X"}, {}]


@pytest.mark.parametrize(
    ("name", "ours"),
    [
        *segment.EVENTS.items(),
        ("product viewed", "view_item"),
        ("product_viewed", "view_item"),
        ("PRODUCT  ADDED ", "add_to_cart"),
        ("add-to-cart", "add_to_cart"),
    ],
)
def test_names_are_ours_however_they_are_spelled(name: str, ours: str) -> None:
    body = track(name, properties={"products": [{"product_id": "mug"}]})
    assert read(body).events[0].event_name == ours


def test_every_name_of_ours_stands_for_something() -> None:
    assert set(segment.EVENTS.values()) == set(EVENT_NAMES)


@pytest.mark.parametrize("call", ["page", "screen"])
def test_a_page_is_a_page_view(call: str) -> None:
    page = {"url": "https://shop/", "referrer": "https://search", "title": "Home"}
    body = {"anonymousId": "a", "name": "Home", "properties": page, "messageId": "ajs-next-1-x"}
    decoded = read(body, call)
    (event,) = decoded.events
    assert (event.event_name, event.page_url, event.referrer) == (
        "page_view",
        "https://shop/",
        "https://search",
    )
    assert extra(decoded) == {
        "type": call,
        "name": "Home",
        "properties": {"title": "Home"},
        "messageId": "ajs-next-1-x",
    }


def test_an_id_that_is_no_uuid_makes_the_same_uuid_each_time() -> None:
    first, again, other = (
        read(track(messageId=message_id)).events[0].event_id
        for message_id in ("ajs-next-1-x", "ajs-next-1-x", "ajs-next-2-x")
    )
    assert first == again != other
    # Kept for ever: a retry after an update of ours must still be the same event.
    assert UUID(first) == UUID("dd6cf44a-1be2-5f74-ac0c-82326d23a193")
    without = track()
    del without["messageId"]
    assert read(without).n_minted == 1


def test_a_server_knows_only_the_user() -> None:
    body = track(userId=42)
    del body["anonymousId"]
    (event,) = read(body).events
    assert (event.visitor_id, event.user_id) == ("42", "42")
    (event,) = read(track(context={"sessionId": 1_700_000_000})).events
    assert event.session_id == "anon-1.1700000000"


def test_times() -> None:
    def at(**fields: Any) -> datetime:
        return read(track(**fields)).events[0].occurred_at

    assert at(timestamp="2026-03-01T10:00:00") == datetime(2026, 3, 1, 10, tzinfo=UTC)
    assert at(timestamp="2026-03-01T10:00:00+02:00") == datetime(2026, 3, 1, 8, tzinfo=UTC)
    assert at(timestamp=1_767_225_600_000) == datetime(2026, 1, 1, tzinfo=UTC)
    assert at(timestamp=None, originalTimestamp="2026-03-01T10:00:00Z").hour == 10
    assert at(timestamp=None) == RECEIVED_AT


@pytest.mark.parametrize(
    ("message", "field", "reason"),
    [
        (track("Cart Viewed"), "event", "unmapped_event"),
        (track("Wheel Spun"), "event", "unmapped_event"),
        (track(type="identify"), "type", "unmapped_event"),
        (track(type="group"), "type", "unmapped_event"),
        (track(type="alias"), "type", "unmapped_event"),
        (track(type="dance"), "type", "unknown_call"),
        (track(type={}), "type", "unknown_call"),
        (track(""), "event", "missing_event_name"),
        (track(properties={}), "items", "missing_items"),
        (track(properties="none"), "items", "missing_items"),
        (track("Order Completed", properties={"products": "a"}), "items", "bad_type"),
        (track("Order Completed", properties={"products": ["a"]}), "items[0]", "bad_type"),
        (track(properties={"product_id": "a", "price": "cheap"}), "items[0].price", "bad_type"),
        (track(timestamp="yesterday"), "occurred_at", "bad_timestamp"),
        (track(anonymousId=""), "session_id", "missing_visitor"),
        (17, "", "not_an_object"),
    ],
)
def test_what_is_wrong_is_rejected_alone(message: Any, field: str, reason: str) -> None:
    decoded = read({"batch": [track(), message], "sentAt": "2026-03-01T11:59:00Z"}, None)
    assert len(decoded.events) == 1
    ((rejection, body),) = decoded.rejected
    assert (rejection.index, rejection.field, rejection.reason) == (1, field, reason)
    # Its bytes are a whole message: read again, the answer is the same.
    if isinstance(message, dict):
        assert msgspec.json.decode(body) == {"sentAt": "2026-03-01T11:59:00Z", **message}
        ((again, _),) = read(body).rejected
        assert again.reason == reason


def test_a_batch_says_once_what_is_true_of_all() -> None:
    own = track(context={"page": {"url": "https://shop/own"}})
    decoded = read(
        {"batch": [track(), own], "context": {"page": {"url": "https://shop/all"}}}, None
    )
    assert [event.page_url for event in decoded.events] == ["https://shop/all", "https://shop/own"]


def test_a_text_cut_in_the_middle_of_an_emoji_is_mended() -> None:
    messages = rb'{"type":"page","anonymousId":"a","name":"\ud83d"},{"type":"page","x":"\ud83d"}'
    decoded = read(b'{"batch":[%s]}' % messages, None)
    assert extra(decoded)["name"] == "�"
    assert decoded.rejected[0][0].reason == "missing_visitor"


@pytest.mark.parametrize(
    ("body", "call", "status", "reason"),
    [
        (b"", "track", 400, "invalid_json"),
        (b"{", None, 400, "invalid_json"),
        (b"[]", "track", 400, "not_an_object"),
        (b"{}", None, 400, "not_events"),
        (b'{"batch": {}}', None, 400, "not_events"),
        (b'{"batch": []}', None, 422, "empty_batch"),
        (b'{"batch": [1,2,3]}', None, 413, "too_many_events"),
        (b" " * 1025, "track", 413, "body_too_large"),
        (b'{"a":' * 100_000, "track", 413, "body_too_large"),
    ],
)
def test_a_body_without_messages_is_refused(
    body: bytes, call: str | None, status: int, reason: str
) -> None:
    with pytest.raises(InvalidBody) as caught:
        read(body, call, max_batch_events=2, max_body_bytes=1024)
    assert (caught.value.status, caught.value.reason) == (status, reason)

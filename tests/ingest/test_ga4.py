"""Measurement Protocol requests as our events, and what the debug address says of them."""

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from ingest.contract import EventItem
from ingest.events import Decoded, InvalidBody, request_context
from ingest.protocols import ga4
from warehouse.settings import IngestSettings

RECEIVED_AT = datetime(2026, 3, 1, 12, tzinfo=UTC)
MICROS = 1_772_359_200_123_456  # 2026-03-01T10:00:00.123456Z


def read(body: Any, **limits: Any) -> Decoded:
    context = request_context(
        limits=IngestSettings(**limits),
        received_at=RECEIVED_AT,
        ip="203.0.113.77",
        user_agent="server/1.0",
        source=ga4.SOURCE,
    )
    return ga4.decode(body if isinstance(body, bytes) else msgspec.json.encode(body), context)


def event(name: str = "view_item", **params: Any) -> dict[str, Any]:
    return {"name": name, "params": {"items": [{"item_id": "mug"}], **params}}


def sent(*events: Any, **fields: Any) -> dict[str, Any]:
    return {"client_id": "1.2", "events": list(events), **fields}


def test_an_event_with_all_that_it_may_carry() -> None:
    item = {
        "item_id": 17, "item_name": "Mug", "item_category": "Mugs", "price": 12.5, "quantity": 2,
        "index": 0, "item_brand": "Acme",
    }  # fmt: skip
    body = sent(
        event(
            "purchase", items=[item], session_id="1772359000", value="25", currency="EUR",
            transaction_id="T-1", page_location="https://shop/thanks", page_referrer="https://shop/",
            item_list_id="home", recommendation_id="r-1", engagement_time_msec=100,
        ),
        user_id="u-1",
        timestamp_micros=str(MICROS),
        ip_override="192.0.2.9",
        user_agent="Browser/2",
        consent={"ad_user_data": "DENIED"},
        user_properties={"tier": {"value": "gold"}},
    )  # fmt: skip
    (kept,) = read(body).events
    assert kept.event_name == "purchase"
    assert kept.occurred_at == datetime(2026, 3, 1, 10, 0, 0, 123_456, tzinfo=UTC)
    assert (kept.visitor_id, kept.user_id, kept.session_id) == ("1.2", "u-1", "1.2.1772359000")
    assert kept.items == [EventItem("17", "Mug", "Mugs", 12.5, 2, 0)]
    assert (kept.value, kept.currency, kept.item_list_id) == (25.0, "EUR", "home")
    assert kept.recommendation_id == "r-1"
    assert (kept.page_url, kept.referrer) == ("https://shop/thanks", "https://shop/")
    assert (kept.user_agent, kept.ip_prefix) == ("Browser/2", "192.0.2.0/24")
    assert kept.consent == '{"ad_user_data":"DENIED"}'
    assert kept.source == "ga4_mp"
    assert msgspec.json.decode(kept.extra or "") == {
        "name": "purchase",
        "params": {"transaction_id": "T-1", "engagement_time_msec": 100},
        "request": {"user_properties": {"tier": {"value": "gold"}}},
        "items": [{"item_brand": "Acme"}],
    }


@pytest.mark.parametrize(("name", "ours"), ga4.EVENTS.items())
def test_every_name(name: str, ours: str) -> None:
    assert read(sent(event(name))).events[0].event_name == ours


def test_with_a_time_the_same_words_are_the_same_event() -> None:
    body = sent(event(), event(), timestamp_micros=MICROS)
    first, second = read(body).events
    assert first.event_id != second.event_id
    assert [kept.event_id for kept in read(body).events] == [first.event_id, second.event_id]
    assert read(body).n_minted == 0
    assert read(sent(event())).n_minted == 1
    own = "3f2504e0-4f89-41d3-9a0c-0305e82c3301"
    assert read(sent(event(event_id=own))).events[0].event_id == own
    assert read(sent(event(event_id="o-1"))).n_minted == 0


def test_an_event_may_have_its_own_time() -> None:
    own = event() | {"timestamp_micros": MICROS + 1_000_000}
    first, second = read(sent(own, event(), timestamp_micros=MICROS)).events
    assert (first.occurred_at - second.occurred_at).total_seconds() == 1
    assert read(sent(event())).events[0].occurred_at == RECEIVED_AT


@pytest.mark.parametrize(
    ("wrong", "fields", "path", "code"),
    [
        (event("session_start"), {}, "events[1].name", "NAME_INVALID"),
        (event("spin_wheel"), {}, "events[1].name", "NAME_INVALID"),
        ({"params": {}}, {}, "events[1].name", "VALUE_REQUIRED"),
        (17, {}, "events[1]", "VALUE_INVALID"),
        ({"name": "view_item"}, {}, "events[1].params.items", "VALUE_REQUIRED"),
        (event(items=[{"item_id": "a", "price": -1}]), {},
         "events[1].params.items[0].price", "VALUE_OUT_OF_BOUNDS"),
        (event(currency="E" * 257), {}, "events[1].params.currency", "VALUE_OUT_OF_BOUNDS"),
        (event() | {"timestamp_micros": "now"}, {}, "events[1].timestamp_micros", "VALUE_INVALID"),
        (event() | {"timestamp_micros": 10**30}, {}, "events[1].timestamp_micros", "VALUE_INVALID"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_rejected_alone(
    wrong: Any, fields: dict[str, Any], path: str, code: str
) -> None:
    decoded = read(sent(event(), wrong, **fields))
    assert len(decoded.events) == 1
    ((rejection, body),) = decoded.rejected
    assert rejection.index == 1
    # Its bytes are a whole request: read again, the answer is the same.
    assert msgspec.json.decode(body) == sent(wrong)
    assert read(body).rejected[0][0].reason == rejection.reason
    (message,) = ga4.validation_messages(decoded)
    assert (message.field_path, message.validation_code) == (path, code)
    assert message.description == rejection.message


def test_a_request_without_a_client() -> None:
    (message,) = ga4.validation_messages(read({"events": [event()]}))
    assert (message.field_path, message.validation_code) == (
        "events[0].params.session_id",
        "VALUE_REQUIRED",
    )
    assert read({"user_id": "u", "events": [event()]}).events[0].visitor_id == "u"


def test_a_single_event_without_an_array_around_it() -> None:
    """As the library ga4mp for Python posts events that it had put off."""
    decoded = read({"client_id": "c", "events": event()})
    assert [one.event_name for one in decoded.events] == ["view_item"]
    ((rejection, raw),) = read({"client_id": "c", "events": {}}).rejected
    assert rejection.reason == "missing_event_name"
    assert msgspec.json.decode(raw) == {"client_id": "c", "events": [{}]}


@pytest.mark.parametrize(
    ("body", "status", "reason"),
    [
        (b"", 400, "not_events"),
        (b"[]", 400, "not_events"),
        (b'{"client_id":"a"}', 400, "not_events"),
        (b'{"events":7}', 400, "not_events"),
        (b'{"events":[]}', 422, "empty_batch"),
        (b'{"events":[1,2,3]}', 413, "too_many_events"),
        (b" " * 1025, 413, "body_too_large"),
    ],
)
def test_a_body_without_events_is_refused(body: bytes, status: int, reason: str) -> None:
    with pytest.raises(InvalidBody) as caught:
        read(body, max_batch_events=2, max_body_bytes=1024)
    assert (caught.value.status, caught.value.reason) == (status, reason)
    (message,) = ga4.validation_messages(caught.value)
    assert message.description == caught.value.message

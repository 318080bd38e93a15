"""/g/collect as gtag.js sends it: names, items, and what becomes of a request of several events."""

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from ingest.contract import Event
from ingest.events import Decoded, InvalidBody, request_context
from ingest.protocols import ga4_web
from warehouse.settings import IngestSettings

RECEIVED_AT = datetime(2026, 3, 1, 12, tzinfo=UTC)
PAGE = (
    b"v=2&tid=G-ABC123&gtm=45je&_p=1772366400123&gcs=G111&cid=1712345678.1699000000&ul=en-us"
    b"&sr=1920x1080&_s=3&sid=1772366000&sct=2&seg=1&dl=https%3A%2F%2Fshop.example%2Fp%2Fmug"
    b"&dr=https%3A%2F%2Fshop.example%2F&dt=Mug"
)
MUG = (
    b"&pr1=idmug~nmBlue%20mug~brAcme~caMugs~pr12.5~qt2~lp3"
    b"&pr2=idcup~nmA~~B%20cup~pr3~k0colour~v0red"
)


def read(query: bytes, body: bytes = b"", **limits: Any) -> Decoded:
    context = request_context(
        limits=IngestSettings(**limits), received_at=RECEIVED_AT, ip="203.0.113.77",
        user_agent="Browser/1.0", source=ga4_web.SOURCE,
    )  # fmt: skip
    return ga4_web.decode(query, body, context)


def one(query: bytes) -> Event:
    decoded = read(query)
    assert decoded.rejected == []
    (event,) = decoded.events
    return event


def test_a_view_of_an_item() -> None:
    event = one(PAGE + b"&en=view_item&cu=EUR&epn.value=28&ep.coupon=SPRING&_et=17" + MUG)
    assert (event.event_name, event.source) == ("view_item", "ga4_web")
    assert event.visitor_id == "1712345678.1699000000"
    assert event.session_id == "1712345678.1699000000.1772366000"
    assert (event.value, event.currency, event.consent) == (28.0, "EUR", "G111")
    assert event.page_url == "https://shop.example/p/mug"
    assert event.referrer == "https://shop.example/"
    assert event.occurred_at == RECEIVED_AT
    assert event.ip_prefix == "203.0.113.0/24"
    first, second = event.items or []
    assert (first.item_id, first.item_name, first.item_category) == ("mug", "Blue mug", "Mugs")
    assert (first.price, first.quantity, first.index) == (12.5, 2, 3)
    assert (second.item_id, second.item_name, second.price) == ("cup", "A~B cup", 3.0)
    extra = msgspec.json.decode(event.extra or "")
    assert extra["ep"] == {"coupon": "SPRING"}
    assert extra["dt"] == "Mug"
    assert extra["items"] == [{"item_brand": "Acme"}, {"k0": "colour", "v0": "red"}]


def test_lines_of_a_body_are_events_over_the_query() -> None:
    body = b"en=page_view&_et=10\r\nen=add_to_cart&cid=9.9" + MUG + b"\n\nen=scroll&epn.percent=90"
    decoded = read(PAGE, body)
    assert [event.event_name for event in decoded.events] == ["page_view", "add_to_cart"]
    assert [event.visitor_id for event in decoded.events] == ["1712345678.1699000000", "9.9"]
    ((rejection, raw),) = decoded.rejected
    assert (rejection.index, rejection.reason) == (2, "unmapped_event")
    ((again, _),) = read(raw).rejected  # what is kept of it is a request of its own
    assert again.message == rejection.message
    assert {event.event_id for event in decoded.events} == {
        event.event_id for event in read(PAGE, body).events
    }
    assert len({event.event_id for event in decoded.events}) == 2


def test_ids() -> None:
    with_place, without = PAGE + b"&en=page_view", b"cid=1.2&en=page_view"
    assert one(with_place).event_id == one(with_place).event_id
    assert one(with_place).event_id != one(with_place.replace(b"_s=3", b"_s=4")).event_id
    assert one(without).event_id != one(without).event_id
    named = without + b"&ep.event_id=order-1"
    assert one(named).event_id == one(named + b"&_et=5").event_id


def test_a_visitor_without_a_client_id_is_its_user() -> None:
    event = one(b"uid=u-1&sid=7&en=page_view")
    assert (event.visitor_id, event.user_id, event.session_id) == ("u-1", "u-1", "u-1.7")


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        (b"v=2&cid=1.2", "missing_event_name"),
        (b"v=2&en=page_view", "missing_visitor"),
        (b"cid=1.2&en=view_item", "missing_items"),
        (b"cid=1.2&en=view_item&pr1=nmNameless", "missing_items"),
        (b"cid=1.2&en=view_item&pr1=ida~prmuch", "bad_type"),
        (b"cid=1.2&en=view_item&" + b"&".join([b"x=1"] * 1_001), "too_many_parameters"),
        (b"\xff%ff=%&en=view_item&cid=", "missing_visitor"),
    ],
)
def test_what_is_wrong_is_rejected_with_its_reason(query: bytes, reason: str) -> None:
    ((rejection, raw),) = read(query).rejected
    assert (rejection.reason, raw) == (reason, query)


def test_names_that_only_look_like_groups_are_kept() -> None:
    event = one(b"cid=1.2&en=page_view&ep=1&ep.=2&ep.a=3&x.y=4&pr=5&pr1000=6")
    extra = msgspec.json.decode(event.extra or "")
    assert extra == {"ep": {"a": "3"}, "ep.": "2", "x.y": "4", "pr": "5", "pr1000": "6"}


@pytest.mark.parametrize(
    ("query", "body", "reason"),
    [
        (b"", b"", "empty_batch"),
        (b"", b"\n \n", "empty_batch"),
        (b"v=2", b"en=a\n" * 3, "too_many_events"),
        (b"v=2&" + b"x" * 2_000, b"", "body_too_large"),
    ],
)
def test_a_request_without_events_is_refused(query: bytes, body: bytes, reason: str) -> None:
    with pytest.raises(InvalidBody) as caught:
        read(query, body, max_batch_events=2, max_body_bytes=1_024)
    assert caught.value.reason == reason

"""The pixel's query string as an event."""

from datetime import UTC, datetime
from urllib.parse import urlencode

import msgspec
import pytest

from ingest.contract import EventItem
from ingest.events import Decoded, InvalidBody, request_context
from ingest.protocols import pixel
from warehouse.settings import IngestSettings

RECEIVED_AT = datetime(2026, 3, 1, 12, tzinfo=UTC)


def read(query: bytes | dict[str, object], page_url: str | None = None) -> Decoded:
    context = request_context(
        limits=IngestSettings(max_body_bytes=65_536),
        received_at=RECEIVED_AT,
        ip=None,
        user_agent="Mail/1",
        source=pixel.SOURCE,
    )
    data = query if isinstance(query, bytes) else urlencode(query, doseq=True).encode()
    return pixel.decode(data, context, page_url=page_url)


def test_a_view() -> None:
    query = {
        "event_name": "view_item", "event_id": "3f2504e0-4f89-41d3-9a0c-0305e82c3301",
        "occurred_at": 1_772_359_200_000, "visitor_id": "v", "session_id": "s",
        "item_id": "tasse-ü",
        "item_name": "Große Tasse", "price": "12.50", "quantity": "2", "index": "0", "value": "25",
        "currency": "EUR", "page_url": "https://shop/?a=1&b=2", "user_id": "",
        "utm": ["x", "y"], "z": "",
    }  # fmt: skip
    (event,) = read(query, "https://elsewhere").events
    assert event.event_id == query["event_id"]
    assert event.occurred_at == datetime(2026, 3, 1, 10, tzinfo=UTC)
    assert event.items == [EventItem("tasse-ü", "Große Tasse", None, 12.5, 2, 0)]
    assert (event.visitor_id, event.user_id, event.session_id) == ("v", None, "s")
    assert (event.value, event.currency) == (25.0, "EUR")
    assert event.page_url == "https://shop/?a=1&b=2"
    assert (event.user_agent, event.source) == ("Mail/1", "pixel")
    assert msgspec.json.decode(event.extra or "") == {"utm": ["x", "y"], "z": ""}


def test_the_page_is_the_one_that_the_browser_names() -> None:
    (event,) = read(b"event_name=page_view&visitor_id=v", "https://shop/").events
    assert event.page_url == "https://shop/"
    assert event.extra is None


def test_several_items() -> None:
    query = (
        b"event_name=purchase&session_id=s&item_id=a&item_id=b&price=1&price=&item_name=&item_name="
    )
    assert read(query).events[0].items == [EventItem("a", price=1.0), EventItem("b")]


@pytest.mark.parametrize(
    ("query", "field", "reason"),
    [
        (b"", "event_name", "missing_event_name"),
        (b"event_name=wave&session_id=s", "event_name", "unknown_event_name"),
        (b"event_name=page_view", "session_id", "missing_visitor"),
        (b"event_name=view_item&session_id=s", "items", "missing_items"),
        (b"event_name=view_item&session_id=s&item_id=a&price=1&price=2", "price", "uneven_items"),
        (b"event_name=view_item&session_id=s&price=1", "price", "uneven_items"),
        (b"event_name=view_item&session_id=s&item_id=a&price=x", "items[0].price", "bad_type"),
        (b"event_name=page_view&session_id=s&value=nan", "value", "bad_type"),
        (b"event_name=page_view&session_id=s&event_id=1", "event_id", "bad_event_id"),
        (b"event_name=page_view&session_id=s&occurred_at=now", "occurred_at", "bad_timestamp"),
        (b"a=1&" * 1_001, "", "too_many_parameters"),
        (b"\xff%ff%zz&=&&;", "event_name", "missing_event_name"),
    ],
)
def test_what_is_wrong_is_kept_as_it_came(query: bytes, field: str, reason: str) -> None:
    decoded = read(query)
    assert decoded.events == []
    ((rejection, body),) = decoded.rejected
    assert (rejection.field, rejection.reason) == (field, reason)
    assert body == query


def test_a_query_beyond_the_limit_is_refused() -> None:
    with pytest.raises(InvalidBody) as caught:
        read(b"a" * 65_537)
    assert caught.value.status == 413

"""Events judged in columns, and by the collector one by one: the same events, the same reasons."""

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.contract import Event, SentEvent, to_arrow
from ingest.events import InvalidBody, decode_json, request_context
from ingest.history.frame import FIELDS, bodies, from_events
from ingest.history.judge import Judge
from ingest.protocols.routes import REPLAY_SOURCE
from warehouse.contracts import EVENT_NAMES
from warehouse.settings import IngestSettings

NOW = datetime(2026, 3, 1, tzinfo=UTC)
SINCE = datetime(2000, 1, 1, tzinfo=UTC)
LIMITS = IngestSettings(max_event_items=5, max_body_bytes=20_000)
ID = "7b0b4f0e-3f2c-4a57-9a57-0f3d0c1d2e3f"
RIGHT: dict[str, Any] = {
    "event_id": ID,
    "event_name": "view_item",
    "occurred_at": "2026-01-01T00:00:00Z",
    "session_id": "s",
    "items": [{"item_id": "a"}],
}


def by_the_collector(events: list[bytes]) -> tuple[pa.Table, list[tuple[str, str, bytes]]]:
    context = request_context(
        limits=LIMITS, received_at=NOW, ip=None, user_agent=None, source=REPLAY_SOURCE
    )
    accepted: list[Event] = []
    refused: list[tuple[str, str, bytes]] = []
    for body in events:
        try:
            decoded = decode_json(body, context)
        except InvalidBody as error:
            refused.append((error.reason, error.message, body))
            continue
        accepted += decoded.events
        refused += [(why.reason, why.message, raw) for why, raw in decoded.rejected]
    return to_arrow(accepted), refused


def assert_judged_alike(events: list[dict[str, Any]]) -> int:
    frame = from_events(events)
    judged = Judge(LIMITS, NOW).judged(frame)
    accepted, refused = by_the_collector(bodies(frame))
    assert [(one.reason, one.message, one.body) for one in judged.refused] == refused
    assert judged.accepted.schema.equals(accepted.schema)

    def in_order(table: pa.Table) -> list[str]:
        return sorted(map(str, table.to_pylist()))

    assert in_order(judged.accepted) == in_order(accepted)
    return len(refused)


def texts(limit: int) -> st.SearchStrategy[str]:
    return st.one_of(
        st.text(max_size=3),
        st.sampled_from(["", "é" * limit, "é" * (limit + 1), "\x00", "\u2028", '"\\', "x" * limit]),
    )


ITEMS = st.fixed_dictionaries(
    {},
    optional={
        "item_id": st.one_of(texts(256), st.just("a")),
        "item_name": texts(2048),
        "price": st.one_of(st.floats(), st.sampled_from([0, -1, 1e300, "1.5", True])),
        "quantity": st.sampled_from([0, 1, -1, 2**31 - 1, 2**31, 1.5, "2"]),
        "index": st.sampled_from([0, -1]),
    },
)
EVENTS = st.fixed_dictionaries(
    {
        "event_id": st.sampled_from([ID, ID.upper(), "no-uuid"]),
        "event_name": st.sampled_from([*EVENT_NAMES, "wheel_spun", ""]),
        "occurred_at": st.one_of(
            st.integers(-86_400, 26 * 366 * 86_400).map(
                lambda seconds: (SINCE + timedelta(seconds=seconds)).isoformat()
            ),
            st.sampled_from(["yesterday", 1767225600000, 1767225600, None]),
        ),
    },
    optional={
        "session_id": texts(256),
        "visitor_id": texts(256),
        "user_id": texts(256),
        "items": st.lists(ITEMS, max_size=7),
        "value": st.one_of(st.floats(), st.just("9")),
        "currency": texts(256),
        "page_url": texts(8192),
        "user_agent": texts(2048),
        "extra": st.sampled_from(
            [{"a": [1, {"b": None}]}, '{"a": 1}', "[1]", {}, {"t": "x" * 15000}]
        ),
        "coupon": st.just("X"),
    },
)


@settings(max_examples=150, deadline=None)
@given(st.lists(EVENTS, min_size=1, max_size=4))
def test_no_event_is_judged_otherwise_than_by_the_collector(events: list[dict[str, Any]]) -> None:
    assert_judged_alike(events)


@pytest.mark.parametrize(
    ("change", "n_refused"),
    [
        ({}, 0),
        ({"event_name": "purchase", "items": []}, 1),
        ({"event_name": "page_view", "items": []}, 0),
        ({"session_id": ""}, 1),
        ({"items": [{"item_id": "a", "price": -0.01}]}, 1),
        ({"items": [{"item_id": "a"}] * 5}, 0),
        ({"items": [{"item_id": "a"}] * 6}, 1),
        ({"items": [{"item_name": "only"}]}, 1),
        ({"occurred_at": "1999-12-31T23:59:59.999999Z"}, 1),
        ({"occurred_at": "2000-01-01T00:00:00Z"}, 0),
        ({"occurred_at": (NOW + timedelta(seconds=86_400)).isoformat()}, 0),
        ({"occurred_at": (NOW + timedelta(seconds=86_401)).isoformat()}, 1),
        ({"page_url": "é" * 8192}, 0),
        ({"page_url": "é" * 8193}, 1),
        ({"user_id": ""}, 0),
    ],
)
def test_the_borders_of_the_rules(change: dict[str, Any], n_refused: int) -> None:
    assert assert_judged_alike([RIGHT | change]) == n_refused


def test_an_event_longer_than_a_body_is_refused_with_its_bytes() -> None:
    frame = from_events([RIGHT | {"extra": {"text": "x" * 30_000}}])
    (refused,) = Judge(LIMITS, NOW).judged(frame).refused
    assert refused.reason == "body_too_large"
    assert refused.body == bodies(frame)[0]


def test_columns_are_those_that_a_client_may_send() -> None:
    assert set(FIELDS) == set(SentEvent.__struct_fields__)
    assert msgspec.json.decode(bodies(from_events([RIGHT]))[0]) == RIGHT

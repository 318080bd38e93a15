"""The invented shop: the same at every call, plausible, and with something to learn in it."""

from collections import Counter, defaultdict
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import msgspec
import pytest

from ingest.events import decode_events
from ingest.simulate import RECOMMENDATIONS, catalogue, live, simulate, simulate_sessions
from warehouse.settings import IngestSettings

END = datetime(2026, 3, 8, tzinfo=UTC)
START = END - timedelta(days=7)


def test_the_catalogue_is_of_some_hundred_different_items() -> None:
    items = catalogue()
    assert 200 <= len(items) <= 1000
    assert (
        len({item.item_id for item in items}) == len({item.title for item in items}) == len(items)
    )
    assert all(3 < item.price < 2000 for item in items)
    assert len({item.category for item in items}) >= 10


def test_sessions_are_repeatable_and_within_their_span() -> None:
    sessions = list(simulate_sessions(200, 1, START, END))
    assert sessions == list(simulate_sessions(200, 1, START, END))
    assert sessions != list(simulate_sessions(200, 2, START, END))
    assert len(sessions) == 200
    times = [event["occurred_at"] for session in sessions for event in session]
    assert START.isoformat() <= min(times) <= max(times) <= END.isoformat()
    for session in sessions:
        assert [e["occurred_at"] for e in session] == sorted(e["occurred_at"] for e in session)
        assert len({event["session_id"] for event in session}) == 1


def test_every_event_is_valid_and_marked_as_invented() -> None:
    events = [event for session in simulate_sessions(100, 1, START, END) for event in session]
    result = decode_events(
        msgspec.json.encode(events),
        limits=IngestSettings(),
        received_at=END,
        ip=None,
        user_agent=None,
        source="test",
    )
    assert result.rejected == []
    assert {event.extra for event in result.events} == {'{"simulated":true}'}
    assert len({event.event_id for event in result.events}) == len(events)
    assert {"view_item", "add_to_cart", "purchase"} <= {event.event_name for event in result.events}


def test_what_comes_next_can_be_learnt_far_better_than_by_popularity() -> None:
    views = [
        [event["items"][0]["item_id"] for event in session if event["event_name"] == "view_item"]
        for session in simulate_sessions(2000, 1, START, END)
    ]
    past, future = views[:1800], views[1800:]
    popular = _top(Counter(item_id for session in past for item_id in session))
    following: dict[str, Counter[str]] = defaultdict(Counter)
    for session in past:
        for item_id, next_id in pairwise(session):
            following[item_id][next_id] += 1
    steps = [step for session in future for step in pairwise(session)]
    by_popularity = sum(next_id in popular for _, next_id in steps) / len(steps)
    by_order = sum(next_id in _top(following[item_id]) for item_id, next_id in steps) / len(steps)
    assert by_order > 2.5 * by_popularity


def test_simulated_sessions_reach_the_collector(collector: Any) -> None:
    advanced: list[int] = []
    accounting = simulate(
        collector.url, n_sessions=150, seed=1, start=START, end=END, progress=advanced.append
    )
    assert sum(advanced) == 150
    assert accounting.accepted == accounting.sent == len(collector.events)
    assert accounting.rejected == 0


def test_live_shoppers_look_at_recommendations_and_click_some(collector: Any) -> None:
    accounting = live(collector.url, events_per_second=2000, seconds=3, seed=3)
    events = collector.events
    assert accounting.accepted == accounting.sent == len(events) > 0
    assert collector.recommended
    clicks = [event for event in events if event["event_name"] == "select_item"]
    assert clicks
    for click in clicks:
        assert click["recommendation_id"] == f"r-{click['session_id']}"
        assert click["item_list_id"] == RECOMMENDATIONS
    viewed = {event["recommendation_id"] for event in events if event["event_name"] == "view_item"
              and "recommendation_id" in event}  # fmt: skip
    assert viewed
    assert all("recommendation_id" in event for event in clicks)


def test_a_shop_without_recommendations_is_told_of_once(
    collector: Any, caplog: pytest.LogCaptureFixture
) -> None:
    collector.can_recommend = False
    accounting = live(collector.url, events_per_second=200, seconds=0.3)
    assert accounting.accepted == accounting.sent > 1
    assert sum("recommend=failed" in message for message in caplog.messages) == 1


def _top(counted: Counter[str]) -> set[str]:
    return {item_id for item_id, _ in counted.most_common(20)}

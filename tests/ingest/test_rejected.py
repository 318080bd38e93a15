"""Rejected events keep their bytes, and are one event however often they are replayed."""

from collections.abc import Callable
from datetime import UTC, date, datetime
from typing import Any

import msgspec
import pytest

from ingest.events import Decoded, Rejection
from ingest.flusher import Flusher
from ingest.outbox import Outbox
from ingest.rejected import Filter, UnknownRejected, find, rejected_events, repaired
from warehouse.settings import IngestSettings, Settings
from warehouse.store import ObjectStore, open_store

Make = Callable[..., dict[str, Any]]
Decode = Callable[..., Decoded]
RECEIVED_AT = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture
def store(settings: Settings, outbox: Outbox, decoded: Decode, sent: Make) -> ObjectStore:
    """Four rejected events: a name, a missing item, a time ahead, and bytes that are no JSON."""
    wrong = [
        sent(event_name="swipe", event_id=..., occurred_at=...),
        sent(items=[]),
        sent(occurred_at="2026-03-05T00:00:00Z"),
    ]
    outbox.append_now(decoded(wrong, RECEIVED_AT))
    outbox.append_now(decoded(b'{"event_name": "\xff"}', RECEIVED_AT.replace(hour=13)))
    made = open_store(settings)
    flusher = Flusher(outbox, made, settings.ingest)
    while flusher.flush_once():
        pass
    return made


def test_they_are_found_by_reason_source_and_day(store: ObjectStore) -> None:
    found = list(rejected_events(store, Filter()))
    assert [event.reason for event in found] == [
        "unknown_event_name", "missing_items", "future_timestamp", "invalid_json",
    ]  # fmt: skip
    assert found[3].body == b'{"event_name": "\xff"}'
    assert len({event.id for event in found}) == 4
    assert [find(store, event.id) for event in found] == found
    assert len(list(rejected_events(store, Filter(reason="missing_items")))) == 1
    assert len(list(rejected_events(store, Filter(source="test", day=date(2026, 3, 1))))) == 4
    assert not list(rejected_events(store, Filter(source="pixel")))
    assert not list(rejected_events(store, Filter(day=date(2026, 3, 2))))
    with pytest.raises(UnknownRejected, match="`nobody-1`"):
        find(store, "nobody-1")


def test_only_what_would_be_accepted_now_is_sent(store: ObjectStore) -> None:
    outcomes = [repaired(event, IngestSettings()) for event in rejected_events(store, Filter())]
    reasons = [one.reason if isinstance(one, Rejection) else "sent" for one in outcomes]
    assert reasons == ["unknown_event_name", "missing_items", "sent", "invalid_json"]


def test_an_event_without_an_id_gets_the_same_one_each_time(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ingest.rules._EVENT_NAMES", frozenset({"swipe"}))  # the fix
    (event,) = rejected_events(store, Filter(reason="unknown_event_name"))
    first, second = (repaired(event, IngestSettings()) for _ in range(2))
    assert isinstance(first, bytes)
    assert first == second
    fields = msgspec.json.decode(first)
    assert fields["event_name"] == "swipe"
    assert fields["occurred_at"] == RECEIVED_AT.isoformat()

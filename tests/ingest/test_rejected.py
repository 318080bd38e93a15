"""Rejected events keep their bytes, and are one event however often they are replayed."""

import gzip
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime
from typing import Any, ClassVar

import msgspec
import pytest

from ingest.bodies import CUT
from ingest.events import Decoded, Origin, Rejection
from ingest.flusher import Flusher
from ingest.outbox import Outbox
from ingest.rejected import (
    Filter,
    RejectedEvent,
    UnknownRejected,
    find,
    read_again,
    rejected_events,
)
from ingest.rejected_replay import Replay
from ingest.rows import lines_of
from warehouse.layout import RAW_REPLAYED
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


def test_only_what_would_be_accepted_now_is_taken(store: ObjectStore) -> None:
    outcomes = [read_again(event, IngestSettings()) for event in as_json(store)]
    reasons = [one.reason if isinstance(one, Rejection) else "taken" for one in outcomes]
    assert reasons == ["unknown_event_name", "missing_items", "future_timestamp", "invalid_json"]
    patient = IngestSettings(max_future_seconds=10 * 86_400)
    assert isinstance([read_again(event, patient) for event in as_json(store)][2], Decoded)


def test_an_event_keeps_its_time_and_sender_and_gets_the_same_id_each_time(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ingest.rules.KNOWN_NAMES", frozenset({"swipe"}))  # the fix
    first, second = (read_again(as_json(store)[0], IngestSettings()) for _ in range(2))
    assert isinstance(first, Decoded)
    assert isinstance(second, Decoded)
    assert first.events == second.events
    (event,) = first.events
    assert event.event_name == "swipe"
    assert event.occurred_at == event.received_at == RECEIVED_AT
    assert (event.user_agent, event.ip_prefix) == ("Browser/1.0", "203.0.113.0/24")


def test_an_unknown_source_is_named(store: ObjectStore) -> None:
    outcome = read_again(find_first(store), IngestSettings())
    assert isinstance(outcome, Rejection)
    assert outcome.reason == "unknown_source"
    assert outcome.message.endswith("`test`")


class TestReplay:
    """Each adapter's rejected events, and whole bodies, taken again by their own route."""

    CASES: ClassVar = {
        "json": (b'{"event_name":"page_view","session_id":"s"}', Origin()),
        "ndjson": (b'{"event_name":"page_view","session_id":"s"}', Origin()),
        "segment": (b'{"type":"page","anonymousId":"a","messageId":"m"}', Origin()),
        "ga4_mp": (b'{"client_id":"c","events":[{"name":"page_view"}]}', Origin()),
        "ga4_web": (b"v=2&cid=1.2&sid=3&en=page_view", Origin()),
        "pixel": (b"event_name=page_view&session_id=s", Origin(page_url="https://shop/")),
    }
    BODIES: ClassVar = {
        "/events": ("json", b'[{"event_name":"page_view","session_id":"s"},{"event_name":"?"}]'),
        "/v1/p": ("segment", b'{"anonymousId":"a"}'),
        "/v1/batch": ("segment", b'{"batch":[{"type":"page","anonymousId":"a"}]}'),
        "/mp/collect": ("ga4_mp", b'{"client_id":"c","events":[{"name":"page_view"}]}'),
        "/g/collect?v=2&cid=1.2": ("ga4_web", b"en=page_view&dl=https://shop/\nen=session_start"),
        "/pixel.gif": ("pixel", b"event_name=page_view&session_id=s"),
    }

    @pytest.mark.parametrize("source", CASES)
    def test_an_event_of_each_protocol(
        self, settings: Settings, outbox: Outbox, source: str
    ) -> None:
        raw, origin = self.CASES[source]
        keep(settings, outbox, raw, source, origin)
        store = open_store(settings)
        run = Replay(store, outbox, settings.ingest)
        assert run.run(rejected_events(store, Filter())) is None
        assert (run.n_found, run.n_replayed, run.n_accepted, run.n_rejected) == (1, 1, 1, 0)
        (event,) = events_in(outbox)
        assert (event["event_name"], event["source"]) == ("page_view", source)
        assert event["received_at"] == "2026-03-01T12:00:00Z"
        assert event.get("page_url") == ("https://shop/" if source == "pixel" else None)

    @pytest.mark.parametrize("target", BODIES)
    @pytest.mark.parametrize("encoding", ["identity", "gzip"])
    def test_a_whole_body(
        self, settings: Settings, outbox: Outbox, target: str, encoding: str
    ) -> None:
        source, body = self.BODIES[target]
        packed = gzip.compress(body) if encoding == "gzip" else body
        keep(settings, outbox, packed, source, Origin(target=target, encoding=encoding))
        store = open_store(settings)
        run = Replay(store, outbox, settings.ingest)
        assert run.run(rejected_events(store, Filter())) is None
        n_wrong = 1 if target.startswith(("/events", "/g/collect")) else 0
        assert (run.n_replayed, run.n_accepted, run.n_rejected) == (1, 1, n_wrong)
        assert [event["event_name"] for event in events_in(outbox)] == ["page_view"]

    def test_a_second_replay_adds_nothing(self, settings: Settings, outbox: Outbox) -> None:
        for raw, _ in (self.CASES["json"], (b"{}", None)):
            keep(settings, outbox, raw, "json", Origin())
        store = open_store(settings)
        first, second = (Replay(store, outbox, settings.ingest) for _ in range(2))
        for run in (first, second):
            assert run.run(rejected_events(store, Filter())) is None
            assert run.n_found == run.n_before + run.n_replayed + run.still_rejected.total() == 2
        assert (first.n_replayed, second.n_before, second.n_replayed) == (1, 1, 0)
        assert len(events_in(outbox)) == 1

    def test_where_the_note_was_lost_it_is_the_same_event(
        self, settings: Settings, outbox: Outbox
    ) -> None:
        keep(settings, outbox, self.CASES["json"][0], "json", Origin())
        store = open_store(settings)
        for _ in range(2):
            Replay(store, outbox, settings.ingest).run(rejected_events(store, Filter()))
            for note in store.list(RAW_REPLAYED):
                store.delete(note.key)
        first, second = events_in(outbox)
        assert first == second

    def test_the_beginning_of_a_body_is_not_taken_for_the_whole(
        self, settings: Settings, outbox: Outbox
    ) -> None:
        cut = Origin(target="/events", encoding=CUT)
        keep(settings, outbox, self.CASES["ndjson"][0], "ndjson", cut)
        store = open_store(settings)
        run = Replay(store, outbox, settings.ingest)
        run.run(rejected_events(store, Filter()))
        assert run.still_rejected == {"body_cut": 1}

    def test_it_stops_where_the_outbox_is_full_and_goes_on_later(self, settings: Settings) -> None:
        small = settings.ingest.model_copy(update={"outbox_limit_events": 1})
        outbox = Outbox(settings.outbox_path, small)
        for _ in range(2):
            keep(settings, outbox, self.CASES["json"][0], "json", Origin())
        store = open_store(settings)
        run = Replay(store, outbox, small)
        problem = run.run(rejected_events(store, Filter()))
        assert "waiting: `1`" in (problem or "")
        assert run.n_replayed == 1
        Flusher(outbox, store, small).stop()
        again = Replay(store, outbox, small)
        assert again.run(rejected_events(store, Filter())) is None
        assert (again.n_before, again.n_replayed) == (1, 1)
        outbox.close()


def as_json(store: ObjectStore) -> list[RejectedEvent]:
    """What was rejected, as if it had come to /events."""
    return [replace(event, source="json") for event in rejected_events(store, Filter())]


def find_first(store: ObjectStore) -> RejectedEvent:
    return next(rejected_events(store, Filter()))


def keep(settings: Settings, outbox: Outbox, body: bytes, source: str, origin: Origin) -> None:
    """A rejected event or body, shipped."""
    rejection = Rejection(0, "", "wrong when it came", "wrong")
    outbox.append_now(Decoded([], [(rejection, body)], RECEIVED_AT, source, origin=origin))
    Flusher(outbox, open_store(settings), settings.ingest).stop()


def events_in(outbox: Outbox) -> list[dict[str, Any]]:
    rows = outbox.file.rows("select lines from batch where stream = 'events'")
    lines = (line for (piece,) in rows for line in lines_of(piece).splitlines())
    return [msgspec.json.decode(line) for line in lines]

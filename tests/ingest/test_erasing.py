"""What was erased never comes back through the outbox, and leaves no byte in its file."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from ingest import erasing
from ingest.columns import MIN_TOGETHER, Together
from ingest.events import Decoded
from ingest.flusher import Flusher
from ingest.outbox import Outbox
from ingest.outbox_file import OutboxBroken
from warehouse.erasure import FOR_EVER, Tombstone, digest, make_key
from warehouse.layout import RAW_EVENTS, RAW_REJECTED
from warehouse.person import Person
from warehouse.settings import IngestSettings, Settings
from warehouse.store import ObjectStore, open_store

Decode = Callable[..., Decoded]
Make = Callable[..., dict[str, Any]]

VISITOR = "visitor-who-left"


@pytest.fixture
def key(settings: Settings) -> bytes:
    return make_key(settings)


@pytest.fixture
def store(settings: Settings) -> ObjectStore:
    return open_store(settings)


def tombstone(key: bytes, kind: str, one: str, until: datetime | None = None) -> Tombstone:
    return Tombstone(digest(key, kind, one), until or datetime.now(UTC))


@pytest.mark.parametrize(
    ("kind", "field"), [("visitor", "visitor_id"), ("user", "user_id"), ("session", "session_id")]
)
@pytest.mark.parametrize("times", [1, MIN_TOGETHER])
def test_erased_events_are_not_kept_and_their_neighbours_are(
    outbox: Outbox, key: bytes, decoded: Decode, sent: Make, kind: str, field: str, times: int
) -> None:
    erasing.remember(outbox.file, [tombstone(key, kind, "ü", FOR_EVER)])
    other = decoded([sent(**{field: "other"})] * times)
    outbox.append_now(other)
    assert other.n_erased == 0
    request = decoded([sent(**{field: one}) for one in ("ü", "üü", "u", "Ü")] * times)
    assert isinstance(request.events, Together) == (times > 1)
    outbox.append_now(request)
    assert request.n_erased == times
    assert [getattr(event, field) for event in request.events] == ["üü", "u", "Ü"] * times
    assert outbox.depth() == 4 * times


def test_another_process_knows_at_once(
    outbox: Outbox, settings: Settings, key: bytes, decoded: Decode, sent: Make
) -> None:
    worker = Outbox(settings.outbox_path, settings.ingest)
    worker.append_now(decoded([sent(visitor_id=VISITOR)]))
    erasing.remember(outbox.file, [tombstone(key, "visitor", VISITOR)])
    again = decoded([sent(visitor_id=VISITOR)], datetime.now(UTC) - timedelta(minutes=1))
    again.events[0].occurred_at = datetime.now(UTC) - timedelta(hours=1)
    worker.append_now(again)
    worker.close()
    assert again.n_erased == 1
    assert outbox.depth() == 1


def test_who_comes_back_later_is_kept_unless_erased_for_ever(
    outbox: Outbox, key: bytes, decoded: Decode, sent: Make
) -> None:
    erasing.remember(outbox.file, [tombstone(key, "visitor", VISITOR)])
    assert decoded_and_kept(outbox, decoded([sent(visitor_id=VISITOR)])) == 1
    erasing.remember(outbox.file, [tombstone(key, "visitor", VISITOR, FOR_EVER)])
    assert decoded_and_kept(outbox, decoded([sent(visitor_id=VISITOR)])) == 0
    assert not erasing.remember(outbox.file, [tombstone(key, "visitor", VISITOR)])
    assert decoded_and_kept(outbox, decoded([sent(visitor_id=VISITOR)])) == 0


def test_rejected_events_that_name_them_are_not_kept_either(
    outbox: Outbox, key: bytes, decoded: Decode, sent: Make
) -> None:
    erasing.remember(outbox.file, [tombstone(key, "visitor", VISITOR)])
    bad = [sent(event_name="nonsense", visitor_id=one) for one in (VISITOR, f"{VISITOR}-2")]
    request = decoded(bad)
    outbox.append_now(request)
    assert request.n_erased == 1
    assert outbox.counts()["rejected"] == {"unknown_event_name": 1}


def test_what_waited_when_it_was_erased_is_not_shipped(
    outbox: Outbox, store: ObjectStore, key: bytes, decoded: Decode, sent: Make
) -> None:
    visitors = ["a", VISITOR, "b", VISITOR]
    outbox.append_now(decoded([sent(visitor_id=one) for one in visitors]))
    outbox.append_now(decoded([sent(visitor_id=one, event_name="x") for one in visitors]))
    erasing.remember(outbox.file, [tombstone(key, "visitor", VISITOR)])
    assert Flusher(outbox, store, IngestSettings()).drain() == 8
    assert [row["visitor_id"] for row in rows(store, RAW_EVENTS)] == ["a", "b"]
    assert len(rows(store, RAW_REJECTED)) == 2
    assert outbox.depth() == 0


def test_a_shipment_begun_before_the_erasure_ends_after_it(
    outbox: Outbox, store: ObjectStore, key: bytes, decoded: Decode, sent: Make
) -> None:
    """Killed between its upload and its note of it, when an erasure comes."""
    outbox.append_now(decoded([sent(visitor_id=one) for one in ("a", VISITOR)]))
    flusher = Flusher(outbox, store, IngestSettings())
    finish = "ingest.shipments.finish"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(finish, _killed)
        with pytest.raises(_Killed):
            flusher.drain()
    assert len(rows(store, RAW_EVENTS)) == 2
    erasing.remember(outbox.file, [tombstone(key, "visitor", VISITOR)])
    flusher.drain()
    assert outbox.depth() == 0


def test_live_sessions_are_forgotten_in_every_process(
    outbox: Outbox, settings: Settings, decoded: Decode, sent: Make, store: ObjectStore
) -> None:
    worker = Outbox(settings.outbox_path, settings.ingest)
    for number in range(3):
        worker.append_now(
            decoded([sent(session_id="s", items=[{"item_id": f"i{number}"}]), sent(session_id="t")])
        )
    assert worker.session_steps("s") == ["i0", "i1", "i2"]
    Flusher(outbox, store, settings.ingest).drain()
    assert erasing.forget_sessions(outbox.file, Person(sessions=frozenset("s"))) == 1
    assert [one.session_steps("s") for one in (worker, outbox)] == [[], []]
    assert worker.session_steps("t") == ["oak-lamp"]
    worker.close()


def test_no_page_of_the_file_holds_what_was_shipped_and_forgotten(
    outbox: Outbox, store: ObjectStore, settings: Settings, decoded: Decode, sent: Make
) -> None:
    reader = Outbox(settings.outbox_path, settings.ingest)
    for number in range(20):
        outbox.append_now(
            decoded([sent(visitor_id=VISITOR, session_id=f"{VISITOR}-{number}") for _ in range(50)])
        )
        outbox.append_now(decoded([sent(visitor_id=VISITOR, event_name="x")]))
    assert reader.session_steps(f"{VISITOR}-3")
    Flusher(outbox, store, settings.ingest).drain()
    person = Person(frozenset((VISITOR,)), sessions=frozenset(f"{VISITOR}-{n}" for n in range(20)))
    erasing.forget_sessions(outbox.file, person)
    assert any(VISITOR.encode() in data for data in pages(settings.outbox_path))
    outbox.file.rewrite()
    assert not any(VISITOR.encode() in data for data in pages(settings.outbox_path))
    reader.append_now(decoded([sent()]))
    assert reader.session_steps("session-1") == ["oak-lamp"]
    reader.close()


def test_without_the_key_nothing_is_taken_in(
    outbox: Outbox, settings: Settings, key: bytes, decoded: Decode, sent: Make
) -> None:
    erasing.remember(outbox.file, [tombstone(key, "visitor", VISITOR)])
    hidden = settings.privacy_key_path.rename(settings.home / "elsewhere")
    with pytest.raises(OutboxBroken, match="restore it from your backup"):
        outbox.append_now(decoded([sent()]))
    hidden.rename(settings.privacy_key_path)
    outbox.append_now(decoded([sent()]))
    assert outbox.depth() == 1


def test_the_key_is_ours_alone_to_read_and_made_once(settings: Settings) -> None:
    key = make_key(settings)
    assert make_key(settings) == key
    assert settings.privacy_key_path.stat().st_mode & 0o777 == 0o600
    assert len(key) == 64


class _Killed(BaseException):
    pass


def _killed(*_: object) -> None:
    raise _Killed


def decoded_and_kept(outbox: Outbox, request: Decoded) -> int:
    before = outbox.depth()
    outbox.append_now(request)
    return outbox.depth() - before


def rows(store: ObjectStore, prefix: str) -> list[dict[str, Any]]:
    return [
        row
        for info in store.list(prefix)
        for row in pq.read_table(BytesIO(store.get(info.key))).to_pylist()
    ]


def pages(path: Path) -> list[bytes]:
    return [file.read_bytes() for file in path.parent.glob(f"{path.name}*")]

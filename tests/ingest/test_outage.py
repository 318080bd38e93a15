"""After an outage: the outbox gives its disk back. During one: a shutdown ends, and says so."""

import logging
import threading
import time
from collections.abc import Callable
from secrets import token_hex
from typing import Any

import pytest

from ingest.events import Decoded
from ingest.flusher import Flusher
from ingest.outbox import Outbox
from warehouse.settings import Settings
from warehouse.store import ObjectStore, StoreUnavailable, open_store

Make = Callable[..., dict[str, Any]]
Decode = Callable[..., Decoded]


class HangingStore:
    """A store that answers nothing for as long as it is told to."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self.answers = threading.Event()

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any) -> Any:
            if not self.answers.wait(30):
                raise StoreUnavailable("no answer")
            return getattr(self._store, name)(*arguments)

        return call


@pytest.fixture
def quick(settings: Settings) -> Settings:
    limits = settings.ingest.model_copy(
        update={"drain_seconds": 0.5, "flush_interval_seconds": 0.02, "flush_max_rows": 5}
    )
    return settings.model_copy(update={"ingest": limits})


def test_a_shutdown_ends_while_the_store_hangs_and_nothing_is_lost(
    quick: Settings, decoded: Decode, sent: Make, caplog: pytest.LogCaptureFixture
) -> None:
    outbox = Outbox(quick.outbox_path, quick.ingest)
    store = HangingStore(open_store(quick))
    flusher = Flusher(outbox, store, quick.ingest)
    outbox.append_now(decoded([sent() for _ in range(20)]))
    flusher.start()
    with caplog.at_level(logging.WARNING, "ingest.flusher"):
        stopping = threading.Thread(target=flusher.stop)
        stopping.start()
        stopping.join(20)  # far less than the store hangs
    assert not stopping.is_alive()
    (line,) = [one.getMessage() for one in caplog.records]
    assert line.startswith("flush=left depth=20 ")
    outbox.close()
    store.answers.set()
    again = Outbox(quick.outbox_path, quick.ingest)
    assert again.depth() <= 20
    last = Flusher(again, open_store(quick), quick.ingest.model_copy(update={"drain_seconds": 30}))
    last.stop()
    assert again.counts()["shipped"] == 20
    again.close()


def test_a_drain_that_goes_on_for_too_long_leaves_the_rest(
    quick: Settings, decoded: Decode, sent: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    outbox = Outbox(quick.outbox_path, quick.ingest)
    store = open_store(quick)
    put = store.put_if_absent

    def slow(key: str, data: bytes) -> bool:
        time.sleep(0.3)
        return put(key, data)

    monkeypatch.setattr(store, "put_if_absent", slow)
    for _ in range(8):
        outbox.append_now(decoded([sent() for _ in range(5)]))
    Flusher(outbox, store, quick.ingest).stop()
    assert 0 < outbox.depth() < 40
    outbox.close()


def test_the_file_is_small_again_after_an_outage(
    settings: Settings, decoded: Decode, sent: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ingest.outbox_file._KEPT_PAGES", 64)
    outbox = Outbox(settings.outbox_path, settings.ingest)
    for _ in range(20):  # of what cannot be compressed
        outbox.append_now(decoded([sent(page_url=token_hex(4_000)) for _ in range(100)]))
    outbox.file.checkpoint()
    grown = settings.outbox_path.stat().st_size
    often = settings.ingest.model_copy(update={"flush_interval_seconds": 0.05})
    flusher = Flusher(outbox, open_store(settings), often)
    flusher.start()
    for _ in range(3_000):
        if settings.outbox_path.stat().st_size < grown / 2:
            break
        outbox.append_now(decoded(sent()))  # beside those who write
        time.sleep(0.02)
    flusher.stop()
    assert settings.outbox_path.stat().st_size < grown / 2
    counts = outbox.counts()
    assert counts["shipped"] == counts["accepted"] >= 2_000
    outbox.close()

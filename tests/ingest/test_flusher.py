"""Each row of the outbox ends up in exactly one object of raw, whatever happens on the way."""

import logging
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any
from uuid import uuid4

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ingest.contract import to_arrow
from ingest.events import Decoded
from ingest.flusher import Flusher, RawConflict
from ingest.outbox import Outbox
from warehouse.contracts import RAW_EVENT_SCHEMA, REJECTED_SCHEMA
from warehouse.layout import RAW_EVENTS, RAW_REJECTED
from warehouse.settings import IngestSettings, Settings, StorageSettings
from warehouse.store import ObjectStore, StoreUnavailable, open_store

Make = Callable[..., dict[str, Any]]
Decode = Callable[..., Decoded]
Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture(params=["folder", "s3"])
def both_settings(request: pytest.FixtureRequest) -> Settings:
    """Settings with either kind of store."""
    made: Settings = request.getfixturevalue(
        "settings" if request.param == "folder" else "s3_settings"
    )
    return made


@pytest.fixture
def store(settings: Settings) -> ObjectStore:
    made = open_store(settings)
    made.prepare()
    return made


def test_rows_and_rejected_bytes_reach_raw(
    outbox: Outbox, store: ObjectStore, decoded: Decode, sent: Make
) -> None:
    received_at = datetime(2026, 3, 1, 12, 30, tzinfo=UTC)
    wrong = b'{"event_name": "view_item", "session_id": "s", "note": "\xff"}'
    good = msgspec.json.encode([sent(occurred_at=..., note="kept"), sent(occurred_at=...)])
    request = decoded(b"[" + wrong + b"," + good[1:], received_at)
    outbox.append_now(request)
    flusher = Flusher(outbox, store, outbox.settings)
    assert flusher.flush_once() == 3
    assert flusher.flush_once() == 0
    assert flusher.last_flushed_at is not None
    (events,) = store.list(RAW_EVENTS)
    folder = "date=2026-03-01/hour=12"
    name = f"{outbox.collector_id}-000000000001-000000000002.parquet"
    assert events.key == f"{RAW_EVENTS}/{folder}/{name}"
    table = pq.read_table(BytesIO(store.get(events.key)))
    assert table.schema.equals(RAW_EVENT_SCHEMA)
    assert table.equals(to_arrow(request.events))
    (rejected,) = store.list(RAW_REJECTED)
    assert rejected.key.startswith(f"{RAW_REJECTED}/{folder}/{outbox.collector_id}-")
    table = pq.read_table(BytesIO(store.get(rejected.key)))
    assert table.schema.equals(REJECTED_SCHEMA)
    (row,) = table.to_pylist()
    assert (row["body"], row["reason"], row["source"]) == (wrong, "invalid_json", "test")
    assert (outbox.depth(), outbox.counts()["shipped"]) == (0, 2)


def test_a_thread_ships_what_comes_and_drains_at_the_end(
    outbox: Outbox, store: ObjectStore, decoded: Decode, sent: Make
) -> None:
    fast = IngestSettings(flush_interval_seconds=0.01, flush_max_rows=7)
    flusher = Flusher(outbox, store, fast)
    flusher.start()
    expected = [event.event_id for _ in range(10) for event in _append(outbox, decoded, sent, 3)]
    _wait_until(lambda: outbox.depth() == 0)
    flusher.stop()
    expected += [event.event_id for event in _append(outbox, decoded, sent, 1)]
    flusher.stop(drain=False)
    assert outbox.depth() == 1
    flusher.stop(drain=True)
    assert outbox.depth() == 0
    assert sorted(_id_list(store)) == sorted(expected)


def test_of_many_flushers_one_flushes(
    outbox: Outbox, store: ObjectStore, decoded: Decode, sent: Make
) -> None:
    outbox.append_now(decoded(sent()))

    class WaitingStore:
        """Holds a flusher in the middle of a shipment."""

        def __init__(self) -> None:
            self.entered, self.go_on = threading.Event(), threading.Event()

        def put_if_absent(self, key: str, data: bytes) -> bool:
            self.entered.set()
            assert self.go_on.wait(10)
            return store.put_if_absent(key, data)

        def get(self, key: str) -> bytes:
            return store.get(key)

    waiting = WaitingStore()
    slow = Flusher(outbox, waiting, outbox.settings)  # type: ignore[arg-type]
    thread = threading.Thread(target=slow.flush_once)
    thread.start()
    assert waiting.entered.wait(10)
    assert Flusher(outbox, store, outbox.settings).flush_once() == 0
    assert outbox.depth() == 1
    waiting.go_on.set()
    thread.join()
    assert outbox.depth() == 0
    assert len(_id_list(store)) == 1


def test_other_rows_under_our_name_stop_us_and_nothing_is_deleted(
    outbox: Outbox, store: ObjectStore, decoded: Decode, sent: Make
) -> None:
    outbox.append_now(decoded(sent(occurred_at=...), datetime(2026, 3, 1, 12, tzinfo=UTC)))
    key = f"raw/events/date=2026-03-01/hour=12/{outbox.collector_id}-{1:012d}-{1:012d}.parquet"
    for other in (_parquet(to_arrow(decoded(sent()).events)), b"no Parquet"):
        store.put(key, other)
        with pytest.raises(RawConflict, match=r"raw/events/.*\.parquet"):
            Flusher(outbox, store, outbox.settings).flush_once()
        assert outbox.depth() == 1
        assert store.get(key) == other


def test_the_same_rows_in_other_bytes_are_ours(
    outbox: Outbox, store: ObjectStore, decoded: Decode, sent: Make
) -> None:
    request = decoded(sent(occurred_at=...), datetime(2026, 3, 1, 12, tzinfo=UTC))
    outbox.append_now(request)
    key = f"raw/events/date=2026-03-01/hour=12/{outbox.collector_id}-{1:012d}-{1:012d}.parquet"
    as_written_by_another_version = _parquet(to_arrow(request.events), compression="snappy")
    store.put(key, as_written_by_another_version)
    assert Flusher(outbox, store, outbox.settings).flush_once() == 1
    assert outbox.depth() == 0
    assert store.get(key) == as_written_by_another_version


@pytest.mark.parametrize("point", ["before_put", "after_put", "before_get", "after_get"])
def test_killed_at_any_call_the_range_is_repeated_exactly(
    both_settings: Settings, decoded: Decode, sent: Make, start_process: Start, point: str
) -> None:
    outbox = Outbox(both_settings.outbox_path, both_settings.ingest)
    expected = {event.event_id for event in _append(outbox, decoded, sent, 30)}
    killed = start_process("flush_and_die.py", both_settings, point)
    assert killed.wait(30) == -signal.SIGKILL
    assert outbox.depth() == 30
    # Rows that came in meanwhile must not become part of the range that was begun.
    expected |= {event.event_id for event in _append(outbox, decoded, sent, 5)}
    assert start_process("flush_and_die.py", both_settings, "never").wait(30) == 0
    assert (outbox.depth(), outbox.counts()["shipped"]) == (0, 35)
    store = open_store(both_settings)
    assert sorted(_id_list(store)) == sorted(expected)
    assert len(list(store.list(RAW_EVENTS))) == 2
    outbox.close()


def test_killed_at_random_nothing_acknowledged_is_lost_or_doubled(
    settings: Settings, store: ObjectStore, start_process: Start
) -> None:
    chance = random.Random(11)
    acknowledged: set[str] = set()
    for number in range(4):
        writer = start_process("write_forever.py", settings, f"w{number}", 4)
        flusher = start_process("flush_forever.py", settings)
        assert writer.stdout
        assert flusher.stdout
        flusher.stdout.readline()
        lines = [writer.stdout.readline()]
        time.sleep(chance.uniform(0.01, 0.3))
        for process in chance.sample([writer, flusher], 2):
            process.kill()
        flusher.wait()  # a process on its way out still holds the flusher's lock
        lines += writer.stdout.readlines()
        acknowledged |= {line.split()[0] for line in lines}
    outbox = Outbox(settings.outbox_path, settings.ingest)
    flusher_of_the_rest = Flusher(outbox, store, settings.ingest)
    while flusher_of_the_rest.flush_once():
        continue
    assert outbox.depth() == 0
    ids = _id_list(store)
    assert len(ids) == len(set(ids)) == outbox.counts()["shipped"]
    assert acknowledged <= set(ids)
    outbox.close()


def test_a_store_that_is_down_is_waited_for(
    outbox: Outbox,
    settings: Settings,
    decoded: Decode,
    sent: Make,
    caplog: pytest.LogCaptureFixture,
) -> None:
    root = Path(settings.store_uri)
    root.parent.mkdir(parents=True, exist_ok=True)
    root.write_text("a file where the store's folder should be")
    store = open_store(settings)
    flusher = Flusher(outbox, store, IngestSettings(flush_interval_seconds=0.01))
    _append(outbox, decoded, sent, 3)
    with pytest.raises(StoreUnavailable):
        flusher.flush_once()
    with caplog.at_level(logging.WARNING):
        flusher.start()
        _wait_until(lambda: flusher.last_error is not None)
        _append(outbox, decoded, sent, 3)
        time.sleep(0.1)
        flusher.stop(drain=True)
        assert outbox.depth() == 6
        assert sum("flush=failed" in line for line in caplog.messages) == 1
        assert "cannot write to the store" in (flusher.last_error or "")
        root.unlink()
        flusher.start()
        _wait_until(lambda: outbox.depth() == 0)
        flusher.stop()
    assert flusher.last_error is None
    assert sum("flush=recovered" in line for line in caplog.messages) == 1
    assert len(_id_list(store)) == 6


def test_an_s3_server_killed_and_started_again_gets_every_row_once(
    tmp_path: Path, decoded: Decode, sent: Make
) -> None:
    port = _free_ports()
    settings = Settings(
        _env_file=None,
        home=tmp_path / "home",
        storage=StorageSettings(
            uri="s3://outage/lake",
            s3_endpoint=f"http://127.0.0.1:{port + 3}",
            s3_access_key="testadmin",  # type: ignore[arg-type]
            s3_secret_key="testadmin-secret",  # type: ignore[arg-type]
            s3_timeout_seconds=2,
        ),
    )
    store = open_store(settings)
    outbox = Outbox(settings.outbox_path, settings.ingest)
    flusher = Flusher(outbox, store, IngestSettings(flush_interval_seconds=0.02))
    with _s3_server(tmp_path, port, store):
        flusher.start()
        expected = {event.event_id for event in _append(outbox, decoded, sent, 20)}
        _wait_until(lambda: outbox.depth() == 0)
    expected |= {event.event_id for event in _append(outbox, decoded, sent, 20)}
    _wait_until(lambda: flusher.last_error is not None)
    assert outbox.depth() == 20
    with _s3_server(tmp_path, port, store):
        _wait_until(lambda: outbox.depth() == 0)
        flusher.stop()
        assert flusher.last_error is None
        assert sorted(_id_list(store)) == sorted(expected)
    outbox.close()


def _append(outbox: Outbox, decoded: Decode, sent: Make, n_events: int) -> list[Any]:
    request = decoded([sent(event_id=str(uuid4())) for _ in range(n_events)])
    outbox.append_now(request)
    return request.events


def _id_list(store: ObjectStore) -> list[str]:
    tables = [
        pq.read_table(BytesIO(store.get(found.key)), columns=["event_id"])
        for found in store.list(RAW_EVENTS)
    ]
    return [event_id for table in tables for event_id in table["event_id"].to_pylist()]


def _parquet(table: pa.Table, compression: str = "zstd") -> bytes:
    target = BytesIO()
    pq.write_table(table, target, compression=compression)
    return target.getvalue()


def _wait_until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not is_so():
        assert time.monotonic() < deadline, "gave up waiting"
        time.sleep(0.01)


@contextmanager
def _s3_server(folder: Path, port: int, store: ObjectStore) -> Iterator[None]:
    """A real S3 server on `folder`, killed at the end as a machine that loses power."""
    weed = Path(sys.executable).with_name("weed")
    data = folder / "s3"
    data.mkdir(exist_ok=True)
    command = [
        str(weed), "mini", "-dir", str(data), "-ip", "127.0.0.1", "-ip.bind", "127.0.0.1",
        "-master.port", str(port), "-volume.port", str(port + 1), "-filer.port", str(port + 2),
        "-s3.port", str(port + 3), "-s3.localSocket", str(folder / "s3.sock"),
        "-admin.ui=false", "-webdav=false", "-s3.port.iceberg", "0", "-s3.port.lance", "0",
        "-master.telemetry=false",
    ]  # fmt: skip
    environment = {
        "AWS_ACCESS_KEY_ID": "testadmin", "AWS_SECRET_ACCESS_KEY": "testadmin-secret",
        "HOME": str(data), "TMPDIR": str(data), "PATH": os.environ["PATH"],
    }  # fmt: skip
    with (folder / "s3.log").open("ab") as log:
        server = subprocess.Popen(
            command, env=environment, stdout=log, stderr=log, cwd=data, start_new_session=True
        )
    try:
        _wait_until(lambda: _is_ready(port + 3, store))
        yield
    finally:
        server.kill()
        server.wait()


def _is_ready(port: int, store: ObjectStore) -> bool:
    try:
        urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=1).close()
        store.prepare()
    except (urllib.error.URLError, OSError, StoreUnavailable):
        return False
    return True


def _free_ports() -> int:
    """A port p such that p..p+3, and 10000 above each (gRPC), are free."""
    for base in range(25_000, 30_000, 10):
        try:
            for port in (*range(base, base + 4), *range(base + 10_000, base + 10_004)):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", port))
        except OSError:
            continue
        return base
    raise RuntimeError("no free ports for the S3 server")

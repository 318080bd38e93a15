"""History straight into raw: the same rows as over HTTP, each object once, after any kill."""

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ingest.events import Decoded
from ingest.flusher import RawConflict
from ingest.history import direct
from ingest.history.direct import rehearse, write
from ingest.history.history import History, open_history
from ingest.history.report import Report
from ingest.rejected import Filter, read_again, rejected_events
from warehouse.compaction import compact
from warehouse.contracts import RAW_EVENT_SCHEMA, REJECTED_SCHEMA
from warehouse.layout import RAW_EVENTS, RAW_REJECTED
from warehouse.settings import IngestSettings, Settings
from warehouse.store import ObjectStore, open_store

LIMITS = IngestSettings()
N_ROWS = 2_000
N_WRONG = 20


@pytest.fixture(params=["folder", "s3"])
def store_settings(request: pytest.FixtureRequest) -> Settings:
    """Settings with a store in a folder, and on a real S3 server."""
    name = "settings" if request.param == "folder" else "s3_settings"
    found: Settings = request.getfixturevalue(name)
    found.home.mkdir(parents=True, exist_ok=True)
    return found


@pytest.fixture
def small_objects(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(direct, "OBJECT_ROWS", 500)
    monkeypatch.setattr("ingest.history.files.BATCH_ROWS", 400)


def rows(n_rows: int = N_ROWS) -> pl.DataFrame:
    number = pl.int_range(n_rows)
    return pl.select(
        event_time=pl.datetime(2016, 1, 1) + pl.duration(minutes=number // 3),
        event_type=pl.when(number % 100 == 7).then(pl.lit("glance")).otherwise(pl.lit("view")),
        item_id=(number % 5).cast(pl.String),
        user_id=(number % 2).cast(pl.String),
    )


def opened(folder: Path, frame: pl.DataFrame | None = None) -> History:
    frame = rows() if frame is None else frame
    frame.write_parquet(folder / "events.parquet")
    return open_history([folder / "events.parquet"], limits=LIMITS)


def landed(store: ObjectStore, prefix: str, schema: pa.Schema) -> pa.Table:
    tables = [pq.read_table(BytesIO(store.get(info.key))) for info in store.list(prefix)]
    return pa.concat_tables(tables) if tables else schema.empty_table()


def counts(report: Report) -> tuple[int, int, int]:
    return report.accepted, report.rejected.total(), report.already_there


@pytest.mark.usefixtures("small_objects")
def test_every_row_is_in_raw_once_however_often_it_is_repeated(
    store_settings: Settings, tmp_path: Path
) -> None:
    store = open_store(store_settings)
    history = opened(tmp_path)
    survey = history.survey()
    first = write(history, survey, store, LIMITS)
    assert counts(first) == (N_ROWS - N_WRONG, N_WRONG, 0)
    assert first.is_complete
    events = landed(store, RAW_EVENTS, RAW_EVENT_SCHEMA)
    assert events.schema.equals(RAW_EVENT_SCHEMA)
    assert events.num_rows == len(set(events["event_id"].to_pylist())) == N_ROWS - N_WRONG
    received = set(events["received_at"].to_pylist())
    assert len(received) == 1, "an import is received at one time"
    assert datetime.now(UTC) - received.pop() < timedelta(hours=1)
    keys = [info.key for info in store.list("raw")]
    assert len(keys) == 3 + 1 + 1  # events, rejected, and when it was begun
    again = write(opened(tmp_path), survey, store, LIMITS)
    assert counts(again) == (0, 0, N_ROWS)
    assert again.is_complete
    assert [info.key for info in store.list("raw")] == keys


def test_rejected_rows_are_kept_and_can_be_repaired(settings: Settings, tmp_path: Path) -> None:
    store = open_store(settings)
    write((history := opened(tmp_path)), history.survey(), store, LIMITS)
    assert landed(store, RAW_REJECTED, REJECTED_SCHEMA).schema.equals(REJECTED_SCHEMA)
    found = list(rejected_events(store, Filter(reason="unknown_event_name")))
    assert len(found) == N_WRONG
    body = json.loads(found[0].body)
    assert body["event_name"] == "glance"
    mended = json.dumps(body | {"event_name": "view_item"}).encode()
    again = read_again(replace(found[0], body=mended), LIMITS)
    assert isinstance(again, Decoded)
    assert [event.event_id for event in again.events] == [body["event_id"]]


@pytest.mark.usefixtures("small_objects")
def test_what_compaction_merged_is_known_as_there(settings: Settings, tmp_path: Path) -> None:
    store = open_store(settings)
    history = opened(tmp_path)
    survey = history.survey()
    write(history, survey, store, LIMITS)
    before = landed(store, RAW_EVENTS, RAW_EVENT_SCHEMA)
    assert compact(store, datetime.now(UTC) + timedelta(hours=3)).n_written == 1
    assert counts(write(history, survey, store, LIMITS)) == (0, 0, N_ROWS)
    assert landed(store, RAW_EVENTS, RAW_EVENT_SCHEMA).equals(before)


def test_other_rows_under_its_names_are_a_conflict(settings: Settings, tmp_path: Path) -> None:
    store = open_store(settings)
    history = opened(tmp_path)
    survey = history.survey()
    write(history, survey, store, LIMITS)
    (info,) = store.list(RAW_EVENTS)
    changed = pq.read_table(BytesIO(store.get(info.key))).slice(1)
    target = BytesIO()
    pq.write_table(changed, target)
    store.put(info.key, target.getvalue())
    with pytest.raises(RawConflict, match="other rows"):
        write(history, survey, store, LIMITS)


def test_a_rehearsal_counts_and_writes_nothing(settings: Settings, tmp_path: Path) -> None:
    history = opened(tmp_path)
    report = rehearse(history, history.survey(), LIMITS)
    assert counts(report) == (N_ROWS - N_WRONG, N_WRONG, 0)
    assert report.rejected == {"unknown_event_name": N_WRONG}
    assert not list(open_store(settings).list("raw"))


def test_killed_anywhere_each_row_is_in_raw_once(
    store_settings: Settings,
    tmp_path: Path,
    start_replay: Callable[..., subprocess.Popen[str]],
) -> None:
    store = open_store(store_settings)
    n_rows = 250_000
    rows(n_rows).write_parquet(tmp_path / "events.parquet")
    arguments = (tmp_path / "events.parquet", "--direct", "--json")
    process = start_replay(store_settings, *arguments)
    deadline = time.monotonic() + 120
    while not _objects(store) and time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    process.kill()
    process.wait()
    n_there = _objects(store)
    assert n_there == 1
    process = start_replay(store_settings, *arguments)
    printed, problems = process.communicate(timeout=300)
    assert process.returncode == 0, problems
    report = json.loads(printed)
    assert report["already_there"] >= 100_000
    assert report["already_there"] + report["sent"] == report["rows"] == n_rows
    ids = landed(store, RAW_EVENTS, RAW_EVENT_SCHEMA)["event_id"].to_pylist()
    assert len(ids) == len(set(ids)) == n_rows - n_rows // 100


def _objects(store: ObjectStore) -> int:
    found: Iterator[Any] = store.list(RAW_EVENTS)
    return sum(1 for _ in found)

"""History over HTTP: every row accounted for, twice is once, and a kill loses nothing."""

import json
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import polars as pl
import pyarrow.parquet as pq
import pytest

from ingest import sender
from ingest.contract import to_arrow
from ingest.events import Decoded
from ingest.history.delivery import deliver
from ingest.history.history import open_history
from ingest.history.progress import Progress
from ingest.history.report import Report
from ingest.sender import CollectorUnreachable, send
from warehouse.settings import IngestSettings, Settings

ROWS = pl.DataFrame(
    {
        "event_time": pl.Series(
            [datetime(2026, 3, 1, 12, minute, 0, 250_000, tzinfo=UTC) for minute in range(4)]
        ).dt.replace_time_zone(None),
        "session_id": ["s1", "s1", None, "s2"],
        "user_id": ["u1", "u1", "u2", None],
        "event_type": ["view", "add_to_cart", "remove_from_cart", "purchase"],
        "item_id": ["007", "007", "8", "9"],
        "price": [1.5, None, None, 3.0],
        "quantity": [None, 1, None, 2],
        "category": [None, "Home", None, None],
        "order_id": [None, None, None, "o-1"],
    }
)
ITEMS = pl.DataFrame(
    {
        "item_id": ["007", "8"],
        "title": ["Oak Lamp", "Mug"],
        "category": ["Lighting", None],
        "price": [2.5, None],
    }
)

Replay = Callable[..., Report]


@pytest.fixture
def replay(collector: Any, tmp_path: Path) -> Replay:
    """Replays files to the collector, each time as if for the first time unless told where."""
    folders = (tmp_path / "progress" / str(n) for n in range(1000))

    def replay(*files: Path, state: Path | None = None, url: str = "", **how: Any) -> Report:
        opening = {name: how.pop(name) for name in ("items", "mapping") if name in how}
        history = open_history(list(files), limits=IngestSettings(), **opening)
        progress = Progress(state or next(folders), history.digest(), collector.url)
        return deliver(history, history.survey(), url or collector.url, progress, **how)

    return replay


@pytest.fixture(params=["parquet", "csv", "jsonl"])
def file(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The same events in each kind of file."""
    path = tmp_path / f"events.{request.param}"
    if request.param == "parquet":
        ROWS.write_parquet(path)
    elif request.param == "csv":
        ROWS.write_csv(path)
    else:
        ROWS.write_ndjson(path)
    return path


def test_rows_become_events_of_our_vocabulary(collector: Any, replay: Replay, file: Path) -> None:
    advanced: list[int] = []
    report = replay(file, progress=advanced.append)
    assert (report.n_rows, report.sent, report.accepted) == (4, 4, 4)
    assert (report.rejected, report.retried, report.examples) == (Counter(), 0, [])
    assert report.is_complete
    assert sum(advanced) == 4
    view, cart, remove, purchase = collector.events
    assert len({event.pop("event_id") for event in collector.events}) == 4
    assert view["event_name"] == "view_item"
    assert datetime.fromisoformat(view["occurred_at"]) == datetime(
        2026, 3, 1, 12, 0, 0, 250_000, tzinfo=UTC
    )
    assert (view["session_id"], view["visitor_id"], view["user_id"]) == ("s1", "u1", "u1")
    assert view["items"] == [{"item_id": "007", "price": 1.5}]
    assert cart["items"] == [{"item_id": "007", "item_category": "Home", "quantity": 1}]
    assert remove["event_name"] == "remove_from_cart"
    assert "session_id" not in remove
    assert remove["visitor_id"] == "u2"
    assert (purchase["event_name"], purchase["visitor_id"]) == ("purchase", "s2")
    assert purchase["items"] == [{"item_id": "9", "price": 3.0, "quantity": 2}]
    assert json.loads(purchase["extra"]) == {"order_id": "o-1"}


@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_items_beside_the_file_fill_what_rows_lack(
    collector: Any, replay: Replay, tmp_path: Path, kind: str
) -> None:
    ROWS.write_parquet(tmp_path / "events.parquet")
    getattr(ITEMS, f"write_{kind}")(tmp_path / f"items.{kind}")
    replay(tmp_path / "events.parquet")
    view, cart, remove, purchase = (event["items"][0] for event in collector.events)
    assert view == {
        "item_id": "007", "item_name": "Oak Lamp", "item_category": "Lighting", "price": 1.5,
    }  # fmt: skip
    assert (cart["item_category"], cart["price"]) == ("Home", 2.5)
    assert remove == {"item_id": "8", "item_name": "Mug"}
    assert "item_name" not in purchase


def test_items_can_be_named(collector: Any, replay: Replay, tmp_path: Path) -> None:
    ROWS.write_parquet(tmp_path / "events.parquet")
    ITEMS.with_columns(title=pl.lit("Wrong")).write_parquet(tmp_path / "items.parquet")
    ITEMS.write_csv(tmp_path / "named.csv")
    replay(tmp_path / "events.parquet", items=tmp_path / "named.csv")
    assert collector.events[0]["items"][0]["item_name"] == "Oak Lamp"


def test_our_own_events_go_back_in_as_they_were(
    collector: Any,
    replay: Replay,
    tmp_path: Path,
    decoded: Callable[..., Decoded],
    sent: Callable[..., Any],
) -> None:
    events = decoded([sent(coupon="X", value=3.5), sent(event_name="page_view", items=[])]).events
    pq.write_table(to_arrow(events), tmp_path / "raw.parquet")
    (tmp_path / "raw.jsonl").write_bytes(msgspec.json.Encoder().encode_lines(events))
    for name in ("raw.parquet", "raw.jsonl"):
        collector.bodies.clear()
        report = replay(tmp_path / name)
        assert report.accepted == 2, report.examples
        again = decoded(collector.events).events
        for event, original in zip(again, events, strict=True):
            event.received_at = original.received_at
            assert event == original


def test_wrong_rows_are_sent_counted_and_kept(
    collector: Any, replay: Replay, tmp_path: Path
) -> None:
    lines = ROWS.write_csv().splitlines()
    lines[1] = lines[1].replace("view", "glance")
    lines[2] = lines[2].replace("2026-03-01T", "someday ")
    (tmp_path / "events.csv").write_text("\n".join(lines))
    report = replay(tmp_path / "events.csv")
    assert (report.sent, report.accepted) == (4, 2)
    assert report.rejected == {"unknown_event_name": 1, "bad_timestamp": 1}
    assert report.is_complete
    assert report.examples[0].startswith("unknown_event_name: ")
    assert collector.outbox.counts()["rejected"] == {"bad_timestamp": 1, "unknown_event_name": 1}


def test_an_event_that_no_request_can_hold_is_not_delivered(
    collector: Any, replay: Replay, tmp_path: Path
) -> None:
    rows = [{"event_name": "page_view", "session_id": "s", "text": "x" * n} for n in (1, 2_000_000)]
    (tmp_path / "own.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    report = replay(tmp_path / "own.jsonl")
    assert (report.accepted, report.undelivered) == (1, 1)
    assert not report.is_complete


def test_batches_are_repeated_with_the_same_ids_until_answered(
    collector: Any, replay: Replay, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sender, "BATCH_EVENTS", 1)
    monkeypatch.setattr("ingest.history.delivery.N_CONNECTIONS", 1)
    collector.troubles = [503, "drop", 429]
    ROWS.write_parquet(tmp_path / "events.parquet")
    report = replay(tmp_path / "events.parquet")
    assert (report.sent, report.accepted, report.rejected) == (4, 4, Counter())
    assert report.retried == 3
    first, second = collector.requested_at[:2]
    assert second - first >= 0.3, "Retry-After was not honoured"
    ids = Counter(event["event_id"] for event in collector.events)
    assert sorted(ids.values()) == [1, 1, 1, 2]  # the dropped one came twice, as itself


def test_batches_too_large_are_halved(collector: Any, replay: Replay, tmp_path: Path) -> None:
    collector.limits = collector.limits.model_copy(update={"max_batch_events": 3})
    ROWS.write_parquet(tmp_path / "events.parquet")
    report = replay(tmp_path / "events.parquet")
    assert (report.sent, report.accepted) == (4, 4)
    too_large = [b'{"page_url":"' + b"u" * 2_000_000 + b'"}', msgspec.json.encode({})]
    accounting = send(too_large, collector.url)
    assert (accounting.sent, accounting.rejected, accounting.refused) == (2, 2, 1)


def test_a_collector_that_stays_away_ends_it_and_the_next_run_goes_on(
    collector: Any, replay: Replay, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(
        CollectorUnreachable, match=r"is the app up at http://127\.0\.0\.1:9/events"
    ):
        send([b"{}"], "http://127.0.0.1:9", patience_seconds=0.1)
    monkeypatch.setattr(sender, "BATCH_EVENTS", 1)
    monkeypatch.setattr("ingest.history.delivery.N_CONNECTIONS", 1)
    ROWS.write_parquet(tmp_path / "events.parquet")
    state = tmp_path / "state"
    collector.troubles = ["", "", 404]
    with pytest.raises(CollectorUnreachable, match="answered 404"):
        replay(tmp_path / "events.parquet", state=state)
    report = replay(tmp_path / "events.parquet", state=state)
    assert (report.already_there, report.sent, report.accepted) == (2, 2, 2)
    assert report.is_complete
    again = replay(tmp_path / "events.parquet", state=state)
    assert (again.already_there, again.sent) == (4, 0)
    assert len({event["event_id"] for event in collector.events}) == len(collector.events) == 4


def test_a_changed_file_begins_anew_with_the_same_ids(
    collector: Any, replay: Replay, tmp_path: Path
) -> None:
    ROWS.write_parquet(tmp_path / "events.parquet")
    replay(tmp_path / "events.parquet", state=tmp_path / "state")
    pl.concat([ROWS[2:], ROWS[:2]]).write_parquet(tmp_path / "events.parquet")
    report = replay(tmp_path / "events.parquet", state=tmp_path / "state")
    assert (report.already_there, report.sent) == (0, 4)
    assert len({event["event_id"] for event in collector.events}) == 4


def test_a_rate_is_kept(collector: Any, replay: Replay, tmp_path: Path) -> None:
    ROWS.write_parquet(tmp_path / "events.parquet")
    replay(tmp_path / "events.parquet", events_per_second=8)
    assert len(collector.requested_at) == 1  # half a second's events go at once
    began_at = time.monotonic()
    replay(tmp_path / "events.parquet", events_per_second=2)
    assert collector.requested_at[-1] - began_at >= 1.0


def test_a_key_is_sent_and_one_that_is_refused_is_named(
    collector: Any, replay: Replay, tmp_path: Path
) -> None:
    ROWS.write_parquet(tmp_path / "events.parquet")
    replay(tmp_path / "events.parquet", key="sk-1")
    assert collector.headers[-1][b"authorization"] == b"Bearer sk-1"
    assert collector.headers[-1][b"user-agent"] == b""
    collector.troubles = [401]
    with pytest.raises(CollectorUnreachable, match=r"SHALLOP_KEY; it answered 401"):
        replay(tmp_path / "events.parquet")


def test_progress_that_cannot_be_read_counts_as_none(tmp_path: Path) -> None:
    progress = Progress(tmp_path / "new", "digest", "url")
    progress.advance(5, 3, Counter(bad=2))
    progress.save()
    assert Progress(tmp_path / "new", "digest", "url").state == progress.state
    assert Progress(tmp_path / "new", "digest", "other").state.n_events == 0
    progress.path.write_bytes(b'{"n_ev')
    assert Progress(tmp_path / "new", "digest", "url").state.n_events == 0


def test_killed_anywhere_each_row_arrives_once(
    collector: Any,
    settings: Settings,
    tmp_path: Path,
    start_replay: Callable[..., subprocess.Popen[str]],
) -> None:
    rows = pl.DataFrame({"n": range(30_000)}).select(
        event_time=pl.datetime(2026, 1, 1) + pl.duration(seconds=pl.col("n") // 7),
        event_type=pl.lit("view"),
        item_id=(pl.col("n") % 3).cast(pl.String),  # many rows say the same
        user_id=(pl.col("n") % 2).cast(pl.String),
    )
    rows.write_csv(tmp_path / "events.csv")
    arguments = (tmp_path / "events.csv", "--url", collector.url, "--json")
    for n_answered in (3, 25):
        process = start_replay(settings, *arguments, "--rate", 20_000)
        deadline = time.monotonic() + 60
        while len(collector.bodies) < n_answered and time.monotonic() < deadline:
            assert process.poll() is None, process.communicate()
            time.sleep(0.01)
        process.kill()
        process.wait()
    process = start_replay(settings, *arguments)
    printed, problems = process.communicate(timeout=120)
    assert process.returncode == 0, problems
    report = json.loads(printed)
    assert 0 < report["already_there"] < 30_000
    assert report["already_there"] + report["accepted"] == report["rows"] == 30_000
    assert len({event["event_id"] for event in collector.events}) == 30_000


def test_real_events_are_all_accepted(collector: Any, replay: Replay, shop_data: Path) -> None:
    report = replay(shop_data / "otto_fixture_20users" / "events.parquet")
    assert (report.n_rows, report.accepted, report.rejected) == (862, 862, Counter())
    assert all(event["visitor_id"] == event["user_id"] for event in collector.events)

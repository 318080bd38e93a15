"""Files into the collector: every row is accounted for, and twice is once."""

import logging
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
from ingest.replay import (
    CollectorUnreachable,
    UnknownColumns,
    UnreadableFile,
    count_rows,
    events_of,
    load_items,
    replay,
)
from ingest.sender import send

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


def test_rows_become_events_of_our_vocabulary(collector: Any, file: Path) -> None:
    advanced: list[int] = []
    accounting = replay([file], collector.url, progress=advanced.append)
    assert (accounting.sent, accounting.accepted, accounting.rejected) == (4, 4, 0)
    assert (accounting.retried, accounting.errors) == (0, [])
    assert sum(advanced) == count_rows([file]) == 4
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
    assert purchase["extra"] == {"order_id": "o-1"}


def test_the_same_file_is_the_same_events(collector: Any, file: Path, tmp_path: Path) -> None:
    copy = tmp_path / "elsewhere" / file.name
    copy.parent.mkdir()
    copy.write_bytes(file.read_bytes())
    replay([file], collector.url)
    replay([copy], collector.url)
    ids = Counter(event["event_id"] for event in collector.events)
    assert sorted(ids.values()) == [2, 2, 2, 2]
    ROWS.with_columns(price=9.0).write_parquet(copy.with_suffix(".parquet"))
    other = {event["event_id"] for event in events_of(copy.with_suffix(".parquet"), {})}
    assert not other & set(ids)


@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_items_beside_the_file_fill_what_rows_lack(
    collector: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    ROWS.write_parquet(tmp_path / "events.parquet")
    beside = tmp_path / f"items.{kind}"
    getattr(ITEMS, f"write_{kind}")(beside)
    with caplog.at_level(logging.INFO):
        replay([tmp_path / "events.parquet"], collector.url)
    assert f"items={beside} rows=2" in caplog.messages
    view, cart, remove, purchase = (event["items"][0] for event in collector.events)
    assert view == {
        "item_id": "007", "item_name": "Oak Lamp", "item_category": "Lighting", "price": 1.5,
    }  # fmt: skip
    assert (cart["item_category"], cart["price"]) == ("Home", 2.5)
    assert remove == {"item_id": "8", "item_name": "Mug"}
    assert "item_name" not in purchase


def test_items_can_be_named(collector: Any, tmp_path: Path) -> None:
    ROWS.write_parquet(tmp_path / "events.parquet")
    ITEMS.with_columns(title=pl.lit("Wrong")).write_parquet(tmp_path / "items.parquet")
    ITEMS.write_csv(tmp_path / "named.csv")
    replay([tmp_path / "events.parquet"], collector.url, items=tmp_path / "named.csv")
    assert collector.events[0]["items"][0]["item_name"] == "Oak Lamp"


def test_our_own_events_go_back_in_as_they_were(
    collector: Any, tmp_path: Path, decoded: Callable[..., Decoded], sent: Callable[..., Any]
) -> None:
    events = decoded([sent(coupon="X", value=3.5), sent(event_name="page_view", items=[])]).events
    pq.write_table(to_arrow(events), tmp_path / "raw.parquet")
    (tmp_path / "raw.jsonl").write_bytes(msgspec.json.Encoder().encode_lines(events))
    for name in ("raw.parquet", "raw.jsonl"):
        collector.bodies.clear()
        accounting = replay([tmp_path / name], collector.url)
        assert accounting.accepted == 2, accounting.errors
        again = decoded(collector.events).events
        for event, original in zip(again, events, strict=True):
            event.received_at = original.received_at
            assert event == original


def test_wrong_rows_are_sent_and_counted(collector: Any, tmp_path: Path) -> None:
    lines = ROWS.write_csv().splitlines()
    lines[1] = lines[1].replace("view", "glance")
    lines[2] = lines[2].replace("2026-03-01T", "someday ")
    (tmp_path / "events.csv").write_text("\n".join(lines))
    accounting = replay([tmp_path / "events.csv"], collector.url)
    assert (accounting.sent, accounting.accepted, accounting.rejected) == (4, 2, 2)
    assert accounting.errors[0].startswith("unknown_event_name: ")
    assert accounting.errors[1].startswith("bad_timestamp: ")
    assert collector.outbox.counts()["rejected"] == {"bad_timestamp": 1, "unknown_event_name": 1}


def test_a_batch_all_wrong_is_counted(collector: Any, tmp_path: Path) -> None:
    ROWS.with_columns(event_type=pl.lit("glance")).write_parquet(tmp_path / "events.parquet")
    accounting = replay([tmp_path / "events.parquet"], collector.url)
    assert (accounting.sent, accounting.accepted, accounting.rejected) == (4, 0, 4)


def test_batches_are_repeated_with_the_same_ids_until_answered(
    collector: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sender, "BATCH_EVENTS", 1)
    monkeypatch.setattr(sender, "N_CONNECTIONS", 1)
    collector.troubles = [503, "drop", 429]
    ROWS.write_parquet(tmp_path / "events.parquet")
    accounting = replay([tmp_path / "events.parquet"], collector.url)
    assert (accounting.sent, accounting.accepted, accounting.rejected) == (4, 4, 0)
    assert accounting.retried == 3
    first, second = collector.requested_at[:2]
    assert second - first >= 0.3, "Retry-After was not honoured"
    ids = Counter(event["event_id"] for event in collector.events)
    assert sorted(ids.values()) == [1, 1, 1, 2]  # the dropped one came twice, as itself


def test_batches_too_large_are_halved(collector: Any, tmp_path: Path) -> None:
    collector.limits = collector.limits.model_copy(update={"max_batch_events": 3})
    ROWS.write_parquet(tmp_path / "events.parquet")
    accounting = replay([tmp_path / "events.parquet"], collector.url)
    assert (accounting.sent, accounting.accepted) == (4, 4)
    too_large = [b'{"page_url":"' + b"u" * 2_000_000 + b'"}', msgspec.json.encode({})]
    accounting = send(too_large, collector.url)
    assert (accounting.sent, accounting.rejected) == (2, 2)


def test_a_collector_that_stays_away_ends_it(tmp_path: Path, collector: Any) -> None:
    with pytest.raises(
        CollectorUnreachable, match=r"is the app up at http://127\.0\.0\.1:9/events"
    ):
        send([b"{}"], "http://127.0.0.1:9", patience_seconds=0.1)
    collector.troubles = [404]
    ROWS.write_parquet(tmp_path / "events.parquet")
    with pytest.raises(CollectorUnreachable, match="answered 404"):
        replay([tmp_path / "events.parquet"], collector.url)


def test_files_without_our_columns_are_refused_before_anything_is_sent(
    collector: Any, tmp_path: Path
) -> None:
    ROWS.write_parquet(tmp_path / "good.parquet")
    (tmp_path / "bad.csv").write_text("time,item_id,colour\n1,a,red\n")
    with pytest.raises(UnknownColumns) as caught:
        replay([tmp_path / "good.parquet", tmp_path / "bad.csv"], collector.url)
    for part in ("`event_time`, `event_type`", "session_id or user_id", "`colour`", "bad.csv"):
        assert part in str(caught.value)
    assert collector.bodies == []
    (tmp_path / "items.csv").write_text("sku,title\n1,a\n")
    with pytest.raises(UnknownColumns, match="`sku`, `title`"):
        load_items(tmp_path / "items.csv")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("events.parquet", b"no Parquet"),
        ("events.jsonl", b"{}\nno JSON\n"),
        ("events.csv", b""),
        ("events.xlsx", b"?"),
    ],
)
def test_files_that_are_not_what_they_say_are_refused(
    tmp_path: Path, name: str, content: bytes
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises((UnreadableFile, UnknownColumns), match="events"):
        replay([tmp_path / name], "http://127.0.0.1:9")


def test_real_events_are_all_accepted_and_kept_once(collector: Any, shop_data: Path) -> None:
    file = shop_data / "otto_fixture_20users" / "events.parquet"
    accounting = replay([file], collector.url)
    assert accounting.sent == count_rows([file]) == 862
    assert (accounting.accepted, accounting.rejected) == (862, 0)
    replay([file], collector.url)
    assert len({event["event_id"] for event in collector.events}) == 862
    assert all(event["visitor_id"] == event["user_id"] for event in collector.events)
    assert collector.outbox.depth() == 2 * 862


@pytest.mark.parametrize(
    "name", ["ga_merch_store", "rees46_oct2019_2days", "serenade_bolcom_toy", "uci_online_retail"]
)
def test_the_columns_of_real_events_are_known(shop_data: Path, name: str) -> None:
    events = events_of(shop_data / name / "events.parquet", {})
    first = next(events)
    assert first["event_name"] in ("view_item", "purchase")
    assert first["session_id"]

"""What is too old goes, what is needed stays, and dbt's tests hold afterwards."""

from datetime import UTC, datetime, timedelta
from io import BytesIO
from typing import Any

import pyarrow.parquet as pq
import pytest

from assets.retention import expire
from tests.transforms.conftest import Shop
from warehouse import layout, retention, snapshot
from warehouse.settings import PrivacySettings, Settings
from warehouse.store import open_store

NOW = datetime.now(UTC)
PRIVACY = PrivacySettings(raw_days=30, rejected_days=30, keep_snapshots=2, keep_reports=1)


@pytest.fixture
def box(settings: Settings) -> Shop:
    return Shop(settings.model_copy(update={"privacy": PRIVACY}))


def view(event_id: str, days_ago: float, visitor_id: str = "v") -> dict[str, Any]:
    received_at = NOW - timedelta(days=days_ago)
    return {
        "event_id": event_id,
        "event_name": "view_item",
        "occurred_at": received_at,
        "received_at": received_at,
        "visitor_id": visitor_id,
        "items": [{"item_id": "lamp"}],
        "source": "test",
        "schema_version": 1,
    }


def test_expired_hours_leave_raw_and_staging_and_repeats_of_them_stay(box: Shop) -> None:
    box.land([view("old", 40), view("sent again", 40), view("older", 40)])
    late = box.land([view("sent again", 10), view("young", 10)])
    box.build()
    freed = {one.what: one.n for one in expire(box.settings)}
    assert freed == {"staged events": 3, "raw objects": 1}
    assert [info.key for info in box.store.list(layout.RAW_EVENTS)] == [late]
    box.build()  # all tests of dbt, that of staging against raw among them
    staged = box.query("select event_id, raw_object from stg_shop__events order by event_id")
    assert [event_id for event_id, _ in staged] == ["sent again", "young"]
    assert all(str(address).endswith(late) for _, address in staged)
    assert expire(box.settings) == []


def test_what_staging_has_not_read_stays_however_old(box: Shop) -> None:
    box.land([view("a", 40)])
    freed = {one.what: one.n for one in expire(box.settings)}
    assert freed == {"raw objects kept until they are staged": 1}
    box.build()
    box.land([view("b", 39)])
    expire(box.settings)
    rows = [
        row["event_id"]
        for info in box.store.list(layout.RAW_EVENTS)
        for row in pq.read_table(BytesIO(box.store.get(info.key))).to_pylist()
    ]
    assert rows == ["b"]


def test_a_dry_run_tells_the_same_and_changes_nothing(box: Shop) -> None:
    box.land([view("old", 40)])
    box.build()
    before = [info.key for info in box.store.list("")]
    told = expire(box.settings, is_dry=True)
    assert [info.key for info in box.store.list("")] == before
    assert expire(box.settings) == told != []


def test_killed_between_staging_and_raw_it_finishes(box: Shop) -> None:
    box.land([view("old", 40)])
    box.land([view("young", 1)])
    box.build()

    class Killed(BaseException):
        pass

    def killed(key: str) -> None:
        raise Killed

    deadly = open_store(box.settings)
    deadly.delete = killed  # type: ignore[method-assign]
    with pytest.raises(Killed):
        retention.expire_raw(
            deadly, box.settings.warehouse_path, NOW - timedelta(days=30), is_dry=False
        )
    box.build()  # reads the old object again: it is still there
    expire(box.settings)
    box.build()
    assert box.query("select event_id from stg_shop__events") == [("young",)]


def test_the_latest_snapshots_and_those_of_kept_models_stay(settings: Settings) -> None:
    store = open_store(settings)
    for number in range(6):
        store.put(f"{layout.MARTS}/s{number}/sessions.parquet", b"x")
    described = snapshot.Snapshot("s1", NOW, {})
    snapshot.publish(store, described)
    freed = retention.expire_snapshots(store, 2, {"s0"}, is_dry=False)
    assert {info.key.split("/")[1] for info in store.list(layout.MARTS)} == {
        "s0", "s1", "s4", "s5", "latest.json",
    }  # fmt: skip
    assert (freed.n, freed.n_bytes) == (2, 2)


def test_the_latest_reports_stay(settings: Settings) -> None:
    store = open_store(settings)
    for name in ("a-events.html", "a.json", "b-events.html", "b.json", "c.json"):
        store.put(layout.report_key("drift", name), b"x")
    retention.expire_reports(store, 2, is_dry=False)
    left = [info.key.rsplit("/", 1)[1] for info in store.list(layout.REPORTS)]
    assert left == ["b-events.html", "b.json", "c.json"]

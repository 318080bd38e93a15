"""Rows leave raw objects; all others stay, with their names, through kills and compactions."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from io import BytesIO

import msgspec
import pyarrow.parquet as pq
import pytest

from ingest.contract import to_arrow
from ingest.events import decode_events
from tests.warehouse.test_compaction import DeadlyStore, Killed
from warehouse.compaction import NotConserved, compact
from warehouse.layout import RAW_EVENTS, raw_key
from warehouse.person import Person
from warehouse.raw_erasure import Reach, erase_rows
from warehouse.raw_rows import RawRows
from warehouse.settings import IngestSettings, Settings
from warehouse.store import ObjectStore, open_store

HOUR = datetime(2026, 3, 1, 12, tzinfo=UTC)
REACH = Reach(Person(visitors=frozenset(("v1",))), HOUR, HOUR)
Land = Callable[..., str]


@pytest.fixture(params=["folder", "s3"])
def store(request: pytest.FixtureRequest) -> ObjectStore:
    name = "settings" if request.param == "folder" else "s3_settings"
    made: Settings = request.getfixturevalue(name)
    return open_store(made)


@pytest.fixture
def land(store: ObjectStore) -> Land:
    """Writes rows of these visitors as the flusher does; the key."""

    def write(first: int, visitors: list[str], *, hours_later: int = 0) -> str:
        received_at = HOUR + timedelta(hours=hours_later)
        events = [
            {
                "event_id": f"00000000-0000-4000-8000-{first + n:012d}", "event_name": "page_view",
                "visitor_id": one, "occurred_at": received_at.isoformat(),
            }
            for n, one in enumerate(visitors)
        ]  # fmt: skip
        decoded = decode_events(
            msgspec.json.encode(events), limits=IngestSettings(), received_at=received_at,
            ip=None, user_agent=None, source="test",
        )  # fmt: skip
        last = first + len(visitors) - 1
        key = raw_key(RAW_EVENTS, received_at, "c", first, last)
        rows = RawRows.of(to_arrow(decoded.events), first, last)
        store.put_if_absent(key, rows.parquet())
        return key

    return write


def test_only_the_persons_rows_go_and_the_object_keeps_its_name(
    store: ObjectStore, land: Land
) -> None:
    first, second = land(1, ["v1", "v2", "v1", "v10"]), land(5, ["v2"])
    untouched = store.get(second)
    done = erase_rows(store, RAW_EVENTS, REACH.events)
    assert [(one.key, one.rows_before, one.rows_after) for one in done.rewritten] == [(first, 4, 2)]
    assert visitors(store) == ["v2", "v10", "v2"]
    assert store.get(second) == untouched
    assert erase_rows(store, RAW_EVENTS, REACH.events).rewritten == []


def test_an_object_of_the_person_alone_stays_as_an_empty_one(
    store: ObjectStore, land: Land
) -> None:
    key = land(1, ["v1", "v1"])
    assert erase_rows(store, RAW_EVENTS, REACH.events).n_rows == 2
    assert pq.read_table(BytesIO(store.get(key))).num_rows == 0
    land(3, ["v2"])
    assert compact(store, HOUR + timedelta(hours=9)).n_written == 1
    assert visitors(store) == ["v2"]


def test_what_came_after_the_erasure_stays(store: ObjectStore, land: Land) -> None:
    land(1, ["v1"])
    land(2, ["v1"], hours_later=1)
    assert erase_rows(store, RAW_EVENTS, REACH.events).n_rows == 1
    assert visitors(store) == ["v1"]


@pytest.mark.parametrize("n_changes", range(3))
def test_killed_anywhere_the_next_run_finishes(
    store: ObjectStore, land: Land, n_changes: int
) -> None:
    for first in (1, 3, 5):
        land(first, ["v1", "v2"])
    deadly = DeadlyStore(store, n_changes)
    with pytest.raises(Killed):
        erase_rows(deadly, RAW_EVENTS, REACH.events)  # type: ignore[arg-type]
    assert visitors(store).count("v2") == 3
    erase_rows(store, RAW_EVENTS, REACH.events)
    assert visitors(store) == ["v2", "v2", "v2"]


def test_compaction_and_erasure_in_any_order_give_the_same_rows(
    store: ObjectStore, land: Land
) -> None:
    later = HOUR + timedelta(hours=9)
    parts = [land(1, ["v2", "v1"]), land(3, ["v1", "v3"]), land(5, ["v4"])]
    before = [store.get(key) for key in parts]
    erase_rows(store, RAW_EVENTS, REACH.events)
    compact(store, later)
    assert visitors(store) == ["v2", "v3", "v4"]
    (merged,) = [info.key for info in store.list(RAW_EVENTS)]
    assert merged.endswith("c-000000000001-000000000005.parquet")
    # one that a flusher of another box delivers again, erased rows and all, goes
    store.put_if_absent(parts[0], before[0])
    assert compact(store, later).n_removed == 1
    assert visitors(store) == ["v2", "v3", "v4"]


def test_an_object_merged_while_it_is_looked_at_is_erased_in_the_merged_one(
    store: ObjectStore, land: Land
) -> None:
    land(1, ["v2", "v1"])
    land(3, ["v1"])
    looked = []

    def select(table: object) -> object:
        if not looked:
            looked.append(compact(store, HOUR + timedelta(hours=9)))
        return REACH.events(table)

    erase_rows(store, RAW_EVENTS, select)  # type: ignore[arg-type]
    compact(store, HOUR + timedelta(hours=9))
    assert visitors(store) == ["v2"]


def test_an_object_that_is_not_what_its_name_says_is_left_alone(
    store: ObjectStore, land: Land
) -> None:
    data = store.get(land(1, ["v1", "v2"]))
    wrong = raw_key(RAW_EVENTS, HOUR, "c", 3, 9)
    store.put(wrong, data)
    with pytest.raises(NotConserved, match="should hold 7 rows by its name and holds 2"):
        erase_rows(store, RAW_EVENTS, REACH.events)
    assert store.get(wrong) == data


def test_a_versioned_bucket_keeps_no_earlier_version(s3_settings: Settings) -> None:
    from minio.commonconfig import ENABLED
    from minio.versioningconfig import VersioningConfig

    store = open_store(s3_settings)
    client, bucket = store._client, store.bucket  # type: ignore[attr-defined]
    store.put("raw/events/a", b"of nobody")
    client.set_bucket_versioning(bucket_name=bucket, config=VersioningConfig(ENABLED))
    for data in (b"secret", b"clean"):
        store.put("raw/events/a", data)
        store.put("raw/events/b", data)
    store.delete("raw/events/b")
    assert store.purge("raw/events") == 5
    left = client.list_objects(bucket_name=bucket, recursive=True, include_version=True)
    assert [(one.object_name, one.is_latest) for one in left] == [("lake/raw/events/a", "true")]
    assert store.get("raw/events/a") == b"clean"


def visitors(store: ObjectStore) -> list[str]:
    return [
        row["visitor_id"]
        for info in store.list(RAW_EVENTS)
        for row in pq.read_table(BytesIO(store.get(info.key))).to_pylist()
    ]

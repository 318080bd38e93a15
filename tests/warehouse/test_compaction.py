"""Compaction conserves every row, wherever it is killed and however often it runs."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from io import BytesIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from warehouse.compaction import NotConserved, compact
from warehouse.contracts import REJECTED_SCHEMA
from warehouse.layout import RAW_EVENTS, RAW_REJECTED, raw_key
from warehouse.raw_erasure import read_rows
from warehouse.settings import Settings
from warehouse.store import ObjectStore, open_store

HOUR = datetime(2026, 3, 1, 12, tzinfo=UTC)
LATER = HOUR + timedelta(hours=3)
RANGES = ((1, 3), (4, 4), (5, 9), (12, 14), (15, 15))
Land = Callable[..., str]


class Killed(BaseException):
    """The process ends here."""


class DeadlyStore:
    """A store that dies before its n-th change."""

    def __init__(self, store: ObjectStore, n_changes: int) -> None:
        self._store = store
        self._left = n_changes
        self.get, self.list, self.stat = store.get, store.list, store.stat

    def put(self, key: str, data: bytes) -> None:
        self._change()
        self._store.put(key, data)

    def put_if_absent(self, key: str, data: bytes) -> bool:
        self._change()
        return self._store.put_if_absent(key, data)

    def delete(self, key: str) -> None:
        self._change()
        self._store.delete(key)

    def _change(self) -> None:
        if not self._left:
            raise Killed
        self._left -= 1


@pytest.fixture
def store(settings: Settings) -> ObjectStore:
    return open_store(settings)


@pytest.fixture
def land(store: ObjectStore) -> Land:
    """Writes rows `first..last` as the flusher does; the key."""

    def write(
        first: int, last: int, *, prefix: str = RAW_EVENTS, hour: datetime = HOUR,
        collector: str = "c", text: str = "m",
    ) -> str:  # fmt: skip
        rows = [
            {"received_at": hour, "source": "s", "reason": "r", "message": text, "body": b"%d" % n}
            for n in range(first, last + 1)
        ]
        data = BytesIO()
        pq.write_table(pa.Table.from_pylist(rows, schema=REJECTED_SCHEMA), data)
        key = raw_key(prefix, hour, collector, first, last)
        store.put_if_absent(key, data.getvalue())
        return key

    return write


def test_adjoining_ranges_become_one_object_and_nothing_else_does(
    store: ObjectStore, land: Land
) -> None:
    for first, last in RANGES:
        land(first, last)
    land(16, 17, hour=HOUR + timedelta(hours=2))
    land(18, 18, hour=HOUR + timedelta(hours=2))  # not closed yet
    land(1, 1, prefix=RAW_REJECTED)
    land(2, 2, prefix=RAW_REJECTED)
    land(4, 9, collector="d")
    before = _rows(store)
    done = compact(store, LATER)
    assert (done.n_merged, done.n_written, done.n_removed, done.n_rows) == (7, 3, 7, 15)
    assert _names(store) == [
        "c-000000000001-000000000009", "c-000000000012-000000000015",
        "d-000000000004-000000000009",
        "c-000000000016-000000000017", "c-000000000018-000000000018",
        "c-000000000001-000000000002",
    ]  # fmt: skip
    assert sorted(_rows(store)) == sorted(before)
    assert compact(store, LATER).n_written == 0


@pytest.mark.parametrize("n_changes", range(7))
def test_killed_anywhere_it_loses_nothing_and_the_next_run_finishes(
    store: ObjectStore, land: Land, n_changes: int
) -> None:
    for first, last in RANGES:
        land(first, last)
    before = _rows(store)
    with pytest.raises(Killed):
        compact(DeadlyStore(store, n_changes), LATER)  # type: ignore[arg-type]
    assert set(_rows(store)) == set(before)
    compact(store, LATER)
    assert sorted(_rows(store)) == sorted(before)
    assert len(_names(store)) == 2


def test_what_lands_late_or_again_is_taken_in(store: ObjectStore, land: Land) -> None:
    again = land(1, 3), land(4, 4)
    compact(store, LATER)
    land(1, 3)  # by a flusher that was killed before it noted its delivery
    land(5, 6)
    assert compact(store, LATER).n_removed == 3
    assert _names(store) == ["c-000000000001-000000000006"]
    assert len(_rows(store)) == 6
    assert not {info.key for info in store.list(RAW_EVENTS)} & set(again)


def test_other_rows_under_a_part_of_the_range_are_not_deleted(
    store: ObjectStore, land: Land
) -> None:
    land(1, 3)
    land(4, 4)
    compact(store, LATER)
    kept = land(4, 4, text="another")
    with pytest.raises(NotConserved, match=r"4\.parquet`$"):
        compact(store, LATER)
    assert store.get(kept)


def test_an_object_with_fewer_rows_than_its_name_says_is_left_alone(
    store: ObjectStore, land: Land
) -> None:
    whole = store.get(land(1, 3))
    short = raw_key(RAW_EVENTS, HOUR, "c", 4, 9)
    store.put_if_absent(short, whole)
    with pytest.raises(NotConserved, match="should hold 6 rows"):
        compact(store, LATER)
    assert len(_names(store)) == 2


def test_what_is_erased_from_a_part_while_it_is_merged_leaves_the_merged_one_too(
    store: ObjectStore, land: Land
) -> None:
    parts = [land(1, 3), land(4, 4), land(5, 9)]
    with pytest.raises(Killed):  # merged, and no part deleted yet
        compact(DeadlyStore(store, 1), LATER)  # type: ignore[arg-type]
    for key, numbers in ((parts[0], (b"2",)), (parts[2], (b"5", b"9"))):
        info = store.stat(key)
        rows = read_rows(info, store.get(key))
        store.put(key, rows.without(np.isin(rows.table["body"], numbers)).parquet())
    compact(store, LATER)
    assert _names(store) == ["c-000000000001-000000000009"]
    assert [body for _, body in _rows(store)] == [b"1", b"3", b"4", b"6", b"7", b"8"]


def _names(store: ObjectStore) -> list[str]:
    return [
        info.key.rsplit("/", 1)[1].removesuffix(".parquet")
        for prefix in (RAW_EVENTS, RAW_REJECTED)
        for info in store.list(prefix)
    ]


def _rows(store: ObjectStore) -> list[tuple[str, bytes]]:
    return [
        (prefix, row["body"])
        for prefix in (RAW_EVENTS, RAW_REJECTED)
        for info in store.list(prefix)
        for row in pq.read_table(BytesIO(store.get(info.key))).to_pylist()
    ]

"""Names of raw objects that do not change when compaction merges them."""

from datetime import UTC, datetime, timedelta
from io import BytesIO
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from warehouse import layout
from warehouse.folder_store import FolderStore
from warehouse.provenance import MAX_NAMES, RawObjects, joined, read_raw_objects

HOUR = datetime(2026, 1, 10, 10, tzinfo=UTC)


def key(first: int, last: int, hour: datetime = HOUR, collector: str = "c0") -> str:
    return layout.raw_key(layout.RAW_EVENTS, hour, collector, first, last)


def test_parts_have_the_name_of_what_compaction_makes_of_them() -> None:
    cuts = (1, 4, 5, 90, 1_000_000_000_001)
    parts = [key(first, last - 1) for first, last in pairwise(cuts)]
    whole = [key(1, 1_000_000_000_000)]
    assert joined(parts) == joined(reversed(parts)) == joined(whole) == whole
    assert joined([key(1, 89), *parts[3:]]) == whole
    # loaded by parts, then again by an object that held them and more
    assert joined([key(1, 3), key(1, 8)]) == [key(1, 8)]


def test_gaps_hours_and_collectors_stay_apart() -> None:
    later = HOUR + timedelta(hours=1)
    apart = [key(1, 3), key(5, 9), key(4, 4, later), key(4, 4, HOUR, "c1"), "raw/events/x.parquet"]
    assert joined(apart) == sorted(apart)
    assert joined([]) == []


@pytest.mark.parametrize("n", [0, MAX_NAMES, MAX_NAMES + 1])
def test_few_names_are_listed_and_all_are_counted_and_hashed(tmp_path: Path, n: int) -> None:
    store = FolderStore(tmp_path / "raw/events/store")  # a folder of such a name misleads nobody
    keys = [key(3 * at + 1, 3 * at + 2) for at in range(n)]

    def read(keys: list[str]) -> RawObjects:
        schema = pa.schema([("raw_object", pa.string()), ("n_events", pa.int64())])
        rows = [{"raw_object": store.uri(one), "n_events": 2} for one in keys]
        data = BytesIO()
        pq.write_table(pa.Table.from_pylist(rows, schema=schema), data)
        store.put(layout.raw_objects_key("s"), data.getvalue())
        return read_raw_objects(store, "s")

    found = read(keys)
    assert (found.n_objects, found.n_events) == (n, 2 * n)
    assert found.names == (keys if n <= MAX_NAMES else [])
    assert found.sha256 != read([*keys, key(90_000, 90_001)]).sha256
    assert found == read(keys[::-1])

"""Which raw objects a mart snapshot was made of, in words that outlive them.

Staging keeps the name that an object had when it was loaded. Compaction gives the rows of adjoining
objects of an hour to one of the whole range and removes the parts; so names are joined here as
compaction joins them, and are the same whether it ran before the load, after it or not at all. A
name's rows are in the objects of that hour and collector whose ranges lie within its, or hold it.

An object that gave no event is not named: one of repetitions alone, or one of which erasure or
retention left nothing. Of those that lost some rows the name stays, as rows keep their numbers.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime

import pyarrow.compute as pc

from warehouse import layout
from warehouse.compaction import RawObject
from warehouse.parquet import read_parquet
from warehouse.store import ObjectInfo, ObjectStore, sha256

_ANY = datetime.min.replace(tzinfo=UTC)
# More names than these are told by their count and hash alone; the snapshot's file has them all.
MAX_NAMES = 500


@dataclass(frozen=True)
class RawObjects:
    """Raw objects read: adjoining ranges as one, and the events they gave without repetitions.

    `sha256` is of the sorted keys, a line each; `names` are these keys, none where they are more
    than MAX_NAMES.
    """

    n_objects: int
    n_events: int
    sha256: str
    names: list[str] = field(default_factory=list)


def read_raw_objects(store: ObjectStore, snapshot_id: str) -> RawObjects:
    """The raw objects that dbt has listed beside a snapshot's marts. Raises ObjectNotFound."""
    table = read_parquet(store.get(layout.raw_objects_key(snapshot_id)))
    names = joined(_key(address) for address in table["raw_object"].to_pylist())
    digest = sha256("".join(f"{name}\n" for name in names).encode())
    n_events = int(pc.sum(table["n_events"]).as_py() or 0)
    return RawObjects(len(names), n_events, digest, names if len(names) <= MAX_NAMES else [])


def joined(keys: Iterable[str]) -> list[str]:
    """Keys of raw objects, sorted, those of adjoining ranges of an hour and collector as one."""
    ranges: dict[tuple[datetime, str], list[tuple[int, int]]] = defaultdict(list)
    found: set[str] = set()
    for key in keys:
        one = RawObject.of(ObjectInfo(key, 0, _ANY))
        if one is None:
            found.add(key)
        else:
            ranges[one.hour, one.collector].append((one.first, one.last))
    for (hour, collector), of_hour in ranges.items():
        for first, last in _spans(of_hour):
            found.add(layout.raw_key(layout.RAW_EVENTS, hour, collector, first, last))
    return sorted(found)


def _spans(ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Those that touch or overlap as one."""
    spans: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if spans and first <= spans[-1][1] + 1:
            spans[-1] = (spans[-1][0], max(spans[-1][1], last))
        else:
            spans.append((first, last))
    return spans


def _key(address: str) -> str:
    """The key of an object by its address."""
    return f"{layout.RAW_EVENTS}/{address.rpartition(f'/{layout.RAW_EVENTS}/')[2]}"

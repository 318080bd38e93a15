"""Takes a person's sessions out of the mart snapshots that were exported, old ones too.

Items and popularity are sums over everybody and stay. Steps go before sessions, since those of
sessions that we derived are found by them: killed in between, the next run finds what is left.
"""

from collections.abc import Collection, Iterator
from dataclasses import replace
from datetime import datetime
from io import BytesIO

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from warehouse import layout, snapshot
from warehouse.erasure_record import Rewritten
from warehouse.parquet import read_parquet, write_parquet
from warehouse.person import Mask, Person
from warehouse.snapshot import MartExport
from warehouse.store import ObjectNotFound, ObjectStore, sha256

_STEPS, _SESSIONS = "training_steps", "sessions"


def snapshot_ids(store: ObjectStore) -> list[str]:
    """Ids of all snapshots in the store, also of those that were never published."""
    keys = (info.key for info in store.list(layout.MARTS))
    return sorted({key.split("/")[1] for key in keys if key.count("/") == 2})


def sessions_in(
    store: ObjectStore,
    snapshot_id: str,
    person: Person,
    until: datetime,
    also: Collection[str] = (),
) -> set[str]:
    """Ids of a person's sessions in a snapshot that began by `until`, and of `also` likewise."""
    found: set[str] = set()
    wanted = {*person.sessions, *also}
    table = _read(store, snapshot_id, _SESSIONS)
    if table is not None:
        mask = _is_in(table["session_id"], wanted)
        mask |= _is_in(table["visitor_id"], person.visitors)
        mask |= _is_in(table["user_id"], person.users)
        found |= _begun(table, mask, "started_at", until)
    table = _read(store, snapshot_id, _STEPS)
    if table is not None:
        found |= _begun(table, _is_in(table["session_id"], wanted), "occurred_at", until)
    return found


def erase_sessions(
    store: ObjectStore, snapshot_id: str, session_ids: Collection[str]
) -> Iterator[Rewritten]:
    """Rewrite the marts of a snapshot without these sessions, and its description."""
    changed: dict[str, MartExport] = {}
    for mart in (_STEPS, _SESSIONS):
        key = layout.mart_key(snapshot_id, mart)
        table = _read(store, snapshot_id, mart)
        if table is None:
            continue
        mask = _is_in(table["session_id"], session_ids)
        if mask.any():
            before = sha256(store.get(key))
            kept = table.filter(pa.array(~mask))
            data = write_parquet(kept)
            store.put(key, data)
            after = sha256(data)
            yield Rewritten(key, table.num_rows, kept.num_rows, before, after)
        data = store.get(key)
        changed[mart] = MartExport(key, pq.read_metadata(BytesIO(data)).num_rows, sha256(data))
    for key in (layout.snapshot_key(snapshot_id), layout.LATEST_MARTS):
        _describe_anew(store, key, snapshot_id, changed)


def _begun(table: pa.Table, mask: Mask, column: str, until: datetime) -> set[str]:
    rows = table.filter(pa.array(mask))
    rows = rows.filter(pc.less_equal(rows[column], pa.scalar(until, pa.timestamp("us", "UTC"))))
    return set(rows["session_id"].to_pylist())


def _describe_anew(
    store: ObjectStore, key: str, snapshot_id: str, changed: dict[str, MartExport]
) -> None:
    """State rows and hashes of rewritten marts in a description, if it is of this snapshot."""
    try:
        described = msgspec.json.decode(store.get(key), type=snapshot.Snapshot)
    except ObjectNotFound:
        return
    marts = described.marts | {
        mart: export for mart, export in changed.items() if mart in described.marts
    }
    if described.snapshot_id == snapshot_id and marts != described.marts:
        data = msgspec.json.encode(replace(described, marts=marts))
        store.put(key, msgspec.json.format(data))


def _read(store: ObjectStore, snapshot_id: str, mart: str) -> pa.Table | None:
    try:
        return read_parquet(store.get(layout.mart_key(snapshot_id, mart)))
    except ObjectNotFound:
        return None


def _is_in(column: pa.ChunkedArray, values: Collection[str]) -> Mask:
    if not values or not len(column):
        return np.zeros(len(column), dtype=np.bool_)
    found = pc.is_in(column, value_set=pa.array(sorted(values), pa.string()))
    mask: Mask = found.combine_chunks().to_numpy(zero_copy_only=False)
    return mask

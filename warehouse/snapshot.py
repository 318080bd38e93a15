"""Mart snapshots: what one refresh exported, and the pointer to the latest good one.

dbt writes the Parquet of a snapshot under its own id; `publish` describes it and flips
`marts/latest.json` last, so readers see a whole snapshot or the one before.
"""

from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime

import msgspec
import pyarrow as pa

from warehouse import layout
from warehouse.contracts import EXCLUSIONS, MART_COLUMNS_ADDED, MART_SCHEMAS
from warehouse.parquet import read_parquet
from warehouse.provenance import RawObjects, read_raw_objects
from warehouse.store import ObjectNotFound, ObjectStore, sha256


class NoSnapshot(RuntimeError):
    """No refresh has exported marts yet."""


class SchemaMismatch(RuntimeError):
    """A Parquet object does not have the columns that its contract states."""


@dataclass(frozen=True)
class MartExport:
    """One mart of a snapshot: object key, rows and sha256 of the bytes."""

    key: str
    n_rows: int
    sha256: str


@dataclass(frozen=True)
class LeftOut:
    """Sessions that are in the marts and not learned from, and the events in them."""

    n_sessions: int
    n_events: int


@dataclass(frozen=True)
class Snapshot:
    """One refresh's exported marts, what they were made of, and what is not learned from, by why.

    Snapshots of before have no `raw_objects` and no `left_out`. An erasure changes `marts` alone:
    the others are sums over everybody, as they were when the snapshot was made.
    """

    snapshot_id: str
    created_at: datetime
    marts: dict[str, MartExport]
    raw_objects: RawObjects | None = None
    left_out: dict[str, LeftOut] = field(default_factory=dict)

    @property
    def n_left_out(self) -> int:
        """Sessions that nothing is learned from."""
        return sum(one.n_sessions for one in self.left_out.values())


def new_snapshot_id(now: datetime | None = None) -> str:
    """A sortable id for a snapshot that starts now, unique to the microsecond."""
    return f"{now or datetime.now(UTC):%Y%m%dT%H%M%S%fZ}"


def describe(store: ObjectStore, snapshot_id: str) -> Snapshot:
    """The snapshot as dbt exported it, read back from the store.

    Raises SchemaMismatch and ObjectNotFound.
    """
    marts: dict[str, MartExport] = {}
    left_out: dict[str, LeftOut] = {}
    for mart in MART_SCHEMAS:
        key = layout.mart_key(snapshot_id, mart)
        data = store.get(key)
        table = _checked(mart, read_parquet(data))
        marts[mart] = MartExport(key, table.num_rows, sha256(data))
        if mart == "sessions":
            left_out = _left_out(table)
    raw_objects = read_raw_objects(store, snapshot_id)
    return Snapshot(snapshot_id, datetime.now(UTC), marts, raw_objects, left_out)


def publish(store: ObjectStore, snapshot: Snapshot) -> None:
    """Keep the description beside the marts, then make this snapshot the latest."""
    data = msgspec.json.format(msgspec.json.encode(asdict(snapshot)))
    store.put(layout.snapshot_key(snapshot.snapshot_id), data)
    store.put(layout.LATEST_MARTS, data)


def load(store: ObjectStore, snapshot_id: str) -> Snapshot:
    """A published snapshot by its id. Raises ObjectNotFound."""
    return msgspec.json.decode(store.get(layout.snapshot_key(snapshot_id)), type=Snapshot)


def latest(store: ObjectStore) -> Snapshot:
    """The latest published snapshot. Raises NoSnapshot before the first."""
    try:
        return msgspec.json.decode(store.get(layout.LATEST_MARTS), type=Snapshot)
    except ObjectNotFound:
        raise NoSnapshot("no marts exported yet, run `shallop refresh` first") from None


def read_mart(store: ObjectStore, snapshot_id: str, mart: str) -> pa.Table:
    """One exported mart with the columns and types of its contract. Raises SchemaMismatch."""
    return _checked(mart, read_parquet(store.get(layout.mart_key(snapshot_id, mart))))


def _left_out(sessions: pa.Table) -> dict[str, LeftOut]:
    """By every reason there is, also where it holds for no session."""
    counts = sessions.group_by("excluded_because").aggregate(
        [("n_events", "sum"), ([], "count_all")]
    )
    found = {
        row["excluded_because"]: LeftOut(row["count_all"], row["n_events_sum"])
        for row in counts.to_pylist()
    }
    return {reason: found.get(reason, LeftOut(0, 0)) for reason in EXCLUSIONS}


def _checked(mart: str, table: pa.Table) -> pa.Table:
    expected = MART_SCHEMAS[mart]
    for name in MART_COLUMNS_ADDED.get(mart, ()):
        if name not in table.schema.names:
            field = expected.field(name)
            nothing = pa.nulls(table.num_rows, field.type)
            table = table.add_column(expected.get_field_index(name), field, nothing)
    if table.schema.names != expected.names:
        raise SchemaMismatch(
            f"mart `{mart}` should have columns {expected.names}, it has: {table.schema.names}"
        )
    try:
        return table.cast(expected)
    except pa.ArrowInvalid as error:
        raise SchemaMismatch(f"mart `{mart}`: {error}") from error

"""Raw events: what the collector has landed in the store."""

import re
from dataclasses import dataclass
from datetime import datetime

import dagster as dg
import pyarrow as pa
import pyarrow.compute as pc

from assets.resources import Materialized
from warehouse import layout
from warehouse.parquet import read_parquet
from warehouse.quality import Failure, check_raw_events
from warehouse.settings import Settings
from warehouse.store import ObjectStore, open_store

RAW_EVENTS = dg.AssetKey(["raw", "events"])

_RANGE = re.compile(r"/(?P<collector>[^/]+)-(?P<first>\d{12,})-(?P<last>\d{12,})\.parquet$")


@dataclass(frozen=True)
class RawRange:
    """Sequence numbers `first..last` of one collector, read off an object's name."""

    collector: str
    first: int
    last: int

    @classmethod
    def of(cls, key: str) -> "RawRange | None":
        """None for an object that no collector named."""
        match = _RANGE.search(key)
        return match and cls(match["collector"], int(match["first"]), int(match["last"]))


@dataclass(frozen=True)
class RawInventory:
    """What lies under `raw/events`, known from the names alone, with rows erased since.

    `high_water` is the last sequence number landed per collector; `newest` holds the keys of the
    latest object of each collector in the latest hour.
    """

    n_objects: int
    n_bytes: int
    n_events: int
    high_water: dict[str, int]
    newest: tuple[str, ...]


def inventory(store: ObjectStore) -> RawInventory:
    """List the raw objects; reads none of them. Raises StoreUnavailable."""
    n_objects = n_bytes = n_events = 0
    high_water: dict[str, int] = {}
    newest: dict[tuple[str, str], str] = {}
    for found in store.list(layout.RAW_EVENTS):
        n_objects, n_bytes = n_objects + 1, n_bytes + found.size
        landed = RawRange.of(found.key)
        if landed is not None:
            n_events += landed.last - landed.first + 1
            high_water[landed.collector] = max(high_water.get(landed.collector, 0), landed.last)
        hour = found.key.rpartition("/")[0]
        newest[hour, landed.collector if landed else ""] = found.key
    last_hour = max((hour for hour, _ in newest), default="")
    latest = tuple(key for (hour, _), key in newest.items() if hour == last_hour)
    return RawInventory(n_objects, n_bytes, n_events, high_water, latest)


def read_raw(store: ObjectStore, keys: tuple[str, ...]) -> pa.Table:
    """Rows of some raw objects, columns that only some have included."""
    return pa.concat_tables(
        [read_parquet(store.get(key)) for key in keys], promote_options="default"
    )


@dg.asset(
    key=RAW_EVENTS,
    group_name="raw",
    kinds={"parquet"},
    check_specs=[
        dg.AssetCheckSpec(
            "newest_rows_keep_the_contract",
            asset=RAW_EVENTS,
            blocking=True,
            description="Columns, types and vocabulary of the objects that landed last.",
        )
    ],
)
def raw_events(settings: dg.ResourceParam[Settings]) -> Materialized:
    """Shop events as received, appended by the collector. Fails while there are none."""
    store = open_store(settings)
    found = inventory(store)
    if not found.n_objects:
        raise dg.Failure(
            f"no raw events yet: send some to the collector, or run `shallop simulate`; "
            f"looked under {store.uri(layout.RAW_EVENTS)}",
            allow_retries=False,
        )
    rows = read_raw(store, found.newest)
    failures = check_raw_events(rows)
    return dg.MaterializeResult(
        metadata={
            "n_objects": found.n_objects,
            "n_bytes": found.n_bytes,
            "n_events": dg.MetadataValue.int(found.n_events),
            "high_water": dg.MetadataValue.json(found.high_water),
            **_newest(rows),
        },
        check_results=[
            dg.AssetCheckResult(
                passed=not failures,
                check_name="newest_rows_keep_the_contract",
                metadata={"objects": list(found.newest), **failure_metadata(failures)},
            )
        ],
    )


def failure_metadata(failures: list[Failure]) -> dict[str, dg.MetadataValue]:
    """Failures of a data check as a table for the web UI; nothing for none."""
    if not failures:
        return {}
    lines = ["| column | check | rows | examples |", "|---|---|---|---|"]
    for failure in failures:
        examples = ", ".join(f"`{example}`" for example in failure.examples)
        lines.append(f"| {failure.column} | {failure.check} | {failure.n} | {examples} |")
    return {"failures": dg.MetadataValue.md("\n".join(lines))}


def _newest(rows: pa.Table) -> dict[str, dg.MetadataValue]:
    """When the last row was received; nothing where an erasure left none."""
    newest: datetime | None = pc.max(rows["received_at"]).as_py()
    return {"newest_received_at": dg.MetadataValue.timestamp(newest)} if newest else {}

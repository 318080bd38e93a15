"""Retailrocket's data set: `events.csv`, `item_properties_part*.csv`, `category_tree.csv`.

Events: `timestamp` (epoch milliseconds), `visitorid`, `event` (`view`, `addtocart`,
`transaction`), `itemid`, `transactionid`. Properties: `timestamp`, `itemid`, `property`, `value`,
weekly snapshots, all hashed but `categoryid` and `available`. Tree: `categoryid`, `parentid`.
https://www.kaggle.com/datasets/retailrocket/ecommerce-dataset.

An item's category is its latest `categoryid`, below its parents: `root/…/categoryid`.
"""

import polars as pl

from ingest.history.files import Tally, frames
from ingest.history.formats import Format, Options, Source, table_reader
from ingest.history.mapping import From, TableMapping
from ingest.history.times import TimeFormat

_MAX_DEPTH = 32
_ROLES = {
    "events": frozenset({"timestamp", "visitorid", "event", "itemid"}),
    "properties": frozenset({"timestamp", "itemid", "property", "value"}),
    "tree": frozenset({"categoryid", "parentid"}),
}


def _role_of(names: list[str]) -> str | None:
    return next((role for role, needed in _ROLES.items() if set(names) >= needed), None)


def _mappings(options: Options) -> dict[str, TableMapping]:
    fields = {
        "occurred_at": From(("timestamp",)),
        "event_name": From(("event",)),
        "visitor_id": From(("visitorid",)),
    }
    items = {"item_id": From(("itemid",))}
    names = {"view": "view_item", "addtocart": "add_to_cart", "transaction": "purchase"}
    return {"events": TableMapping(fields, items, names, TimeFormat("ms"))}


def _catalogue(source: Source) -> pl.DataFrame | None:
    latest: dict[str, tuple[int, str]] = {}
    for file in source.of("properties"):
        for frame in frames(file, Tally(), ("timestamp", "itemid", "property", "value")):
            rows = frame.filter(pl.col("property") == "categoryid").select(
                pl.col("itemid").cast(pl.String),
                pl.col("timestamp").cast(pl.Int64, strict=False).fill_null(0),
                pl.col("value").cast(pl.String),
            )
            for item_id, at, category in rows.iter_rows():
                latest[item_id] = max(latest.get(item_id, (0, "")), (at, category))
    if not latest:
        return None
    parents = _parents(source)
    paths = [_path(category, parents) for _, category in latest.values()]
    return pl.DataFrame({"item_id": list(latest), "item_category": paths})


def _parents(source: Source) -> dict[str, str]:
    parents: dict[str, str] = {}
    for file in source.of("tree"):
        for frame in frames(file, Tally(), ("categoryid", "parentid")):
            known = frame.select(pl.col("categoryid", "parentid").cast(pl.String)).drop_nulls()
            parents.update(known.iter_rows())
    return parents


def _path(category: str, parents: dict[str, str]) -> str:
    path = [category]
    while path[-1] in parents and len(path) < _MAX_DEPTH:
        path.append(parents[path[-1]])
    return "/".join(reversed(path))


RETAILROCKET = Format(
    name="retailrocket",
    expects="`timestamp`, `visitorid`, `event`, `itemid` (events.csv), and may have beside it "
    "item_properties*.csv and category_tree.csv",
    role_of=_role_of,
    events=frozenset({"events"}),
    read=table_reader(_mappings),
    catalogue=_catalogue,
)

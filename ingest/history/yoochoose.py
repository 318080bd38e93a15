"""Yoochoose, RecSys Challenge 2015: `yoochoose-clicks.dat`, `yoochoose-buys.dat`, no headers.

Clicks: session id, timestamp (`2014-04-07T10:51:09.277Z`), item id, category (`0` none, `S` a
special offer, a number, or a brand). Buys: session id, timestamp, item id, price, quantity; where
these were not known both are 0. http://2015.recsyschallenge.com/challenge.html and the README that
comes with the data. `yoochoose-test.dat` has the form of the clicks.
"""

import re
from collections.abc import Iterator

import polars as pl

from ingest.history.files import Layout, Tally, frames
from ingest.history.formats import Format, Source
from ingest.history.mapping import From, TableMapping, events_of

_FIRST = re.compile(r"\d+,\d{4}-\d\d-\d\dT[\d:.]+Z,\d+,")
_NAMES = {
    "clicks": ("session_id", "timestamp", "item_id", "category"),
    "buys": ("session_id", "timestamp", "item_id", "price", "quantity"),
}


def _mapping(event_name: str, items: dict[str, From]) -> TableMapping:
    fields = {
        "occurred_at": From(("timestamp",)),
        "event_name": From(value=event_name),
        "session_id": From(("session_id",)),
        "visitor_id": From(("session_id",)),
    }
    return TableMapping(fields, {"item_id": From(("item_id",))} | items)


_MAPPINGS = {
    "clicks": _mapping("view_item", {"item_category": From(("category",))}),
    "buys": _mapping("purchase", {"price": From(("price",)), "quantity": From(("quantity",))}),
}


def _role_of(first_line: list[str]) -> str | None:
    """There is no header: what would be one is the first row."""
    if not _FIRST.match(",".join(first_line)):
        return None
    return {len(names): role for role, names in _NAMES.items()}.get(len(first_line))


def _read(source: Source, tally: Tally) -> Iterator[pl.DataFrame]:
    for role, mapping in _MAPPINGS.items():
        for file in source.of(role):
            rows = frames(file, tally, mapping.columns(), Layout(",", names=_NAMES[role]))
            known = (_without_unknown(frame) for frame in rows)
            yield from events_of(known, mapping, tally, source.options.max_items)


def _without_unknown(frame: pl.DataFrame) -> pl.DataFrame:
    """Zeros that stand for what was not known, as null."""
    zeros = [name for name in ("category", "price", "quantity") if name in frame.columns]
    return frame.with_columns(
        pl.when(pl.col(name) != "0").then(pl.col(name)).alias(name) for name in zeros
    )


YOOCHOOSE = Format(
    name="yoochoose",
    expects="lines of `session,time,item,category` (clicks) or `session,time,item,price,quantity` "
    "(buys) without a header",
    role_of=_role_of,
    events=frozenset({"clicks", "buys"}),
    read=_read,
)

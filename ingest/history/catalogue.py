"""What is known about items beside their events: it fills what the events do not say."""

from collections.abc import Iterable
from pathlib import Path

import polars as pl

from ingest.history.files import Tally, columns, frames, known_kind
from ingest.history.formats import UnknownColumns, listed
from ingest.history.frame import ITEM
from ingest.history.mapping import text_of

_COLUMNS = {"title": "item_name", "category": "item_category", "price": "price"}


def load(files: Iterable[Path]) -> pl.DataFrame:
    """Names, categories and prices by `item_id`; the last row of an item counts.

    Raises UnknownColumns, UnreadableFile.
    """
    loaded = []
    for file in files:
        names = columns(file)
        if "item_id" not in names:
            raise UnknownColumns(
                "items need a column `item_id`, and may have `title`, `category`, `price`; "
                f"`{file}` has: {listed(names)}"
            )
        for frame in frames(file, Tally(), ["item_id", *_COLUMNS]):
            texts = [text_of(frame, name).alias(ours) for name, ours in _COLUMNS.items()]
            loaded.append(pl.DataFrame([text_of(frame, "item_id").alias("item_id"), *texts]))
    found = pl.concat(loaded) if loaded else pl.DataFrame(schema={"item_id": pl.String})
    price = pl.col("price").cast(pl.Float64, strict=False)
    return (
        found.drop_nulls("item_id")
        .unique("item_id", keep="last", maintain_order=True)
        .with_columns(pl.when(price.is_finite()).then(price).alias("price"))
    )


def beside(files: Iterable[Path]) -> list[Path]:
    """The file `items.*` in the folder of each of some files, where there is one."""
    found: dict[Path, None] = {}
    for file in files:
        for path in sorted(file.parent.glob("items.*")):
            if path.is_file() and path != file and _is_readable(path):
                found[path] = None
                break
    return list(found)


def filled(frame: pl.DataFrame, catalogue: pl.DataFrame) -> pl.DataFrame:
    """The events, their items completed from the catalogue."""
    known = [name for name in ("item_name", "item_category", "price") if name in catalogue.columns]
    theirs = catalogue.select("item_id", *(pl.col(name).alias(f"its_{name}") for name in known))
    rows = frame.with_row_index("row").filter(pl.col("items").list.len() > 0)
    items = (
        rows.select("row", "items")
        .explode("items")
        .unnest("items")
        .join(theirs, on="item_id", how="left", maintain_order="left")
        .with_columns(pl.coalesce(name, f"its_{name}").alias(name) for name in known)
    )
    fields = [pl.col(field.name) for field in ITEM.fields]
    lists = (
        items.select("row", pl.struct(fields).alias("items"))
        .group_by("row", maintain_order=True)
        .agg("items")
    )
    return frame.with_columns(
        frame["items"].scatter(lists["row"], lists["items"])
        if lists.height < frame.height
        else lists["items"]
    )


def _is_readable(path: Path) -> bool:
    try:
        known_kind(path)
    except ValueError:
        return False
    return True

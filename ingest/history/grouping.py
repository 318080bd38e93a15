"""Rows that belong together as one event of many items: the lines of an invoice."""

from collections.abc import Iterator

import polars as pl

from ingest.history.frame import FIELDS, completed


def grouped(rows: Iterator[pl.DataFrame], max_items: int) -> Iterator[pl.DataFrame]:
    """Rows with the same key that follow each other as one event, across frames."""
    left: pl.DataFrame | None = None
    for frame in rows:
        if frame.is_empty():
            continue
        frame = pl.concat([left, frame]) if left is not None else frame
        run = frame["key"].rle_id()
        is_last = run == run[-1]
        left = frame.filter(is_last)
        if left.height < frame.height:
            yield _groups(frame.filter(~is_last), max_items)
    if left is not None:
        yield _groups(left, max_items)


def _groups(rows: pl.DataFrame, max_items: int) -> pl.DataFrame:
    number = pl.int_range(pl.len()).over("run")
    rows = rows.with_columns(run=pl.col("key").rle_id()).with_columns(part=number // max_items)
    first = [name for name in rows.columns if name in FIELDS and name != "extra"]
    extras = [pl.col("extra")] if "extra" in rows.columns else []
    grouped = rows.group_by("run", "part", maintain_order=True).agg(
        *(pl.col(name).first() for name in first),
        pl.col("unread").drop_nulls().first(),
        pl.col("item").alias("items"),
        pl.col("unread_item").alias("unread_items"),
        pl.len().alias("n_rows"),
        *extras,
    )
    grouped = grouped.with_columns(
        items=pl.when(pl.col("items").list.drop_nulls().list.len() > 0).then("items"),
        unread_items=pl.when(pl.col("unread_items").list.drop_nulls().list.len() > 0).then(
            "unread_items"
        ),
    )
    return completed(grouped.with_columns(_joined_extra()) if extras else grouped)


def _joined_extra() -> pl.Expr:
    """One `extra` for rows that agree; else all of theirs, in order, under `lines`."""
    lines = (
        pl.lit('{"lines":[')
        + pl.col("extra").list.eval(pl.element().fill_null("null")).list.join(",")
        + pl.lit("]}")
    )
    is_one = pl.col("extra").list.n_unique() == 1
    return pl.when(is_one).then(pl.col("extra").list.first()).otherwise(lines).alias("extra")

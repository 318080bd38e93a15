"""Contracts of the data itself: what must hold of every exported mart and of raw events.

pandera on polars, lazily: all failures are collected, each with a few examples. Column names and
types are checked against `warehouse.contracts` as well, so a drifted export cannot pass.
"""

from collections.abc import Callable
from dataclasses import dataclass

import polars as pl
import pyarrow as pa
from pandera.errors import SchemaErrors
from pandera.polars import Check, Column, DataFrameSchema, PolarsData

from warehouse.contracts import (
    DEVICES,
    EVENT_NAMES,
    EXCLUSIONS,
    ITEM_EVENT_NAMES,
    MART_SCHEMAS,
    RAW_EVENT_SCHEMA,
    STEP_EVENT_NAMES,
)

_N_EXAMPLES = 3
_UTC = pl.Datetime("us", "UTC")


@dataclass(frozen=True)
class Failure:
    """A check that did not hold: on which column, for how many values, and some of them."""

    column: str
    check: str
    n: int
    examples: tuple[str, ...]


def check_mart(table: pa.Table, mart: str) -> list[Failure]:
    """What is wrong with one exported mart; empty when nothing is."""
    return _validated(table, MART_SCHEMAS[mart], _MARTS[mart])


def check_raw_events(table: pa.Table) -> list[Failure]:
    """What is wrong with rows of raw events; empty when nothing is."""
    missing = [name for name in RAW_EVENT_SCHEMA.names if name not in table.schema.names]
    if missing:
        return [Failure(name, "column_in_contract", 1, ()) for name in missing]
    return _validated(table.select(RAW_EVENT_SCHEMA.names), RAW_EVENT_SCHEMA, _RAW_EVENTS)


def _validated(table: pa.Table, contract: pa.Schema, schema: DataFrameSchema) -> list[Failure]:
    if not table.schema.equals(contract):
        differing = [
            Failure(field.name, "type_in_contract", 1, (str(_type_of(table, field.name)),))
            for field in contract
            if _type_of(table, field.name) != field.type
        ]
        if differing or table.schema.names != contract.names:
            return differing or [Failure("*", "columns_in_contract", 1, tuple(table.schema.names))]
    frame = pl.from_arrow(table)
    assert isinstance(frame, pl.DataFrame)
    try:
        schema.validate(frame, lazy=True)
    except SchemaErrors as error:
        return _failures(error.failure_cases)
    return []


def _failures(cases: pl.DataFrame) -> list[Failure]:
    grouped = (
        cases.with_columns(pl.col("column").fill_null("*"))
        .group_by("column", "check")
        .agg(pl.len().alias("n"), pl.col("failure_case").head(_N_EXAMPLES).alias("examples"))
        .sort("column", "check")
    )
    return [
        Failure(row["column"], row["check"], row["n"], tuple(str(one) for one in row["examples"]))
        for row in grouped.to_dicts()
    ]


def _type_of(table: pa.Table, column: str) -> pa.DataType | None:
    index = table.schema.get_field_index(column)
    return None if index < 0 else table.schema.field(index).type


def _text(*checks: Check, unique: bool = False) -> Column:
    return Column(pl.String, [Check.str_length(min_value=1), *checks], unique=unique)


def _optional(kind: type[pl.DataType], *checks: Check) -> Column:
    return Column(kind, list(checks), nullable=True)


def _count(at_least: int = 0) -> Column:
    return Column(pl.Int64, Check.ge(at_least))


def _schema(
    columns: dict[str, Column], *checks: Check, key: list[str] | None = None
) -> DataFrameSchema:
    return DataFrameSchema(columns, checks=list(checks), unique=key)


def _rows(name: str, holds: Callable[[], pl.Expr]) -> Check:
    """A check over whole rows, named for the failure report."""

    def check(data: PolarsData) -> pl.LazyFrame:
        frame: pl.LazyFrame = data.lazyframe
        return frame.select(holds())

    return Check(check, name=name, error=name)


def _finite() -> Check:
    return Check(
        lambda data: data.lazyframe.select(pl.col(data.key).is_finite()),
        name="finite",
        error="finite",
    )


_MARTS = {
    "training_steps": _schema(
        {
            "session_id": _text(),
            "step": Column(pl.Int32, Check.ge(0)),
            "item_id": _text(),
            "event_name": _text(Check.isin(STEP_EVENT_NAMES)),
            "occurred_at": Column(_UTC),
            "outcome": _optional(pl.String, Check.isin(STEP_EVENT_NAMES)),
        },
        key=["session_id", "step"],
    ),
    "items": _schema(
        {
            "item_id": _text(unique=True),
            "title": _optional(pl.String),
            "category": _optional(pl.String),
            "price": _optional(pl.Float64, _finite(), Check.ge(0)),
            "n_views": _count(),
            "n_carts": _count(),
            "n_purchases": _count(),
            "first_seen_at": Column(_UTC),
            "last_seen_at": Column(_UTC),
        },
        _rows("seen_in_order", lambda: pl.col("first_seen_at") <= pl.col("last_seen_at")),
    ),
    "popularity": _schema(
        {
            "item_id": _text(unique=True),
            "rank": Column(pl.Int64, Check.ge(1), unique=True),
            "score": Column(pl.Float64, [_finite(), Check.ge(0)]),
            "n_events": _count(at_least=1),
        },
        _rows("ranks_without_gaps", lambda: pl.col("rank") <= pl.len()),
    ),
    "sessions": _schema(
        {
            "session_id": _text(unique=True),
            "visitor_id": _optional(pl.String),
            "user_id": _optional(pl.String),
            "started_at": Column(_UTC),
            "ended_at": Column(_UTC),
            "n_events": _count(at_least=1),
            "n_items": _count(),
            "has_purchase": Column(pl.Boolean),
            "device": _optional(pl.String, Check.isin(DEVICES)),
            "excluded_because": _optional(pl.String, Check.isin(EXCLUSIONS)),
        },
        _rows("ends_after_start", lambda: pl.col("started_at") <= pl.col("ended_at")),
    ),
}

_RAW_EVENTS = _schema(
    {
        "event_id": _text(),
        "event_name": _text(Check.isin(EVENT_NAMES)),
        "occurred_at": Column(_UTC),
        "received_at": Column(_UTC),
        "schema_version": Column(pl.Int16, Check.ge(1)),
    },
    _rows(
        "items_where_required",
        lambda: (
            ~pl.col("event_name").is_in(ITEM_EVENT_NAMES)
            | (pl.col("items").list.len().fill_null(0) > 0)
        ),
    ),
)

"""What the data checks find wrong, and that they find nothing in good data."""

from datetime import UTC, datetime
from io import BytesIO
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from warehouse import layout, snapshot
from warehouse.contracts import MART_SCHEMAS, RAW_EVENT_SCHEMA
from warehouse.quality import Failure, check_mart, check_raw_events
from warehouse.settings import Settings
from warehouse.store import open_store

AT = datetime(2026, 1, 1, tzinfo=UTC)
EARLIER = datetime(2025, 12, 31, tzinfo=UTC)

GOOD: dict[str, dict[str, Any]] = {
    "training_steps": {
        "session_id": "s", "step": 0, "item_id": "a", "event_name": "view_item", "occurred_at": AT,
        "outcome": "purchase",
    },
    "items": {
        "item_id": "a", "title": None, "category": None, "price": None, "n_views": 1, "n_carts": 0,
        "n_purchases": 0, "first_seen_at": AT, "last_seen_at": AT,
    },
    "popularity": {"item_id": "a", "rank": 1, "score": 0.0, "n_events": 1},
    "sessions": {
        "session_id": "s", "visitor_id": None, "user_id": None, "started_at": AT, "ended_at": AT,
        "n_events": 1, "n_items": 0, "has_purchase": False, "device": "mobile",
        "excluded_because": None,
    },
}  # fmt: skip


def found(mart: str, *rows: dict[str, Any]) -> set[tuple[str, str]]:
    """Column and check of every failure of `rows`."""
    table = pa.Table.from_pylist(list(rows), schema=MART_SCHEMAS[mart])
    return {(failure.column, failure.check) for failure in check_mart(table, mart)}


@pytest.mark.parametrize("mart", MART_SCHEMAS)
def test_good_and_empty_marts_pass(mart: str) -> None:
    assert check_mart(MART_SCHEMAS[mart].empty_table(), mart) == []
    assert found(mart, GOOD[mart]) == set()


@pytest.mark.parametrize(
    ("mart", "change", "failure"),
    [
        ("training_steps", {"event_name": "page_view"}, ("event_name", "isin")),
        ("training_steps", {"outcome": "page_view"}, ("outcome", "isin")),
        ("training_steps", {"item_id": None}, ("item_id", "not_nullable")),
        ("training_steps", {"item_id": ""}, ("item_id", "str_length")),
        ("training_steps", {"step": -1}, ("step", "greater_than_or_equal_to(0)")),
        ("items", {"price": -0.01}, ("price", "greater_than_or_equal_to(0)")),
        ("items", {"price": float("inf")}, ("price", "finite")),
        ("items", {"last_seen_at": EARLIER}, ("*", "seen_in_order")),
        ("items", {"n_views": None}, ("n_views", "not_nullable")),
        ("popularity", {"rank": 2}, ("*", "ranks_without_gaps")),
        ("popularity", {"score": float("nan")}, ("score", "finite")),
        ("popularity", {"n_events": 0}, ("n_events", "greater_than_or_equal_to(1)")),
        ("sessions", {"ended_at": EARLIER}, ("*", "ends_after_start")),
        ("sessions", {"started_at": None}, ("started_at", "not_nullable")),
        ("sessions", {"has_purchase": None}, ("has_purchase", "not_nullable")),
        ("sessions", {"excluded_because": "dull"}, ("excluded_because", "isin")),
        ("sessions", {"device": "fridge"}, ("device", "isin")),
    ],
)
def test_a_bad_value_is_named(mart: str, change: dict[str, Any], failure: tuple[str, str]) -> None:
    column, check = failure
    failures = found(mart, {**GOOD[mart], **change})
    assert any(one == column and named.startswith(check) for one, named in failures)


@pytest.mark.parametrize(
    ("mart", "failure"),
    [
        ("training_steps", ("*", "multiple_fields_uniqueness")),
        ("items", ("item_id", "field_uniqueness")),
        ("popularity", ("rank", "field_uniqueness")),
        ("sessions", ("session_id", "field_uniqueness")),
    ],
)
def test_a_repeated_key_is_named(mart: str, failure: tuple[str, str]) -> None:
    assert failure in found(mart, GOOD[mart], GOOD[mart])


def test_failures_are_counted_with_a_few_examples() -> None:
    rows = [{**GOOD["items"], "item_id": f"i{n}", "price": -float(n)} for n in range(1, 9)]
    table = pa.Table.from_pylist(rows, schema=MART_SCHEMAS["items"])
    assert check_mart(table, "items") == [
        Failure("price", "greater_than_or_equal_to(0)", 8, ("-1.0", "-2.0", "-3.0"))
    ]


def test_another_type_is_named_and_values_are_not_looked_at() -> None:
    table = MART_SCHEMAS["popularity"].empty_table()
    table = table.set_column(1, "rank", pa.array([], pa.int32()))
    assert check_mart(table, "popularity") == [Failure("rank", "type_in_contract", 1, ("int32",))]


def test_another_column_is_named() -> None:
    table = MART_SCHEMAS["popularity"].empty_table().append_column("extra", pa.array([], pa.int8()))
    (failure,) = check_mart(table, "popularity")
    assert (failure.column, failure.check) == ("*", "columns_in_contract")
    assert "extra" in failure.examples


def raw(**fields: Any) -> pa.Table:
    """One raw event."""
    event = {
        "event_id": "e", "event_name": "view_item", "occurred_at": AT, "received_at": AT,
        "schema_version": 1, "items": [{"item_id": "a"}], **fields,
    }  # fmt: skip
    return pa.Table.from_pylist([event], schema=RAW_EVENT_SCHEMA)


def test_good_raw_events_pass_also_with_columns_added_later() -> None:
    assert check_raw_events(raw()) == []
    assert check_raw_events(raw().append_column("experiment", pa.array(["b"]))) == []


@pytest.mark.parametrize(
    ("fields", "failure"),
    [
        ({"event_name": "hover"}, ("event_name", "isin")),
        ({"event_id": ""}, ("event_id", "str_length")),
        ({"items": None}, ("*", "items_where_required")),
        ({"items": []}, ("*", "items_where_required")),
    ],
)
def test_a_bad_raw_event_is_named(fields: dict[str, Any], failure: tuple[str, str]) -> None:
    column, check = failure
    (only,) = check_raw_events(raw(**fields))
    assert only.column == column
    assert only.check.startswith(check)


def test_a_missing_raw_column_is_named() -> None:
    table = raw().drop_columns(["received_at"])
    assert check_raw_events(table) == [Failure("received_at", "column_in_contract", 1, ())]


def test_a_snapshot_of_before_reads_with_the_added_columns_empty(settings: Settings) -> None:
    store = open_store(settings)
    table = pa.Table.from_pylist(
        [GOOD["training_steps"]], schema=MART_SCHEMAS["training_steps"]
    ).drop_columns("outcome")
    data = BytesIO()
    pq.write_table(table, data)
    store.put(layout.mart_key("old", "training_steps"), data.getvalue())
    read = snapshot.read_mart(store, "old", "training_steps")
    assert read.schema.equals(MART_SCHEMAS["training_steps"])
    assert read["outcome"].to_pylist() == [None]

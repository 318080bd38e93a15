from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest

from models.context import Context, context_of, first_seen
from models.dataset import Sessions, Steps
from warehouse.contracts import MART_SCHEMAS

OPENED = datetime(2026, 1, 10, 22, 30, tzinfo=UTC)


@pytest.fixture
def table() -> pa.Table:
    """Two sessions out of order: `b` (a, c, a) the day after `a` (a, b)."""
    rows = [
        ("b", 0, "a", 24.0, "view_item"), ("b", 1, "c", 25.0, "add_to_cart"),
        ("b", 2, "a", 26.0, "purchase"), ("a", 0, "a", 0.0, "view_item"),
        ("a", 1, "b", 2.0, "view_item"),
    ]  # fmt: skip
    names = ("session_id", "step", "item_id", "occurred_at", "outcome")
    return pa.Table.from_pylist(
        [
            {**dict(zip(names, row, strict=True)), "event_name": "view_item",
             "occurred_at": OPENED + timedelta(hours=row[3])}
            for row in rows
        ],
        schema=MART_SCHEMAS["training_steps"],
    )  # fmt: skip


def context(table: pa.Table, *, with_table: bool = True, **known) -> Context:
    steps = Steps.from_mart(table)
    catalogue = steps.catalogue()
    sessions = steps.sessions(catalogue)
    return context_of(
        sessions, sessions, steps, first_seen(steps, catalogue),
        table=table if with_table else None, **known,
    )  # fmt: skip


def sessions_mart(**devices: str | None) -> pa.Table:
    """The mart `sessions`, its device by session."""
    rows = [{"session_id": name, "device": device} for name, device in devices.items()]
    return pa.Table.from_pylist(rows, schema=MART_SCHEMAS["sessions"])


def labels(found: Context, name: str) -> list[str]:
    column = found.columns[name]
    return [column.labels[code] for code in column.codes]


def test_each_prediction_is_told_by_its_own_step(table: pa.Table):
    # Predictions: b after a, then c after a, a after c.
    found = context(table)
    assert labels(found, "session length") == ["2", "3", "3"]
    assert labels(found, "steps seen before") == ["1", "1", "2"]
    assert labels(found, "hour of the day (UTC)") == ["00–03", "21–24", "00–03"]
    assert labels(found, "what became of it") == ["looked at", "put into the cart", "bought"]
    assert found.is_bought is not None
    assert found.is_bought.tolist() == [False, False, True]


def test_popularity_counts_items_in_tenths(table: pa.Table):
    # a has three steps of five; three items are the 1st, 4th and 7th tenth.
    assert labels(context(table), "popularity of the item")[2] == "1st tenth"
    assert set(labels(context(table), "popularity of the item")) == {
        "1st tenth", "4th tenth", "7th tenth",
    }  # fmt: skip


def test_an_item_is_new_for_a_week_of_its_first_step(table: pa.Table):
    late = table.set_column(
        4, "occurred_at",
        pa.array([OPENED + timedelta(days=day) for day in (6, 6.9, 7.1, 0, 1)],
                 MART_SCHEMAS["training_steps"].field("occurred_at").type),
    )  # fmt: skip
    ages = labels(context(late), "age of the item")
    assert ages == ["first seen within 7 days", "first seen within 7 days", "known for longer"]


def test_categories_and_prices_where_there_are_some(table: pa.Table):
    found = context(table, categories=["Cups", None, "Pens"], prices=[1.0, None, 9.0])
    catalogue = Steps.from_mart(table).catalogue()
    order = [catalogue.item_ids.index(item) for item in ("b", "c", "a")]
    categories = ["Cups", None, "Pens"]
    assert labels(found, "category") == [categories[one] or "no category" for one in order]
    beside = labels(found, "category beside the current item's")
    pairs = zip(("a", "a", "c"), ("b", "c", "a"), strict=True)
    known = dict(zip(catalogue.item_ids, categories, strict=True))
    assert [one == "not known" for one in beside] == [
        None in (known[current], known[item]) for current, item in pairs
    ]
    assert "no price" in found.columns["price"].labels
    assert set(found.absent) == {"device"}


def test_the_next_items_category_is_held_against_the_current_ones(table: pa.Table):
    # Pairs are (a, b), then (a, c) and (c, a).
    ids = Steps.from_mart(table).catalogue().item_ids
    of_item = {"a": "Cups", "b": "Cups", "c": "Pens"}
    found = context(table, categories=[of_item[one] for one in ids])
    assert labels(found, "category beside the current item's") == ["the same", "another", "another"]


def test_devices_are_those_of_the_targets_sessions(table: pa.Table):
    # Predictions: b of session a, then c and a of session b; z is of neither.
    known = sessions_mart(z="desktop", b="tablet", a="mobile")
    assert labels(context(table, sessions=known), "device") == ["mobile", "tablet", "tablet"]
    partly = sessions_mart(a="mobile", b="unknown")
    assert labels(context(table, sessions=partly), "device") == ["mobile", "unknown", "unknown"]
    assert labels(context(table, sessions=sessions_mart(b="desktop")), "device")[0] == "unknown"


def test_sessions_of_before_say_no_device(table: pa.Table):
    assert "device" in context(table, sessions=sessions_mart(a=None, b=None)).absent


def test_what_the_data_does_not_hold_is_said(table: pa.Table):
    found = context(table, with_table=False, categories=[None] * 3, prices=[2.0, 2.0, None])
    assert set(found.absent) == {"device", "category", "price", "what became of it"}
    assert found.is_bought is None
    nothing = table.set_column(5, "outcome", pa.nulls(len(table), pa.string()))
    assert "what became of it" in context(nothing).absent


def test_many_categories_leave_the_rarer_ones_together():
    sessions = Sessions.from_lists([[0, item] for item in range(1, 16) for _ in range(item)], 16)
    steps = _steps_of(sessions)
    found = context_of(
        sessions, sessions, steps, np.zeros(16, dtype=np.int64),
        categories=["none", *(f"c{item}" for item in range(1, 16))],
    )  # fmt: skip
    met = labels(found, "category")
    assert met.count("other categories") == sum(range(1, 6))
    assert "c15" in met
    assert len(set(met)) == 11


def _steps_of(sessions: Sessions) -> Steps:
    session = np.repeat(np.arange(len(sessions)), sessions.lengths)
    rows = np.arange(sessions.n_steps)
    item = sessions.item_idx.astype(np.int64)
    return Steps(session, item, rows, rows, tuple(str(one) for one in range(sessions.n_items)))

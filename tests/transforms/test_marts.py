"""The dbt project on real objects: a folder in increments, S3 at one go, the same marts."""

import random
from collections import Counter, defaultdict
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from warehouse.contracts import EVENT_NAMES, MART_SCHEMAS, RAW_EVENT_SCHEMA, STEP_EVENT_NAMES
from warehouse.quality import check_mart
from warehouse.settings import Settings
from warehouse.snapshot import describe

GAP = 1800
Event = dict[str, Any]


@pytest.fixture(scope="module")
def events(event: Callable[..., Event]) -> list[Event]:
    """Edge cases by hand and a few hundred events by chance, in order of receipt."""
    edge_cases = [
        # exactly the gap continues a session, a microsecond more does not
        event("gap-1", 0, visitor_id="gap", items=["a"]),
        event("gap-2", GAP, visitor_id="gap", items=["b"]),
        event("gap-3", 2 * GAP + 1e-6, visitor_id="gap", items=["c"]),
        # repeats collapse, also over events that are no steps, and not over another item
        event("rep-1", 0, visitor_id="rep", items=["a"]),
        event("rep-2", 1, visitor_id="rep", items=["a"], event_name="add_to_cart"),
        event("rep-3", 2, visitor_id="rep", items=["b", "c"], event_name="view_item_list"),
        event("rep-4", 3, visitor_id="rep", items=["a"], event_name="purchase"),
        event("rep-6", 4, visitor_id="rep", items=["b"]),
        event("rep-5", 4, visitor_id="rep", items=["a", "b"], event_name="purchase"),
        # the client's own session, over a gap; an unnamed event beside it
        event("own-1", 0, visitor_id="own", session_id="mine", items=["a"]),
        event("own-2", 9 * GAP, visitor_id="own", session_id="mine", items=["b"]),
        event("own-3", 10, visitor_id="own", items=["c"]),
        # nobody's events are sessions of their own; a user without a visitor is somebody
        event("nobody-1", 0, visitor_id=None, items=["a"]),
        event("nobody-2", 1, visitor_id=None, items=["a"]),
        event("user-1", 0, visitor_id=None, user_id="u", items=["a"]),
        event("user-2", 5, visitor_id="", user_id="u", event_name="page_view"),
        # names and prices: the latest that was sent, and none that breaks the contract
        event("item-1", 0, visitor_id="i", items=[item("o'neil ⛵", "Old", "Boats", 9.5)]),
        event("item-2", 60, visitor_id="i", items=[item("o'neil ⛵", "New", None, None)]),
        event("item-3", 61, visitor_id="i", items=[item("o'neil ⛵", "", "", -1.0)]),
        event("item-4", 62, visitor_id="i", items=[item("", "no id", "x", 1.0)]),
    ]
    chance = random.Random(7)
    by_chance = [
        event(
            f"r{number}",
            chance.randrange(0, 20 * GAP) + chance.randrange(10**6) / 1e6,
            visitor_id=chance.choice([None, *(f"v{n}" for n in range(12))]),
            session_id=chance.choice([None, None, None, "s1", "s2"]),
            event_name=chance.choice(EVENT_NAMES),
            items=[f"i{chance.randrange(8)}" for _ in range(chance.randrange(1, 4))],
        )
        for number in range(400)
    ]
    return sorted([*edge_cases, *by_chance], key=lambda one: one["received_at"])


def item(item_id: str, title: str | None, category: str | None, price: float | None) -> Event:
    """An item as sent with an event."""
    return {
        "item_id": item_id, "item_name": title, "item_category": category, "price": price,
    }  # fmt: skip


@pytest.fixture(scope="module")
def shop(open_shop: Callable[..., Any], events: list[Event]) -> Any:
    """Built twice: then most events again, a late object, and an object of a newer schema."""
    shop = open_shop()
    late = [one for one in events if one["event_id"] in ("gap-2", "rep-1", "item-1")]
    newer = [one for one in events if one["event_id"] in ("own-2", "gap-3")]
    first = [one for one in events[:300] if one not in late and one not in newer]
    rest = [one for one in events[300:] if one not in late and one not in newer]
    shop.land(first[:150])
    shop.land(first[150:])
    shop.build("first")
    retried = [{**one, "received_at": one["received_at"] + timedelta(hours=2)} for one in first]
    shop.land(late)
    shop.land(rest + rest[:50])
    shop.land(retried)
    with_experiment = RAW_EVENT_SCHEMA.append(pa.field("experiment", pa.string()))
    shop.land([{**one, "experiment": "b"} for one in newer], schema=with_experiment)
    shop.build("second")
    return shop


def test_staging_holds_each_event_once(shop: Any, events: list[Event]) -> None:
    ids = [event_id for (event_id,) in shop.query("select event_id from stg_shop__events")]
    assert Counter(ids) == Counter(one["event_id"] for one in events)


def test_staging_keeps_the_microseconds_and_the_object(shop: Any) -> None:
    found = shop.query(
        "select epoch_us(occurred_at) % 1000000, raw_object from stg_shop__events "
        "where event_id = 'gap-3'"
    )
    assert found[0][0] == 1
    assert found[0][1].startswith(f"{shop.settings.store_uri}/raw/events/date=2026-01-10/hour=")


def test_an_event_stays_as_it_was_first_loaded(shop: Any, events: list[Event]) -> None:
    found = shop.query("""
        select received_at < occurred_at + interval 1 minute, count(*)
        from stg_shop__events group by all
    """)
    assert found == [(True, len(events))]


def test_sessions_are_those_of_the_definition(shop: Any, events: list[Event]) -> None:
    expected = {frozenset(one["event_id"] for one in session) for session in sessions_of(events)}
    rows = shop.query("select list(event_id) from session_events group by session_id")
    assert {frozenset(ids) for (ids,) in rows} == expected


def test_late_events_rename_no_session_but_their_own(shop: Any) -> None:
    first, second = (
        {one["session_id"] for one in shop.mart(snapshot_id, "sessions").to_pylist()}
        for snapshot_id in ("first", "second")
    )
    renamed = first - second
    # `rep` and `i`, whose first events came late
    assert len(renamed) == 2


def test_training_steps_are_those_of_the_definition(shop: Any, events: list[Event]) -> None:
    expected = Counter(steps_of(session) for session in sessions_of(events))
    del expected[()]  # sessions without a step
    found = defaultdict(list)
    for one in shop.mart("second", "training_steps").to_pylist():
        found[one["session_id"]].append(
            (one["step"], one["item_id"], one["event_name"], one["occurred_at"], one["outcome"])
        )
    assert Counter(tuple(steps) for steps in found.values()) == expected


def test_items_are_as_last_described(shop: Any) -> None:
    by_id = {one["item_id"]: one for one in shop.mart("second", "items").to_pylist()}
    boat = by_id["o'neil ⛵"]
    assert (boat["title"], boat["category"], boat["price"]) == ("New", "Boats", 9.5)
    assert (boat["n_views"], boat["n_carts"], boat["n_purchases"]) == (3, 0, 0)
    assert boat["first_seen_at"] == datetime(2026, 1, 10, 10, 0, tzinfo=UTC)
    assert boat["last_seen_at"] == datetime(2026, 1, 10, 10, 1, 1, tzinfo=UTC)
    assert "" not in by_id


def test_popularity_decays_by_half_a_week(shop: Any, events: list[Event]) -> None:
    steps = [
        (one["occurred_at"], thing["item_id"])
        for one in events
        if one["event_name"] in STEP_EVENT_NAMES
        for thing in one["items"]
        if thing["item_id"]
    ]
    last = max(at for at, _ in steps)
    scores: dict[str, float] = defaultdict(float)
    for at, item_id in steps:
        scores[item_id] += 0.5 ** ((last - at) / timedelta(days=7))
    rows = shop.mart("second", "popularity").to_pylist()
    assert [one["rank"] for one in rows] == list(range(1, len(scores) + 1))
    assert {one["item_id"]: one["score"] for one in rows} == pytest.approx(scores, rel=1e-9)
    ordered = [one["score"] for one in rows]
    assert ordered == sorted(ordered, reverse=True)


def test_exports_keep_their_contract(shop: Any) -> None:
    described = describe(shop.store, "second")
    assert set(described.marts) == set(MART_SCHEMAS)
    for mart in MART_SCHEMAS:
        table = shop.mart("second", mart)
        assert table.num_rows > 0
        assert table.schema.equals(MART_SCHEMAS[mart])
        assert check_mart(table, mart) == []


def test_the_same_events_give_the_same_marts_on_s3(
    shop: Any, open_shop: Callable[..., Any], events: list[Event], s3_settings: Settings
) -> None:
    elsewhere = open_shop(s3_settings)
    elsewhere.land(events[200:])
    elsewhere.land(events[:200])
    elsewhere.build("whole")
    for mart in MART_SCHEMAS:
        assert elsewhere.mart("whole", mart).equals(shop.mart("second", mart)), mart


def test_a_store_without_events_builds_empty_marts(open_shop: Callable[..., Any]) -> None:
    empty = open_shop()
    empty.build("none")
    for mart in MART_SCHEMAS:
        assert empty.mart("none", mart).schema.equals(MART_SCHEMAS[mart])
        assert empty.mart("none", mart).num_rows == 0


def sessions_of(events: list[Event]) -> list[list[Event]]:
    """Sessions as DESIGN defines them, each in order: ours to compare the SQL against."""
    groups: dict[tuple[str, str], list[Event]] = defaultdict(list)
    for one in events:
        actor = (
            ("client", one["session_id"]) if one.get("session_id")
            else ("visitor", one["visitor_id"]) if one["visitor_id"]
            else ("user", one["user_id"]) if one.get("user_id")
            else ("event", one["event_id"])
        )  # fmt: skip
        groups[actor].append(one)
    sessions = []
    for (kind, _), members in groups.items():
        members.sort(key=lambda one: (one["occurred_at"], one["event_id"]))
        sessions.append([members[0]])
        for before, one in pairwise(members):
            gap = one["occurred_at"] - before["occurred_at"]
            if kind != "client" and gap > timedelta(seconds=GAP):
                sessions.append([])
            sessions[-1].append(one)
    return sessions


def steps_of(session: list[Event]) -> tuple[tuple[int, str, str, datetime, str], ...]:
    """Steps of one session: step events, item by item, adjacent repeats once."""
    happened = [
        (thing["item_id"], one["event_name"], one["occurred_at"])
        for one in session
        for thing in (one["items"] if one["event_name"] in STEP_EVENT_NAMES else [])
        if thing["item_id"]
    ]
    steps: list[tuple[int, str, str, datetime, str]] = []
    for at, (item_id, event_name, occurred_at) in enumerate(happened):
        if not (steps and steps[-1][1] == item_id):
            later = [name for other, name, _ in happened[at:] if other == item_id]
            outcome = max(later, key=STEP_EVENT_NAMES.index)  # view, cart, purchase
            steps.append((len(steps), item_id, event_name, occurred_at, outcome))
    return tuple(steps)


def test_an_object_that_lands_after_staging_was_built_fails_nothing_a_lost_event_does(
    open_shop: Callable[..., Any], event: Callable[..., Event]
) -> None:
    shop = open_shop()
    shop.land([event(f"early-{n}", n, visitor_id="v", items=["a"]) for n in range(3)])
    shop.build()
    shop.land([event("landed-meanwhile", 9, visitor_id="v", items=["b"])])
    check = ("", "--select", "staging_holds_every_raw_event_once")
    shop.build(*check)
    with duckdb.connect(str(shop.settings.warehouse_path)) as connection:
        (table,) = connection.execute(
            "select table_schema || '.' || table_name from information_schema.tables "
            "where table_name = 'stg_shop__events'"
        ).fetchall()[0]
        connection.execute(f"delete from {table} where event_id = 'early-1'")
    with pytest.raises(AssertionError, match="staging_holds_every_raw_event_once"):
        shop.build(*check)

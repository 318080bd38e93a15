"""Compacted raw objects neither lose nor double rows, and cost no build a second reading."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

from warehouse.compaction import compact

Make = Callable[..., dict[str, Any]]
_STAGED = "select event_id, raw_object from stg_shop__events order by event_id"


def test_builds_after_a_compaction_have_each_event_once(
    open_shop: Callable[..., Any], event: Make
) -> None:
    shop = open_shop()
    ids = iter(f"e{n:02}" for n in range(20))

    def land(n_events: int) -> None:
        shop.land([event(next(ids), n, items=["a"]) for n in range(n_events)])

    def build(*arguments: str) -> list[tuple[str, str]]:
        shop.build("", "--select", "stg_shop__events", *arguments)
        rows: list[tuple[str, str]] = shop.query(_STAGED)
        return rows

    later = event("x")["received_at"] + timedelta(hours=3)
    land(3)
    land(2)
    loaded = build()
    assert compact(shop.store, later).n_written == 1  # all of it loaded: nothing is new
    assert build() == loaded
    land(4)
    compact(shop.store, later)  # 1..9, of which 6..9 are new
    rows = build()
    assert [event_id for event_id, _ in rows] == [f"e{n:02}" for n in range(9)]
    assert rows[:5] == loaded
    land(1)
    land(2)
    compact(shop.store, later)  # 1..12: 1..5 by their names, 1..9 by the object above
    rows = build()
    assert [event_id for event_id, _ in rows] == [f"e{n:02}" for n in range(12)]
    full = build("--full-refresh")
    assert [event_id for event_id, _ in full] == [f"e{n:02}" for n in range(12)]
    assert len({raw_object for _, raw_object in full}) == 1

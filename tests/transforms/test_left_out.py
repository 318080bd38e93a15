"""Bots and outliers, by hand and by their real user agents, through real dbt builds."""

from collections.abc import Callable, Iterable
from itertools import count
from typing import Any

import dagster as dg
import pytest

from assets.marts import most_are_kept
from cli.marts import left_out_lines
from ingest.agents import family
from warehouse import layout
from warehouse.quality import check_mart
from warehouse.settings import Settings, TrainingSettings
from warehouse.snapshot import LeftOut, describe

Event = dict[str, Any]
Make = Callable[..., Event]

_WEBKIT = "AppleWebKit/537.36 (KHTML, like Gecko)"
_CHROME = f"Mozilla/5.0 (X11; Linux x86_64) {_WEBKIT} Chrome/128.0.0.0 Safari/537.36"
BOTS = (
    "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)",
    f"Mozilla/5.0 {_WEBKIT}; compatible; bingbot/2.0) Chrome/116.0.1938.76 Safari/537.36",
    f"Mozilla/5.0 (X11; Linux x86_64) {_WEBKIT} HeadlessChrome/128.0.0.0 Safari/537.36",
    f"{_CHROME} Chrome-Lighthouse",
    "facebookexternalhit/1.1 (+http://www.facebook.com/externalhit_uatext.php)",
    "Mozilla/5.0 (compatible; Baiduspider/2.0; +http://www.baidu.com/search/spider.html)",
    f"Mozilla/5.0 (Windows NT 6.1; WOW64) {_WEBKIT} Chrome/41.0 Safari/537.36 BingPreview/1.0b",
    "Mozilla/5.0 (compatible; UptimeRobot/2.0; http://www.uptimerobot.com/)",
    "GoogleStackdriverMonitoring-UptimeChecks(https://cloud.google.com/monitoring)",
    "Scrapy/2.11.2 (+https://scrapy.org)",
    "Pingdom.com_bot_version_1.4_(http://www.pingdom.com/)",
)
HONEST = (
    _CHROME,
    "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like "
    "Gecko) Version/17.5 Mobile/15E148 Safari/604.1",
    f"Mozilla/5.0 (Linux; Android 9; CUBOT_X19) {_WEBKIT} Chrome/128.0.0.0 Mobile Safari/537.36",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like "
    "Gecko) Mobile/15E148 [FBAN/FBIOS;FBAV/468.0.0.0]",
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:129.0) Gecko/20100101 Firefox/129.0",
    # a shop's own server, its apps, and our own clients
    *("python-requests/2.32.3", "python-httpx/0.28.1", "analytics-node/2.1.3", "okhttp/4.12.0"),
    *("Segment.io/1.0", "Go-http-client/2.0", "axios/1.7.4", "Java/17.0.12", "curl/8.5.0"),
)


def with_families(agents: Iterable[str]) -> list[str]:
    """User agents as they are, and as `SHALLOP_INGEST__USER_AGENT=family` keeps them."""
    return [form for agent in agents for form in (agent, family(agent))]


def steps(make: Make, session_id: str, n: int, every: float = 1.0, **fields: Any) -> list[Event]:
    """A session of `n` views, one `every` so many seconds."""
    return [
        make(
            f"{session_id}-{at}", at * every, session_id=session_id, items=[f"i{at % 7}"], **fields
        )
        for at in range(n)
    ]


@pytest.fixture(scope="module")
def sessions(event: Make) -> dict[str, list[Event]]:
    """Sessions by their name: `bot-…` and `fast`, `long` are left out by default."""
    lists = [
        event(f"scroll-{n}", n / 10, session_id="scrolling", event_name="view_item_list",
              items=["i1", "i2"]) for n in range(200)
    ]  # fmt: skip
    order = event("order", 3, session_id="bulk", event_name="purchase",
                  items=[f"i{n}" for n in range(1200)])  # fmt: skip
    lines = [
        event(f"line-{n}", 0, session_id="invoice", event_name="purchase", items=[f"i{n % 7}"])
        for n in range(300)
    ]
    agents = {f"bot-{n}": agent for n, agent in enumerate(with_families(BOTS))}
    agents |= {f"honest-{n}": agent for n, agent in enumerate(with_families(HONEST))}
    return {
        **{name: steps(event, name, 3, user_agent=agent) for name, agent in agents.items()},
        "nameless": steps(event, "nameless", 3),
        "mixed": [*steps(event, "mixed", 2, user_agent=BOTS[0]),
                  event("mixed-human", 9, session_id="mixed", items=["i5"], user_agent=_CHROME)],
        "bot-partly-named": [*steps(event, "bot-partly-named", 2, user_agent=BOTS[0]),
                             event("unnamed", 9, session_id="bot-partly-named", items=["i5"])],
        "patient": steps(event, "patient", 1000, every=1.0),  # at both limits, above neither
        "long": steps(event, "long", 1001, every=1.0),
        "quick": steps(event, "quick", 60, every=0.01),
        "fast": [*steps(event, "fast", 61, every=0.99),
                 event("fast-later", 900, session_id="fast", items=["i5"])],
        "scrolling": [*lists, *steps(event, "scrolling", 2)],
        "bulk": [*steps(event, "bulk", 2), order],
        "invoice": lines,
    }  # fmt: skip


@pytest.fixture(scope="module")
def shop(open_shop: Callable[..., Any], sessions: dict[str, list[Event]]) -> Any:
    """One build by default settings, then one that leaves nothing out, of the same warehouse."""
    shop = open_shop()
    events = [one for session in sessions.values() for one in session]
    shop.land(events[:100])
    shop.land(events[100:])
    shop.build("strict")
    nothing = TrainingSettings(bot_filter=False, max_session_events=0, max_events_per_minute=0)
    shop.settings = shop.settings.model_copy(update={"training": nothing})
    shop.build("lenient")
    return shop


def reason(name: str) -> str | None:
    """Why a session of the fixture should be left out."""
    if name.startswith("bot-"):
        return "bot_agent"
    return {"long": "too_many_events", "fast": "too_fast"}.get(name)


def test_sessions_are_kept_and_marked(shop: Any, sessions: dict[str, list[Event]]) -> None:
    mart = shop.mart("strict", "sessions")
    assert check_mart(mart, "sessions") == []
    found = {one["session_id"]: one["excluded_because"] for one in mart.to_pylist()}
    assert found == {name: reason(name) for name in sessions}


def test_what_is_left_out_teaches_nothing(shop: Any, sessions: dict[str, list[Event]]) -> None:
    kept = {name for name in sessions if reason(name) is None}
    strict = shop.mart("strict", "training_steps")
    assert {one["session_id"] for one in strict.to_pylist()} == kept
    lenient = shop.mart("lenient", "training_steps").to_pylist()
    assert {one["session_id"] for one in lenient} == {*sessions}
    # what is kept is as it would be without the others
    assert strict.to_pylist() == [one for one in lenient if one["session_id"] in kept]
    learned = [
        one for name in kept for one in sessions[name] if one["event_name"] != "view_item_list"
    ]
    n_events = sum(one["n_events"] for one in shop.mart("strict", "popularity").to_pylist())
    assert n_events == sum(len(one["items"]) for one in learned)


def test_items_are_described_by_all_and_counted_by_those_learned_from(
    shop: Any, sessions: dict[str, list[Event]]
) -> None:
    def counted(names: Iterable[str]) -> dict[str, tuple[int, int]]:
        found = {item: [0, 0] for session in sessions.values() for one in session
                 for item in ids(one)}  # fmt: skip
        for name in names:
            for one in sessions[name]:
                place = {"view_item": 0, "purchase": 1}.get(one["event_name"])
                for item in ids(one) if place is not None else ():
                    found[item][place] += 1
        return {item: (views, bought) for item, (views, bought) in found.items()}

    def ids(one: Event) -> list[str]:
        return [item["item_id"] for item in one["items"]]

    for snapshot_id, names in (
        ("strict", [name for name in sessions if reason(name) is None]), ("lenient", [*sessions])
    ):  # fmt: skip
        mart = shop.mart(snapshot_id, "items")
        assert check_mart(mart, "items") == []
        rows = mart.to_pylist()
        found = {one["item_id"]: (one["n_views"], one["n_purchases"]) for one in rows}
        assert found == counted(names)
    assert counted(name for name in sessions if reason(name) is None) != counted(sessions)


def test_events_of_marked_sessions_are_marked_once_limits_are_lifted_no_more(
    shop: Any, sessions: dict[str, list[Event]]
) -> None:
    assert shop.query("select count(*), count(excluded_because) from session_events") == [
        (sum(map(len, sessions.values())), 0)
    ]
    assert set(shop.mart("lenient", "sessions")["excluded_because"].to_pylist()) == {None}


def test_the_snapshot_tells_what_was_left_out_and_what_was_read(
    shop: Any, sessions: dict[str, list[Event]]
) -> None:
    strict, lenient = (describe(shop.store, one) for one in ("strict", "lenient"))
    bots = [name for name in sessions if reason(name) == "bot_agent"]
    assert strict.left_out == {
        "bot_agent": LeftOut(len(bots), sum(len(sessions[name]) for name in bots)),
        "too_many_events": LeftOut(1, 1001),
        "too_fast": LeftOut(1, 62),
    }
    assert lenient.n_left_out == 0
    raw = strict.raw_objects
    assert raw is not None
    assert raw == lenient.raw_objects
    assert raw.n_events == sum(map(len, sessions.values()))
    # two objects of one hour and adjoining ranges, named as compaction would
    hour = min(one["received_at"] for session in sessions.values() for one in session)
    assert raw.names == [layout.raw_key(layout.RAW_EVENTS, hour, "c0", 1, raw.n_events)]


def test_a_shop_of_server_events_is_learned_from_and_one_of_bots_is_warned(
    open_shop: Callable[..., Any], event: Make, settings: Settings
) -> None:
    shop, ids = open_shop(), count()
    for agent in ("python-requests/2.32.3", f"Mozilla/5.0 {_WEBKIT} HeadlessChrome/128.0.0.0"):
        name = f"s{next(ids)}"
        shop.land(steps(event, name, 4, user_agent=agent))
        shop.build(name)
    servers, both = (describe(shop.store, one) for one in ("s0", "s1"))
    assert (servers.n_left_out, servers.marts["training_steps"].n_rows) == (0, 4)
    assert most_are_kept(servers).passed
    assert most_are_kept(both).passed  # a half
    shop.land(steps(event, "s3", 4, user_agent="HeadlessChrome 128 / Linux"))
    shop.build("s3")
    described = describe(shop.store, "s3")
    verdict = most_are_kept(described)
    assert (verdict.passed, verdict.severity) == (False, dg.AssetCheckSeverity.WARN)
    *counts, warning = left_out_lines({"bot_agent": {"n_sessions": 2, "n_events": 8}}, 3)
    assert counts == ["left out (bot agent): 2 of 3 sessions, with 8 events"]
    assert "SHALLOP_TRAINING__BOT_FILTER" in warning
    assert list(left_out_lines({"bot_agent": {"n_sessions": 0, "n_events": 0}}, 3)) == []

"""Devices by real user agents, as sent and as families, through a real dbt build."""

from collections.abc import Callable
from typing import Any

from ingest.agents import family
from warehouse.quality import check_mart

_WEBKIT = "AppleWebKit/537.36 (KHTML, like Gecko)"
_CHROME, _MOBILE = "Chrome/128.0.0.0 Safari/537.36", "Chrome/128.0.0.0 Mobile Safari/537.36"
_IOS = "AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.5 Mobile/15E148 Safari/604.1"
AGENTS = {
    "desktop": (
        f"Mozilla/5.0 (Windows NT 10.0; Win64; x64) {_WEBKIT} {_CHROME}",
        "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:129.0) Gecko/20100101 Firefox/129.0",
        f"Mozilla/5.0 (Windows NT 10.0; Win64; x64) {_WEBKIT} {_CHROME} Edg/128.0.0.0",
        "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) "
        "Version/17.5 Safari/605.1.15",
        f"Mozilla/5.0 (X11; Linux x86_64) {_WEBKIT} {_CHROME}",
        f"Mozilla/5.0 (X11; CrOS x86_64 14541.0.0) {_WEBKIT} {_CHROME}",
    ),
    "mobile": (
        f"Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) {_IOS}",
        f"Mozilla/5.0 (Linux; Android 14; Pixel 8) {_WEBKIT} {_MOBILE}",
        f"Mozilla/5.0 (Linux; Android 9; CUBOT_X19) {_WEBKIT} {_MOBILE}",
        "Mozilla/5.0 (Android 14; Mobile; rv:129.0) Gecko/129.0 Firefox/129.0",
        "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like "
        "Gecko) Mobile/15E148 [FBAN/FBIOS;FBAV/468.0.0.0]",
    ),
    "tablet": (
        f"Mozilla/5.0 (iPad; CPU OS 12_5 like Mac OS X) {_IOS}",
        f"Mozilla/5.0 (Linux; Android 13; SM-X200) {_WEBKIT} {_CHROME}",
        f"Mozilla/5.0 (Linux; Android 11; KFTRWI) {_WEBKIT} Silk/118.3.1 like {_CHROME}",
    ),
    "unknown": (
        None, "", "python-requests/2.32.3", "okhttp/4.12.0", "analytics-node/2.1.3",
        f"Mozilla/5.0 (Linux; Android 12; BRAVIA 4K) {_WEBKIT} {_CHROME}",
        "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)",
        f"Mozilla/5.0 (X11; Linux x86_64) {_WEBKIT} HeadlessChrome/128.0.0.0 Safari/537.36",
    ),
}  # fmt: skip
# Families keep the system and nothing of the device.
TABLETS_BY_FAMILY = ["Chrome 128 / Android", "Safari 17 / iOS"]


def test_sessions_have_the_device_that_their_user_agents_name(
    open_shop: Callable[..., Any], event: Callable[..., dict[str, Any]]
) -> None:
    shop, expected, events = open_shop(), {}, []
    for device, agents in AGENTS.items():
        for number, agent in enumerate(agents):
            forms = {f"{device}-{number}": agent}
            # A family keeps the system; that of Cubot's phones is their name alone.
            if device in ("desktop", "mobile") and "CUBOT" not in agent:
                forms[f"{device}-{number}-family"] = family(agent)
            for name, form in forms.items():
                expected[name] = device
                events.append(event(name, 0, session_id=name, items=["i1"], user_agent=form))
    assert sorted({family(agent) for agent in AGENTS["tablet"] if agent}) == TABLETS_BY_FAMILY
    for number, form in enumerate(TABLETS_BY_FAMILY):
        expected[f"family-{number}"] = "mobile"
        events.append(
            event(f"family-{number}", 0, session_id=f"family-{number}", items=["i1"],
                  user_agent=form)
        )  # fmt: skip
    # The shop's server, which is no device, beside a shopper's browsers: the first of these counts.
    for at, agent in enumerate(("okhttp/4.12.0", AGENTS["tablet"][0], AGENTS["desktop"][0])):
        events.append(
            event(f"mixed-{at}", at, session_id="mixed", items=[f"i{at}"], user_agent=agent)
        )
    shop.land(events)
    shop.build("one")
    mart = shop.mart("one", "sessions")
    assert check_mart(mart, "sessions") == []
    found = {one["session_id"]: one["device"] for one in mart.to_pylist()}
    assert found == expected | {"mixed": "tablet"}

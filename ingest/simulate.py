"""Shoppers of the invented shop (`ingest.shop`) as events: a past to learn from, or live.

Every event carries `"extra": {"simulated": true}`, so that it can be told from a real one for ever.
"""

import asyncio
import logging
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from random import Random
from time import monotonic
from typing import Any
from uuid import UUID

import httpx

from ingest.sender import Accounting, Sender, encode, new_client, send
from ingest.shop import CURRENCY, CatalogueItem, Shop, catalogue

__all__ = ["catalogue", "live", "simulate", "simulate_sessions"]

logger = logging.getLogger(__name__)

RECOMMENDATIONS = "recommendations"  # `item_list_id` of clicks on what was recommended

_RETURNING_SHARE = 0.3
_CHECKOUT_SHARE = 0.45
_CLICK_SHARE = 0.35
_PURCHASE_SHARE = 0.5
_LIVE_SHOPPERS = 12


def simulate_sessions(
    n_sessions: int, seed: int, start: datetime, end: datetime
) -> Iterator[list[dict[str, Any]]]:
    """Sessions between `start` and `end`, each the events of one in order of time.

    The same arguments give the same events, ids included.
    """
    random = Random(f"{seed} {start.isoformat()} {end.isoformat()}")
    shop = Shop()
    for _ in range(n_sessions):
        yield _past_session(shop, random, n_sessions, start, end)


def simulate(
    url: str,
    *,
    n_sessions: int,
    seed: int,
    start: datetime,
    end: datetime,
    key: str = "",
    progress: Callable[[int], None] | None = None,
) -> Accounting:
    """Send invented sessions to the collector; `progress` counts sessions.

    Raises CollectorUnreachable.
    """

    def events() -> Iterator[bytes]:
        for session in simulate_sessions(n_sessions, seed, start, end):
            yield from map(encode, session)
            if progress:
                progress(1)

    return send(events(), url, key=key)


def live(
    url: str,
    *,
    events_per_second: float = 5.0,
    seconds: float | None = None,
    seed: int = 1,
    key: str = "",
) -> Accounting:
    """Let shoppers arrive now, look around, and follow some recommendations.

    Ends after `seconds`, or never. Raises CollectorUnreachable.
    """
    return asyncio.run(_live(url, events_per_second, seconds, seed, key))


class LiveShopper:
    """One shopper in the shop right now; each act is the next event of their session."""

    def __init__(self, shop: Shop, random: Random) -> None:
        self.session = _Session(random)
        self.n_left = 2 + int(random.expovariate(1 / 5))
        self._shop = shop
        self._random = random
        self._favourite = shop.favourite(random)
        self._cart: list[CatalogueItem] = []
        self._next = shop.popular(self._favourite, random)
        self._recommendation_id: str | None = None
        self._is_clicking = False

    def act(self) -> dict[str, Any]:
        """The shopper's next event, as of now."""
        now = datetime.now(UTC)
        self.n_left -= 1
        item, self.n_left = self._next, max(self.n_left, 0)
        if self._is_clicking:
            self._is_clicking = False
            self.n_left += 1  # the view of what was clicked is still to come
            return self.session.event(
                "select_item", now, [item],
                item_list_id=RECOMMENDATIONS, recommendation_id=self._recommendation_id,
            )  # fmt: skip
        if self.n_left == 0 and self._cart and self._random.random() < _PURCHASE_SHARE:
            return self.session.event("purchase", now, self._cart)
        if self._cart[-1:] != [item] and self._random.random() < 0.12:
            self._cart.append(item)
            return self.session.event("add_to_cart", now, [item])
        self._next = self._shop.following(item, self._favourite, self._random)
        recommendation_id, self._recommendation_id = self._recommendation_id, None
        return self.session.event("view_item", now, [item], recommendation_id=recommendation_id)

    def see(self, recommendation_id: str, item_ids: list[str]) -> None:
        """Look at recommendations, and sometimes decide to click one, the upper ones more often."""
        known = {item.item_id: item for item in self._shop.items}
        shown = [known[item_id] for item_id in item_ids if item_id in known]
        if shown and self._random.random() < _CLICK_SHARE:
            place = min(int(self._random.expovariate(1 / 2)), len(shown) - 1)
            self._next = shown[place]
            self._recommendation_id = recommendation_id
            self._is_clicking = True


class _Session:
    """Makes the events of one session."""

    def __init__(self, random: Random, visitor_id: str | None = None) -> None:
        self._random = random
        self.session_id = f"sim-{_new_id(random)}"
        self.visitor_id = visitor_id or f"simv-{_new_id(random)}"

    def event(
        self, name: str, at: datetime, items: list[CatalogueItem], **more: Any
    ) -> dict[str, Any]:
        priced = {"currency": CURRENCY, "value": round(sum(item.price for item in items), 2)}
        return {
            "event_id": _new_id(self._random),
            "event_name": name,
            "occurred_at": at.isoformat(),
            "session_id": self.session_id,
            "visitor_id": self.visitor_id,
            "items": [_event_item(item) for item in items],
            **(priced if name in ("add_to_cart", "begin_checkout", "purchase") else {}),
            **more,
            "extra": {"simulated": True},
        }


def _past_session(
    shop: Shop, random: Random, n_sessions: int, start: datetime, end: datetime
) -> list[dict[str, Any]]:
    visitor = random.randrange(max(n_sessions // 10, 1))
    is_returning = random.random() < _RETURNING_SHARE
    favourite = shop.favourite(Random(visitor) if is_returning else random)
    steps = list(shop.journey(favourite, random))
    seconds = sum(step.pause_seconds for step in steps) + 120
    span = max((end - start).total_seconds() - seconds, 0)
    at = start + timedelta(seconds=span * random.random())
    session = _Session(random, f"simv-{visitor:06d}" if is_returning else None)
    events = []
    cart: list[CatalogueItem] = []
    for step in steps:
        at += timedelta(seconds=step.pause_seconds)
        events.append(session.event("view_item", at, [step.item]))
        if step.is_added and step.item not in cart:
            cart.append(step.item)
            events.append(session.event("add_to_cart", at + timedelta(seconds=4), [step.item]))
            if random.random() < 0.1:
                cart.remove(step.item)
                events.append(
                    session.event("remove_from_cart", at + timedelta(seconds=5), [step.item])
                )
    if cart and random.random() < _CHECKOUT_SHARE:
        events.append(session.event("begin_checkout", at + timedelta(seconds=30), cart))
        events.append(session.event("purchase", at + timedelta(seconds=90), cart))
    return sorted(events, key=lambda event: str(event["occurred_at"]))


async def _live(
    url: str, events_per_second: float, seconds: float | None, seed: int, key: str
) -> Accounting:
    random = Random(f"{seed} {datetime.now(UTC).isoformat()}")
    shop = Shop()
    shoppers: list[LiveShopper] = []
    started_at = monotonic()
    async with new_client(key=key) as client:
        sender = Sender(client, url)
        n_events, problem = 0, None
        while seconds is None or monotonic() - started_at < seconds:
            if len(shoppers) < _LIVE_SHOPPERS:
                shoppers.append(LiveShopper(shop, random))
            shopper = random.choice(shoppers)
            await sender.send([encode(shopper.act())])
            if shopper.n_left:
                last_problem, problem = problem, await _recommend(client, url, shopper)
                if problem and problem != last_problem:
                    logger.warning("recommend=failed problem=%s", problem)
            else:
                shoppers.remove(shopper)
            n_events += 1
            await asyncio.sleep(max(0.0, started_at + n_events / events_per_second - monotonic()))
    sender.accounting.seconds = monotonic() - started_at
    return sender.accounting


async def _recommend(client: httpx.AsyncClient, url: str, shopper: LiveShopper) -> str | None:
    """Show a shopper recommendations, or tell why there are none: without, a shop is still one."""
    try:
        reply = await client.get(
            f"{url.rstrip('/')}/recommend", params={"session": shopper.session.session_id, "k": 6}
        )
    except httpx.TransportError as error:
        return repr(error)
    if reply.status_code != 200:
        return f"{reply.status_code} {reply.text[:300]}"
    answer = reply.json()
    shopper.see(answer["recommendation_id"], [item["item_id"] for item in answer["items"]])
    return None


def _event_item(item: CatalogueItem) -> dict[str, Any]:
    return {
        "item_id": item.item_id,
        "item_name": item.title,
        "item_category": item.category,
        "price": item.price,
        "quantity": 1,
    }


def _new_id(random: Random) -> str:
    return str(UUID(int=random.getrandbits(128), version=4))

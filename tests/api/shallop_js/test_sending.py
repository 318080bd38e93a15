"""Events on their way: together, again, after the page, and none lost."""

import time
from collections import Counter

import pytest
from playwright.sync_api import BrowserContext, Route

from tests.api.shallop_js.visit import (
    NEVER,
    Open,
    Shop,
)


class TestSending:
    def test_events_of_a_moment_share_a_request(self, shop: Shop, visit: Open) -> None:
        open_page = visit(shop.site.add("/batch"))
        ids = open_page.track(*["view_item"] * 5)
        events = shop.arrived(ids)
        assert [[event["event_id"] for event in batch] for batch in open_page.posted()] == [ids]
        events.sort(key=lambda row: row["occurred_at"])
        assert [row["event_id"] for row in events] == ids
        assert open_page.asked[0].headers["content-type"].startswith("text/plain")

    def test_many_go_in_pieces_that_may_outlive_a_page(self, shop: Shop, visit: Open) -> None:
        open_page = visit(shop.site.add("/many"))
        ids = open_page.track(*["view_item"] * 150)
        assert len(shop.arrived(ids)) == 150
        assert len(open_page.posted()) > 1
        assert max(len(asked.post_data or "") for asked in open_page.asked) <= 20_009

    @pytest.mark.parametrize("how", ["another page", "closed"])
    def test_leaving_sends(self, shop: Shop, visit: Open, how: str) -> None:
        open_page = visit(shop.site.add("/leave", delay=NEVER))
        ids = open_page.track("view_item", "add_to_cart")
        assert open_page.asked == []
        if how == "closed":
            open_page.page.close()
        else:
            open_page.page.goto("about:blank")
        assert len(shop.arrived(ids)) == 2

    def test_what_leaving_sent_is_known_by_its_id(self, shop: Shop, visit: Open) -> None:
        url = shop.site.add("/known", delay=NEVER)
        open_page = visit(url)
        ids = open_page.track("view_item")
        open_page.page.goto(f"{shop.site.origin}/elsewhere")
        open_page.page.goto(url)
        open_page.flush()
        shop.arrived(ids)
        assert {event["event_id"] for batch in open_page.posted() for event in batch} == set(ids)
        assert open_page.waiting() == 0

    def test_offline_waits_and_loses_nothing(
        self, shop: Shop, visit: Open, context: BrowserContext
    ) -> None:
        url = shop.site.add("/offline")
        open_page = visit(url)
        context.set_offline(True)
        ids = open_page.track("view_item", "add_to_cart")
        open_page.flush()
        assert open_page.waiting() == 2
        ids += open_page.track("purchase")
        context.set_offline(False)  # the browser says so to the page
        assert len(shop.arrived(ids)) == 3
        tried = Counter(event["event_id"] for batch in open_page.posted() for event in batch)
        assert set(tried) == set(ids)
        assert tried[ids[0]] >= 2

    def test_closed_while_offline_the_next_visit_sends(
        self, shop: Shop, visit: Open, context: BrowserContext
    ) -> None:
        url = shop.site.add("/next")
        open_page = visit(url)
        context.set_offline(True)
        ids = open_page.track("view_item", "add_to_cart")
        open_page.page.close()
        context.set_offline(False)
        again = visit(url)
        (session,) = {event["session_id"] for event in shop.arrived(ids)}
        assert session != again.page.evaluate("shallop.session()")
        again.flush()
        assert again.waiting() == 0

    def test_two_tabs_share_a_queue_and_lose_nothing(
        self, shop: Shop, visit: Open, context: BrowserContext
    ) -> None:
        url = shop.site.add("/tabs")
        tabs = [visit(url), visit(url)]
        context.set_offline(True)
        ids = [event_id for _ in range(10) for tab in tabs for event_id in tab.track("view_item")]
        n_waiting = "Object.keys(localStorage).filter(key => key.startsWith('shallop.q.')).length"
        for tab in tabs:
            tab.until(
                f"{n_waiting} === 20"
            )  # processes of a browser hear of each other's writes late
        for tab in tabs:
            tab.flush()
            tab.asked.clear()
        context.set_offline(False)
        ids += [event_id for tab in tabs for event_id in tab.track("add_to_cart")]
        rows = shop.arrived(ids)
        assert len({row["session_id"] for row in rows}) == 2
        for tab in tabs:
            tab.until(f"{n_waiting} === 0")
        sent = Counter(
            event["event_id"] for tab in tabs for batch in tab.posted() for event in batch
        )
        assert set(sent) == set(ids)
        assert max(sent.values()) <= 2  # a tab that heard late sends once more, under the same id

    def test_retry_after_is_kept_and_the_ids_too(
        self, shop: Shop, visit: Open, context: BrowserContext
    ) -> None:
        url = shop.site.add("/busy")
        refused_at: list[float] = []

        def busy(route: Route) -> None:
            refused_at.append(time.monotonic())
            headers = {"Retry-After": "2", "Access-Control-Allow-Origin": "*",
                       "Access-Control-Expose-Headers": "Retry-After"}  # fmt: skip
            route.fulfill(status=503, headers=headers, json={"error": {"code": "outbox_full"}})

        open_page = visit(url)
        context.route("**/events", busy)
        ids = open_page.track("view_item")
        open_page.flush()
        context.unroute("**/events")
        ids += open_page.track("add_to_cart")
        other = visit(url)  # must wait as well
        other.flush()
        assert open_page.waiting() == 2
        assert other.asked == []
        shop.arrived(ids)
        assert time.monotonic() - refused_at[0] >= 2
        assert len(refused_at) == 1

    def test_without_an_answer_it_waits_longer_each_time(
        self, shop: Shop, visit: Open, context: BrowserContext
    ) -> None:
        open_page = visit(shop.site.add("/backoff"))
        context.route("**/events", lambda route: route.abort())
        open_page.page.evaluate(
            """() => {
                window.waits = [];
                document.addEventListener("shallop:failed",
                    ({detail}) => waits.push(detail.retryAt - Date.now()));
            }"""
        )
        ids = open_page.track("view_item")
        open_page.until("waits.length >= 3")
        first, second, third = open_page.page.evaluate("waits")[:3]
        assert 450 <= first <= 1000
        assert 950 <= second <= 2000
        assert 1950 <= third <= 4000
        context.unroute("**/events")
        open_page.page.evaluate("dispatchEvent(new Event('online'))")
        shop.arrived(ids)
        assert {event["event_id"] for batch in open_page.posted() for event in batch} == set(ids)

    def test_what_the_server_refuses_is_said_and_does_not_hold_up(
        self, shop: Shop, visit: Open
    ) -> None:
        open_page = visit(shop.site.add("/refused"))
        open_page.page.evaluate(
            """() => {
                window.dropped = [];
                document.addEventListener("shallop:dropped", ({detail}) => dropped.push(detail));
            }"""
        )
        open_page.track("view_everything")
        open_page.flush()
        (dropped,) = open_page.page.evaluate("dropped")
        assert dropped["reason"]["error"]["code"] == "unknown_event_name"
        assert dropped["events"][0]["event_name"] == "view_everything"
        shop.arrived(open_page.track("view_item"))
        assert open_page.waiting() == 0

    def test_a_broken_entry_does_not_hold_up_the_others(self, shop: Shop, visit: Open) -> None:
        open_page = visit(shop.site.add("/broken"))
        open_page.page.evaluate("localStorage['shallop.q.0.broken'] = '{'")
        assert len(shop.arrived(open_page.track("view_item", "add_to_cart"))) == 2
        open_page.flush()
        assert open_page.waiting() == 0

    def test_the_queue_is_bounded_and_the_oldest_go(
        self, shop: Shop, visit: Open, context: BrowserContext
    ) -> None:
        open_page = visit(shop.site.add("/full"))
        context.set_offline(True)
        open_page.page.evaluate(
            """() => {
                window.lost = [];
                document.addEventListener("shallop:dropped",
                    ({detail}) => lost.push(...detail.events.map(event => event.event_id)));
            }"""
        )
        ids = open_page.track(*["view_item"] * 503)
        assert open_page.waiting() == 500
        assert open_page.page.evaluate("lost") == ids[:3]

"""shallop.js in a real Chromium: a shop of another origin, a real collector, a network that fails.

What counts as arrived is what the collector has made durable, read from raw.
"""

import json
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Request, Route, expect

from api.pages import STATIC
from tests.api.server import running
from tests.api.shop_site import ShopSite, shop_site
from tests.api.tiny_shop import ITEM_IDS, promote, publish_marts
from warehouse import layout
from warehouse.settings import ServingSettings, Settings
from warehouse.store import ObjectStore, open_store

HOSTILE = "<img src=x onerror=alert(1)> & co"  # the title of the first item
NEVER = "600000"  # ms to wait for more events: only leaving the page sends


class Shop:
    """The shop's site, the app behind it, and what became of the events."""

    def __init__(self, site: ShopSite, store: ObjectStore) -> None:
        self.site = site
        self._store = store

    def raw(self) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = []
        for found in self._store.list(layout.RAW_EVENTS):
            rows += pq.read_table(BytesIO(self._store.get(found.key))).to_pylist()
        return rows

    def first(self, event_name: str, recommendation_id: str) -> dict[str, Any]:
        """The first event of this name and recommendation, once it is in raw."""
        for _ in range(200):
            for row in self.raw():
                if (row["event_name"], row["recommendation_id"]) == (event_name, recommendation_id):
                    return row
            time.sleep(0.05)
        raise AssertionError(f"never arrived: {event_name} of {recommendation_id}")

    def arrived(self, event_ids: list[str]) -> list[dict[str, Any]]:
        """The events of these ids, once all are in raw."""
        for _ in range(200):
            rows = [row for row in self.raw() if row["event_id"] in event_ids]
            if {row["event_id"] for row in rows} == set(event_ids):
                return rows
            time.sleep(0.05)
        missing = set(event_ids) - {row["event_id"] for row in rows}
        raise AssertionError(f"never arrived: {missing}")


@pytest.fixture(scope="module")
def shop(
    tmp_path_factory: pytest.TempPathFactory, marts: dict[str, pa.Table], bundles: list[Path]
) -> Iterator[Shop]:
    with shop_site() as site:
        settings = Settings(
            _env_file=None,
            home=tmp_path_factory.mktemp("shop") / "home",
            serving=ServingSettings(cors_origins=(site.origin,)),
        )
        store = open_store(settings)
        publish_marts(store, marts)
        promote(store, bundles[0])
        with running(settings, flush_interval_seconds=0.05) as (port, _):
            site.shallop = f"http://127.0.0.1:{port}"
            yield Shop(site, store)


class Visit:
    """A page of a visitor, all that it asked of Shallop, and the errors that reached the page."""

    def __init__(self, page: Page, shallop: str) -> None:
        self.page = page
        self.errors: list[str] = []
        self._asked: list[Request] = []
        self._shallop = shallop
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("request", self._on_request)

    def _on_request(self, request: Request) -> None:
        is_script = request.resource_type == "script"
        if request.url.startswith(self._shallop) and not is_script:
            self._asked.append(request)

    @property
    def asked(self) -> list[Request]:
        if not self.page.is_closed():
            self.page.evaluate("1")  # Playwright hears of requests only while it is asked something
        return self._asked

    def posted(self) -> list[list[dict[str, Any]]]:
        """The events of each POST that was tried."""
        return [json.loads(asked.post_data or "[]") for asked in self.asked if asked.post_data]

    def track(self, *names: str) -> list[str]:
        """Track these events in one moment; their event ids."""
        ids: list[str] = self.page.evaluate(
            """names => names.map(name => shallop.track(name, {items: [{item_id: "item-01"}]}))""",
            list(names),
        )
        return ids

    def flush(self) -> None:
        self.page.evaluate("shallop.flush()")

    def until(self, condition: str) -> None:
        """Return once this JavaScript is true (Playwright's own wait needs unsafe-eval)."""
        self.page.evaluate(
            f"""new Promise((done, failed) => {{
                setTimeout(() => failed(new Error("never true")), 20000);
                const look = () => ({condition}) ? done() : setTimeout(look, 20);
                look();
            }})"""
        )

    def stored(self) -> list[str]:
        keys: list[str] = self.page.evaluate(
            "[...Object.keys(localStorage), ...Object.keys(sessionStorage)]"
        )
        return keys

    def waiting(self) -> int:
        return sum(key.startswith("shallop.q.") for key in self.stored())


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    context = browser.new_context(locale="en-US", viewport={"width": 900, "height": 700})
    yield context
    context.close()


@pytest.fixture
def visit(context: BrowserContext, shop: Shop) -> Iterator[Callable[[str], Visit]]:
    """Opens a page in another tab of the same visitor; no error may have reached any of them."""
    visits: list[Visit] = []

    def opened(url: str) -> Visit:
        visit = Visit(context.new_page(), shop.site.shallop)
        visits.append(visit)
        visit.page.goto(url)
        return visit

    yield opened
    for visit in visits:
        assert visit.errors == []


Open = Callable[[str], Visit]

CAROUSEL = '<shallop-carousel k="4" placement="home" href="/p/{item_id}"></shallop-carousel>'


class TestConsent:
    def test_denied_stores_and_sends_nothing(
        self, shop: Shop, visit: Open, context: BrowserContext
    ) -> None:
        open_page = visit(shop.site.add("/denied", CAROUSEL, consent="denied", cookie=""))
        page = open_page.page
        expect(page.locator("shallop-carousel")).to_be_hidden()
        page.evaluate(
            """async () => {
                shallop.page(); shallop.identify("u-1"); shallop.track("view_item", {});
                await shallop.recommend({k: 3}); await shallop.flush();
                dispatchEvent(new Event("online"));
            }"""
        )
        assert page.evaluate("shallop.session()") is None
        page.goto(f"{shop.site.origin}/elsewhere")
        page.goto(f"{shop.site.origin}/denied")
        assert open_page.asked == []
        assert open_page.stored() == []
        assert context.cookies() == []

    def test_granted_later_then_withdrawn(
        self, shop: Shop, visit: Open, context: BrowserContext
    ) -> None:
        open_page = visit(shop.site.add("/later", CAROUSEL, consent="denied"))
        page = open_page.page
        assert open_page.track("view_item") == [None]
        page.evaluate("shallop.consent('granted')")
        expect(page.locator("shallop-carousel a")).to_have_count(4)
        (event,) = shop.arrived(open_page.track("view_item"))
        assert event["consent"] == "granted"
        assert event["visitor_id"] == page.evaluate("localStorage['shallop.visitor']")
        assert context.cookies() == []
        context.set_offline(True)
        open_page.track("view_item", "add_to_cart")
        page.evaluate("shallop.consent('denied')")
        assert open_page.stored() == []
        expect(page.locator("shallop-carousel")).to_be_hidden()
        context.set_offline(False)
        n_asked = len(open_page.asked)
        open_page.flush()
        assert len(open_page.asked) == n_asked

    def test_unknown_consent_is_none(self, shop: Shop, visit: Open) -> None:
        open_page = visit(shop.site.add("/typo", consent="grantd"))
        assert open_page.track("view_item") == [None]

    def test_by_default_a_session_and_no_visitor(
        self, shop: Shop, visit: Open, context: BrowserContext
    ) -> None:
        open_page = visit(shop.site.add("/default", currency="EUR"))
        (event,) = shop.arrived(open_page.track("view_item"))
        assert event["visitor_id"] is None
        assert event["session_id"] == open_page.page.evaluate("shallop.session()")
        assert (event["consent"], event["currency"]) == ("session", "EUR")
        assert open_page.stored() == ["shallop.session"]
        assert context.cookies() == []

    def test_a_cookie_where_asked_for(
        self, shop: Shop, visit: Open, context: BrowserContext
    ) -> None:
        open_page = visit(shop.site.add("/cookie", consent="granted", cookie=""))
        (event,) = shop.arrived(open_page.track("view_item"))
        (cookie,) = context.cookies()
        assert cookie["name"] == "shallop_visitor"
        assert cookie["value"] == event["visitor_id"]
        assert cookie["sameSite"] == "Lax"
        assert "shallop.visitor" not in open_page.stored()
        assert "cookie" not in open_page.asked[0].headers
        open_page.page.evaluate("shallop.consent('denied')")
        assert context.cookies() == []

    @pytest.mark.parametrize(
        ("name", "value"), [("globalPrivacyControl", "true"), ("doNotTrack", "'1'")]
    )
    def test_the_browsers_signals_stand_above_it(
        self, shop: Shop, visit: Open, context: BrowserContext, name: str, value: str
    ) -> None:
        context.add_init_script(
            f"Object.defineProperty(Navigator.prototype, '{name}', {{get: () => {value}}})"
        )
        open_page = visit(shop.site.add("/signal", CAROUSEL, consent="granted"))
        expect(open_page.page.locator("shallop-carousel")).to_be_hidden()
        assert open_page.track("view_item") == [None]
        open_page.flush()
        assert (open_page.asked, open_page.stored()) == ([], [])
        ignoring = visit(shop.site.add("/ignored", consent="granted", signals="ignore"))
        shop.arrived(ignoring.track("view_item"))


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


class TestPage:
    def test_a_user_and_a_new_session(self, shop: Shop, visit: Open) -> None:
        open_page = visit(shop.site.add("/user"))
        open_page.page.evaluate("shallop.identify(42)")
        ids = open_page.track("view_item")
        open_page.page.evaluate("shallop.reset()")
        ids += open_page.track("view_item")
        ids += [open_page.page.evaluate("shallop.page({search_term: 'mugs'})")]
        known, unknown, viewed = sorted(shop.arrived(ids), key=lambda row: row["occurred_at"])
        assert (known["user_id"], unknown["user_id"]) == ("42", None)
        assert known["session_id"] != unknown["session_id"]
        assert viewed["event_name"] == "page_view"
        assert json.loads(viewed["extra"]) == {"search_term": "mugs"}
        assert viewed["page_url"].endswith("/user")

    def test_a_session_ends_after_half_an_hour(self, shop: Shop, visit: Open) -> None:
        open_page = visit(shop.site.add("/gap"))
        first, same, next_one = open_page.page.evaluate(
            """() => {
                const now = Date.now;
                const at = minutes => { Date.now = () => now() + minutes * 6e4; };
                const ids = [0, 29, 60].map(minutes => { at(minutes); return shallop.session(); });
                Date.now = now;
                return ids;
            }"""
        )
        assert first == same != next_one

    def test_nothing_is_thrown_at_the_page(
        self, shop: Shop, visit: Open, context: BrowserContext
    ) -> None:
        context.add_init_script(
            """for (const name of ["localStorage", "sessionStorage"])
                Object.defineProperty(window, name, {get() { throw new Error("refused"); }});"""
        )
        open_page = visit(shop.site.add("/hostile", consent="granted"))
        ids = open_page.track("view_item")
        results = open_page.page.evaluate(
            """async () => {
                const loop = {}; loop.loop = loop;
                return [
                    shallop.track("view_item", {items: 5}), shallop.track("view_item", loop),
                    shallop.watch(null), shallop.identify(Object.create(null)),
                    await shallop.recommend({endpoint: "http://127.0.0.1:9/"}),
                    await shallop.recommend({k: "many"}),
                ];
            }"""
        )
        assert results == [None] * 6
        (event,) = shop.arrived(ids)
        assert event["visitor_id"]
        open_page.flush()

    def test_calls_before_the_script_has_come(self, shop: Shop, visit: Open) -> None:
        shop.site.add_module(
            "/early.js", "window.shallop = {q: [['track', 'page_view', {extra: {early: 1}}]]};"
        )
        url = shop.site.add_plain(
            "/early",
            '<script src="/early.js"></script>'
            f'<script src="{shop.site.shallop}/shallop.js" async></script>',
        )
        open_page = visit(url)
        open_page.until("window.shallop.track")
        open_page.until("!Object.keys(localStorage).length")
        ((event,),) = open_page.posted()
        assert event["extra"] == {"early": 1}
        shop.arrived([event["event_id"]])

    def test_its_types_name_what_there_is(self, shop: Shop, visit: Open) -> None:
        types = (STATIC / "shallop.d.ts").read_text()
        interface = types.split("export interface Shallop {")[1].split("\n}")[0]
        named = set(re.findall(r"^  (?:readonly )?(\w+)[(:]", interface, re.MULTILINE))
        open_page = visit(shop.site.add("/types"))
        assert named | {"q"} == set(open_page.page.evaluate("Object.keys(shallop)"))

    def test_as_a_module(self, shop: Shop, visit: Open) -> None:
        shop.site.add_module(
            "/app.js",
            f"""import shallop from "{shop.site.shallop}/shallop.mjs";
            window.before = shallop.track("page_view");
            shallop.init({{consent: "granted", currency: "EUR"}});
            window.after = shallop.track("page_view");""",
        )
        url = shop.site.add_plain("/module", '<script type="module" src="/app.js"></script>')
        open_page = visit(url)
        assert open_page.page.evaluate("window.before") is None
        (event,) = shop.arrived([open_page.page.evaluate("window.after")])
        assert (event["consent"], event["currency"]) == ("granted", "EUR")


def events_of(open_page: Visit, name: str) -> list[dict[str, Any]]:
    return [
        event for batch in open_page.posted() for event in batch if event["event_name"] == name
    ]  # fmt: skip


def ids_of(event: dict[str, Any]) -> list[str]:
    return [item["item_id"] for item in event["items"]]


LISTS = """
<p>Above</p>
<ul data-item-list-id="first" data-recommendation-id="r-1"><li data-item-id="a">A</li></ul>
<ul data-item-list-id="second" data-recommendation-id="r-2">
  <li data-item-id="b"><a href="/p/b">B</a></li>
  <li data-item-id="c">C <button>Add</button></li>
</ul>
"""
SPREAD = """document.querySelectorAll("p, ul").forEach((part, place) => {
    part.style.cssText = `position: absolute; top: ${place * 2000}px; height: 300px`;
})"""


class TestImpressions:
    def test_half_of_a_card_for_a_second(self, shop: Shop, visit: Open) -> None:
        open_page = visit(shop.site.add("/lists", LISTS))
        page = open_page.page
        page.evaluate(SPREAD)
        page.evaluate(
            """async () => {
                document.addEventListener("shallop:track",
                    ({detail}) => window.seenAfter ??= performance.now() - window.cameAt);
                scrollTo(0, 2000);
                await new Promise(done => setTimeout(done, 300));
                window.cameAt = performance.now();
                scrollTo(0, 4000);
            }"""
        )
        open_page.until("window.seenAfter")
        assert page.evaluate("window.seenAfter") >= 1000
        open_page.flush()
        (event,) = events_of(open_page, "view_item_list")
        assert (event["item_list_id"], event["recommendation_id"]) == ("second", "r-2")
        assert [(item["item_id"], item["index"]) for item in event["items"]] == [("b", 0), ("c", 1)]

    def test_less_than_half_of_a_card_is_not_seen(self, shop: Shop, visit: Open) -> None:
        open_page = visit(shop.site.add("/peek", LISTS))
        page = open_page.page
        page.evaluate(SPREAD)
        page.evaluate(
            """async () => {
                document.querySelector("li").style.height = "300px";
                scrollTo(0, 1400);  // 100 of 300 px in view
                await new Promise(done => setTimeout(done, 1500));
                scrollTo(0, 4000);
            }"""
        )
        with page.expect_request("**/events"):
            pass
        (event,) = events_of(open_page, "view_item_list")
        assert event["item_list_id"] == "second"

    def test_a_click_is_seen_and_carries_the_recommendation(self, shop: Shop, visit: Open) -> None:
        shop.site.add("/p/b")
        open_page = visit(shop.site.add("/click", LISTS))
        page = open_page.page
        page.get_by_role("button").click()  # not a choice of the item
        page.get_by_role("link", name="B").click()
        page.wait_for_url("**/p/b")
        ids = page.evaluate(
            """["b", "c"].map(id => shallop.track("view_item", {items: [{item_id: id}]}))"""
        )
        by_id = {row["event_id"]: row for row in shop.arrived(ids)}
        assert [by_id[event_id]["recommendation_id"] for event_id in ids] == ["r-2", None]
        open_page.flush()
        (click,) = {json.dumps(event) for event in events_of(open_page, "select_item")}
        chosen = json.loads(click)
        assert (chosen["item_list_id"], chosen["recommendation_id"]) == ("second", "r-2")
        assert chosen["items"] == [{"item_id": "b", "index": 0}]
        assert "b" in {
            item for event in events_of(open_page, "view_item_list") for item in ids_of(event)
        }
        shop.arrived([chosen["event_id"]])


class TestCarousel:
    def test_shows_what_is_recommended(self, shop: Shop, visit: Open) -> None:
        carousel = (
            '<shallop-carousel k="4" placement="home" href="/p/{item_id}?from=shop" '
            'heading="For you"></shallop-carousel>'
        )
        open_page = visit(shop.site.add("/carousel", carousel, currency="USD"))
        page = open_page.page
        expect(page.get_by_role("region", name="For you")).to_be_visible()
        expect(page.get_by_role("heading", name="For you")).to_be_visible()
        expect(page.get_by_role("list").get_by_role("listitem")).to_have_count(4)
        first = page.get_by_role("link").first
        assert first.get_attribute("href") == "/p/item-00?from=shop"
        assert HOSTILE in first.inner_text()  # as text
        assert "$5.00" in first.inner_text()
        assert page.locator("img").count() == 0
        element = page.locator("shallop-carousel")
        expect(element).to_have_attribute("data-source", "popularity")
        expect(element).to_have_attribute("data-fallback", "unknown_session")
        display = "element => getComputedStyle(element.list).display"
        assert element.evaluate(display) == "grid"  # styled under a policy without style-src
        # What is tracked changes it, and is known to the answer.
        page.evaluate(f"shallop.track('view_item', {{items: [{{item_id: '{ITEM_IDS[5]}'}}]}})")
        expect(element).to_have_attribute("data-source", "gru4rec")
        assert element.get_attribute("data-fallback") is None
        assert page.get_by_role("link").first.get_attribute("href") == "/p/item-06?from=shop"

    def test_reports_what_is_seen_and_chosen(self, shop: Shop, visit: Open) -> None:
        open_page = visit(shop.site.add("/exposed", CAROUSEL))
        page = open_page.page
        with page.expect_request("**/events") as seen:
            expect(page.get_by_role("link")).to_have_count(4)
        (event,) = json.loads(seen.value.post_data or "")
        reply = page.evaluate("document.querySelector('shallop-carousel').reply")
        assert event["event_name"] == "view_item_list"
        assert event["item_list_id"] == "home"
        assert event["recommendation_id"] == reply["recommendation_id"]
        assert ids_of(event) == ITEM_IDS[:4]
        page.get_by_role("link").nth(2).click()
        page.wait_for_url("**/p/item-02")
        (row,) = (
            row for row in shop.arrived([event["event_id"]])
            if row["event_name"] == "view_item_list"
        )  # fmt: skip
        assert [item["index"] for item in row["items"]] == [0, 1, 2, 3]
        click = shop.first("select_item", reply["recommendation_id"])
        assert [(item["item_id"], item["index"]) for item in click["items"]] == [("item-02", 2)]

    def test_a_template_of_the_shop(self, shop: Shop, visit: Open) -> None:
        template = """<shallop-carousel k="2" href="/p/{item_id}"><h3 slot="heading">Ours</h3>
            <template><a class="mine" href="{href}#top" title="{title}" onclick="x('{title}')">
            <b>{title}</b> {price}</a></template></shallop-carousel>"""
        open_page = visit(shop.site.add("/template", template))
        page = open_page.page
        link = page.locator("shallop-carousel a.mine").first
        expect(link.locator("b")).to_have_text(HOSTILE)
        assert link.get_attribute("title") == HOSTILE
        assert link.get_attribute("href") == "/p/item-00#top"
        assert link.get_attribute("onclick") is None
        assert page.locator("img").count() == 0
        expect(page.get_by_role("heading", name="Ours")).to_be_visible()
        expect(page.get_by_role("listitem")).to_have_count(2)

    def test_encodes_ids_in_links(self, shop: Shop, visit: Open, context: BrowserContext) -> None:
        item = {"item_id": "javascript:alert(1)//\"'<b>", "title": None, "category": None,
                "price": None, "score": 1, "rank": 1, "source": "x", "reason": ""}  # fmt: skip
        reply = {"recommendation_id": "r", "placement": None, "fallback": None, "items": [item]}
        headers = {"Access-Control-Allow-Origin": "*"}
        context.route("**/recommend?*", lambda route: route.fulfill(json=reply, headers=headers))
        url = shop.site.add("/ids", '<shallop-carousel href="{item_id}"></shallop-carousel>')
        open_page = visit(url)
        link = open_page.page.get_by_role("link")
        expect(link).to_have_text(item["item_id"])
        assert link.get_attribute("href") == "javascript%3Aalert(1)%2F%2F%22'%3Cb%3E"

    def test_with_nothing_to_show_it_hides_and_says_so(self, shop: Shop, visit: Open) -> None:
        url = shop.site.add(
            "/empty", '<shallop-carousel category="none" placement="x"></shallop-carousel>'
        )
        open_page = visit(url)
        page = open_page.page
        element = page.locator("shallop-carousel")
        expect(element).to_have_attribute("hidden", "")
        page.evaluate(
            """() => document.addEventListener("shallop:empty",
                ({detail}) => { window.why = detail.reason; })"""
        )
        element.evaluate("element => element.refresh()")
        open_page.until("window.why === 'no_items'")
        element.evaluate("element => element.setAttribute('endpoint', 'http://127.0.0.1:9/')")
        open_page.until("window.why === 'failed'")
        element.evaluate(
            """element => {
                for (const name of ["endpoint", "category"]) element.removeAttribute(name);
            }"""
        )
        expect(element).to_be_visible()
        expect(page.get_by_role("listitem")).to_have_count(10)

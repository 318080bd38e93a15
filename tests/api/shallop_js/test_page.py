"""The page around it: sessions, calls before it has come, modules, and no error."""

import json
import re

from playwright.sync_api import BrowserContext

from api.pages import STATIC
from tests.api.shallop_js.visit import (
    Open,
    Shop,
)


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

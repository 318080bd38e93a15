"""What shallop.js may keep and send, by consent and by the browser's signals."""

import pytest
from playwright.sync_api import BrowserContext, expect

from tests.api.shallop_js.visit import (
    CAROUSEL,
    Open,
    Shop,
)

SCRIPTS = {"/shallop.js", "/shallop-carousel.js"}


class TestConsent:
    def test_denied_stores_and_sends_nothing(
        self, shop: Shop, visit: Open, context: BrowserContext
    ) -> None:
        n_before = len(shop.served())
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
        assert {path for _, path in shop.served()[n_before:]} == SCRIPTS
        assert page.evaluate("indexedDB.databases()") == []
        assert page.evaluate("caches.keys()") == []
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

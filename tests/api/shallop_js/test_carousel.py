"""<shallop-carousel>: what it shows, reports, and does with nothing to show."""

import json

from playwright.sync_api import BrowserContext, expect

from tests.api.shallop_js.visit import (
    CAROUSEL,
    HOSTILE,
    Open,
    Shop,
    ids_of,
)
from tests.api.tiny_shop import ITEM_IDS


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

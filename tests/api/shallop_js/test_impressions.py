"""What was seen and chosen in a list."""

import json

from tests.api.shallop_js.visit import (
    Open,
    Shop,
    events_of,
    ids_of,
)

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

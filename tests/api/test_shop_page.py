"""The demo shop in a real Chromium: what is clicked changes what is recommended."""

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from playwright.sync_api import Browser, Page, Response, expect

from tests.api.server import running
from tests.api.tiny_shop import ITEM_IDS, promote, publish_marts
from warehouse import layout
from warehouse.settings import Settings
from warehouse.store import ObjectStore


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page of a fresh visitor, which must neither log an error nor ask anybody else."""
    context = browser.new_context(locale="en-US")
    page = context.new_page()
    troubles: list[str] = []
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.on("console", lambda said: said.type == "error" and troubles.append(said.text))
    page.on(
        "request",
        lambda sent: "://127.0.0.1:" not in sent.url and troubles.append(sent.url),
    )
    yield page
    context.close()
    assert troubles == []


def is_impression(response: Response) -> bool:
    return "view_item_list" in (response.request.post_data or "")


def recommended(page: Page) -> list[str]:
    return [link.get_attribute("data-item-id") or "" for link in page.locator("#carousel a").all()]


def test_a_visit(
    page: Page,
    settings: Settings,
    store: ObjectStore,
    marts: dict[str, pa.Table],
    bundles: list[Path],
) -> None:
    publish_marts(store, marts)
    promote(store, bundles[0])
    with running(settings) as (port, _):
        page.goto(f"http://127.0.0.1:{port}/")
        # Popular items, and it says so.
        expect(page.locator("#grid a")).to_have_count(24)
        expect(page.locator("#source")).to_contain_text("popularity")
        expect(page.locator("#status-model")).to_contain_text(bundles[0].name)
        assert recommended(page)[:3] == ITEM_IDS[:3]
        # Titles are strangers' input.
        expect(page.locator("#grid a").first).to_contain_text("<img src=x onerror=alert(1)> & co")
        assert page.locator("main img").count() == 0
        # A click, by mouse and then by keyboard: the carousel answers to each.
        page.locator(f"#grid a[data-item-id={ITEM_IDS[5]}]").click()
        expect(page.locator("#item-title")).to_have_text("Thing 5")
        expect(page.locator("#item-price")).to_have_text("$10.00")
        expect(page.locator("#source")).to_contain_text("GRU4Rec")
        expect(page.locator("#carousel a").first).to_have_attribute("data-item-id", ITEM_IDS[6])
        page.locator("#carousel a").first.focus()
        page.keyboard.press("Enter")
        expect(page.locator("#item-title")).to_have_text("Thing 6")
        expect(page.locator("#item-title")).to_be_focused()
        expect(page.locator("#carousel a").first).to_have_attribute("data-item-id", ITEM_IDS[7])
        expect(page.locator("#steps a")).to_have_text([r"T5Thing 5", r"T6Thing 6"])
        with page.expect_response("**/events"):
            page.get_by_role("button", name="Add to cart").click()
        expect(page.locator("#cart-count")).to_have_text("1")
        # Back to the shop, search, and a new session.
        page.get_by_role("link", name="Back to the shop").click()
        expect(page.locator("#item")).to_be_hidden()
        page.get_by_role("searchbox").fill("thing 7")
        expect(page.locator("#grid a")).to_have_count(1)
        with page.expect_response(is_impression):  # of the new session
            page.get_by_role("button", name="Start a new one").click()
        expect(page.locator("#source")).to_contain_text("popularity")
        page.close()  # it asks for the status again and again, also of a server that has ended
    _check_events(store)


def _check_events(store: ObjectStore) -> None:
    rows: list[dict[str, Any]] = []
    for found in store.list(layout.RAW_EVENTS):
        rows += pq.read_table(BytesIO(store.get(found.key))).to_pylist()
    steps = [
        (row["event_name"], row["items"][0]["item_id"])
        for row in sorted(rows, key=lambda row: row["occurred_at"])
        if row["event_name"] not in ("view_item_list", "select_item")
    ]
    assert steps == [
        ("view_item", ITEM_IDS[5]),
        ("view_item", ITEM_IDS[6]),
        ("add_to_cart", ITEM_IDS[6]),
    ]
    shown = {row["recommendation_id"] for row in rows if row["event_name"] == "view_item_list"}
    (click,) = (row for row in rows if row["event_name"] == "select_item")
    (followed,) = (
        row for row in rows
        if row["event_name"] == "view_item" and row["items"][0]["item_id"] == ITEM_IDS[6]
    )  # fmt: skip
    assert click["recommendation_id"] == followed["recommendation_id"]
    assert click["recommendation_id"] in shown
    assert click["items"][0]["index"] == 0
    assert len({row["session_id"] for row in rows}) == 2


@pytest.fixture(scope="module")
def empty_shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of an app that has no data yet."""
    settings = Settings(_env_file=None, home=tmp_path_factory.mktemp("empty") / "home")
    with running(settings) as (port, _):
        yield f"http://127.0.0.1:{port}"


def test_before_any_data(page: Page, empty_shop: str) -> None:
    page.goto(f"{empty_shop}/")
    expect(page.locator("#empty")).to_contain_text("make demo")
    expect(page.locator("#status-model")).to_have_text("No model yet")
    expect(page.locator("#recommended")).to_be_hidden()


def test_the_documentation(page: Page, empty_shop: str) -> None:
    page.goto(f"{empty_shop}/docs")
    expect(page.locator("#operations-events-post_events")).to_be_visible()
    expect(page.locator("#operations-recommendations-get_recommend")).to_be_visible()

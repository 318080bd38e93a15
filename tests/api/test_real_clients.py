"""The clients that shops use, from their registries, against the app under a real uvicorn.

Node's and the browser's are installed by `npm install` in tests/clients. With `-s` each test says
its row of the table in docs/protocols.md.
"""

import functools
import json
import shutil
import subprocess
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from playwright.sync_api import Browser, Page

from tests.api.client_table import check_row
from tests.api.server import request, running
from tests.api.test_collector import raw_rows
from tests.api.tiny_shop import wait_for
from warehouse import layout
from warehouse.settings import Settings
from warehouse.store import ObjectStore

segment_analytics = pytest.importorskip("segment.analytics.client")

CLIENTS = Path(__file__).parents[1] / "clients"
LIBRARIES = CLIENTS / "node_modules" / "@segment"

MUG = {"product_id": "mug", "name": "Blue mug", "category": "Mugs", "price": 12.5}
CUP = {"product_id": "cup", "name": "Cup", "price": 3}
KEPT_MUG = {
    "item_id": "mug", "item_name": "Blue mug", "item_category": "Mugs", "price": 12.5,
    "quantity": None, "index": None,
}  # fmt: skip
KEPT_CUP = KEPT_MUG | {"item_id": "cup", "item_name": "Cup", "item_category": None, "price": 3.0}


class Shop(SimpleHTTPRequestHandler):
    """Serves a folder and does not talk about it."""

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[str]:
    """A shop's pages on an origin of their own."""
    library = LIBRARIES / "analytics-next" / "dist" / "umd"
    if not library.is_dir():
        pytest.skip("no browser clients here (npm install --no-package-lock in tests/clients)")
    folder = tmp_path / "shop"
    shutil.copytree(library, folder)
    shutil.copy(CLIENTS / "segment_browser.html", folder)
    (folder / "empty.html").write_text('<link rel="icon" href="data:,">')
    handler = functools.partial(Shop, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page that must neither log an error nor ask anybody else."""
    page = browser.new_page()
    troubles: list[str] = []
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.on("console", lambda said: said.type == "error" and troubles.append(said.text))
    page.on("request", lambda sent: "://127.0.0.1:" not in sent.url and troubles.append(sent.url))
    yield page
    page.close()
    assert troubles == []


def check_visit(store: ObjectStore, visitor_id: str | None, user_id: str) -> list[dict[str, Any]]:
    """The visit that each client makes, whole: five events, a wheel and an identity. The events."""
    rows: list[Any] = raw_rows(store, layout.RAW_EVENTS)
    by_name = {row["event_name"]: row for row in rows}
    assert len(rows) == 5
    assert sorted(by_name) == [
        "add_to_cart", "page_view", "purchase", "view_item", "view_item_list",
    ]  # fmt: skip
    assert {row["source"] for row in rows} == {"segment"}
    assert {row["user_id"] for row in rows} == {user_id}
    (seen,) = {row["visitor_id"] for row in rows}
    assert seen
    assert visitor_id in (None, seen)
    assert len({row["event_id"] for row in rows}) == 5
    assert by_name["view_item_list"]["items"] == [KEPT_MUG, KEPT_CUP]
    assert by_name["view_item_list"]["item_list_id"] == "home"
    assert by_name["view_item"]["items"] == [KEPT_MUG]
    assert by_name["view_item"]["currency"] == "EUR"
    assert json.loads(by_name["view_item"]["extra"])["properties"] == {"brand": "Acme"}
    assert by_name["add_to_cart"]["items"] == [KEPT_MUG | {"quantity": 2}]
    purchase = by_name["purchase"]
    assert purchase["items"] == [KEPT_MUG | {"quantity": 2}, KEPT_CUP]
    assert (purchase["value"], purchase["currency"]) == (28.0, "EUR")
    assert json.loads(purchase["extra"])["properties"] == {"order_id": "o-1"}
    rejected: list[Any] = raw_rows(store, layout.RAW_REJECTED)
    assert {row["reason"] for row in rejected} == {"unmapped_event"}
    bodies = {body["type"]: body for body in (json.loads(row["body"]) for row in rejected)}
    assert bodies["identify"]["traits"]["plan"] == "gold"
    assert bodies["track"]["event"] == "Wheel Spun"
    return rows


@pytest.mark.parametrize("gzip", [False, True], ids=["plain", "gzip"])
def test_segment_for_python(settings: Settings, store: ObjectStore, gzip: bool) -> None:
    failures: list[Any] = []
    ordered_at = datetime(2026, 1, 31, 12, 0, 0, 123_000, tzinfo=UTC)
    who = {"user_id": "python-user", "anonymous_id": "python-visitor"}
    with running(settings) as (port, _):
        client = segment_analytics.Client(
            "write-key", host=f"http://127.0.0.1:{port}", gzip=gzip,
            on_error=lambda error, batch: failures.append(error),
        )  # fmt: skip
        client.identify(**who, traits={"plan": "gold"})
        client.page(**who, name="Home", properties={"url": "https://shop.example/"})
        client.track(
            **who, event="Product List Viewed",
            properties={"list_id": "home", "products": [MUG, CUP]},
        )  # fmt: skip
        client.track(
            **who, event="Product Viewed", properties=MUG | {"currency": "EUR", "brand": "Acme"}
        )
        client.track(**who, event="Product Added", properties=MUG | {"quantity": 2})
        order = {"order_id": "o-1", "revenue": 28, "currency": "EUR"}
        client.track(
            **who, event="Order Completed", timestamp=ordered_at,
            properties=order | {"products": [MUG | {"quantity": 2}, CUP]},
        )  # fmt: skip
        client.track(**who, event="Wheel Spun", properties={"prize": "none"})
        client.shutdown()
    assert failures == []
    check_row(store, "segment-analytics-python", version("segment-analytics-python"), 7)
    rows = check_visit(store, "python-visitor", "python-user")
    assert ordered_at in [row["occurred_at"] for row in rows]
    assert {row["user_agent"].split("/")[0] for row in rows} == {"analytics-python"}


def test_segment_for_node(settings: Settings, store: ObjectStore) -> None:
    node = shutil.which("node")
    if node is None or not (LIBRARIES / "analytics-node").is_dir():
        pytest.skip("no Node clients here (npm install --no-package-lock in tests/clients)")
    with running(settings) as (port, _):
        ended = subprocess.run(
            [node, CLIENTS / "segment_node.cjs", f"http://127.0.0.1:{port}"],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
    assert json.loads(ended.stdout) == {"failures": []}, ended.stderr
    check_row(store, "@segment/analytics-node", _npm_version("analytics-node"), 7)
    rows = check_visit(store, "node-visitor", "node-user")
    assert datetime(2026, 1, 31, 12, 0, 0, 123_000, tzinfo=UTC) in [
        row["occurred_at"] for row in rows
    ]


def _allowing(origin: str, settings: Settings) -> Settings:
    """The settings with pages of `origin` allowed to call the app."""
    serving = settings.serving.model_copy(update={"cors_origins": (origin,)})
    return settings.model_copy(update={"serving": serving})


@pytest.mark.parametrize("how", ["", "&batching", "&cdn"], ids=["single", "batching", "cdn"])
def test_segment_for_browsers(
    shop: str, page: Page, settings: Settings, store: ObjectStore, how: str
) -> None:
    paths: list[str] = []
    page.on("requestfinished", lambda sent: "/v1/" in sent.url and paths.append(sent.url[-5:]))
    with running(_allowing(shop, settings)) as (port, _):
        page.goto(f"{shop}/segment_browser.html?api=127.0.0.1:{port}{how}")
        assert len(set(page.evaluate("window.sent"))) == 7
        wait_for(lambda: _n_kept(port) == 7)
        page.wait_for_load_state("networkidle")
    single = {"v1/i", "v1/p", "v1/t"}
    expected = {"": single, "&batching": {"v1/b"}, "&cdn": single | {"ings"}}  # …/settings
    assert {path[-4:] for path in paths} == expected[how]
    check_row(store, "@segment/analytics-next", _npm_version("analytics-next"), 7)
    rows = check_visit(store, None, "browser-user")
    assert {row["page_url"].split("?")[0] for row in rows} == {f"{shop}/segment_browser.html"}
    assert {"Chrome" in row["user_agent"] for row in rows} == {True}


def test_the_measurement_protocol_from_python(settings: Settings, store: ObjectStore) -> None:
    """Its address is fixed, so that has to be replaced; what it sends is its own."""
    ga4mp = pytest.importorskip("ga4mp")
    client = ga4mp.GtagMP("secret", "G-1", "1712345678.1699000000")
    with running(settings) as (port, _):
        client._base_domain = f"http://127.0.0.1:{port}/mp/collect"
        item = {"item_id": "mug", "item_name": "Blue mug", "item_category": "Mugs", "price": 12.5}
        events = []
        for name in ("view_item", "add_to_cart", "purchase"):
            event = client.create_new_event(name)
            event.set_event_param("currency", "EUR")
            event.set_event_param("value", 12.5)
            event.add_item_to_event(item)
            events.append(event)
        client.send(events)
        later = client.create_new_event("page_view")
        later.set_event_param("page_location", "https://shop.example/")
        client.send([later], postpone=True)
        client.postponed_send()
        wheel = client.create_new_event("wheel_spun")
        wheel.set_event_param("prize", "none")
        client.send([wheel])
    check_row(store, "ga4mp", version("ga4mp"), 5)
    rows: list[Any] = raw_rows(store, layout.RAW_EVENTS)
    assert len({row["event_id"] for row in rows}) == 4
    assert {row["visitor_id"] for row in rows} == {"1712345678.1699000000"}
    assert {row["source"] for row in rows} == {"ga4_mp"}
    by_name = {row["event_name"]: row for row in rows}
    assert by_name["purchase"]["items"] == [KEPT_MUG]
    assert (by_name["purchase"]["value"], by_name["purchase"]["currency"]) == (12.5, "EUR")
    assert by_name["page_view"]["page_url"] == "https://shop.example/"


def test_shallop_js(shop: str, page: Page, settings: Settings, store: ObjectStore) -> None:
    with running(_allowing(shop, settings)) as (port, _):
        page.goto(f"{shop}/empty.html")
        page.evaluate(
            """url => new Promise(done => {
                const script = document.createElement("script");
                Object.assign(script.dataset, {consent: "granted", currency: "EUR"});
                Object.assign(script, {src: url, onload: done});
                document.head.append(script);
            })""",
            f"http://127.0.0.1:{port}/shallop.js",
        )
        item = {"item_id": "mug", "item_name": "Blue mug", "item_category": "Mugs", "price": 12.5}
        page.evaluate(
            """async item => {
                shallop.identify("u-1");
                shallop.page();
                for (const name of ["view_item", "add_to_cart", "purchase"])
                    shallop.track(name, {items: [item], value: 12.5});
                await shallop.flush();
            }""",
            item,
        )
        wait_for(lambda: _n_kept(port) == 4)
    check_row(store, "shallop.js", "0.1.0", 4)
    rows = raw_rows(store, layout.RAW_EVENTS)
    assert [row["items"] for row in rows].count([KEPT_MUG]) == 3
    assert {(row["user_id"], row["currency"], row["consent"]) for row in rows} == {
        ("u-1", "EUR", "granted")
    }


def test_curl(settings: Settings, store: ObjectStore) -> None:
    curl = shutil.which("curl")
    if curl is None:
        pytest.skip("no curl on this machine")
    events = [
        {"event_name": name, "session_id": "s", "event_id": str(UUID(int=n)),
         "items": [{"item_id": "mug", "price": 12.5}]}
        for n, name in enumerate(("view_item", "add_to_cart", "purchase", "wave"))
    ]  # fmt: skip
    with running(settings) as (port, _):
        ended = subprocess.run(
            [curl, "-sS", "--data", json.dumps(events), f"http://127.0.0.1:{port}/events"],
            capture_output=True, text=True, timeout=60, check=True,
        )  # fmt: skip
        assert json.loads(ended.stdout)["accepted"] == 3
    check_row(store, "curl, an array to `/events`", "7 and later", 4)


def test_a_beacon(shop: str, page: Page, settings: Settings, store: ObjectStore) -> None:
    with running(settings) as (port, _):
        page.goto(f"{shop}/empty.html")
        event = {"event_name": "page_view", "session_id": "beacon"}
        sent = "([url, event]) => navigator.sendBeacon(url, JSON.stringify(event))"
        assert page.evaluate(sent, [f"http://127.0.0.1:{port}/events", event])
        wait_for(lambda: _n_kept(port) == 1)
    check_row(store, "`navigator.sendBeacon`", "Chromium", 1)
    (row,) = raw_rows(store, layout.RAW_EVENTS)
    assert (row["session_id"], row["source"]) == ("beacon", "json")


def test_a_pixel(shop: str, page: Page, settings: Settings, store: ObjectStore) -> None:
    with running(settings) as (port, _):
        app = f"http://127.0.0.1:{port}"
        page.goto(f"{shop}/empty.html")
        image = """(src) => new Promise((resolve, reject) => {
            const image = new Image()
            image.onload = () => resolve([image.naturalWidth, image.naturalHeight])
            image.onerror = reject
            image.src = src
        })"""
        item = "event_name=view_item&visitor_id=v&item_id=mug&item_name=Blue%20mug&price=12.5"
        for query in ("event_name=page_view&session_id=pixel", item, "event_name=wave"):
            assert page.evaluate(image, f"{app}/pixel.gif?{query}") == [1, 1]
        wait_for(lambda: _n_kept(port) == 3)
    check_row(store, "an image, `/pixel.gif`", "Chromium", 3)
    assert {row["source"] for row in raw_rows(store, layout.RAW_EVENTS)} == {"pixel"}
    assert page.context.cookies() == []


def _npm_version(name: str) -> str:
    return str(json.loads((LIBRARIES / name / "package.json").read_text())["version"])


def _n_kept(port: int) -> int:
    collector: Any = request(port, "GET", "/status")[1]["collector"]
    return int(collector["accepted"]) + sum(collector["rejected"].values())

"""Keys with real clients, browsers and workers: who is given which key, and what becomes of it."""

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from playwright.sync_api import Browser, Page, expect

from tests.api.key_maker import bearer, revoke, rotate, secret_key, write_key
from tests.api.server import request, running, wait_until_ready
from tests.api.shop_site import ShopSite, shop_site
from tests.api.test_collector import raw_rows
from tests.api.test_real_clients import CLIENTS, LIBRARIES
from tests.api.tiny_shop import ITEM_IDS, promote, publish_marts, view
from warehouse import layout
from warehouse.settings import Settings
from warehouse.store import ObjectStore


def until(is_true: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not is_true():
        assert time.monotonic() < deadline, "it never was"
        time.sleep(0.02)


def statuses(port: int, key: str, n_requests: int = 12) -> set[int]:
    """The statuses of requests on a connection each, so that every worker is asked."""
    return {
        request(port, "POST", "/events", view("mug"), bearer(key))[0] for _ in range(n_requests)
    }


def test_every_worker_sees_a_revoked_and_a_rotated_key(settings: Settings) -> None:
    web, other = write_key(settings), write_key(settings)
    with running(settings, workers=2) as (port, _):
        assert statuses(port, web) == {202}
        revoke(settings, web)
        time.sleep(2)
        assert statuses(port, web) == {401}
        assert statuses(port, other) == {202}
        old_until = datetime.now(UTC) + timedelta(seconds=4)
        new = rotate(settings, other, old_until)
        time.sleep(1.5)
        assert statuses(port, other) == statuses(port, new) == {202}
        until(lambda: datetime.now(UTC) >= old_until)
        assert statuses(port, other) == {401}
        assert statuses(port, new) == {202}


def test_the_first_key_closes_a_running_app(settings: Settings) -> None:
    with running(settings, workers=2) as (port, _):
        assert request(port, "POST", "/events", view("mug"))[0] == 202
        key = write_key(settings)
        time.sleep(1.5)
        assert {request(port, "POST", "/events", view("mug"))[0] for _ in range(12)} == {401}
        assert statuses(port, key) == {202}


def test_addresses_behind_a_trusted_proxy_are_told_apart(
    settings: Settings, store: ObjectStore, tmp_path: Path
) -> None:
    key = write_key(settings)
    from_proxy = {"X-Forwarded-For": "198.51.100.9, 203.0.113.7"}  # the first is forged
    for proxies, statuses_seen in (('["127.0.0.0/8"]', [202, 429, 202]), ("[]", [202, 429, 429])):
        with _served(settings, tmp_path, proxies) as port:
            sent = [
                request(port, "POST", "/events", view("mug"), bearer(key) | from_proxy)[0]
                for _ in range(2)
            ]
            others = bearer(key) | {"X-Forwarded-For": "198.51.100.9, 203.0.113.8"}
            sent.append(request(port, "POST", "/events", view("mug"), others)[0])
        assert sent == statuses_seen
    prefixes = [row["ip_prefix"] for row in raw_rows(store, layout.RAW_EVENTS)]
    assert sorted(map(str, prefixes)) == ["127.0.0.0/24", "203.0.113.0/24", "203.0.113.0/24"]


class _served:
    """`shallop serve`, which says to uvicorn whose headers are believed."""

    def __init__(self, settings: Settings, folder: Path, proxies: str) -> None:
        self._environment = {
            "PATH": "/usr/bin:/bin",
            "SHALLOP_HOME": str(settings.home),
            "SHALLOP_ACCESS__TRUSTED_PROXIES": proxies,
            "SHALLOP_ACCESS__ADDRESS_EVENTS_PER_SECOND": "0.001",
            "SHALLOP_ACCESS__ADDRESS_BURST_EVENTS": "1",
            "OMP_NUM_THREADS": "1",
        }
        self._log = folder / "serve.log"

    def __enter__(self) -> int:
        import socket

        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "shallop", "serve", "--port", str(port)],
                env=self._environment, cwd=Path(__file__).parents[2], stdout=log, stderr=log,
                text=True,
            )  # fmt: skip
        wait_until_ready(port, self._process)
        return port

    def __exit__(self, *error: object) -> None:
        self._process.terminate()
        self._process.wait(timeout=30)


class TestSegment:
    @pytest.mark.parametrize("kind", ["write", "secret", "wrong"])
    def test_for_python(self, settings: Settings, store: ObjectStore, kind: str) -> None:
        library = pytest.importorskip("segment.analytics.client")
        public, secret = write_key(settings), secret_key(settings, "events:write")
        key = {"write": public, "secret": secret, "wrong": public[:-4] + "AAAA"}[kind]
        failures: list[Any] = []
        with running(settings) as (port, _):
            client = library.Client(
                key, host=f"http://127.0.0.1:{port}", max_retries=0,
                on_error=lambda error, batch: failures.append(error),
            )  # fmt: skip
            client.track(user_id="u", event="Product Viewed", properties={"product_id": "mug"})
            client.shutdown()
        assert bool(failures) is (kind == "wrong")
        assert len(raw_rows(store, layout.RAW_EVENTS)) == (kind != "wrong")

    def test_for_node(self, settings: Settings, store: ObjectStore) -> None:
        node = shutil.which("node")
        if node is None or not (LIBRARIES / "analytics-node").is_dir():
            pytest.skip("no Node clients here (npm install --no-package-lock in tests/clients)")
        key = write_key(settings)
        with running(settings) as (port, _):
            ended = subprocess.run(
                [node, CLIENTS / "segment_node.cjs", f"http://127.0.0.1:{port}", key],
                capture_output=True, text=True, timeout=60, check=False,
            )  # fmt: skip
        assert json.loads(ended.stdout) == {"failures": []}, ended.stderr
        assert len(raw_rows(store, layout.RAW_EVENTS)) == 5
        assert key not in repr(raw_rows(store, layout.RAW_REJECTED))


@pytest.fixture
def site() -> Iterator[ShopSite]:
    with shop_site() as made:
        yield made


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    context = browser.new_context(locale="en-US")
    yield context.new_page()
    context.close()


class TestShallopJs:
    """Pages of a shop on another port than the app: another origin."""

    @pytest.fixture(autouse=True)
    def _data(self, store: ObjectStore, marts: dict[str, pa.Table], bundles: list[Path]) -> None:
        publish_marts(store, marts)
        promote(store, bundles[0])

    def test_data_key_sends_and_recommends(
        self, site: ShopSite, page: Page, settings: Settings, store: ObjectStore
    ) -> None:
        key = write_key(settings, site.origin)
        sent: list[Any] = []
        page.on("request", lambda one: "/events" in one.url and sent.append(one))
        with running(settings) as (port, _):
            site.shallop = f"http://127.0.0.1:{port}"
            page.goto(site.add("/shop", '<shallop-carousel k="3"></shallop-carousel>', key=key))
            page.evaluate("shallop.track('view_item', {items: [{item_id: 'item-01'}]})")
            page.evaluate("shallop.flush()")
            expect(page.locator("shallop-carousel")).to_have_attribute("data-source", "gru4rec")
            reply = page.evaluate("shallop.recommend({k: 1})")
            assert reply["items"][0]["item_id"] == ITEM_IDS[2]
        assert {one.method for one in sent} == {"POST"}  # text/plain: no preflight, as before
        assert "view_item" in {row["event_name"] for row in raw_rows(store, layout.RAW_EVENTS)}

    def test_a_carousel_may_have_its_own(
        self, site: ShopSite, page: Page, settings: Settings
    ) -> None:
        key = write_key(settings, site.origin)
        with running(settings) as (port, _):
            site.shallop = f"http://127.0.0.1:{port}"
            page.goto(site.add("/shop", f'<shallop-carousel k="3" key="{key}"></shallop-carousel>'))
            expect(page.locator("shallop-carousel a")).to_have_count(3)

    @pytest.mark.parametrize("why", ["origin", "revoked", "none"])
    def test_events_wait_until_the_key_is_right(
        self, site: ShopSite, page: Page, settings: Settings, store: ObjectStore, why: str
    ) -> None:
        wrong = write_key(settings, "https://other.example" if why == "origin" else site.origin)
        right = write_key(settings, site.origin)
        if why == "revoked":
            revoke(settings, wrong)
        said: list[Any] = []
        page.on("response", lambda reply: "/events" in reply.url and said.append(reply.status))
        with running(settings) as (port, _):
            site.shallop = f"http://127.0.0.1:{port}"
            page.goto(site.add("/wrong", **({} if why == "none" else {"key": wrong})))
            page.evaluate("shallop.track('view_item', {items: [{item_id: 'item-01'}]})")
            page.evaluate("shallop.flush()")
            assert raw_rows(store, layout.RAW_EVENTS) == []
            assert page.evaluate("shallop.recommend()") is None
            page.goto(site.add("/right", key=right))
            until(lambda: page.evaluate("!Object.keys(localStorage).some(k => k.includes('.q.'))"))
        assert said[0] == (403 if why == "origin" else 401)
        assert said[-1] == 202
        assert len(raw_rows(store, layout.RAW_EVENTS)) == 1

    def test_a_page_of_another_origin_keeps_nothing(
        self, site: ShopSite, page: Page, settings: Settings, store: ObjectStore
    ) -> None:
        """Whatever a page tries: a plain request, one with a preflight, a beacon, a pixel."""
        key = write_key(settings, "https://shop.example")
        event = json.dumps(view("mug"))
        with running(settings) as (port, _):
            site.shallop = f"http://127.0.0.1:{port}"
            page.goto(site.add("/page"))
            url = f"{site.shallop}/events?key={key}"
            blocked = page.evaluate(
                """async ([url, key, body]) => {
                    const json = {"Content-Type": "application/json"};
                    const tries = [
                        fetch(url, {method: "POST", body}),
                        fetch(url, {method: "POST", body, credentials: "include"}),
                        fetch(url, {method: "POST", body, headers: json}),
                        fetch(url, {method: "POST", body, headers: {"X-Write-Key": key}}),
                        fetch(url.replace("events", "recommend") + "&session=s"),
                    ];
                    const hidden = fetch(url, {method: "POST", body, mode: "no-cors"});
                    navigator.sendBeacon(url, body);
                    const outcomes = await Promise.allSettled(tries);
                    return [...outcomes.map(({status}) => status), (await hidden).type];
                }""",
                [url, key, event],
            )
            assert blocked == ["rejected"] * 5 + ["opaque"]
            page.wait_for_load_state("networkidle")
        assert raw_rows(store, layout.RAW_EVENTS) == raw_rows(store, layout.RAW_REJECTED) == []

    def test_a_listed_page_may_use_every_header(
        self, site: ShopSite, page: Page, settings: Settings, store: ObjectStore
    ) -> None:
        key = write_key(settings, site.origin)
        with running(settings) as (port, _):
            site.shallop = f"http://127.0.0.1:{port}"
            page.goto(site.add("/page"))
            told = page.evaluate(
                """async ([url, key, event]) => {
                    const replies = [];
                    for (const headers of [{"Authorization": `Bearer ${key}`},
                            {"X-Write-Key": key}, {"X-Api-Key": key}]) {
                        const body = JSON.stringify({...event, event_id: crypto.randomUUID()});
                        headers["Content-Type"] = "application/json";
                        replies.push((await fetch(url, {method: "POST", body, headers})).status);
                    }
                    const wrong = await fetch(url, {method: "POST", body: "{}"});
                    return [...replies, (await wrong.json()).error.code];
                }""",
                [f"{site.shallop}/events", key, view("mug")],
            )
            assert told == [202, 202, 202, "missing_key"]
        assert len(raw_rows(store, layout.RAW_EVENTS)) == 3

    @pytest.mark.parametrize("listed", ["null", "https://shop.example"])
    def test_a_sandboxed_frame_has_no_origin(
        self, site: ShopSite, page: Page, settings: Settings, store: ObjectStore, listed: str
    ) -> None:
        key = write_key(settings, listed)
        with running(settings) as (port, _):
            page.goto(f"http://127.0.0.1:{port}/healthz")  # without a content policy
            url = f"http://127.0.0.1:{port}/events?key={key}"
            sent = json.dumps({"method": "POST", "body": json.dumps(view("mug"))})
            script = (
                f"fetch({json.dumps(url)}, {sent})"
                ".then((reply) => reply.status, () => 0).then((s) => parent.postMessage(s, '*'))"
            )
            status = page.evaluate(
                """(script) => new Promise((done) => {
                    addEventListener("message", ({data}) => done(data));
                    const frame = document.createElement("iframe");
                    frame.sandbox = "allow-scripts";
                    frame.srcdoc = `<script>${script}</` + "script>";
                    document.body.append(frame);
                })""",
                script,
            )
        assert status == (202 if listed == "null" else 0)
        assert len(raw_rows(store, layout.RAW_EVENTS)) == (listed == "null")

    def test_the_demo_shop_with_its_key(
        self, page: Page, settings: Settings, store: ObjectStore
    ) -> None:
        key = write_key(settings, scopes=("items:read",))
        troubles: list[str] = []
        page.on("console", lambda said: said.type == "error" and troubles.append(said.text))
        page.on("pageerror", lambda error: troubles.append(str(error)))
        with running(settings, more={"SHALLOP_ACCESS__SHOP_KEY": key}) as (port, _):
            page.goto(f"http://127.0.0.1:{port}/")
            expect(page.locator("#grid a")).to_have_count(24)
            expect(page.locator("#status-model")).to_contain_text("serves")
            page.locator('#grid a[data-item-id="item-05"]').click()
            expect(page.locator("#source")).to_contain_text("GRU4Rec")
        assert "view_item" in {row["event_name"] for row in raw_rows(store, layout.RAW_EVENTS)}
        assert troubles == []

    def test_the_demo_shop_without_a_key_says_what_to_do(
        self, page: Page, settings: Settings
    ) -> None:
        write_key(settings)
        with running(settings) as (port, _):
            page.goto(f"http://127.0.0.1:{port}/")
            expect(page.locator("#notice")).to_contain_text("SHALLOP_ACCESS__SHOP_KEY")


@pytest.mark.parametrize("kind", ["write", "secret", "none"])
def test_simulated_shoppers_and_a_replay_send_their_key(
    settings: Settings, store: ObjectStore, tmp_path: Path, kind: str
) -> None:
    keys = {
        "write": write_key(settings),
        "secret": secret_key(settings, "events:write"),
        "none": "",
    }
    events = tmp_path / "events.jsonl"
    events.write_text(json.dumps(view("mug")) + "\n")
    with running(settings) as (port, _):
        for arguments in (["replay", str(events)], ["simulate", "--sessions", "5"]):
            ended = subprocess.run(
                [sys.executable, "-m", "shallop", *arguments, "--url", f"http://127.0.0.1:{port}"],
                env={"PATH": "/usr/bin:/bin", "SHALLOP_HOME": str(settings.home),
                     "SHALLOP_KEY": keys[kind]},
                cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=60,
                check=False,
            )  # fmt: skip
            assert ended.returncode == (1 if kind == "none" else 0), ended.stderr
            assert ("SHALLOP_KEY" in ended.stderr) is (kind == "none")
    assert (len(raw_rows(store, layout.RAW_EVENTS)) > 5) is (kind != "none")

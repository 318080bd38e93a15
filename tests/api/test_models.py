"""The list of models and their reports, over HTTP and in a real Chromium."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import msgspec
import pyarrow as pa
import pytest
from fastapi.testclient import TestClient
from playwright.sync_api import Browser, Page, expect

from models.bundle import read_manifest, write_checks
from models.gate import Check
from models.registry import Registry
from tests.api.server import running
from tests.api.tiny_shop import promote, publish_marts
from warehouse import layout
from warehouse.settings import Settings
from warehouse.store import ObjectStore, StoreUnavailable


def test_before_any_model_it_says_what_to_run(client: TestClient) -> None:
    reply = client.get("/models")
    assert reply.status_code == 200
    assert "shallop refresh" in reply.text


def test_models_are_listed_with_channel_figures_verdict_and_report(
    shop: TestClient, store: ObjectStore, bundles: list[Path]
) -> None:
    other = Registry(store).upload(bundles[1])[1]
    page = shop.get("/models").text
    champion = bundles[0].name
    for version in (champion, other):
        assert f'href="/models/{version}/report"' in page
    assert page.count(">champion<") == 1
    assert page.count(">passed<") == 2
    report = shop.get(f"/models/{champion}/report")
    assert report.status_code == 200
    assert report.content == (bundles[0] / "report.html").read_bytes()
    for reply in (report, shop.get("/models")):
        policy = reply.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; style-src 'unsafe-inline';")
        assert reply.headers["content-type"] == "text/html; charset=utf-8"


def test_a_refused_model_says_why(shop: TestClient, store: ObjectStore, tmp_path: Path,
                                  bundles: list[Path]) -> None:  # fmt: skip
    folder = tmp_path / "refused"
    folder.mkdir()
    for file in bundles[1].iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    write_checks(folder, [Check("too_<slow>", False, "took 9 s")])
    Registry(store).upload(folder)
    page = shop.get("/models").text
    assert ">failed<" in page
    assert "too &lt;slow&gt;" in page


def test_models_of_before_have_no_report_and_are_listed(
    shop: TestClient, store: ObjectStore, bundles: list[Path]
) -> None:
    version = bundles[0].name
    for file in ("report.html", "evaluation.json"):
        store.delete(layout.bundle_key("gru4rec", version, file))
    manifest = read_manifest(bundles[0])
    files = {name: digest for name, digest in manifest.files.items()
             if name not in ("report.html", "evaluation.json")}  # fmt: skip
    store.put(
        layout.bundle_key("gru4rec", version, "manifest.json"),
        msgspec.json.encode(replace(manifest, files=files)),
    )
    page = shop.get("/models").text
    assert version in page
    assert f"/models/{version}/report" not in page
    reply = shop.get(f"/models/{version}/report")
    assert reply.status_code == 404
    assert "made without a report" in reply.json()["error"]["message"]


@pytest.mark.parametrize("version", ["nope", "..", "%2e%2e", "a b", "x" * 300, "<script>"])
def test_unknown_versions_are_refused(shop: TestClient, version: str) -> None:
    reply = shop.get(f"/models/{version}/report")
    assert reply.status_code == 404
    assert reply.json()["error"]["code"] in ("unknown_model", "not_found")


def test_a_store_that_is_down_is_said(
    shop: TestClient, bundles: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def down(*_: object) -> None:
        raise StoreUnavailable("the store does not answer")

    for method in ("versions", "report"):
        monkeypatch.setattr(Registry, method, down)
    for path in ("/models", f"/models/{bundles[0].name}/report"):
        reply = shop.get(path)
        assert reply.status_code == 503
        assert reply.json()["error"]["code"] == "models_unavailable"


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page that must neither log an error nor ask anybody else, and blocks no style."""
    context = browser.new_context(viewport={"width": 390, "height": 800})
    page = context.new_page()
    troubles: list[str] = []
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.on("console", lambda said: said.type == "error" and troubles.append(said.text))
    page.on("request", lambda sent: "://127.0.0.1:" not in sent.url and troubles.append(sent.url))
    yield page
    context.close()
    assert troubles == []


def test_from_the_list_to_a_report_in_a_browser(
    page: Page, settings: Settings, store: ObjectStore, marts: dict[str, pa.Table],
    bundles: list[Path],
) -> None:  # fmt: skip
    publish_marts(store, marts)
    promote(store, bundles[0])
    with running(settings) as (port, _):
        page.goto(f"http://127.0.0.1:{port}/models")
        page.get_by_role("link", name=bundles[0].name).click()
        expect(page.get_by_role("heading", level=1)).to_contain_text(bundles[0].name)
        expect(page.get_by_text("passed the gate")).to_be_visible()
        # The title of item 0 is markup, and stays text.
        assert page.locator("img").count() == 0
        width = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
        assert width[0] <= width[1]
        assert page.locator("svg").count() >= 5
        background = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert background != "rgba(0, 0, 0, 0)"  # the policy lets the page's own style through
        page.close()

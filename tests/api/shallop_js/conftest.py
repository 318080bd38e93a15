"""A shop of another origin in a real Chromium, a real collector, and a network that fails."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from playwright.sync_api import Browser, BrowserContext

from tests.api.server import running
from tests.api.shallop_js.visit import Shop, Visit
from tests.api.shop_site import shop_site
from tests.api.tiny_shop import promote, publish_marts
from warehouse.settings import ServingSettings, Settings
from warehouse.store import open_store


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
            yield Shop(site, store, settings.home.parent / "server.log")


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

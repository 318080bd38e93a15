"""What the tests of shallop.js share: a shop with its app, and a visitor's pages.

What counts as arrived is what the collector has made durable, read from raw.
"""

import json
import re
import time
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from playwright.sync_api import Page, Request

from tests.api.shop_site import ShopSite
from warehouse import layout
from warehouse.store import ObjectStore

HOSTILE = "<img src=x onerror=alert(1)> & co"  # the title of the first item
NEVER = "600000"  # ms to wait for more events: only leaving the page sends
CAROUSEL = '<shallop-carousel k="4" placement="home" href="/p/{item_id}"></shallop-carousel>'


class Shop:
    """The shop's site, the app behind it, and what became of the events."""

    def __init__(self, site: ShopSite, store: ObjectStore, log: Path) -> None:
        self.site = site
        self._store = store
        self._log = log

    def served(self) -> list[tuple[str, str]]:
        """Method and path of each request that the app's server has logged."""
        return re.findall(r'"([A-Z]+) (/[^ ?"]*)[^"]* HTTP', self._log.read_text())

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


Open = Callable[[str], Visit]


def events_of(open_page: Visit, name: str) -> list[dict[str, Any]]:
    return [
        event for batch in open_page.posted() for event in batch if event["event_name"] == name
    ]  # fmt: skip


def ids_of(event: dict[str, Any]) -> list[str]:
    return [item["item_id"] for item in event["items"]]

"""Simulated shoppers whose next item follows from the last, landed as raw objects."""

import json
import random
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from io import BytesIO
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from warehouse import layout
from warehouse.contracts import RAW_EVENT_SCHEMA
from warehouse.settings import Settings
from warehouse.store import open_store

N_ITEMS = 60
START = datetime(2026, 1, 10, 10, 0, tzinfo=UTC)


@pytest.fixture(scope="session")
def land_sessions() -> Callable[..., int]:
    """Lands `n` sessions of five views, one a minute from a day on; returns how many events."""

    def landed(settings: Settings, n: int, *, day: int = 0, price: float = 10.0) -> int:
        chance = random.Random(n + day)
        events = []
        for number in range(n):
            # few items are popular, so that a model which learned nothing loses to popularity
            item, at = (
                int(N_ITEMS * chance.random() ** 3),
                START + timedelta(days=day, minutes=number),
            )
            for step in range(5):
                events.append(
                    {
                        "event_id": f"{day}-{number}-{step}",
                        "event_name": "view_item",
                        "occurred_at": at + timedelta(seconds=step),
                        "received_at": at + timedelta(seconds=step),
                        "visitor_id": f"v{day}-{number}",
                        "items": [{"item_id": f"i{item}", "price": price + item / N_ITEMS}],
                        "schema_version": 1,
                    }
                )
                item = (item + 1) % N_ITEMS
        data = BytesIO()
        pq.write_table(pa.Table.from_pylist(events, schema=RAW_EVENT_SCHEMA), data)
        first = day * 1_000_000 + 1
        key = layout.raw_key(
            layout.RAW_EVENTS, events[0]["received_at"], "c0", first, first + len(events) - 1
        )
        open_store(settings).put(key, data.getvalue())
        return len(events)

    return landed


class _Receiver(BaseHTTPRequestHandler):
    """Keeps what is posted to it; refuses posts to /down."""

    received: list[dict[str, Any]]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.received.append(json.loads(body))
        self.send_response(503 if self.path == "/down" else 204)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def webhook() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """URL of a server on loopback, and what it has received."""
    _Receiver.received = []
    with HTTPServer(("127.0.0.1", 0), _Receiver) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", _Receiver.received
        server.shutdown()
        thread.join()

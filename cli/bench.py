"""`shallop bench`: figures of this machine, each beside its floor in the same run."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated
from uuid import uuid4

import httpx
import msgspec
import typer
from rich.table import Table

from cli.console import console, fail, load_settings
from cli.load import Load, request_bytes, run_load
from cli.ports import free_port

app = typer.Typer(no_args_is_help=True, help="Measure this machine, each figure with its floor.")

SecondsOption = Annotated[float, typer.Option(help="Seconds of load for each row.")]
ConnectionsOption = Annotated[int, typer.Option(help="Keep-alive connections.")]
BATCH_EVENTS = 100
DISTINCT_REQUESTS = 2_000


@app.command()
def collector(seconds: SecondsOption = 5, connections: ConnectionsOption = 16) -> None:
    """Durable events a second, beside an empty FastAPI route of the same process."""
    with tempfile.TemporaryDirectory() as folder, _app(Path(folder)) as port:
        host = f"127.0.0.1:{port}"
        loads = {
            "empty route": [request_bytes("GET", "/healthz", host)],
            "POST /events, 1 event": [
                request_bytes("POST", "/events", host, msgspec.json.encode(_event(n)))
                for n in range(DISTINCT_REQUESTS)
            ],
            f"POST /events, {BATCH_EVENTS} events": [
                request_bytes(
                    "POST", "/events", host,
                    msgspec.json.encode([_event(first + i) for i in range(BATCH_EVENTS)]),
                )
                for first in range(0, DISTINCT_REQUESTS, BATCH_EVENTS)
            ],
        }  # fmt: skip
        rows = {
            name: run_load("127.0.0.1", port, requests, connections=connections, seconds=seconds)
            for name, requests in loads.items()
        }
    _show("Collector, one worker", rows, {f"POST /events, {BATCH_EVENTS} events": BATCH_EVENTS})


@app.command()
def recommend(seconds: SecondsOption = 5, connections: ConnectionsOption = 8) -> None:
    """Recommendations a second of the app that runs here, beside its empty route."""
    serving = load_settings().serving
    host = f"127.0.0.1:{serving.port}"
    try:
        items = httpx.get(f"http://{host}/items", params={"limit": 100}).json()["items"]
        status = httpx.get(f"http://{host}/status").json()
    except httpx.HTTPError as error:
        fail(f"nothing answers at http://{host}, run `shallop serve` or `make demo`: {error}")
    if not status["model"]:
        fail("the app has no model, run `shallop refresh` first")
    ids = [item["item_id"] for item in items]
    sessions = [",".join(ids[n % len(ids)] for n in range(at, at + 5)) for at in range(len(ids))]
    requests = [
        request_bytes("GET", f"/recommend?items={session}&k=20", host) for session in sessions
    ]
    rows = {
        "empty route": run_load(
            "127.0.0.1", serving.port, [request_bytes("GET", "/healthz", host)],
            connections=connections, seconds=seconds,
        ),
        f"GET /recommend, 5 items, {status['model']['n_items']:,} in the catalogue": run_load(
            "127.0.0.1", serving.port, requests, connections=connections, seconds=seconds
        ),
    }  # fmt: skip
    _show("Recommender", rows, {})


def _show(title: str, rows: dict[str, Load], events: dict[str, int]) -> None:
    """Print each load with its ratio to the first, the floor."""
    table = Table(title=title, title_justify="left")
    for column in ("", "requests/s", "events/s", "p50 ms", "p90 ms", "p99 ms", "failed", "× empty"):
        table.add_column(column, justify="left" if not column else "right")
    floor = next(iter(rows.values())).requests_per_second
    for name, load in rows.items():
        rate = load.requests_per_second
        table.add_row(
            name, f"{rate:,.0f}", f"{rate * events.get(name, 1):,.0f}",
            *(f"{load.percentile_ms(q):.2f}" for q in (50, 90, 99)),
            str(load.n_failed), f"{rate / floor:.2f}",
        )  # fmt: skip
    console.print(table)


def _event(n: int) -> dict[str, object]:
    return {
        "event_id": str(uuid4()),
        "event_name": "view_item",
        "occurred_at": datetime.now(UTC).isoformat(),
        "session_id": f"bench-{n % 997}",
        "visitor_id": f"bench-{n % 997}",
        "items": [{"item_id": f"item-{n % 499}", "item_name": "Oak Table", "price": 49.5}],
        "page_url": "https://shop.example/p/oak-table",
    }


@contextmanager
def _app(home: Path) -> Iterator[int]:
    """An app with state of its own; gives its port."""
    port = free_port(18_500)
    server = subprocess.Popen(
        [sys.executable, "-m", "shallop", "serve", "--port", str(port), "--workers", "1"],
        env={**os.environ, "SHALLOP_HOME": str(home), "SHALLOP_LOG_LEVEL": "WARNING"},
    )
    try:
        for _ in range(300):
            try:
                if httpx.get(f"http://127.0.0.1:{port}/readyz").status_code == 200:
                    break
            except httpx.HTTPError:
                time.sleep(0.1)
        else:
            fail("the app did not become ready within 30 s")
        yield port
    finally:
        server.terminate()
        server.wait(timeout=60)

"""`shallop bench collector`: durable events a second, beside floors that keep nothing."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Annotated

import httpx
import msgspec
import typer
from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send

from cli.bench_table import show
from cli.console import console, fail
from cli.load import Load, Template, request_bytes, run_load
from cli.ports import free_port
from cli.serving import APP, CONNECTION

BATCHES = {100: 4, 500: 8}  # events of a request, and what part of the connections send such
WARM_UP_SECONDS = 1.5
SESSION_EVENTS = 10

_ACCEPTED = b'{"accepted":1,"rejected":0,"errors":[]}'

_NGINX = """
daemon off; pid {home}/nginx.pid; error_log {home}/error.log; worker_processes {workers};
events {{ worker_connections 1024; }}
http {{
    access_log {home}/access.log;
    client_body_temp_path {home}; proxy_temp_path {home}; fastcgi_temp_path {home};
    uwsgi_temp_path {home}; scgi_temp_path {home}; keepalive_requests 1000000000;
    server {{ listen 127.0.0.1:{port}; location / {{ empty_gif; }} }}
}}
"""


def collector(
    seconds: Annotated[float, typer.Option(help="Seconds of load for each row.")] = 5,
    connections: Annotated[
        int, typer.Option(min=1, help="Keep-alive connections; fewer for batches.")
    ] = 64,
    workers: Annotated[int, typer.Option(help="Worker processes of each server.")] = 1,
) -> None:
    """Durable events a second, beside an ASGI function, an empty FastAPI route and nginx's pixel.

    The ASGI function reads an event and replies as we do, with nothing between: the floor of what
    runs under uvicorn. The access log of nginx is the collector of many shops: not durable, not
    checked.
    """
    rows: dict[str, Load] = {}
    n_sent: Counter[str] = Counter()
    n_events: dict[str, int] = {}
    series = count()

    def load(
        name: str, port: int, request: Callable[[], Template], lanes: int = connections
    ) -> None:
        # Unmeasured first: a worker that is up before the others would take all connections.
        for measured_seconds in (WARM_UP_SECONDS, seconds):
            rows[name] = run_load(
                "127.0.0.1", port, [request()], connections=lanes, seconds=measured_seconds
            )
            n_sent[name] += rows[name].n_requests

    def load_events(name: str, port: int, n: int = 1, lanes: int = connections) -> None:
        load(name, port, lambda: _events(port, n, next(series)), lanes)

    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        with uvicorn_on("cli.bench_collector:empty_app", "/", home, workers) as port:
            load("empty FastAPI route", port, lambda: Template(_get("/", port)))
        with uvicorn_on("cli.bench_collector:bare_app", "/", home, workers) as port:
            load_events("ASGI function, 1 event", port)
        nginx = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
        if nginx:
            with _nginx(nginx, home, workers) as port:
                load("nginx empty_gif, access log", port, lambda: Template(_get("/", port)))
        with uvicorn_on(APP, "/readyz", home, workers) as port:
            for n, part in ({1: 1} | BATCHES).items():
                name = f"POST /events, {n} event{'s' if n > 1 else ''}"
                n_events[name] = n
                load_events(name, port, n, max(1, connections // part))
            kept = httpx.get(f"http://127.0.0.1:{port}/status").json()["collector"]["accepted"]
    acknowledged = sum(n * n_sent[name] for name, n in n_events.items())
    show(f"Collector, {workers} worker(s)", rows, n_events)
    console.print(f"acknowledged {acknowledged:,} events, durable in the outbox {kept:,}")
    if not nginx:
        console.print("nginx is not installed: no row for its access-log pixel", style="yellow")
    if kept != acknowledged:
        fail("the outbox has not what was acknowledged")


def bare_app() -> ASGIApp:
    """The floor under uvicorn: a function that reads an event and sends the bytes of our reply."""
    return _answer


async def _answer(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "lifespan":
        raise NotImplementedError  # as ASGI has it for apps without start and end
    await receive()
    headers = [
        (b"x-request-id", b"0" * 32),
        (b"content-type", b"application/json"),
        (b"content-length", str(len(_ACCEPTED)).encode()),
    ]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": _ACCEPTED})


def empty_app() -> FastAPI:
    """A FastAPI route that does nothing."""
    app = FastAPI(openapi_url=None)

    @app.get("/")
    async def empty() -> dict[str, str]:
        return {}

    return app


def _get(path: str, port: int) -> bytes:
    return request_bytes("GET", path, f"127.0.0.1:{port}")


def _events(port: int, n_events: int, series: int) -> Template:
    """A request of events, each with an id of its own, in sessions of SESSION_EVENTS.

    Loads of different `series` share no id.
    """
    event = {
        "event_id": f"00000000-0000-4000-{0x8000 + series:04x}-%012x",
        "event_name": "view_item",
        "occurred_at": datetime.now(UTC).isoformat(),
        "session_id": "bench-%012x",
        "visitor_id": "bench-%012x",
        "items": [{"item_id": "item-%012x", "item_name": "Oak Table", "price": 49.5}],
        "page_url": "https://shop.example/p/oak-table",
    }
    sent = [event] * n_events if n_events > 1 else event
    body = msgspec.json.encode(sent)
    places = body.count(b"%012x")
    request = request_bytes("POST", "/events", f"127.0.0.1:{port}", body % ((0,) * places))
    head = request[: request.index(b"\r\n\r\n") + 4]
    return Template(head + body, n_events, (1, SESSION_EVENTS, SESSION_EVENTS, 1_000_000))


@contextmanager
def uvicorn_on(factory: str, path: str, home: Path, workers: int) -> Iterator[int]:
    """An app under uvicorn, as `shallop serve` runs it, with state in `home`; gives its port."""
    port = free_port(18_500)
    http = CONNECTION if factory == APP else "auto"  # a floor is uvicorn's own
    command = [
        sys.executable, "-m", "uvicorn", "--factory", factory, "--port", str(port),
        "--workers", str(workers), "--log-level", "warning", "--no-access-log",
        "--http", http,
    ]  # fmt: skip
    environment = {
        **os.environ,
        "SHALLOP_HOME": str(home),
        "SHALLOP_STORAGE__URI": str(home / "store"),  # never the store of the shop
        "SHALLOP_ACCESS__REQUIRE_KEYS": "never",
        "SHALLOP_LOG_LEVEL": "WARNING",
        "SHALLOP_INGEST__OUTBOX_LIMIT_EVENTS": "1000000000",
    }
    with _running(command, environment, f"http://127.0.0.1:{port}{path}"):
        yield port


@contextmanager
def _nginx(nginx: str, home: Path, workers: int) -> Iterator[int]:
    port = free_port(18_500)
    configuration = home / "nginx.conf"
    configuration.write_text(_NGINX.format(home=home, workers=workers, port=port))
    command = [nginx, "-c", str(configuration), "-p", str(home)]
    with _running(command, dict(os.environ), f"http://127.0.0.1:{port}/"):
        yield port


@contextmanager
def _running(command: list[str], environment: dict[str, str], url: str) -> Iterator[None]:
    server = subprocess.Popen(command, env=environment, cwd=Path(__file__).parents[1])
    try:
        for _ in range(300):
            try:
                if httpx.get(url).status_code == 200:
                    break
            except httpx.HTTPError:
                time.sleep(0.1)
        else:
            fail(f"no answer within 30 s from: `{' '.join(command)}`")
        yield
    finally:
        server.terminate()
        server.wait(timeout=120)

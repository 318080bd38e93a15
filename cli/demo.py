"""`shallop demo`: everything on this machine, from events over HTTP to live recommendations.

Each part runs as a process of its own, as it would in earnest; this module only starts them,
waits for what a user would wait for, and stops them.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any
from uuid import uuid4

import httpx
import typer
from rich.table import Table

from api import key_file
from api.keys import ADMIN, ITEMS_READ, KeyTerms, created
from cli.console import console, fail, load_settings
from cli.local_s3 import LocalS3
from cli.ports import free_port, free_s3_ports

APP_WAIT_SECONDS = 60
FLUSH_WAIT_SECONDS = 300
SWAP_WAIT_SECONDS = 60
DAGSTER_WAIT_SECONDS = 180
STOP_WAIT_SECONDS = 60


def demo(
    data: Annotated[
        Path | None, typer.Option(help="Real events to replay; default: invented shoppers.")
    ] = None,
    store: Annotated[str, typer.Option(help="`folder`, or `s3` for a local S3 server.")] = "folder",
    exit_: Annotated[bool, typer.Option("--exit", help="End once it works.")] = False,
) -> None:
    """Start a shop, send events, train, publish, recommend; then serve until Ctrl-C."""
    if store not in ("folder", "s3"):
        fail(f"unknown store, expected `folder` or `s3`: `{store}`", status=2)
    if data and not data.is_file():
        fail(f"no such file: `{data}`", status=2)
    home = load_settings().home.absolute() / "demo"
    if home.exists():
        console.print(f"starting afresh: removing the last demo in {home}")
        shutil.rmtree(home)
    home.mkdir(parents=True)
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        with _processes(home) as processes:
            _run(processes, home, data, store, exit_)
    except KeyboardInterrupt:
        console.print("stopped")


class Processes:
    """The demo's servers and one-off commands; their output goes to files in `home/log`."""

    def __init__(self, home: Path) -> None:
        self.log_folder = home / "log"
        self.log_folder.mkdir()
        self.environment: dict[str, str] = {**os.environ, "SHALLOP_HOME": str(home)}
        self._servers: list[tuple[str, subprocess.Popen[bytes]]] = []

    def start(self, name: str, *arguments: str, environment: Mapping[str, str] = {}) -> None:
        """Start a server in a process group of its own."""
        with (self.log_folder / f"{name}.log").open("ab") as log:
            server = subprocess.Popen(
                arguments,
                env={**self.environment, **environment},
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        self._servers.append((name, server))

    def run(self, *arguments: str) -> None:
        """Run a `shallop` command to its end, in sight; a failure of it ends the demo."""
        status = subprocess.run([*_shallop(), *arguments], env=self.environment).returncode
        if status:
            fail(f"`shallop {' '.join(arguments)}` ended with status {status}")

    def wait(self, what: str, seconds: float, is_done: Callable[[], bool]) -> None:
        """Wait until `is_done`; a server that ends meanwhile, or the time, ends the demo."""
        deadline = time.monotonic() + seconds
        with console.status(what):
            while not is_done():
                for name, server in self._servers:
                    if server.poll() is not None:
                        self._show_end_of_log(name)
                        fail(f"{name} ended with status {server.returncode}")
                if time.monotonic() > deadline:
                    fail(f"gave up after {seconds:.0f} s {what}; logs are in {self.log_folder}")
                time.sleep(0.1)

    def stop(self) -> None:
        """Stop the servers, last started first, and wait for each."""
        for name, server in reversed(self._servers):
            if server.poll() is None:
                server.terminate()
            try:
                server.wait(timeout=STOP_WAIT_SECONDS)
            except subprocess.TimeoutExpired:
                console.print(
                    f"{name} did not stop within {STOP_WAIT_SECONDS} s, killed", style="red"
                )
            # What the server itself left behind ends with its process group.
            try:
                os.killpg(server.pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
            server.wait()

    def _show_end_of_log(self, name: str) -> None:
        lines = (self.log_folder / f"{name}.log").read_text(errors="replace").splitlines()
        for line in lines[-15:]:
            console.print(f"  {line}", highlight=False, markup=False)


def _run(
    processes: Processes, home: Path, data: Path | None, store: str, should_exit: bool
) -> None:
    if store == "s3":
        _start_s3(processes, home)
    settings = load_settings()
    port = free_port(settings.serving.port)
    dagster_port = free_port(3000)
    url = f"http://127.0.0.1:{port}"
    dagster_url = f"http://127.0.0.1:{dagster_port}"
    processes.environment |= {
        "SHALLOP_SERVING__HOST": "127.0.0.1",
        "SHALLOP_SERVING__PORT": str(port),
        "SHALLOP_SERVING__DAGSTER_URL": dagster_url,
    }

    headers = {}
    if settings.access.require_keys == "always":
        headers = {"Authorization": f"Bearer {_make_keys(processes, home)}"}

    _step("the app starts")
    processes.start("app", *_shallop(), "serve")
    with httpx.Client(base_url=url, timeout=10, headers=headers) as client:
        processes.wait("until the app is ready", APP_WAIT_SECONDS, lambda: _is_ready(client))

        _step(f"events go to the collector: {data or 'invented shoppers'}")
        processes.run(*(["replay", str(data)] if data else ["simulate"]))
        processes.wait(
            "until every event is in raw", FLUSH_WAIT_SECONDS, lambda: _depth(client) == 0
        )

        _step("refresh: raw → dbt → marts → training → gate → champion")
        processes.run("refresh")
        processes.run("marts")
        processes.wait(
            "until the app has swapped its model", SWAP_WAIT_SECONDS, lambda: _has_model(client)
        )

        _step("three live shoppers")
        for views in _journeys(client):
            _show_journey(client, views)

    processes.start("dagster", *_shallop(), "dagster", "--port", str(dagster_port))
    processes.wait(
        "until the Dagster UI answers", DAGSTER_WAIT_SECONDS, lambda: _answers(dagster_url)
    )
    console.print(f"\n  shop page   {url}/\n  API docs    {url}/docs\n  status      {url}/status")
    console.print(f"  Dagster UI  {dagster_url}\n  logs        {processes.log_folder}\n")
    if should_exit:
        return
    console.print("Serving until Ctrl-C.")
    while True:
        processes.wait("serving", float("inf"), lambda: False)


def _make_keys(processes: Processes, home: Path) -> str:
    """Keys of this demo alone: a public one for its shop page, and a secret one, which is given."""
    _step("keys are made")
    now = datetime.now(UTC)
    with key_file.changing(home / "keys.json") as made:
        page, page_token = created(KeyTerms("demo-page", "write", (ITEMS_READ,)), made, now)
        made[page.id] = page
        admin, admin_token = created(KeyTerms("demo", "secret", (ADMIN,)), made, now)
        made[admin.id] = admin
    processes.environment |= {"SHALLOP_ACCESS__SHOP_KEY": page_token, "SHALLOP_KEY": admin_token}
    return admin_token


def _start_s3(processes: Processes, home: Path) -> None:
    """An S3 server from its wheel, with one bucket for the demo."""
    _step("an S3 server starts")
    folder = home / "s3"
    folder.mkdir()
    server = LocalS3(folder, free_s3_ports(), "shallop-demo", uuid4().hex)
    processes.environment |= {
        "SHALLOP_STORAGE__URI": "s3://shallop",
        "SHALLOP_STORAGE__S3_ENDPOINT": server.endpoint,
        "SHALLOP_STORAGE__S3_ACCESS_KEY": server.access_key,
        "SHALLOP_STORAGE__S3_SECRET_KEY": server.secret_key,
    }
    processes.start("s3", *server.command, environment=server.environment)
    endpoint = f"{server.endpoint}/healthz"
    processes.wait("until the S3 server answers", 60, lambda: _answers(endpoint))


def _journeys(client: httpx.Client) -> list[list[dict[str, Any]]]:
    """Three short sessions: two popular items each, of three different categories."""
    items = client.get("/items", params={"limit": 100}).raise_for_status().json()["items"]
    by_category: dict[str, list[dict[str, Any]]] = {}
    for item in items:
        by_category.setdefault(item["category"] or "", []).append(item)
    journeys = [found[:2] for found in by_category.values() if len(found) >= 2]
    if len(journeys) < 3:
        journeys = [items[i : i + 2] for i in (0, 2, 4)]
    return journeys[:3]


def _show_journey(client: httpx.Client, views: list[dict[str, Any]]) -> None:
    """Let one shopper view `views`, through the collector, and print what is recommended."""
    session = f"demo-{uuid4().hex[:8]}"
    for item in views:
        event = {
            "event_id": str(uuid4()),
            "event_name": "view_item",
            "occurred_at": datetime.now(UTC).isoformat(),
            "session_id": session,
            "visitor_id": session,
            "items": [{"item_id": item["item_id"], "item_name": item["title"]}],
        }
        client.post("/events", json=event).raise_for_status()
    reply = client.get("/recommend", params={"session": session, "k": 5}).raise_for_status().json()
    seen = " → ".join(item["title"] or item["item_id"] for item in views)
    table = Table(title=f"{session} viewed {seen}", title_justify="left")
    for column in ("", "recommended", "category", "score", "source"):
        table.add_column(column)
    for item in reply["items"]:
        table.add_row(
            str(item["rank"]), item["title"] or item["item_id"], item["category"] or "",
            f"{item['score']:.3f}", item["source"],
        )  # fmt: skip
    console.print(table)
    if reply["fallback"]:
        console.print(f"  fell back: {reply['fallback']['message']}")


@contextmanager
def _processes(home: Path) -> Iterator[Processes]:
    processes = Processes(home)
    try:
        yield processes
    finally:
        processes.stop()


def _step(what: str) -> None:
    console.print(f"\n[bold]▸ {what}[/]")


def _shallop() -> tuple[str, ...]:
    return (sys.executable, "-m", "shallop")


def _interrupt(signal_number: int, frame: object) -> None:
    raise KeyboardInterrupt


def _is_ready(client: httpx.Client) -> bool:
    try:
        return client.get("/readyz").status_code == 200
    except httpx.HTTPError:
        return False


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=2).status_code < 500
    except httpx.HTTPError:
        return False


def _depth(client: httpx.Client) -> int:
    return int(client.get("/status").json()["collector"]["depth"])


def _has_model(client: httpx.Client) -> bool:
    return client.get("/status").json()["model"] is not None

"""`shallop bench recommend`: recommendations a second, beside an empty route."""

import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import httpx
import typer

from cli.bench_collector import uvicorn_on
from cli.bench_table import show
from cli.console import errors, fail, load_settings
from cli.load import Load, Template, request_bytes, run_load
from cli.serving import APP

_MAX_ROUNDS = 3  # of a second or more
_SESSION_STEPS = 5
_KINDS = {
    "GRU4Rec alone": {"is_fused": False},
    "fusion": {"is_fused": True},
    "re-ranked": {"is_fused": True, "is_reranked": True},
}
_LOAD_SECONDS = 120  # longest that an app takes to load an invented model


@dataclass(frozen=True)
class _App:
    """An app that answers on `port`, and sessions to ask it for."""

    port: int
    n_items: int
    sessions: list[list[str]]


def recommend(
    seconds: Annotated[float, typer.Option(help="Seconds of load for each row.")] = 5,
    connections: Annotated[int, typer.Option(min=1, help="Keep-alive connections.")] = 8,
    items: Annotated[
        int, typer.Option(min=0, help="Invent models of so many items; 0: the app that runs here.")
    ] = 0,
    workers: Annotated[int, typer.Option(min=1, help="Worker processes of invented models.")] = 1,
) -> None:
    """Recommendations a second of the app that runs here, or of invented models of any size.

    With `--items` GRU4Rec alone, the fusion and the re-ranked fusion are served by three apps and
    asked in turn.
    """
    with ExitStack() as stack:
        if items:
            apps = stack.enter_context(_invented(items, workers))
        else:
            apps = {"GET /recommend": _running_here()}
        rows = _measured(apps, connections=connections, seconds=seconds)
    show(f"Recommender, {connections} connections", rows, {})


def _measured(apps: dict[str, _App], *, connections: int, seconds: float) -> dict[str, Load]:
    """Loads by row, in rounds that alternate: what disturbs one disturbs all."""
    asked = {"empty route": (next(iter(apps.values())).port, [_get("/healthz")])}
    for name, app in apps.items():
        paths = [f"/recommend?items={','.join(session)}&k=20" for session in app.sessions]
        asked[f"{name}, 5 items of {app.n_items:,}"] = (app.port, [_get(path) for path in paths])
    rows = {name: Load() for name in asked}
    n_rounds = min(_MAX_ROUNDS, max(1, int(seconds)))
    for _ in range(n_rounds):
        for name, (port, requests) in asked.items():
            load = run_load("127.0.0.1", port, requests, connections=connections,
                            seconds=seconds / n_rounds)  # fmt: skip
            rows[name].add(load)
    return rows


def _get(path: str) -> Template:
    return Template(request_bytes("GET", path, "127.0.0.1"))


def _running_here() -> _App:
    """The app of the settings, asked for sessions of its most popular items."""
    port = load_settings().serving.port
    host = f"http://127.0.0.1:{port}"
    try:
        found = httpx.get(f"{host}/items", params={"limit": 100}).json()["items"]
        model = httpx.get(f"{host}/status").json()["model"]
    except httpx.HTTPError as error:
        fail(f"nothing answers at {host}, run `shallop serve` or `make demo`: {error}")
    if not model:
        fail("the app has no model, run `shallop refresh` first")
    ids = [item["item_id"] for item in found]
    sessions = [
        [ids[step % len(ids)] for step in range(at, at + _SESSION_STEPS)] for at in range(len(ids))
    ]
    return _App(port, model["n_items"], sessions)


@contextmanager
def _invented(n_items: int, workers: int) -> Iterator[dict[str, _App]]:
    """An app for each kind of model, with stores of their own."""
    with ExitStack() as stack:
        apps = {}
        for name, how in _KINDS.items():
            home = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            with errors.status(f"{name} of {n_items:,} items is made up"):
                sessions = _publish(home, n_items, **how)
                running = uvicorn_on(APP, "/readyz", home, workers)
                port = stack.enter_context(running)
                _wait_for_model(port)
            apps[name] = _App(port, n_items, sessions)
        yield apps


def _publish(
    home: Path, n_items: int, *, is_fused: bool, is_reranked: bool = False
) -> list[list[str]]:
    """Make an invented model the champion of a store in `home`; sessions to ask it for."""
    from models.invented import write_invented
    from models.registry import Registry
    from warehouse.folder_store import FolderStore

    folder, sessions = write_invented(
        home / "bundles", n_items, is_fused=is_fused, is_reranked=is_reranked
    )
    registry = Registry(FolderStore(home / "store"))
    name, version = registry.upload(folder)
    registry.promote(name, version, reason="bench")
    return sessions


def _wait_for_model(port: int) -> None:
    deadline = time.monotonic() + _LOAD_SECONDS
    while not httpx.get(f"http://127.0.0.1:{port}/status").json()["model"]:
        if time.monotonic() > deadline:
            fail(f"the app did not load the model within {_LOAD_SECONDS} s")
        time.sleep(0.1)

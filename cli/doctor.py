"""`shallop doctor`: what is misconfigured here, and how to mend it."""

import importlib.util
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal
from uuid import uuid4

import httpx
import typer
from pydantic import ValidationError
from rich.table import Table

from api import key_file
from cli.console import console, describe_invalid
from warehouse import snapshot
from warehouse.settings import Settings
from warehouse.store import StoreUnavailable, open_store

MIN_FREE_BYTES = 1_000_000_000


@dataclass(frozen=True)
class Finding:
    """One thing looked at; `remedy` says what to do where it is not `ok`."""

    name: str
    state: Literal["ok", "warning", "wrong"]
    message: str
    remedy: str = ""


def doctor() -> None:
    """Look at settings, disk, store, outbox, marts, model and app; exit 1 where one is wrong."""
    findings = list(examine())
    table = Table(show_lines=False)
    for column in ("", "what", "found", "to mend it"):
        table.add_column(column, overflow="fold")
    marks = {"ok": "[green]ok[/]", "warning": "[yellow]warning[/]", "wrong": "[red]wrong[/]"}
    for finding in findings:
        table.add_row(marks[finding.state], finding.name, finding.message, finding.remedy)
    console.print(table)
    if any(finding.state == "wrong" for finding in findings):
        raise typer.Exit(1)


def examine() -> Iterator[Finding]:
    """Findings in the order in which one causes the next; stops at settings that are refused."""
    try:
        settings = Settings()
    except ValidationError as error:
        yield Finding(
            "settings", "wrong", "\n".join(describe_invalid(error)), "change it there or in .env"
        )
        return
    yield Finding("settings", "ok", f"state in {settings.home}, store {settings.store_uri}")
    looks: tuple[Callable[[Settings], Finding], ...] = (
        _disk, _extension, _store, _outbox, _keys, _marts, _champion, _device, _app,
    )  # fmt: skip
    for look in looks:
        yield look(settings)


def _disk(settings: Settings) -> Finding:
    try:
        settings.home.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(settings.home).free
    except OSError as error:
        return Finding("disk", "wrong", str(error), "make it writable or set SHALLOP_HOME")
    state: Literal["ok", "warning"] = "ok" if free > MIN_FREE_BYTES else "warning"
    return Finding("disk", state, f"{free / 1e9:.1f} GB free", "" if state == "ok" else "free some")


def _extension(settings: Settings) -> Finding:
    if importlib.util.find_spec("duckdb_extension_httpfs") is None:
        return Finding(
            "duckdb httpfs", "wrong", "its wheel is missing", "pip install duckdb-extension-httpfs"
        )
    return Finding("duckdb httpfs", "ok", "from its wheel, nothing to download")


def _store(settings: Settings) -> Finding:
    store = open_store(settings)
    key = f"doctor/{uuid4().hex}"
    try:
        store.prepare()
        is_conditional = store.put_if_absent(key, b"1") and not store.put_if_absent(key, b"2")
        store.delete(key)
    except StoreUnavailable as error:
        return Finding(
            "store", "wrong", str(error), "start the server, or correct SHALLOP_STORAGE__*"
        )
    if not is_conditional:
        return Finding(
            "store", "wrong", "it ignores `If-None-Match: *`, so raw objects could be overwritten",
            "use MinIO, Silo, SeaweedFS or another server with conditional writes",
        )  # fmt: skip
    return Finding("store", "ok", f"{settings.store_uri} takes conditional writes")


def _outbox(settings: Settings) -> Finding:
    if not settings.outbox_path.exists():
        return Finding("outbox", "ok", "none yet, the app makes it")
    try:
        with sqlite3.connect(f"file:{settings.outbox_path}?mode=ro", uri=True) as connection:
            (verdict,) = connection.execute("pragma quick_check").fetchone()
            (waiting,) = connection.execute(
                "select n_in - n_out from stream where name = 'events'"
            ).fetchone()
    except sqlite3.Error as error:
        return Finding("outbox", "wrong", str(error), f"look at {settings.outbox_path}")
    if verdict != "ok":
        return Finding("outbox", "wrong", verdict, f"restore {settings.outbox_path}")
    limit = settings.ingest.outbox_limit_events
    if waiting > limit / 2:
        return Finding(
            "outbox", "warning", f"{waiting:,} of {limit:,} events wait for the store",
            "is the app running and the store reachable?",
        )  # fmt: skip
    return Finding("outbox", "ok", f"{waiting:,} events wait for the store")


def _keys(settings: Settings) -> Finding:
    mode = settings.access.require_keys
    try:
        keys = key_file.read(settings.keys_path)
    except key_file.KeysUnreadable as error:
        return Finding("keys", "wrong", str(error), "restore or correct it")
    n_good = sum(key.is_usable(datetime.now(UTC)) for key in (keys or {}).values())
    if mode == "never" or (mode == "auto" and not keys):
        why = f"SHALLOP_ACCESS__REQUIRE_KEYS is {mode}" + ("" if keys else " and no key was made")
        return Finding(
            "keys", "warning", f"the collector is open, anybody may send and read: {why}",
            "`shallop keys create` before others can reach it",
        )  # fmt: skip
    if not n_good:
        return Finding(
            "keys", "wrong", "keys are asked for and none is good", "`shallop keys create`"
        )
    return Finding("keys", "ok", f"{n_good} good, requests without one are refused")


def _marts(settings: Settings) -> Finding:
    try:
        latest = snapshot.latest(open_store(settings))
    except (snapshot.NoSnapshot, StoreUnavailable) as error:
        return Finding("marts", "warning", str(error), "send events, then `shallop refresh`")
    age = datetime.now(UTC) - latest.created_at
    rows = latest.marts["training_steps"].n_rows
    return Finding(
        "marts", "ok", f"{rows:,} training steps, {age.total_seconds() / 3600:.1f} hours old"
    )


def _champion(settings: Settings) -> Finding:
    from models.registry import NoChampionModel, Registry

    registry = Registry(open_store(settings))
    try:
        pointer = registry.pointer()
        registry.fetch(pointer.name, pointer.version, settings.model_cache_path)
    except NoChampionModel as error:
        return Finding("champion", "warning", str(error), "send events, then `shallop refresh`")
    except StoreUnavailable as error:
        return Finding("champion", "wrong", str(error), "see `store`")
    except RuntimeError as error:  # a damaged bundle
        return Finding("champion", "wrong", str(error), "`shallop registry rollback`")
    return Finding("champion", "ok", f"{pointer.name} {pointer.version}, every hash verified")


def _device(settings: Settings) -> Finding:
    import torch

    from models.devices import NoSuchDevice, resolve_device
    from models.kernels import check_kernels

    training = settings.training
    if training.gpu_kernels:
        try:
            check_kernels(resolve_device(training.device), training.processes)
        except NoSuchDevice as error:
            return Finding("device", "wrong", str(error), "trainings fail until that is changed")
    if torch.cuda.is_available():
        return Finding("device", "ok", torch.cuda.get_device_name())
    if training.device == "cuda":
        return Finding(
            "device", "wrong", "SHALLOP_TRAINING__DEVICE is cuda, torch sees no GPU",
            "set it to auto, or install a CUDA build of torch and its driver",
        )  # fmt: skip
    return Finding("device", "ok", f"CPU, torch {torch.__version__}")


def _app(settings: Settings) -> Finding:
    url = f"http://{settings.serving.host}:{settings.serving.port}".replace("0.0.0.0", "127.0.0.1")
    try:
        ready = httpx.get(f"{url}/readyz", timeout=3)
    except httpx.HTTPError:
        return Finding("app", "warning", f"nothing answers at {url}", "`shallop serve`")
    if ready.status_code != 200:
        return Finding("app", "wrong", f"{url}/readyz: {ready.text[:200]}", "read its log")
    return Finding("app", "ok", f"{url} is ready")

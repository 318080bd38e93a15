"""What assets are given: the settings, and the lock that one refresh holds while it writes."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg

from warehouse.settings import Settings

# What an asset returns. Dagster takes no parametrized annotation beside check results.
if TYPE_CHECKING:
    Materialized = dg.MaterializeResult[None]
else:
    Materialized = dg.MaterializeResult


# Limit 1: two dbt processes cannot open the same warehouse.
WAREHOUSE_POOL = "duckdb_warehouse"


@dataclass(frozen=True)
class RefreshLock:
    """Proof that this run is the only one that writes; assets that write ask for it."""

    run_id: str


class RefreshRunning(RuntimeError):
    """Another refresh of the same warehouse has not ended yet."""


def resources(settings: Settings) -> dict[str, object]:
    """Resources of the code location, made from `settings` alone."""

    @dg.resource(description="Held by the one run that writes the warehouse and the champion.")
    def refresh_lock_resource(context: dg.InitResourceContext) -> Iterator[RefreshLock]:
        with refresh_lock(settings, context.run.run_id if context.run else "") as lock:
            yield lock

    return {"settings": settings, "refresh_lock": refresh_lock_resource}


@contextmanager
def refresh_lock(settings: Settings, run_id: str) -> Iterator[RefreshLock]:
    """Be the only refresh of this home; the kernel lets go when the process dies.

    Raises RefreshRunning when another one is.
    """
    path = _lock_path(settings)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as file:
        if not _taken(file.fileno()):
            file.seek(0)
            raise RefreshRunning(
                "another refresh is writing this warehouse, wait until it has ended: "
                f"{file.read().strip() or path}"
            )
        file.truncate(0)
        file.write(f"run {run_id} in process {os.getpid()}\n")
        file.flush()
        yield RefreshLock(run_id)


def _taken(descriptor: int) -> bool:
    """Whether the lock is ours now; `last_refresh` holds it for a moment, which is waited for."""
    for wait_seconds in (0.05, 0.1, 0.2, 0.0):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            time.sleep(wait_seconds)
    return False


def last_refresh(settings: Settings) -> str:
    """Id of the run that held the refresh lock last; empty while one holds it or none ever did."""
    try:
        with _lock_path(settings).open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            words = file.read().split()
    except (BlockingIOError, FileNotFoundError):
        return ""
    return words[1] if len(words) > 1 else ""


def _lock_path(settings: Settings) -> Path:
    return settings.home.absolute() / "refresh.lock"

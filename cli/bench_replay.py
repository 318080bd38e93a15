"""`shallop bench replay`: rows of history a second, over HTTP and straight into raw."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import Annotated

import polars as pl
import pyarrow.parquet as pq
import typer
from rich.table import Table

from cli.bench_collector import uvicorn_on
from cli.console import console, errors, fail
from cli.serving import APP
from ingest.history.delivery import deliver
from ingest.history.direct import write
from ingest.history.history import open_history
from ingest.history.progress import Progress
from warehouse.folder_store import FolderStore
from warehouse.settings import IngestSettings

N_ITEMS = 50_000
STEPS = 10


def replay(
    rows: Annotated[int, typer.Option(min=1_000, help="Rows of invented history.")] = 200_000,
    file: Annotated[Path | None, typer.Option(help="Real history instead of invented.")] = None,
) -> None:
    """Rows of history a second: read alone, straight into raw, and over HTTP, in one run."""
    limits = IngestSettings()
    seconds: dict[str, float] = {}

    def timed(name: str, work: Callable[[], None]) -> None:
        began_at = monotonic()
        with errors.status(name):
            work()
        seconds[name] = monotonic() - began_at

    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        history = open_history([file or _invented(home / "events.parquet", rows)], limits=limits)
        survey = history.survey()
        n_rows = survey.tally.n_rows
        for path in history.files:
            if path.suffix == ".parquet":
                pq.read_table(path)  # into the cache of the system

        def read() -> None:
            history.survey()

        def direct() -> None:
            report = write(history, survey, FolderStore(home / "store"), limits)
            if not report.is_complete:
                fail("not every row is in raw")

        timed("read once, nothing kept", read)
        timed("--direct, ids and rules and Parquet", direct)
        with uvicorn_on(APP, "/readyz", home, 1) as port:
            url = f"http://127.0.0.1:{port}"

            def over_http() -> None:
                progress = Progress(home / "replay", history.digest(), url)
                if not deliver(history, survey, url, progress).is_complete:
                    fail("not every row was delivered")

            timed("over HTTP, durable at the ack", over_http)
    _show(n_rows, seconds)


def _invented(path: Path, n_rows: int) -> Path:
    """Sessions of STEPS views each, a second apart."""
    number = pl.int_range(n_rows)
    visitor = (number // STEPS).cast(pl.String)
    pl.select(
        event_time=pl.datetime(2026, 1, 1) + pl.duration(seconds=number),
        event_type=pl.lit("view"),
        item_id=((number * 2654435761) % N_ITEMS).cast(pl.String),
        session_id=visitor,
        user_id=visitor,
        price=(number % 100) + 0.99,
        brand=pl.lit("b") + (number % 50).cast(pl.String),
    ).write_parquet(path)
    return path


def _show(n_rows: int, seconds: dict[str, float]) -> None:
    table = Table("", "rows/s", "× HTTP", title=f"Replay of {n_rows:,} rows", title_justify="left")
    slowest = seconds["over HTTP, durable at the ack"]
    for name, took in seconds.items():
        table.add_row(name, f"{n_rows / took:,.0f}", f"{slowest / took:.1f}")
    console.print(table)

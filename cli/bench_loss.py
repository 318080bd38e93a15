"""`shallop bench loss`: is anything acknowledged ever lost, whatever is done to the collector?"""

import os
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random
from typing import Annotated, Any
from uuid import uuid4

import duckdb
import typer
from pydantic import SecretStr

from assets.project import (
    PROJECT_DIR,
    dbt_command,
    dbt_process_environment,
    prepare_dbt,
    run_path,
)
from cli.console import console, fail
from cli.local_s3 import LocalS3
from cli.loss_faults import Collectors, NotReady, S3Server, fill_disk, small_disk
from cli.loss_ledger import Clients, Ledger, Verdict
from cli.ports import free_port, free_s3_ports
from warehouse.layout import RAW_EVENTS
from warehouse.parquet import read_parquet
from warehouse.settings import IngestSettings, Settings, StorageSettings, TrainingSettings
from warehouse.store import open_store

_DISK_MEGABYTES = 256  # the WAL takes 32, what waits while the store is down the more
_MAX_SHOWN = 20


def loss(
    kills: Annotated[int, typer.Option(min=1, help="SIGKILLs of workers and flusher.")] = 100,
    workers: Annotated[int, typer.Option(min=1, help="Collector processes.")] = 2,
    clients: Annotated[int, typer.Option(min=1, help="Clients that send.")] = 3,
    pause_seconds: Annotated[
        float, typer.Option(min=0, help="Longest random pause between two kills.")
    ] = 2.0,
    seed: Annotated[int, typer.Option(help="Seed of when and whom it strikes.")] = 1,
) -> None:
    """Kill collectors and store under load, fill the disk, tear the outbox; then count.

    A ledger outside of the processes compares every acknowledged event with raw, and after a real
    `dbt build` with staging and the marts: each is in `session_events` once, and `training_steps`
    has exactly the steps that the ledger makes of them. Ends with status 1 if one is lost or
    counted twice.
    """
    with tempfile.TemporaryDirectory(prefix="shallop-loss-") as folder:
        home = Path(folder) / "home"
        with small_disk(home, _DISK_MEGABYTES) as is_small:
            if not is_small:
                console.print(
                    "no tmpfs may be mounted here: the full disk is a limit on the size of one "
                    "worker's files instead",
                    style="yellow",
                )
            try:
                verdicts = _run(Path(folder), home, is_small, Random(seed), kills, workers,
                                clients, pause_seconds)  # fmt: skip
            except NotReady as error:
                fail(str(error))
    for place, verdict in verdicts.items():
        console.print(
            f"{place}: {len(verdict.lost)} lost / {len(verdict.duplicated)} duplicated"
            + (f" / {len(verdict.invented)} never sent" if verdict.invented else "")
        )
        for event_id in (verdict.lost + verdict.duplicated + verdict.invented)[:_MAX_SHOWN]:
            console.print(f"  {event_id}")
    if not all(verdict.is_clean for verdict in verdicts.values()):
        fail("events were lost or counted twice")


def _run(
    folder: Path,
    home: Path,
    is_small: bool,
    random: Random,
    n_kills: int,
    n_workers: int,
    n_clients: int,
    pause_seconds: float,
) -> dict[str, Verdict]:
    """Do it all; what is missing or too many, by place."""
    server = LocalS3(folder / "s3", free_s3_ports(), "bench", uuid4().hex)
    settings = _settings(home, server)
    store, ledger = S3Server(server), Ledger()
    ports = [free_port(18_600 + 50 * n) for n in range(n_workers)]
    collectors = Collectors(settings, _environment(settings), ports)
    senders = Clients(ledger, collectors.urls, n_clients, random.randrange(2**31))
    faults = _faults(collectors, store, ledger, home if is_small else None)
    started_at = time.monotonic()
    try:
        store.start()
        collectors.start()
        senders.start()
        try:
            _harm(collectors, faults, ledger, random, n_kills, pause_seconds)
        finally:
            senders.stop()
        collectors.stop()
        console.print(
            f"{dict(collectors.kills)} killed, {collectors.n_ended} ended on a full disk and were "
            f"started again, store killed {store.n_outages} times, "
            f"{time.monotonic() - started_at:.0f} s; {len(ledger.sent):,} events sent, "
            f"{len(ledger.acknowledged):,} acknowledged, {ledger.n_again:,} requests sent again "
            f"({ledger.n_refused:,} after a 503)"
        )
        _build(settings)
        in_mart = _ids_in(settings, "session_events")
        return {
            "raw": ledger.judge(_raw_ids(settings)),
            "staging": ledger.judge(_ids_in(settings, "stg_shop__events")),
            "session_events": ledger.judge(in_mart),
            "training_steps": _judge_steps(ledger, in_mart, _steps_in(settings)),
        }
    finally:
        collectors.kill_all()
        store.stop()


def _harm(
    collectors: Collectors,
    faults: list[tuple[str, Callable[[], None]]],
    ledger: Ledger,
    random: Random,
    n_kills: int,
    pause_seconds: float,
) -> None:
    """Kill `n_kills` times; now and then, and at least once each, the faults in between."""
    every = max(1, n_kills // (3 * len(faults)))
    turn = 0
    while collectors.kills.total() < n_kills or turn < len(faults):
        time.sleep(random.uniform(0.1, pause_seconds))
        collectors.kill(random)
        if collectors.kills.total() >= every * (turn + 1):
            name, harm = faults[turn % len(faults)]
            harm()
            turn += 1
            console.print(
                f"{collectors.kills.total()} kills, {len(ledger.acknowledged):,} events "
                f"acknowledged; {name}"
            )
    for index in range(len(collectors.urls)):
        collectors.await_ready(index)


def _faults(
    collectors: Collectors, store: S3Server, ledger: Ledger, small_home: Path | None
) -> list[tuple[str, Callable[[], None]]]:
    """What else is done, by name."""
    full_disk = (
        partial(fill_disk, small_home, lambda: ledger.n_refused)
        if small_home is not None
        else collectors.limit_file_size
    )
    return [
        ("store killed and restarted", store.outage),
        ("disk full", full_disk),
        ("all killed, last page torn", collectors.tear_tail),
    ]


def _settings(home: Path, server: LocalS3) -> Settings:
    return Settings(
        _env_file=None,
        home=home,
        storage=StorageSettings(
            uri=f"s3://loss-{uuid4().hex[:8]}/lake",
            s3_endpoint=server.endpoint,
            s3_access_key=SecretStr(server.access_key),
            s3_secret_key=SecretStr(server.secret_key),
            s3_timeout_seconds=2,
        ),
        ingest=IngestSettings(flush_interval_seconds=0.3),
        # No person clicks as fast as this load: the rules would leave its sessions out of training.
        training=TrainingSettings(max_events_per_minute=0, max_session_events=0),
    )


def _environment(settings: Settings) -> dict[str, str]:
    return {
        **os.environ,
        **settings.store_environment(),
        "SHALLOP_ACCESS__REQUIRE_KEYS": "never",
        "SHALLOP_LOG_LEVEL": "ERROR",
        "SHALLOP_INGEST__FLUSH_INTERVAL_SECONDS": str(settings.ingest.flush_interval_seconds),
    }


def _raw_ids(settings: Settings) -> Counter[str]:
    """Ids in raw. A client that sent twice is there twice, so only what is missing counts here."""
    store = open_store(settings)
    found: set[str] = set()
    for info in store.list(RAW_EVENTS):
        table = read_parquet(store.get(info.key), columns=["event_id"])
        found.update(table["event_id"].to_pylist())
    return Counter(found)


def _build(settings: Settings) -> None:
    """All models and tests of the warehouse, for real."""
    prepare_dbt(settings)
    done = subprocess.run(
        dbt_command(settings, "build", "--quiet", "--log-format", "text", "--no-use-colors"),
        env=dbt_process_environment(settings, run_path(settings)),
        cwd=PROJECT_DIR,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        fail(f"`dbt build` failed: {done.stdout.strip()}")


def _ids_in(settings: Settings, model: str) -> Counter[str]:
    """Event ids of a model, each with how often it is there."""
    rows = _query(settings, model, "select event_id, count(*) from {} group by event_id")
    return Counter(dict(rows))


def _steps_in(settings: Settings) -> Counter[tuple[str, str]]:
    """Session and item of every training step, each with how often it is there."""
    columns = "session_id, item_id"
    rows = _query(
        settings, "training_steps", f"select {columns}, count(*) from {{}} group by {columns}"
    )
    return Counter({(session_id, item_id): n for session_id, item_id, n in rows})


def _query(settings: Settings, model: str, sql: str) -> list[Any]:
    with duckdb.connect(str(settings.warehouse_path), read_only=True) as connection:
        found = connection.execute(
            "select table_schema from information_schema.tables where table_name = ?", [model]
        ).fetchall()
        return connection.sql(sql.format(f'"{found[0][0]}".{model}')).fetchall()


def _judge_steps(ledger: Ledger, in_mart: Counter[str], found: Counter[tuple[str, str]]) -> Verdict:
    """The steps that the events of the mart should make, against those that are there."""
    expected = ledger.steps(event_id for event_id in in_mart if event_id in ledger.sent)
    return Verdict(
        lost=[" ".join(step) for step in sorted((expected - found).elements())],
        duplicated=[" ".join(step) for step in sorted((found - expected).elements())],
        invented=[],
    )

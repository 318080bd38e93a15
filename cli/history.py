"""`shallop replay`: history out of files into the collector, or straight into raw."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain, islice
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from cli.console import console, errors, fail, load_settings
from cli.data import UrlOption, app_url, counted
from ingest.history.report import Report
from warehouse.settings import Settings
from warehouse.store import open_store

if TYPE_CHECKING:
    from ingest.history.history import History, Survey

logger = logging.getLogger(__name__)

_LOG_EVERY_SECONDS = 5.0
_N_SHOWN = 3


def replay(
    files: Annotated[list[Path], typer.Argument(help="Files, folders or quoted patterns.")],
    format_: Annotated[
        str,
        typer.Option(
            "--format",
            help="auto, shallop, ga4-bigquery, ga360, rees46, retailrocket, otto, yoochoose or "
            "mapping.",
        ),
    ] = "auto",
    mapping: Annotated[
        Path | None, typer.Option(help="TOML file: which column is which field.")
    ] = None,
    timezone: Annotated[str, typer.Option(help="Zone of times that name none.")] = "UTC",
    items: Annotated[
        Path | None, typer.Option(help="Titles, categories and prices; default: items.* beside.")
    ] = None,
    url: UrlOption = None,
    key: Annotated[
        str, typer.Option(envvar="SHALLOP_KEY", help="API key, where the app asks for one.")
    ] = "",
    rate: Annotated[
        float, typer.Option(min=0, help="Events a second; 0: as fast as it goes.")
    ] = 0.0,
    direct: Annotated[
        bool, typer.Option("--direct", help="Write raw objects into the store, without HTTP.")
    ] = False,
    restart: Annotated[
        bool, typer.Option("--restart", help="Send from the first row again.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the first events and the accounting; send none.")
    ] = False,
    json_: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Bring events that you have into Shallop; run it again after a kill, it goes on from there."""
    from ingest.flusher import RawConflict
    from ingest.history.files import NoFiles, UnreadableFile
    from ingest.history.formats import UnknownColumns
    from ingest.history.history import open_history
    from ingest.history.mapping_file import InvalidMapping
    from ingest.history.times import UnknownTimezone, check_timezone
    from ingest.sender import CollectorUnreachable

    if direct and (restart or rate or url):
        fail(
            "`--direct` writes no events twice and asks no app: leave out --restart, --rate, --url",
            status=2,
        )
    settings = load_settings()
    try:
        history = open_history(
            files, format_, limits=settings.ingest, timezone=check_timezone(timezone),
            mapping=mapping, items=items,
        )  # fmt: skip
        errors.print(
            f"{len(history.files):,} files of format `{history.format.name}`", highlight=False
        )
        with errors.status("reading once, to count and to find rows that say the same"):
            survey = history.survey()
        if dry_run:
            report = _rehearse(history, survey, settings, show_events=not json_)
        elif direct:
            report = _write(history, survey, settings)
        else:
            report = _deliver(history, survey, settings, url or app_url(), key, rate, restart)
    except (NoFiles, UnknownTimezone) as error:
        fail(str(error), status=2)
    except (
        CollectorUnreachable, InvalidMapping, RawConflict, UnknownColumns, UnreadableFile,
    ) as error:  # fmt: skip
        fail(str(error))
    if json_:
        console.print_json(data=report.as_json())
    else:
        show_report(report)
    if not report.is_complete:
        raise typer.Exit(1)


def show_report(report: Report) -> None:
    """Print what became of every row."""
    rate = report.sent / report.seconds if report.seconds else 0.0
    table = Table(title="Accounting", title_justify="left", show_header=False)
    table.add_column()
    table.add_column(justify="right")

    def rows(name: str, reasons: dict[str, int]) -> None:
        for reason, n in sorted(reasons.items()):
            table.add_row(f"  {name}: {reason}", f"{n:,}")

    table.add_row("rows read", f"{report.n_rows:,}")
    rows("left out", report.skipped)
    table.add_row("events", f"{report.n_events:,}")
    table.add_row("already there", f"{report.already_there:,}")
    table.add_row("sent", f"{report.sent:,}")
    table.add_row("  accepted", f"{report.accepted:,}")
    rows("rejected", report.rejected)
    table.add_row("  not delivered", f"{report.undelivered:,}")
    if report.retried:
        table.add_row("sent more than once", f"{report.retried:,}")
    table.add_row("seconds", f"{report.seconds:.1f}")
    table.add_row("events/s", f"{rate:,.0f}")
    console.print(table)
    for example in report.examples:
        console.print(f"  rejected: {example}", highlight=False, markup=False)
    if report.rejected:
        console.print("what was rejected is kept: `shallop rejected list`", highlight=False)


def _rehearse(
    history: "History", survey: "Survey", settings: Settings, show_events: bool
) -> Report:
    from ingest.history.direct import rehearse
    from ingest.history.frame import bodies

    if show_events:
        first = chain.from_iterable(map(bodies, history.events(survey)))
        for body in islice(first, _N_SHOWN):
            console.print_json(body.decode())
    with _counted("rehearsing, nothing is sent", survey.n_events) as advance:
        return rehearse(history, survey, settings.ingest, advance)


def _write(history: "History", survey: "Survey", settings: Settings) -> Report:
    from ingest.history.direct import write

    store = open_store(settings)
    with _counted(f"writing to {settings.store_uri}", survey.n_events) as advance:
        return write(history, survey, store, settings.ingest, advance)


def _deliver(
    history: "History",
    survey: "Survey",
    settings: Settings,
    target: str,
    key: str,
    rate: float,
    restart: bool,
) -> Report:
    from ingest.history.delivery import deliver
    from ingest.history.progress import Progress

    progress = Progress(settings.home.absolute() / "replay", history.digest(), target)
    if restart:
        progress.forget()
    elif progress.state.n_events:
        errors.print(
            f"{progress.state.n_events:,} events are answered for already; --restart sends "
            "them again"
        )
    with _counted(f"replaying to {target}", survey.n_events) as advance:
        return deliver(
            history, survey, target, progress, key=key, events_per_second=rate, progress=advance
        )


@contextmanager
def _counted(description: str, total: int) -> Iterator[Callable[[int], None]]:
    """A progress bar on a terminal; elsewhere a log line now and then."""
    if errors.is_terminal:
        with counted(description, total) as advance:
            yield advance
        return
    started_at = logged_at = monotonic()
    done = 0

    def log(n: int) -> None:
        nonlocal done, logged_at
        done += n
        now = monotonic()
        if now - logged_at > _LOG_EVERY_SECONDS or done == total:
            rate = done / max(now - started_at, 1e-3)
            logger.info("replay=running done=%d of=%d events_per_second=%.0f", done, total, rate)
            logged_at = now

    logger.info("replay=begins what=%r", description)
    yield log

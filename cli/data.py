"""`shallop simulate`: invented shoppers; and what it shares with other commands that send."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from time import monotonic
from typing import Annotated

import typer
from rich.table import Table

from cli.console import console, fail, load_settings, progress_bar
from ingest.sender import Accounting

UrlOption = Annotated[
    str | None, typer.Option("--url", help="The app's address; default: the settings'.")
]


def simulate(
    url: UrlOption = None,
    sessions: Annotated[int, typer.Option(min=1, help="Past sessions to invent.")] = 4000,
    days: Annotated[int, typer.Option(min=1, help="Days back that they are spread over.")] = 7,
    seed: Annotated[int, typer.Option(help="Same seed, same shoppers.")] = 1,
    live: Annotated[
        bool, typer.Option("--live", help="Afterwards, let shoppers arrive until Ctrl-C.")
    ] = False,
    rate: Annotated[float, typer.Option(help="Live shoppers' events a second.")] = 5.0,
) -> None:
    """Invent shoppers of an invented shop and send their events. No figure of theirs is quality."""
    from ingest import simulate as simulating
    from ingest.sender import CollectorUnreachable

    target = url or app_url()
    end = datetime.now(UTC)
    start = end - timedelta(days=days)
    console.print("These shoppers, items and prices are invented.", style="yellow")
    try:
        with counted(f"simulating to {target}", sessions) as advance:
            accounting = simulating.simulate(
                target, n_sessions=sessions, seed=seed, start=start, end=end, progress=advance
            )
        show_accounting(accounting)
        if live:
            console.print("Live shoppers are arriving; Ctrl-C ends.")
            simulating.live(target, events_per_second=rate, seed=seed)
    except CollectorUnreachable as error:
        fail(str(error))
    except KeyboardInterrupt:
        console.print("stopped")


def show_accounting(accounting: Accounting) -> None:
    """Print what became of every event that was sent."""
    table = Table(title="Accounting", title_justify="left")
    for column in ("sent", "accepted", "rejected", "retried", "seconds", "events/s"):
        table.add_column(column, justify="right")
    rate = accounting.sent / accounting.seconds if accounting.seconds else 0.0
    counts = (accounting.sent, accounting.accepted, accounting.rejected, accounting.retried)
    table.add_row(*(f"{n:,}" for n in counts), f"{accounting.seconds:.1f}", f"{rate:,.0f}")
    console.print(table)
    for error in accounting.errors[:5]:
        console.print(f"  rejected: {error}", highlight=False)


def app_url() -> str:
    """Where the app of these settings listens."""
    serving = load_settings().serving
    host = "127.0.0.1" if serving.host == "0.0.0.0" else serving.host
    return f"http://{host}:{serving.port}"


@contextmanager
def counted(description: str, total: int) -> Iterator[Callable[[int], None]]:
    """A progress bar; calling what it gives advances it by that many."""
    started_at = monotonic()
    with progress_bar() as bar:
        task = bar.add_task(description, total=total, rate="")

        def advance(n: int) -> None:
            done = bar.tasks[0].completed + n
            rate = done / max(monotonic() - started_at, 1e-3)
            bar.update(task, advance=n, rate=f"{rate:,.0f}/s")

        yield advance

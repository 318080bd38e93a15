"""`shallop rejected`: what the collector refused, and a second chance after a fix."""

from collections import Counter
from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.table import Table

from cli.console import console, fail, load_settings
from ingest import rejected
from ingest.flusher import Flusher
from ingest.outbox import Outbox
from ingest.outbox_file import OutboxBroken
from ingest.rejected import Filter, UnknownRejected, rejected_events
from ingest.rejected_replay import Replay
from warehouse.store import open_store

app = typer.Typer(no_args_is_help=True, help="Rejected events: list, show, replay after a fix.")

ReasonOption = Annotated[str, typer.Option(help="Only this reason, as `list` names it.")]
SourceOption = Annotated[str, typer.Option(help="Only this source, as `list` names it.")]
DayOption = Annotated[
    datetime | None,
    typer.Option(formats=["%Y-%m-%d"], help="Only this UTC day of receipt."),
]


@app.command("list")
def list_(
    reason: ReasonOption = "",
    source: SourceOption = "",
    day: DayOption = None,
    ids: Annotated[bool, typer.Option("--ids", help="One line for each event.")] = False,
) -> None:
    """Count rejected events by day, source and reason."""
    store = open_store(load_settings())
    found = rejected_events(store, _filter(reason, source, day))
    if ids:
        for event in found:
            console.print(event.id, event.reason, event.message, markup=False, soft_wrap=True)
        return
    before = rejected.replayed_ids(store)
    counts: Counter[tuple[str, str, str]] = Counter()
    replayed: Counter[tuple[str, str, str]] = Counter()
    for one in found:
        key = f"{one.received_at:%Y-%m-%d}", one.source, one.reason
        counts[key] += 1
        replayed[key] += one.id in before
    table = Table("day", "source", "reason", "events", "of these replayed")
    for key, n_events in sorted(counts.items()):
        table.add_row(*key, f"{n_events:,}", f"{replayed[key]:,}")
    console.print(table if counts else "nothing was rejected")


@app.command()
def show(event_id: Annotated[str, typer.Argument(help="Id, from `list --ids`.")]) -> None:
    """Show one rejected event: why, when, and its original bytes."""
    store = open_store(load_settings())
    try:
        event = rejected.find(store, event_id)
    except UnknownRejected as error:
        fail(str(error))
    target = f", a whole body to {event.origin.target}" if event.origin.target else ""
    replayed = "\nreplayed since" if event.id in rejected.replayed_ids(store) else ""
    console.print(
        f"received {event.received_at:%Y-%m-%d %H:%M:%S} UTC from {event.source}{target}\n"
        f"{event.reason}: {event.message}{replayed}",
        markup=False,
        soft_wrap=True,
    )
    typer.echo(event.body.decode("utf-8", "backslashreplace"))


@app.command()
def replay(reason: ReasonOption = "", source: SourceOption = "", day: DayOption = None) -> None:
    """Take rejected events again that would be accepted now, each as its own protocol has it.

    They keep the time they were received at, and go through this box's outbox, whether the app runs
    or not. What was replayed before is left out, so run it as often as you like.
    """
    settings = load_settings()
    store = open_store(settings)
    try:
        outbox = Outbox(settings.outbox_path, settings.ingest)
    except OutboxBroken as error:
        fail(str(error))
    wanted = rejected_events(store, _filter(reason, source, day))
    done = Replay(store, outbox, settings.ingest)
    try:
        problem = done.run(wanted)
        Flusher(outbox, store, settings.ingest).stop()
        n_waiting = outbox.depth()
    finally:
        outbox.close()
    _show(done, n_waiting)
    if problem:
        fail(f"{problem}; run it again to go on, nothing is taken twice")


def _show(done: Replay, n_waiting: int) -> None:
    console.print(
        f"{done.n_found:,} found, {done.n_before:,} replayed before, {done.n_replayed:,} replayed "
        f"now, {done.still_rejected.total():,} still rejected; "
        f"{done.n_accepted:,} events accepted, {done.n_rejected:,} rejected anew"
    )
    for why, n_events in sorted(done.still_rejected.items()):
        console.print(f"{n_events:,} still rejected: {why}", markup=False)
    if n_waiting:
        console.print(f"{n_waiting:,} wait in the outbox for the object store or another flusher")


def _filter(reason: str, source: str, day: datetime | None) -> Filter:
    return Filter(reason, source, day.replace(tzinfo=UTC).date() if day else None)

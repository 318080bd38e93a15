"""`shallop rejected`: what the collector refused, and a second chance after a fix."""

from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.table import Table

from cli.console import console, fail, load_settings
from ingest import rejected
from ingest.rejected import REPLAYABLE_SOURCES, Filter, UnknownRejected, rejected_events
from ingest.sender import CollectorUnreachable, send
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
    found = rejected_events(open_store(load_settings()), _filter(reason, source, day))
    if ids:
        for event in found:
            console.print(event.id, event.reason, event.message, markup=False, soft_wrap=True)
        return
    counts = Counter((f"{one.received_at:%Y-%m-%d}", one.source, one.reason) for one in found)
    table = Table("day", "source", "reason", "events")
    for key, n_events in sorted(counts.items()):
        table.add_row(*key, f"{n_events:,}")
    console.print(table if counts else "nothing was rejected")


@app.command()
def show(event_id: Annotated[str, typer.Argument(help="Id, from `list --ids`.")]) -> None:
    """Show one rejected event: why, when, and its original bytes."""
    try:
        event = rejected.find(open_store(load_settings()), event_id)
    except UnknownRejected as error:
        fail(str(error))
    console.print(
        f"received {event.received_at:%Y-%m-%d %H:%M:%S} UTC from {event.source}\n"
        f"{event.reason}: {event.message}",
        markup=False,
        soft_wrap=True,
    )
    typer.echo(event.body.decode("utf-8", "backslashreplace"))


@app.command()
def replay(
    reason: ReasonOption = "",
    source: SourceOption = "",
    day: DayOption = None,
    url: Annotated[str, typer.Option(help="The app; default: where it listens here.")] = "",
) -> None:
    """Send rejected events again that would be accepted now; run it as often as you like."""
    settings = load_settings()
    outcomes: Counter[str] = Counter()

    def repaired() -> Iterator[bytes]:
        for event in rejected_events(open_store(settings), _filter(reason, source, day)):
            if event.source not in REPLAYABLE_SOURCES:
                outcomes[f"not replayable from source {event.source}"] += 1
                continue
            result = rejected.repaired(event, settings.ingest)
            if isinstance(result, bytes):
                yield result
            else:
                outcomes[f"still rejected: {result.reason}"] += 1

    target = url or f"http://{settings.serving.host}:{settings.serving.port}"
    try:
        sent = send(repaired(), target)
    except CollectorUnreachable as error:
        fail(str(error))
    n_found = sent.sent + outcomes.total()
    console.print(f"{n_found:,} found, {sent.accepted:,} accepted, {sent.rejected:,} rejected anew")
    outcomes["of persons who were erased, not kept"] = sent.erased
    for outcome, n_events in sorted((+outcomes).items()):
        console.print(f"{n_events:,} {outcome}", markup=False)
    if sent.rejected:
        fail("\n".join(sent.errors[:5]))


def _filter(reason: str, source: str, day: datetime | None) -> Filter:
    return Filter(reason, source, day.replace(tzinfo=UTC).date() if day else None)

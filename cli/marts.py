"""`shallop marts`: the latest snapshot, mart by mart."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Annotated

import typer
from rich.table import Table

from cli.console import console, load_settings
from warehouse import snapshot
from warehouse.store import open_store


def marts(
    snapshot_id: Annotated[str | None, typer.Option("--snapshot", help="An earlier one.")] = None,
    json_: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Rows and hash of each mart of a snapshot; the same events give the same hashes."""
    store = open_store(load_settings())
    shown = snapshot.load(store, snapshot_id) if snapshot_id else snapshot.latest(store)
    if json_:
        console.print_json(data=asdict(shown), default=str)
        return
    table = Table(title=f"snapshot {shown.snapshot_id}", title_justify="left")
    table.add_column("mart")
    table.add_column("rows", justify="right")
    table.add_column("sha256")
    for mart, export in sorted(shown.marts.items()):
        table.add_row(mart, f"{export.n_rows:,}", export.sha256[:16])
    console.print(table)
    if (raw := shown.raw_objects) is not None:
        console.print(
            f"raw objects read: {raw.n_objects:,}, with {raw.n_events:,} events; "
            f"sha256 of their names {raw.sha256[:16]}",
            highlight=False,
        )
    left_out = {reason: asdict(one) for reason, one in shown.left_out.items()}
    for line in left_out_lines(left_out, shown.marts["sessions"].n_rows):
        console.print(line, highlight=False)


def left_out_lines(left_out: Mapping[str, Mapping[str, int]], n_sessions: int) -> Iterator[str]:
    """What a snapshot has and nothing is learned from, and a warning where it is most of it."""
    found = {reason: one for reason, one in left_out.items() if one["n_sessions"]}
    for reason, one in found.items():
        yield (
            f"left out ({reason.replace('_', ' ')}): {one['n_sessions']:,} of {n_sessions:,} "
            f"sessions, with {one['n_events']:,} events"
        )
    if 2 * sum(one["n_sessions"] for one in found.values()) > n_sessions:
        yield (
            "[yellow]most sessions are left out[/]: if they are your shoppers', change "
            "SHALLOP_TRAINING__BOT_FILTER or a limit beside it (docs/training-data.md)"
        )

"""`shallop marts`: the latest snapshot, mart by mart."""

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

"""`shallop settings`: every setting with its value here."""

from typing import Annotated

import typer
from rich.table import Table

from cli.console import console, load_settings
from warehouse import settings_reference
from warehouse.settings import Settings


def settings(
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the README's table.")] = False,
    env: Annotated[bool, typer.Option("--env", help="Print lines for a .env file.")] = False,
) -> None:
    """List every setting: its environment variable, value here, default and meaning."""
    if markdown:
        typer.echo(settings_reference.as_markdown(Settings.model_construct()))
        return
    if env:
        typer.echo(settings_reference.as_env(Settings.model_construct()))
        return
    table = Table(show_lines=False)
    for column in ("variable", "value", "default", "what it is"):
        table.add_column(column, overflow="fold")
    for row in settings_reference.document(load_settings()):
        style = "bold" if row.value != row.default else ""
        table.add_row(row.variable, row.value, row.default, row.description, style=style)
    console.print(table)

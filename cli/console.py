"""What every command shares: the console, settings, and errors that end in a sentence."""

from typing import NoReturn

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from warehouse import log
from warehouse.settings import Settings, get_settings

console = Console()
errors = Console(stderr=True)


def print_wide(table: Table, width: int) -> None:
    """Print a table at least `width` columns wide: also where the output goes to a file."""
    Console(width=max(console.width, width)).print(table)


def fail(message: str, status: int = 1) -> NoReturn:
    """End the command with `message` on standard error."""
    errors.print(f"[bold red]error:[/] {message}", highlight=False, soft_wrap=True)
    raise typer.Exit(status)


def load_settings() -> Settings:
    """The settings, or an end that names each wrong one and its environment variable."""
    try:
        settings = get_settings()
    except ValidationError as error:
        fail("\n".join(["wrong settings", *describe_invalid(error)]), status=2)
    log.configure(settings.log_level)
    return settings


def app_key() -> str:
    """The key that commands send to the app; empty where none is set."""
    return load_settings().key.get_secret_value()


def describe_invalid(error: ValidationError) -> list[str]:
    """A line for each wrong setting: its variable and what is wrong with the value."""
    lines = []
    for problem in error.errors():
        variable = "SHALLOP_" + "__".join(str(part) for part in problem["loc"]).upper()
        message = problem["msg"].removeprefix("Value error, ")
        given = problem.get("input")
        is_shown = isinstance(given, str) and given not in message and "shp_" not in given
        shown = f" (given: `{given}`)" if is_shown else ""
        lines.append(f"  {variable if problem['loc'] else 'SHALLOP_*'}: {message}{shown}")
    return lines


def progress_bar() -> Progress:
    """A progress bar that counts rows, for terminals and for logs alike."""
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=errors,
    )

"""`shallop registry report`: what a model is worth, as a page to look at."""

from pathlib import Path
from typing import Annotated

import typer

from cli.console import console
from cli.model import open_registry, resolved


def report(
    version: Annotated[
        str, typer.Argument(help="A version, or a channel such as `champion`.")
    ] = "champion",
    name: Annotated[str, typer.Option(help="The model's name.")] = "gru4rec",
    out: Annotated[Path, typer.Option(help="File to write.")] = Path("model-report.html"),
) -> None:
    """Write the report of a model as one HTML file; the app shows the same at `/models`."""
    with open_registry() as registry:
        name, version = resolved(registry, name, version)
        page = registry.report(name, version)
    out.write_bytes(page)
    console.print(f"report of {name} {version}: {out.absolute()}", highlight=False, soft_wrap=True)

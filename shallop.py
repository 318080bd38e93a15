"""`shallop`, the command line: each command's code is in `cli/` and loaded when it is called."""

import sys
from importlib.metadata import version
from typing import Annotated

import typer

from cli import (
    bench,
    compaction,
    configuration,
    data,
    demo,
    doctor,
    history,
    marts,
    model,
    rejected,
    serving,
)
from cli.console import errors

app = typer.Typer(
    name="shallop",
    help="In-session product recommendations for shops of reasonable scale.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"shallop {version('shallop')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Version.")
    ] = False,
) -> None:
    pass


app.command()(demo.demo)
app.command()(serving.serve)
app.command()(serving.dagster)
app.command()(history.replay)
app.command()(data.simulate)
app.command()(model.refresh)
app.command()(marts.marts)
app.command()(model.evaluate)
app.add_typer(model.registry_app, name="registry")
app.command()(configuration.settings)
app.command()(doctor.doctor)
app.add_typer(rejected.app, name="rejected")
app.command()(compaction.compact)
app.add_typer(bench.app, name="bench")


def main() -> None:
    """Run the command line; a failure that has a name ends in one line, not in a trace."""
    from cli.local_s3 import LocalS3Missing
    from cli.ports import NoFreePort
    from warehouse.snapshot import NoSnapshot, SchemaMismatch
    from warehouse.store import ObjectNotFound, StoreUnavailable

    named = (
        LocalS3Missing,
        NoFreePort,
        NoSnapshot,
        ObjectNotFound,
        SchemaMismatch,
        StoreUnavailable,
    )
    try:
        app()
    except named as error:
        errors.print(f"[bold red]error:[/] {error}", highlight=False, soft_wrap=True)
        sys.exit(1)


if __name__ == "__main__":
    main()

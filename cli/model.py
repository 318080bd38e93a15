"""Commands about models: `refresh`, `registry`, `evaluate`."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from cli.console import console, errors, fail, load_settings
from cli.marts import left_out_lines
from warehouse.store import StoreUnavailable, open_store

if TYPE_CHECKING:
    from assets.refresh import RefreshResult
    from models.registry import BundleInfo, Registry

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]

registry_app = typer.Typer(no_args_is_help=True, help="Models: list, show, promote, roll back.")


def refresh(json_: JsonOption = False) -> None:
    """Raw events to marts, candidate model, checks and, where they pass, a new champion."""
    settings = load_settings()
    from assets.project import DbtParseFailed
    from assets.refresh import Progress, RefreshFailed, run_refresh
    from assets.resources import RefreshRunning

    with errors.status("refresh starts") as status:

        def show(step: Progress) -> None:
            if step.state == "started":
                status.update(f"refresh: {step.step}")
            elif step.state != "done":
                errors.print(f"  {step.step}: {step.state}", highlight=False)

        try:
            result = run_refresh(settings, show)
        except (DbtParseFailed, RefreshFailed, RefreshRunning) as error:
            fail(str(error))
    if json_:
        console.print_json(data=asdict(result))
    else:
        _show_refresh(result)
    if result.outcome != "promoted":
        raise typer.Exit(3)


def _show_refresh(result: "RefreshResult") -> None:
    """Print what a refresh made: counts, the comparison, and whether it was published."""
    counts = ", ".join(f"{n:,} {what.replace('_', ' ')}" for what, n in result.counts.items())
    console.print(f"snapshot {result.snapshot_id}: {counts}", highlight=False, soft_wrap=True)
    for line in left_out_lines(result.left_out, result.counts["sessions"]):
        console.print(line, highlight=False, soft_wrap=True)
    if result.metrics:
        table = Table(title="Hold-out, ranked over the whole catalogue", title_justify="left")
        measures = ("recall@10", "recall@20", "mrr@10", "mrr@20")
        for column in ("model", *measures, "predictions"):
            table.add_column(column, justify="left" if column == "model" else "right")
        for model, values in result.metrics.items():
            figures = [f"{values[measure]:.4f}" for measure in measures]
            table.add_row(model, *figures, f"{values['n_predictions']:,.0f}")
        console.print(table)
    match result.outcome:
        case "promoted":
            champion = f"gru4rec {result.model_version}, it serves: {result.serves}"
            console.print(f"[green]champion[/] is now {champion}", highlight=False)
        case "refused":
            console.print(f"[red]refused[/] by the gate, the champion stays: {result.reason}")
        case "not_enough_data":
            console.print(f"[yellow]no model[/] yet: {result.reason}")
    console.print(f"took {result.seconds:.0f} s", highlight=False)


@registry_app.command("list")
def registry_list(json_: JsonOption = False) -> None:
    """Every model kept, newest first."""
    with open_registry() as registry:
        versions = registry.versions()
    if json_:
        console.print_json(data=[_described(info) for info in versions])
        return
    if not versions:
        console.print("No models yet: run `shallop refresh`.")
        return
    table = Table()
    for column in (
        "name", "version", "created", "channels", "recall@20", "mrr@20", "size", "load", "snapshot",
        "erasures since",
    ):  # fmt: skip
        table.add_column(column)
    for info in versions:
        row = _described(info)
        figures = [f"{row['metrics'].get(m, float('nan')):.4f}" for m in ("recall@20", "mrr@20")]
        table.add_row(
            row["name"], row["version"], row["created_at"][:19], ", ".join(row["channels"]),
            *figures, f"{info.n_bytes / 2**20:.1f} MiB",
            "" if info.load_seconds is None else f"{info.load_seconds:.2f} s", row["snapshot_id"],
            str(info.n_erasures or ""),
        )  # fmt: skip
    console.print(table)


@registry_app.command("show")
def registry_show(
    version: Annotated[str, typer.Argument(help="A version, or a channel such as `champion`.")],
    name: Annotated[str, typer.Option(help="The model's name.")] = "gru4rec",
) -> None:
    """Manifest, metrics and checks of one model, as JSON."""
    with open_registry() as registry:
        name, version = resolved(registry, name, version)
        shown = {
            "manifest": registry.manifest(name, version),
            "metrics": registry.metrics(name, version),
            "checks": registry.checks(name, version),
        }
    console.print_json(json.dumps(shown, default=str))


@registry_app.command("promote")
def registry_promote(
    version: Annotated[str, typer.Argument(help="The version that should serve.")],
    name: Annotated[str, typer.Option(help="The model's name.")] = "gru4rec",
    reason: Annotated[str, typer.Option(help="Why, for whoever reads the history.")] = "by hand",
    force: Annotated[bool, typer.Option(help="Also a model that the gate refused.")] = False,
) -> None:
    """Make a kept model the champion; the app swaps within seconds."""
    with open_registry() as registry:
        pointer = registry.promote(name, version, reason=reason, is_forced=force)
    console.print(f"champion is now {pointer.name} {pointer.version}")


@registry_app.command("rollback")
def registry_rollback() -> None:
    """Give the place back to the champion before; the app swaps within seconds."""
    with open_registry() as registry:
        pointer = registry.rollback()
    console.print(f"champion is now {pointer.name} {pointer.version}")


def evaluate(
    train: Annotated[Path, typer.Option(help="Parquet with SessionId, ItemId, Time.")],
    test: Annotated[Path, typer.Option(help="Parquet with SessionId, ItemId, Time.")],
    model: Annotated[
        str, typer.Option(help="gru4rec, fusion, reranked or a rival such as vmis-knn.")
    ] = "gru4rec",
    config: Annotated[Path | None, typer.Option(help="JSON of hyperparameters.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu or cuda.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of weights and negatives.")] = None,
    checkpoint: Annotated[
        Path | None, typer.Option(help="File to go on from where a training of it was killed.")
    ] = None,
    items: Annotated[
        Path | None, typer.Option(help="Parquet with item_id, category, price, for `reranked`.")
    ] = None,
    json_: JsonOption = False,
) -> None:
    """Train on one file, rank the next items of the other's sessions, report recall and mrr."""
    from models.checkpoint import Checkpoint
    from models.offline import EvaluationInputError, evaluate_files

    training = load_settings().training
    try:
        with errors.status(f"training and evaluating {model}"):
            report = evaluate_files(
                train,
                test,
                model=model,
                config_file=config or training.config_file,
                device=device or training.device,
                seed=training.seed if seed is None else seed,
                threads=training.threads,
                processes=training.processes,
                with_kernels=training.gpu_kernels,
                checkpoint=Checkpoint(checkpoint, training.checkpoint_seconds or 60.0)
                if checkpoint
                else None,
                signal_weights=training.signal_weights,
                items_file=items,
                max_rerank_predictions=training.rerank_predictions,
            )
    except EvaluationInputError as error:
        fail(str(error), status=2)
    if json_:
        console.print_json(data=report)
        return
    table = Table(title=f"{model} on {test}", title_justify="left")
    table.add_column("figure")
    table.add_column("value", justify="right")
    table.add_column("95 % interval", justify="right")
    for figure, value in report.items():
        if isinstance(value, int | float):
            shown = f"{value:,.4f}" if isinstance(value, float) else f"{value:,}"
            table.add_row(figure, shown, _bounds(report["intervals"].get(figure)))
    for outcome, figures in report["by_outcome"].items():
        for figure in ("recall@20", "mrr@20"):
            table.add_row(f"{figure} of {outcome}", f"{figures[figure]:,.4f}", "")
    console.print(table)


def _bounds(interval: tuple[float, float] | None) -> str:
    return f"{interval[0]:.4f} to {interval[1]:.4f}" if interval else ""


@contextmanager
def open_registry() -> Iterator["Registry"]:
    """The registry of the settings' store; its refusals end the command in a sentence."""
    from models.registry import (
        BundleCorrupt,
        NoChampionModel,
        RefusedByGate,
        Registry,
        UnknownModel,
    )

    try:
        yield Registry(open_store(load_settings()))
    except (BundleCorrupt, NoChampionModel, StoreUnavailable, UnknownModel) as error:
        fail(str(error))
    except RefusedByGate as error:
        fail(f"{error}; `--force` promotes it all the same")


def resolved(registry: "Registry", name: str, version: str) -> tuple[str, str]:
    """Name and version of a model given by version or by channel."""
    if version in ("champion", "challenger", "shadow"):
        pointer = registry.pointer(version)
        return pointer.name, pointer.version
    return name, version


def _described(info: "BundleInfo") -> dict[str, Any]:
    described = asdict(info)
    described["created_at"] = info.created_at.isoformat()
    return described

"""`shallop bench scaling`: memory and time of training as the catalogue grows, and a plot of it."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from cli.bench_training import in_a_process, invented_sessions
from cli.console import console, errors, print_wide
from cli.scaling_plot import Curve, plotted

if TYPE_CHECKING:
    from cli.training_load import Timed
    from models.config import GRU4RecConfig

_CATALOGUES = (1_000, 10_000, 100_000)
_PAPER_ITEMS, _PAPER_EVENTS = 1_000_000, 50_000_000
_STEPS_PER_SESSION = 4.33
_WIDTH = 120


@dataclass(frozen=True)
class _Measured:
    n_items: int
    n_events: int
    timed: "Timed"


def scaling(
    catalogue: Annotated[
        list[int] | None, typer.Option(min=100, help="Items of the catalogue; may be repeated.")
    ] = None,
    events: Annotated[int, typer.Option(min=1000, help="Events of each training.")] = 5_000_000,
    steps: Annotated[
        int, typer.Option(min=0, help="Steps timed of each; 0 is a whole epoch.")
    ] = 256,
    plot: Annotated[Path | None, typer.Option(help="SVG file to write.")] = None,
) -> None:
    """Training with the default hyperparameters on invented sessions, catalogue by catalogue.

    The last line is arithmetic: a million items and 50,000,000 events by the formulas below.
    """
    from models.config import GRU4RecConfig

    config = GRU4RecConfig()
    rows: list[_Measured] = []
    for n_items in sorted(catalogue or _CATALOGUES):
        with errors.status(f"{n_items:,} items, {events:,} events"):
            rows.append(
                _Measured(n_items, events, in_a_process(time_catalogue, config, n_items, events,
                                                        steps))
            )  # fmt: skip
    _show(rows, config)
    if plot:
        points = [(row.n_items, row.timed) for row in rows]
        plotted(
            plot,
            Curve("ms per step", [(n, timed.step_ms) for n, timed in points]),
            Curve(
                "MB for the training", [(n, timed.peak_mb - timed.start_mb) for n, timed in points]
            ),
            _paper(rows, config),
        )
        console.print(f"plot: {plot}")


def time_catalogue(config: "GRU4RecConfig", n_items: int, n_events: int, steps: int) -> "Timed":
    """Steps of a training on `n_events` invented events."""
    from cli.training_load import run_steps

    sessions = invented_sessions(n_items, round(n_events / _STEPS_PER_SESSION))
    return run_steps(sessions, config, steps=steps or None)


def memory_mb(config: "GRU4RecConfig", n_items: int, n_events: int) -> float:
    """What training holds: tables with optimiser state, and the schedule of an epoch.

    Per item (weights, squares and velocity) and (units + 1) float32; twice the sessions' events,
    as read and as the schedule's inputs and targets, at 4 bytes, and a byte for each start.
    """
    state = 3 if config.momentum else 2
    return (n_items * (config.layers[-1] + 1) * 4 * state + n_events * (4 + 4 + 4 + 1)) / 2**20


def _paper(rows: list[_Measured], config: "GRU4RecConfig") -> tuple[float, float]:
    """Milliseconds a step and MB at the size that is not run.

    A step's work depends on the columns that it scores, at most B + S, not on the catalogue: the
    largest measured step, plus the columns that are still missing at the same rate.
    """
    largest = rows[-1].timed
    most = config.batch_size + config.n_sample
    overhead = largest.peak_mb - largest.start_mb - memory_mb(
        config, rows[-1].n_items, rows[-1].n_events
    )  # fmt: skip
    return (
        largest.step_ms * most / largest.columns,
        memory_mb(config, _PAPER_ITEMS, _PAPER_EVENTS) + overhead,
    )


def _show(rows: list[_Measured], config: "GRU4RecConfig") -> None:
    table = Table(title=f"{config.loss}, {config.layers[-1]} units, B {config.batch_size}",
                  title_justify="left")  # fmt: skip
    for column in ("items", "events", "columns", "ms/step", "× floor", "events/s", "epoch, min",
                   "MB measured", "MB by formula"):  # fmt: skip
        table.add_column(column, justify="right", no_wrap=True)
    for row in rows:
        timed, formula = row.timed, memory_mb(config, row.n_items, row.n_events)
        epoch = row.n_events * (1 - 1 / _STEPS_PER_SESSION) / timed.events_per_second / 60
        table.add_row(
            f"{row.n_items:,}", f"{row.n_events:,}", f"{timed.columns:,.0f}",
            f"{timed.step_ms:.2f}", f"{timed.step_ms / timed.floor_ms:.2f}",
            f"{timed.events_per_second:,.0f}", f"{epoch:.1f}",
            f"{timed.peak_mb - timed.start_mb:,.0f}", f"{formula:,.0f}",
        )  # fmt: skip
    step_ms, paper_mb = _paper(rows, config)
    rate = config.batch_size / step_ms * 1e3
    epoch = _PAPER_EVENTS * (1 - 1 / _STEPS_PER_SESSION) / rate / 60
    table.add_section()
    table.add_row(
        f"{_PAPER_ITEMS:,}", f"{_PAPER_EVENTS:,}", f"≤ {config.batch_size + config.n_sample:,}",
        f"{step_ms:.2f}", "", f"{rate:,.0f}", f"{epoch:.1f}", "",
        f"{paper_mb:,.0f}", style="dim",
    )  # fmt: skip
    print_wide(table, _WIDTH)
    console.print("Measured is the process's peak above what it held before its training; the last "
                  "line is by formula.", soft_wrap=True)  # fmt: skip

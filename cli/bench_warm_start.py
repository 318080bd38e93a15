"""`shallop bench warm-start`: a training that begins from the model before, and one from chance."""

import dataclasses
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from cli.console import console, errors, fail, load_settings, print_wide

if TYPE_CHECKING:
    from models.config import GRU4RecConfig
    from models.dataset import Sessions, Steps
    from models.training import EpochReport
    from models.warm_start import Learned, Start
    from warehouse.settings import TrainingSettings

_US_PER_DAY = 86_400_000_000
_WIDTH = 120


def warm_start(
    train: Annotated[Path, typer.Option(help="Parquet with SessionId, ItemId, Time.")],
    test: Annotated[Path, typer.Option(help="Parquet with SessionId, ItemId, Time.")],
    days: Annotated[
        float, typer.Option(min=0.01, help="Last days that the model before did not know.")
    ] = 7,
    config: Annotated[Path | None, typer.Option(help="JSON of hyperparameters.")] = None,
) -> None:
    """Figures and time by epoch: from chance, from the model before, and from its weights alone.

    The model before is trained on the sessions that began before the last `days`.
    """
    from models.config import BadConfig, GRU4RecConfig
    from models.dataset import Steps
    from warehouse.snapshot import SchemaMismatch

    training = load_settings().training
    try:
        hyperparameters = GRU4RecConfig.load(config) if config else GRU4RecConfig()
        steps, judged = Steps.from_split_file(train), Steps.from_split_file(test)
    except (BadConfig, FileNotFoundError, SchemaMismatch) as error:
        fail(str(error), status=2)
    catalogue = steps.catalogue()
    sessions = steps.sessions(catalogue)
    held_out = judged.known_to(catalogue)[0].sessions(catalogue)
    if not held_out.n_predictions:
        fail(f"no session with two steps of trained items in: {test}", status=2)
    before = _before(steps, days)
    with errors.status("the model before"):
        learned = _learned(before, hyperparameters, training)
    bare = dataclasses.replace(
        learned, squares={name: one.new_zeros(one.shape) for name, one in learned.squares.items()}
    )
    start = learned.start(hyperparameters, catalogue.item_ids)
    starts = {
        "from chance": None, "from the model before": start,
        "from its weights alone": bare.start(hyperparameters, catalogue.item_ids),
    }  # fmt: skip
    console.print(
        f"{len(sessions):,} sessions of {len(catalogue):,} items; the model before knew the first "
        f"{len(before.starts()[0]):,} sessions and {start.n_known:,} of the items",
        highlight=False, soft_wrap=True,
    )  # fmt: skip
    table = Table(title="On the sessions of the test file", title_justify="left")
    for column in ("", "epoch", "seconds", "loss", "recall@20", "mrr@20"):
        table.add_column(column, justify="left" if not column else "right", no_wrap=True)
    for name, one in starts.items():
        with errors.status(name):
            rows = _by_epoch(sessions, held_out, hyperparameters, training, one)
        for row in rows:
            table.add_row(name, *row)
    print_wide(table, _WIDTH)


def _before(steps: "Steps", days: float) -> "Steps":
    """The sessions that began before the last `days`."""
    first, row_session = steps.starts()
    since = int(steps.time_us.max()) - int(days * _US_PER_DAY)
    before = steps.keep((steps.time_us[first] < since)[row_session])
    if not before.sessions(before.catalogue()).n_predictions:
        fail(f"no session of two steps began before the last `--days`: {days}", status=2)
    return before


def _learned(before: "Steps", config: "GRU4RecConfig", training: "TrainingSettings") -> "Learned":
    from models.training import train
    from models.warm_start import Ancestor, Learned

    catalogue = before.catalogue()
    trained = train(
        before.sessions(catalogue), config, device=training.device, seed=training.seed,
        threads=training.threads,
    )  # fmt: skip
    origin = Ancestor("the model before", "none", datetime.now(UTC))
    return Learned(trained.model, trained.squares, catalogue.item_ids, [origin], before.until)


def _by_epoch(
    sessions: "Sessions", held_out: "Sessions", config: "GRU4RecConfig",
    training: "TrainingSettings", start: "Start | None",
) -> list[list[str]]:  # fmt: skip
    """Cells of each epoch; seconds are those of training, evaluation left out."""
    from models.evaluation import evaluate
    from models.training import train

    rows: list[list[str]] = []
    seconds = 0.0

    def note(report: "EpochReport") -> None:
        nonlocal seconds
        seconds += sessions.n_predictions / report.events_per_second
        figures = evaluate(report.model, held_out)
        rows.append(
            [str(report.epoch), f"{seconds:.1f}", f"{report.loss:.4f}",
             f"{figures['recall@20']:.4f}", f"{figures['mrr@20']:.4f}"]
        )  # fmt: skip

    train(
        sessions, config, device=training.device, seed=training.seed, threads=training.threads,
        progress=note, start=start,
    )  # fmt: skip
    return rows

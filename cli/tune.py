"""`shallop tune`: hyperparameters for this shop's data."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from cli.console import console, errors, fail, load_settings
from warehouse.settings import TrainingSettings
from warehouse.store import ObjectNotFound, open_store

if TYPE_CHECKING:
    from models.split import Split
    from models.tuning import TrialReport, Tuned


def tune(
    train: Annotated[
        Path | None,
        typer.Option(help="Parquet with SessionId, ItemId, Time; default: the latest marts."),
    ] = None,
    trials: Annotated[int, typer.Option(min=1, help="Trials of the whole study.")] = 50,
    minutes: Annotated[float, typer.Option(min=0.0, help="Longest that this run takes.")] = 60.0,
    loss: Annotated[
        Literal["both", "bpr-max", "cross-entropy"], typer.Option(help="Losses to try.")
    ] = "both",
    epochs: Annotated[int, typer.Option(min=1, max=100, help="Epochs of a whole trial.")] = 10,
    max_units: Annotated[int, typer.Option(min=64, max=512, help="Greatest layer tried.")] = 512,
    study: Annotated[
        Path | None, typer.Option(help="SQLite file to go on from; default: <home>/tune.sqlite.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="JSON of the best; default: beside the study.")
    ] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu or cuda.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of proposals and of training.")] = None,
) -> None:
    """Search GRU4Rec's hyperparameters on training data alone; stopped, it goes on where it was."""
    from models.dataset import NotEnoughData
    from models.devices import NoSuchDevice
    from models.report.study import render_study
    from models.tuning import Budget, TuningError
    from models.tuning import tune as search
    from warehouse.snapshot import SchemaMismatch

    settings = load_settings()
    training = settings.training
    database = (study or settings.home / "tune.sqlite").absolute()
    config_file = (out or database.with_suffix(".json")).absolute()
    try:
        split = _split(train, training)
        console.print(
            f"trials learn from {len(split.train):,} sessions, {split.train.n_items:,} items; "
            f"judged by the next {split.holdout.n_predictions:,} steps; study: {database}",
            highlight=False, soft_wrap=True,
        )  # fmt: skip
        tuned = search(
            split, database, budget=Budget(trials, minutes * 60), loss=loss, n_epochs=epochs,
            max_units=max_units, device=device or training.device,
            seed=training.seed if seed is None else seed, threads=training.threads,
            with_kernels=training.gpu_kernels, progress=_show,
        )  # fmt: skip
    except (FileNotFoundError, NoSuchDevice, NotEnoughData, SchemaMismatch, TuningError) as error:
        fail(str(error))
    except KeyboardInterrupt:
        fail("stopped; the same command goes on where it was", status=130)
    tuned.config.save(config_file)
    page = database.with_suffix(".html")
    page.write_text(render_study(tuned), encoding="utf-8")
    _show_best(tuned, config_file, page)


def _split(train: Path | None, training: TrainingSettings) -> "Split":
    """Training data alone, split in time."""
    from models.dataset import Steps
    from models.split import latest_days
    from models.tuning import training_part, validation_split
    from warehouse import snapshot

    if train is not None:
        steps = Steps.from_split_file(train, training.signal_weights)
        return validation_split(steps, training.holdout_share, min_item_support=1)
    settings = load_settings()
    store = open_store(settings)
    try:
        mart = snapshot.read_mart(store, snapshot.latest(store).snapshot_id, "training_steps")
    except ObjectNotFound as error:
        fail(f"the latest marts are not whole, run `shallop refresh`: {error}")
    steps = latest_days(Steps.from_mart(mart, training.signal_weights), training.window_days)
    return validation_split(
        training_part(steps, training.holdout_share), training.holdout_share,
        min_item_support=training.min_item_support, min_session_steps=training.min_session_steps,
    )  # fmt: skip


def _show(trial: "TrialReport") -> None:
    from models.tuning import MEASURE

    value = f"{MEASURE} {trial.value:.4f}" if trial.value is not None else trial.state
    best = f", best {trial.best:.4f}" if trial.best is not None else ""
    errors.print(f"  trial {trial.number}: {value}{best} ({trial.seconds:.0f} s)", highlight=False)


def _show_best(tuned: "Tuned", config_file: Path, page: Path) -> None:
    from models.tuning import MEASURE

    than = ""
    if tuned.default_value is not None:
        than = f", the defaults have {tuned.default_value:.4f}"
        if tuned.interval and tuned.default_value >= tuned.interval[0]:
            low, high = tuned.interval
            than += f", within the best's 95 % interval ({low:.4f} to {high:.4f}): it may be chance"
    console.print(
        f"best {MEASURE} {tuned.value:.4f}{than}; {tuned.n_complete} trials complete, "
        f"{tuned.n_pruned} stopped early\nreport: {page}\n"
        f"train with it: SHALLOP_TRAINING__CONFIG_FILE={config_file}",
        highlight=False, soft_wrap=True,
    )  # fmt: skip

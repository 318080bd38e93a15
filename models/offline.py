"""Train on one file, evaluate on another: the comparison behind `shallop evaluate`."""

import resource
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from models.config import BadConfig, GRU4RecConfig
from models.dataset import NotEnoughData, Sessions, Steps
from models.devices import NoSuchDevice
from models.evaluation import Ranker, evaluate
from models.item_knn import ItemKNN
from models.popularity import Popularity
from models.training import EpochReport, TrainingDiverged, train
from warehouse.snapshot import SchemaMismatch

MODELS = ("gru4rec", "popularity", "item-knn")


class EvaluationInputError(ValueError):
    """A file, model or hyperparameter given to the evaluation cannot be used."""


def evaluate_files(
    train_file: Path,
    test_file: Path,
    *,
    model: str = "gru4rec",
    config_file: Path | None = None,
    device: str = "auto",
    seed: int = 42,
    threads: int = 1,
    progress: Callable[[EpochReport], None] | None = None,
) -> dict[str, Any]:
    """Recall and mrr of `model` on the sessions of `test_file`, with the cost of getting there.

    Files are Parquet with SessionId, ItemId and Time (ms), used as they are. `n_unseen` counts
    test steps left out because training does not know their item. Raises EvaluationInputError.
    """
    if model not in MODELS:
        expected = ", ".join(f"`{one}`" for one in MODELS)
        raise EvaluationInputError(f"unknown model, expected one of {expected}: `{model}`")
    try:
        config = GRU4RecConfig.load(config_file) if config_file else GRU4RecConfig()
        sessions, test, n_unseen = _read(train_file, test_file)
        started = time.perf_counter()
        ranker, log = _trained(model, sessions, config, device, seed, threads, progress)
        seconds = time.perf_counter() - started
    except (FileNotFoundError, SchemaMismatch, BadConfig, NotEnoughData, NoSuchDevice,
            TrainingDiverged) as error:  # fmt: skip
        raise EvaluationInputError(str(error)) from error
    return {
        "model": model,
        "train_file": str(train_file),
        "test_file": str(test_file),
        **evaluate(ranker, test),
        "n_unseen": n_unseen,
        "n_items": sessions.n_items,
        "n_train_sessions": len(sessions),
        "n_train_steps": sessions.n_steps,
        "train_seconds": seconds,
        "events_per_second": sessions.n_predictions / seconds,
        "peak_rss_mb": _peak_rss_mb(),
        "seed": seed,
        **log,
    }


def _read(train_file: Path, test_file: Path) -> tuple[Sessions, Sessions, int]:
    steps, test_steps = Steps.from_split_file(train_file), Steps.from_split_file(test_file)
    catalogue = steps.catalogue()
    known, n_unseen = test_steps.known_to(catalogue)
    sessions, test = steps.sessions(catalogue), known.sessions(catalogue)
    if not test.n_predictions:
        raise NotEnoughData(f"no session with two steps of trained items in: {test_file}")
    return sessions, test, n_unseen


def _trained(
    model: str, sessions: Sessions, config: GRU4RecConfig, device: str, seed: int, threads: int,
    progress: Callable[[EpochReport], None] | None,
) -> tuple[Ranker, dict[str, Any]]:  # fmt: skip
    if model == "popularity":
        return Popularity(sessions), {}
    if model == "item-knn":
        return ItemKNN(sessions), {}
    trained = train(sessions, config, device=device, seed=seed, threads=threads, progress=progress)
    return trained.model, {
        "events_per_second": trained.log.events_per_second,
        "losses": trained.log.losses,
        "device": trained.log.device,
        "config": asdict(trained.model.config),
    }


def _peak_rss_mb() -> float:
    """Most memory that this process has held, in MB (2**20 bytes)."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10

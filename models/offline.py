"""Train on one file, evaluate on another: the comparison behind `shallop evaluate`."""

import resource
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from models.arrays import Ints
from models.checkpoint import Checkpoint
from models.config import BadConfig, GRU4RecConfig
from models.dataset import SPLIT_FILE_OUTCOME, NotEnoughData, Sessions, Steps
from models.devices import NoSuchDevice
from models.evaluation import (
    Ranker,
    Ranks,
    figures_of,
    mrr_at_k,
    rank_targets,
    recall_at_k,
)
from models.intervals import intervals
from models.item_tables import Item, described
from models.parallel import ProcessesFailed, training_by
from models.recipe import Reranks, ranker_of, weighted
from models.rivals import RIVALS
from models.sasrec import train_sasrec
from models.training import Trained, TrainingDiverged
from warehouse.snapshot import SchemaMismatch

RERANKED = "reranked"
MODELS = ("gru4rec", "fusion", RERANKED, "sasrec", *RIVALS)
_WITH_INTERVAL = ("recall@20", "mrr@20")


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
    processes: int = 1,
    with_kernels: bool = False,
    checkpoint: Checkpoint | None = None,
    signal_weights: Mapping[str, float] | None = None,
    items_file: Path | None = None,
    max_rerank_predictions: int = 20_000,
) -> dict[str, Any]:
    """Recall and mrr of `model` on the sessions of `test_file`, with the cost of getting there.

    Files are Parquet with SessionId, ItemId and Time (ms), used as they are. `n_unseen` counts
    test steps left out because training does not know their item. `intervals` has 95 % bounds of
    the main figures by a bootstrap over sessions, seeded. Where the test file has the column
    Outcome, `by_outcome` has figures of the targets of each. A killed training of `gru4rec` goes on
    from `checkpoint`; `processes` train it together, or a GPU `with_kernels`. `signal_weights`
    count for GRU4Rec and the re-ranker, category and price of `items_file` for the latter. Raises
    EvaluationInputError.
    """
    if model not in MODELS:
        expected = ", ".join(f"`{one}`" for one in MODELS)
        raise EvaluationInputError(f"unknown model, expected one of {expected}: `{model}`")
    if checkpoint and model != "gru4rec":
        raise EvaluationInputError(f"a checkpoint belongs to `gru4rec`, the model is: `{model}`")
    try:
        config = GRU4RecConfig.load(config_file) if config_file else GRU4RecConfig()
        is_weighted = model in ("gru4rec", "fusion", RERANKED)
        steps = Steps.from_split_file(train_file, signal_weights if is_weighted else None)
        sessions, test, rows, n_unseen = _read(steps, test_file)
        learn = partial(
            training_by(processes), config=config, device=device, seed=seed, threads=threads,
            checkpoint=checkpoint, with_kernels=with_kernels,
        )  # fmt: skip
        started = time.perf_counter()
        if model == "sasrec":
            ranker, log = _sasrec(sessions, device, seed, threads)
        else:
            reranks = Reranks(_known(items_file), max_rerank_predictions, seed)
            ranker, log = _ranker(model, sessions, steps, learn, reranks)
        seconds = time.perf_counter() - started
        ranks = rank_targets(ranker, test)
    except (FileNotFoundError, SchemaMismatch, BadConfig, NotEnoughData, NoSuchDevice,
            ProcessesFailed, TrainingDiverged) as error:  # fmt: skip
        raise EvaluationInputError(str(error)) from error
    return {
        "model": model,
        "train_file": str(train_file),
        "test_file": str(test_file),
        **figures_of(ranks),
        "intervals": _intervals(ranks, test, seed),
        "by_outcome": _by_outcome(ranks, test_file, rows),
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


def _read(steps: Steps, test_file: Path) -> tuple[Sessions, Sessions, Ints, int]:
    """Sessions to train on and to judge by, the latter's targets as rows of their file, and how
    many steps training does not know.
    """
    catalogue = steps.catalogue()
    known, n_unseen = Steps.from_split_file(test_file).known_to(catalogue)
    sessions, test = steps.sessions(catalogue), known.sessions(catalogue)
    if not test.n_predictions:
        raise NotEnoughData(f"no session with two steps of trained items in: {test_file}")
    return sessions, test, known.row[known.session_rows()][test.target_rows()], n_unseen


def _ranker(
    model: str,
    sessions: Sessions,
    steps: Steps,
    learn: Callable[[Sessions], Trained],
    reranks: Reranks,
) -> tuple[Ranker, dict[str, Any]]:
    """The model trained on `sessions`, those of `steps`, and what to report of it."""
    if model in RIVALS:
        return RIVALS[model](sessions), {}
    weighting = None
    if model in ("fusion", RERANKED):
        weighting = weighted(
            steps, lambda part: learn(part.train).model,
            reranks=reranks if model == RERANKED else None,
        )  # fmt: skip
    trained = learn(sessions)
    log = {
        "events_per_second": trained.log.events_per_second,
        "losses": trained.log.losses,
        "device": trained.log.device,
        "config": asdict(trained.model.config),
    }
    if weighting is None:
        return trained.model, log
    log["weights"] = weighting.weights
    if weighting.reranking:
        log["reranking"] = weighting.reranking.details
    items = described(steps.catalogue().item_ids, reranks.items)
    return ranker_of(trained.model, sessions, weighting, items), log


def _known(items_file: Path | None) -> dict[str, Item]:
    """Items by id, from a Parquet file with item_id, category and price."""
    if items_file is None:
        return {}
    if not items_file.is_file():
        raise FileNotFoundError(f"no such Parquet file: {items_file}")
    columns = ["item_id", "category", "price"]
    try:
        table = pq.read_table(items_file, columns=columns)
        table = table.cast(pa.schema(zip(columns, [pa.string()] * 2 + [pa.float64()], strict=True)))
    except (pa.ArrowException, ValueError) as error:
        raise SchemaMismatch(
            f"items need columns {columns}, {items_file} does not have them so: {error}"
        ) from error
    return {row["item_id"]: Item(title=None, **row) for row in table.to_pylist()}


def _sasrec(
    sessions: Sessions, device: str, seed: int, threads: int
) -> tuple[Ranker, dict[str, Any]]:
    """SASRec with its own defaults, and what to report of its training."""
    losses: list[float] = []
    model = train_sasrec(
        sessions, device=device, seed=seed, threads=threads,
        progress=lambda _, loss: losses.append(loss),
    )  # fmt: skip
    return model, {"losses": losses, "config": asdict(model.config)}


def _by_outcome(ranks: Ranks, test_file: Path, rows: Ints) -> dict[str, dict[str, float]]:
    """Figures of the targets by Outcome, in these `rows` of the file; none without the column."""
    if SPLIT_FILE_OUTCOME not in pq.read_schema(test_file).names:
        return {}
    column = pq.read_table(test_file, columns=[SPLIT_FILE_OUTCOME])[SPLIT_FILE_OUTCOME]
    outcomes = np.asarray(column.take(pa.array(rows)).to_pylist())
    figures = {}
    for outcome in sorted(set(outcomes.tolist())):
        found = ranks.conservative[torch.from_numpy(outcomes == outcome)]
        figures[str(outcome)] = {
            "recall@20": recall_at_k(found, 20), "mrr@20": mrr_at_k(found, 20),
            "n_predictions": len(found),
        }  # fmt: skip
    return figures


def _intervals(ranks: Ranks, test: Sessions, seed: int) -> dict[str, tuple[float, float]]:
    """Bounds of the main figures by name."""
    bounds: dict[str, tuple[float, float]] = {}
    for prefix, of_targets in (("", ranks.conservative), ("served_", ranks.served)):
        for measure, found in intervals(of_targets, test, _WITH_INTERVAL, seed=seed).items():
            bounds[prefix + measure] = (found.low, found.high)
    return bounds


def _peak_rss_mb() -> float:
    """Most memory that this process has held, in MB (2**20 bytes)."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10

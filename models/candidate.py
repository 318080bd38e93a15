"""From marts to a judged model bundle: split, train, evaluate, refit, write, gate."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import pyarrow as pa

from models.bundle import (
    BundleContent,
    Check,
    Item,
    Origin,
    new_manifest,
    weights_sha256,
    write_bundle,
    write_checks,
)
from models.checkpoint import Checkpoint
from models.config import GRU4RecConfig
from models.dataset import (
    Catalogue,
    NotEnoughData,
    Sessions,
    Split,
    Steps,
    latest_days,
    temporal_split,
)
from models.evaluation import Ranker, evaluate
from models.evidence import appraise_split
from models.gate import judge
from models.item_knn import ItemKNN
from models.popularity import Popularity
from models.report.listing import summary_of
from models.report.page import write_report
from models.scorer import SessionScorer, golden_sessions
from models.training import EpochReport, Trained, train
from warehouse.settings import TrainingSettings

__all__ = ["Candidate", "NotEnoughData", "build_candidate"]

_log = logging.getLogger(__name__)
_MIN_TRAIN_SESSIONS = 20
_N_GOLDEN = 8


@dataclass(frozen=True)
class Candidate:
    """A written and judged bundle.

    `metrics` has recall and mrr on the hold-out by model: gru4rec, popularity, item-knn. `details`
    is all of metrics.json.
    """

    folder: Path
    name: str
    version: str
    metrics: dict[str, dict[str, float]]
    details: dict[str, Any]
    checks: list[Check]

    @property
    def is_passed(self) -> bool:
        """Whether every check passed."""
        return all(check.passed for check in self.checks)


def build_candidate(
    steps: pa.Table,
    items: pa.Table,
    popularity: pa.Table,
    *,
    training: TrainingSettings,
    config: GRU4RecConfig,
    snapshot_id: str,
    folder: Path,
    progress: Callable[[EpochReport], None] | None = None,
    parent: str | None = None,
    raw_objects: Sequence[str] = (),
    checkpoints: Path | None = None,
) -> Candidate:
    """Train on the marts `training_steps`, `items` and `popularity`; write `folder/<version>`.

    Figures come from a model that never saw the hold-out; what is written was trained on all of it
    where `training.refit`. In the folder `checkpoints` a training that was killed is found again
    and goes on. Raises NotEnoughData and TrainingDiverged.
    """
    all_steps = Steps.from_mart(steps)
    split = _split(all_steps, training)
    trained = _train(
        split.train, config, training, progress, _checkpoint(checkpoints, "holdout", training)
    )
    rankers = _rankers(split, trained)
    details = _evaluated(split, rankers, training)
    evaluation = appraise_split(rankers, split, steps, items, seed=training.seed)
    catalogue, sessions = split.catalogue, split.train
    if training.refit:
        catalogue, sessions = _everything(all_steps, training)
        trained = _train(
            sessions, config, training, progress, _checkpoint(checkpoints, "refit", training)
        )
    details["summary"] = summary_of(evaluation)
    details["training"] = {
        "n_sessions": len(sessions), "n_steps": sessions.n_steps, "n_items": len(catalogue),
        "is_refit": training.refit, **asdict(trained.log),
    }  # fmt: skip
    origin = Origin(snapshot_id, training.seed, parent, tuple(raw_objects))
    content = _content(trained, catalogue, sessions, items, popularity, details, origin)
    written = folder / content.manifest.version
    write_bundle(content, written)
    checks = judge(details, written)
    write_checks(written, checks)
    write_report(written, evaluation)
    return Candidate(
        written, content.manifest.name, content.manifest.version, details["models"], details, checks
    )


def _split(steps: Steps, training: TrainingSettings) -> Split:
    split = temporal_split(
        steps, training.holdout_share, min_item_support=training.min_item_support,
        min_session_steps=training.min_session_steps, window_days=training.window_days,
    )  # fmt: skip
    if len(split.train) < _MIN_TRAIN_SESSIONS:
        raise NotEnoughData(
            f"training needs {_MIN_TRAIN_SESSIONS} sessions of {training.min_session_steps} steps "
            f"whose items occur {training.min_item_support} times; collect more events or lower "
            f"SHALLOP_TRAINING__MIN_ITEM_SUPPORT. Sessions found: {len(split.train)}"
        )
    if split.holdout.n_predictions < training.min_holdout_steps:
        raise NotEnoughData(
            f"judging a model needs {training.min_holdout_steps} predictions in the hold-out; "
            "collect more events, raise SHALLOP_TRAINING__HOLDOUT_SHARE or lower "
            f"SHALLOP_TRAINING__MIN_HOLDOUT_STEPS. Predictions: {split.holdout.n_predictions}"
        )
    return split


def _train(
    sessions: Sessions, config: GRU4RecConfig, training: TrainingSettings,
    progress: Callable[[EpochReport], None] | None, checkpoint: Checkpoint | None,
) -> Trained:  # fmt: skip
    trained = train(
        sessions, config, device=training.device, seed=training.seed, threads=training.threads,
        progress=progress, checkpoint=checkpoint,
    )  # fmt: skip
    _log.info(
        "trained sessions=%d items=%d loss=%.4f events_per_second=%.0f seconds=%.1f device=%s",
        len(sessions), sessions.n_items, trained.log.losses[-1], trained.log.events_per_second,
        trained.log.train_seconds, trained.log.device,
    )  # fmt: skip
    return trained


def _checkpoint(folder: Path | None, name: str, training: TrainingSettings) -> Checkpoint | None:
    if folder is None or not training.checkpoint_seconds:
        return None
    return Checkpoint(folder / f"{name}.safetensors", training.checkpoint_seconds)


def _rankers(split: Split, trained: Trained) -> dict[str, Ranker]:
    """The model and the baselines, all of the same training data."""
    return {
        "gru4rec": trained.model,
        "popularity": Popularity(split.train),
        "item-knn": ItemKNN(split.train),
    }


def _evaluated(
    split: Split, rankers: dict[str, Ranker], training: TrainingSettings
) -> dict[str, Any]:
    """Figures of the model and the baselines on the hold-out, and what that was."""
    return {
        "models": {name: evaluate(ranker, split.holdout) for name, ranker in rankers.items()},
        "holdout": {
            "cut_at": _text(split.cut_at),
            "train_until": _text(split.train_until),
            "holdout_from": _text(split.holdout_from),
            "n_train_sessions": len(split.train),
            "n_train_steps": split.train.n_steps,
            "n_sessions": len(split.holdout),
            "n_predictions": split.holdout.n_predictions,
            "min_predictions": training.min_holdout_steps,
            "n_unseen": split.n_unseen,
        },
    }


def _everything(steps: Steps, training: TrainingSettings) -> tuple[Catalogue, Sessions]:
    steps = latest_days(steps, training.window_days)
    steps = steps.filtered(training.min_item_support, training.min_session_steps)
    catalogue = steps.catalogue()
    return catalogue, steps.sessions(catalogue)


def _content(
    trained: Trained, catalogue: Catalogue, sessions: Sessions, items: pa.Table,
    popularity: pa.Table, metrics: dict[str, Any], origin: Origin,
) -> BundleContent:  # fmt: skip
    details = _item_details(items)
    known = [details.get(item_id, Item(item_id)) for item_id in catalogue.item_ids]
    by_rank = popularity.sort_by([("rank", "ascending"), ("item_id", "ascending")])
    fallbacks = [
        (details.get(item_id, Item(item_id)), float(score))
        for item_id, score in zip(
            by_rank["item_id"].to_pylist(), by_rank["score"].to_pylist(), strict=True
        )
    ]
    digest = sha256(weights_sha256(trained.model).encode())
    digest.update("\n".join(catalogue.item_ids).encode())
    manifest = new_manifest(origin, len(catalogue), digest.hexdigest())
    content = BundleContent(manifest, trained.model, known, fallbacks, [], metrics, [])
    golden = golden_sessions(SessionScorer(content), _samples(sessions, catalogue))
    return BundleContent(manifest, trained.model, known, fallbacks, golden, metrics, [])


def _item_details(items: pa.Table) -> dict[str, Item]:
    columns = [items[name].to_pylist() for name in ("item_id", "title", "category", "price")]
    return {row[0]: Item(*row) for row in zip(*columns, strict=True)}


def _samples(sessions: Sessions, catalogue: Catalogue) -> list[list[str]]:
    """A few sessions, spread over time."""
    stride = max(1, len(sessions) // _N_GOLDEN)
    return [
        [
            catalogue.item_ids[item_idx]
            for item_idx in sessions.item_idx[sessions.offsets[one] : sessions.offsets[one + 1]][:5]
        ]
        for one in range(0, len(sessions), stride)
    ][:_N_GOLDEN]


def _text(moment: datetime) -> str:
    """ISO time with microseconds always, so that text compares as time does."""
    return moment.isoformat(timespec="microseconds")

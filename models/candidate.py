"""From marts to a judged bundle: split, weigh and re-rank, train, evaluate, refit, write, gate.

The content of metrics.json is described in docs/gate.md.
"""

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from models.bundle import BundleContent, Check, content_sha256, write_bundle, write_checks
from models.candidate_figures import Made, iso, judged, made_of
from models.config import GRU4RecConfig
from models.dataset import NotEnoughData, Sessions, Steps
from models.evaluation import Ranker
from models.evaluation_file import appraise_split
from models.gate import Evidence, judge
from models.gru4rec import GRU4Rec
from models.item_tables import Item, described
from models.learner import Learner
from models.manifest import Origin, new_manifest
from models.recipe import VMIS, Reranks, Weighting, weighted
from models.report.listing import summary_of
from models.report.page import write_report
from models.rivals import RIVALS
from models.scorer import SessionScorer, golden_sessions
from models.split import Split, latest_days, temporal_split
from models.warm_start import Learned
from warehouse.settings import TrainingSettings
from warehouse.snapshot import Snapshot

__all__ = ["Candidate", "NotEnoughData", "build_candidate"]

_MIN_TRAIN_SESSIONS = 20
_N_GOLDEN = 8


@dataclass(frozen=True)
class Candidate:
    """A written and judged bundle.

    `metrics` has recall and mrr on the hold-out by model: what serves, its network alone, and the
    rivals. `details` is all of metrics.json, `evidence` what else the gate looked at.
    """

    folder: Path
    name: str
    version: str
    metrics: dict[str, dict[str, float]]
    details: dict[str, Any]
    checks: list[Check]
    evidence: Evidence = field(repr=False)

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
    parent: str | None = None,
    snapshot: Snapshot | None = None,
    champion: SessionScorer | None = None,
    checkpoints: Path | None = None,
    begin: Learned | str = "there is no model to begin from",
    sessions: pa.Table | None = None,
) -> Candidate:
    """Train on the marts `training_steps`, `items` and `popularity`; write `folder/<version>`.

    Figures come from a model that never saw the hold-out; what is written was trained on all of it
    where `training.refit`. `snapshot` is that of the marts. `champion`, the model that serves, is
    compared on sessions that it never saw. In the folder `checkpoints` a training that was killed
    is found again and goes on. `begin` is what networks begin from where
    `training.warm_start_epochs`, or why there is nothing; the mart `sessions` tells the report of
    devices. Raises NotEnoughData and TrainingDiverged.
    """
    clock = _Clock()
    all_steps = Steps.from_mart(steps, training.signal_weights)
    split = _split(all_steps, training)

    learn = Learner(config, training, checkpoints, begin)
    known = _item_details(items)
    weighting = _weighting(split, training, learn, known) if training.fusion else None
    clock.lap("weigh")
    trained = learn("holdout", split.train, split.catalogue, split.cut_at)
    made = made_of(trained, split.train, weighting, described(split.catalogue.item_ids, known))
    clock.lap("train")
    details, ranks = judged(split, made, weighting, training, champion)
    clock.lap("judge")
    evaluation = appraise_split(
        _reported(split, made), split, steps, items, sessions=sessions, seed=training.seed
    )
    details["summary"] = summary_of(evaluation)
    clock.lap("appraise")
    used, catalogue = split.train_steps, split.catalogue
    if training.refit:
        used = _everything(all_steps, training)
        catalogue = used.catalogue()
        everything = used.sessions(catalogue)
        trained = learn("refit", everything, catalogue)
        made = made_of(trained, everything, weighting, described(catalogue.item_ids, known))
        clock.lap("refit")
    details["left_out"] = {
        reason: asdict(one) for reason, one in (snapshot.left_out if snapshot else {}).items()
    }
    details["training"] = {
        "n_sessions": len(made.sessions), "n_steps": made.sessions.n_steps,
        "n_items": len(catalogue), "until": iso(used.until), "is_refit": training.refit,
        "seconds": clock.laps, "resumed": learn.resumed,
        "warm_start": learn.begun or None, **asdict(made.trained.log),
    }  # fmt: skip
    origin = Origin(snapshot_id, training.seed, parent, snapshot, learn.ancestors)
    content = _content(
        made, described(catalogue.item_ids, known), known, popularity, details, origin
    )
    if training.warm_start_epochs:
        content = replace(content, squares=made.trained.squares)
    written = folder / content.manifest.version
    write_bundle(content, written)
    evidence = Evidence(
        split, ranks, catalogue.item_ids, frozenset(items["item_id"].to_pylist()), steps,
        made.reranker,
    )  # fmt: skip
    checks = judge(details, written, evidence)
    write_checks(written, checks)
    write_report(written, evaluation)
    return Candidate(
        written, content.manifest.name, content.manifest.version, details["models"], details,
        checks, evidence,
    )  # fmt: skip


class _Clock:
    """Seconds of each stage, from the end of the one before."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._since = time.perf_counter()

    def lap(self, stage: str) -> None:
        now = time.perf_counter()
        self.laps[stage], self._since = round(now - self._since, 3), now


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


def _weighting(
    split: Split, training: TrainingSettings, learn: Learner, known: Mapping[str, Item]
) -> Weighting:
    """Weights and re-ranker by the latest sessions that are trained on, the hold-out unseen."""

    def network(part: Split) -> GRU4Rec:
        return learn("weigh", part.train, part.catalogue, part.cut_at).model

    reranks = Reranks(known, training.rerank_predictions, training.seed)
    return weighted(
        split.train_steps, network, min_item_support=training.min_item_support,
        min_session_steps=training.min_session_steps, min_predictions=training.min_holdout_steps,
        reranks=reranks if training.rerank else None,
    )  # fmt: skip


def _reported(split: Split, made: Made) -> dict[str, Ranker]:
    """What the report compares: the model, what it is made of, and what a shop would try first."""
    simple = ("popularity", "item-knn", VMIS)
    return made.stages | {name: RIVALS[name](split.train) for name in simple}


def _everything(steps: Steps, training: TrainingSettings) -> Steps:
    steps = latest_days(steps, training.window_days)
    return steps.filtered(training.min_item_support, training.min_session_steps)


def _content(
    made: Made, items: list[Item], known: Mapping[str, Item], popularity: pa.Table,
    metrics: dict[str, Any], origin: Origin,
) -> BundleContent:  # fmt: skip
    by_rank = popularity.sort_by([("rank", "ascending"), ("item_id", "ascending")])
    fallbacks = [
        (known.get(item_id, Item(item_id)), float(score))
        for item_id, score in zip(
            by_rank["item_id"].to_pylist(), by_rank["score"].to_pylist(), strict=True
        )
    ]
    model, item_ids = made.trained.model, [item.item_id for item in items]
    digest = content_sha256(model, made.fusion, item_ids, made.reranker)
    content = BundleContent(
        new_manifest(origin, item_ids, digest), model, items, fallbacks, [], metrics, [],
        made.fusion, reranker=made.reranker,
    )  # fmt: skip
    return replace(content, golden=golden_sessions(content, _samples(made.sessions)))


def _item_details(items: pa.Table) -> dict[str, Item]:
    columns = [items[name].to_pylist() for name in ("item_id", "title", "category", "price")]
    return {row[0]: Item(*row) for row in zip(*columns, strict=True)}


def _samples(sessions: Sessions) -> list[list[int]]:
    """A few sessions, spread over time."""
    stride = max(1, len(sessions) // _N_GOLDEN)
    return [
        sessions.item_idx[sessions.offsets[one] : sessions.offsets[one + 1]][:5].tolist()
        for one in range(0, len(sessions), stride)
    ][:_N_GOLDEN]

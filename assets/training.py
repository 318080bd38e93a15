"""The model: train a candidate on the latest marts, judge it, and let it serve if it passes."""

import logging
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
import httpx

from assets.marts import MART_SNAPSHOT, not_beside_an_erasure
from assets.resources import Materialized, RefreshLock
from assets.triggers import post_alert
from warehouse import followed_erasures, layout, snapshot
from warehouse.settings import Settings
from warehouse.store import ObjectStore, open_store

# `models` is imported where it runs: torch costs seconds and 200 MiB that the web UI, the daemon
# and the loading of definitions can do without.
if TYPE_CHECKING:
    from models.candidate import Candidate
    from models.scorer import SessionScorer
    from models.warm_start import Learned

_log = logging.getLogger(__name__)
CANDIDATE_MODEL = dg.AssetKey("candidate_model")
CHAMPION_MODEL = dg.AssetKey("champion_model")
GATE = "gate"
NOT_ENOUGH_DATA = "not enough data for a model"


@dg.asset(key=CANDIDATE_MODEL, deps=[MART_SNAPSHOT], group_name="model", kinds={"pytorch"})
def candidate_model(
    context: dg.AssetExecutionContext, settings: dg.ResourceParam[Settings]
) -> Materialized:
    """GRU4Rec and its companions, trained on the latest snapshot, judged on its latest sessions.

    Their best items are re-ranked where that proves better.

    Kept in the registry whether it passes or not; it serves only once it is the champion. A run
    that was killed while it trained is taken up by the next one at its last checkpoint.
    """
    from models.candidate import NotEnoughData
    from models.erasures import inherit
    from models.registry import Registry

    store = open_store(settings)
    with tempfile.TemporaryDirectory(prefix="shallop-candidate-") as folder:
        try:
            candidate = _build(settings, store, Path(folder))
        except NotEnoughData as error:
            raise dg.Failure(f"{NOT_ENOUGH_DATA}: {error}", allow_retries=False) from error
        with not_beside_an_erasure():
            followed_erasures.check(settings, store)
        Registry(store).upload(candidate.folder, is_refused=not candidate.is_passed)
        inherit(store, candidate.name, candidate.version)
        shutil.rmtree(settings.checkpoint_path, ignore_errors=True)
    resumed = ",".join(candidate.details["training"]["resumed"]) or "none"
    context.log.info(
        f"model={candidate.version} passed={candidate.is_passed} resumed_trainings={resumed}"
    )
    return dg.MaterializeResult(metadata=_metadata(candidate, store, settings))


@dg.asset_check(asset=CANDIDATE_MODEL, name=GATE, blocking=True)
def gate(
    context: dg.AssetCheckExecutionContext, settings: dg.ResourceParam[Settings]
) -> dg.AssetCheckResult:
    """The candidate is sound, behaves, and is no worse than its rivals and the champion.

    Else it is not promoted, the champion goes on serving, and an alarm is raised.
    """
    from models.registry import Registry

    name, version = _latest_candidate(context.instance)
    registry = Registry(open_store(settings))
    checks = registry.checks(name, version)
    failed = [check for check in checks if not check["passed"]]
    reason = "; ".join(f"{check['name']}: {check['message']}" for check in failed)
    if failed:
        registry.refuse(name, version, reason)
        context.log.error(f"candidate refused model={version} reason={reason!r}")
        _alarm(context, settings, version, reason)
    lines = ["| check | passed | value | threshold | |", "|---|---|---|---|---|"]
    for check in checks:
        passed = "yes" if check["passed"] else "**no**"
        value, threshold = (_cell(check.get(field)) for field in ("value", "threshold"))
        lines.append(f"| {check['name']} | {passed} | {value} | {threshold} | {check['message']} |")
    return dg.AssetCheckResult(
        passed=not failed,
        description=reason or None,
        metadata={"model_version": version, "checks": dg.MetadataValue.md("\n".join(lines))},
    )


def _alarm(
    context: dg.AssetCheckExecutionContext, settings: Settings, version: str, reason: str
) -> None:
    """Tell the alert webhook, where one is set; a webhook that is down changes no verdict."""
    url = settings.refresh.alert_webhook_url.get_secret_value()
    if not url:
        return
    try:
        post_alert(url, {"event": "candidate_refused", "model_version": version, "error": reason})
    except httpx.HTTPError as error:
        context.log.error(f"the alert webhook did not take the refusal: {error!r}")


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4f}"
    return "" if value is None else str(value)


@dg.asset(key=CHAMPION_MODEL, deps=[CANDIDATE_MODEL], group_name="model", kinds={"pytorch"})
def champion_model(
    context: dg.AssetExecutionContext,
    settings: dg.ResourceParam[Settings],
    refresh_lock: dg.ResourceParam[RefreshLock],
) -> Materialized:
    """The model that serves: the candidate that passed the gate. The app swaps to it by itself."""
    from models.registry import Registry

    name, version = _latest_candidate(context.instance)
    pointer = Registry(open_store(settings)).promote(
        name, version, reason=f"passed the gate in run {context.run_id}"
    )
    previous = pointer.previous.version if pointer.previous else "none"
    return dg.MaterializeResult(
        metadata={
            "model_version": version,
            "previous_version": previous,
            "promoted_at": dg.MetadataValue.timestamp(pointer.promoted_at),
        }
    )


def _build(settings: Settings, store: ObjectStore, folder: Path) -> "Candidate":
    from models.candidate import build_candidate
    from models.config import GRU4RecConfig

    training, champion = settings.training, _champion(settings, store)
    latest = snapshot.latest(store)
    snapshot_id = latest.snapshot_id
    marts = {
        mart: snapshot.read_mart(store, snapshot_id, mart)
        for mart in ("training_steps", "items", "popularity", "sessions")
    }
    return build_candidate(
        marts["training_steps"],
        marts["items"],
        marts["popularity"],
        training=training,
        config=GRU4RecConfig.load(training.config_file)
        if training.config_file
        else GRU4RecConfig(),
        snapshot_id=snapshot_id,
        snapshot=latest,
        folder=folder,
        parent=champion.version if champion else None,
        champion=champion,
        checkpoints=settings.checkpoint_path,
        sessions=marts["sessions"],
        begin=_beginning(settings, store, champion),
    )


def _champion(settings: Settings, store: ObjectStore) -> "SessionScorer | None":
    """The model that serves, None before the first one and where it cannot be read any more."""
    from models.registry import BundleCorrupt, NoChampionModel, Registry, UnknownModel
    from models.scorer import SessionScorer

    registry = Registry(store)
    try:
        pointer = registry.pointer()
        folder = registry.fetch(pointer.name, pointer.version, settings.model_cache_path)
        return SessionScorer.load(folder, threads=settings.training.threads)
    except NoChampionModel:
        return None
    except (BundleCorrupt, UnknownModel) as error:
        _log.error("the candidate is not compared with the champion: %s", error)
        return None


def _beginning(
    settings: Settings, store: ObjectStore, champion: "SessionScorer | None"
) -> "Learned | str":
    """What the champion learned, or why a training cannot begin from that."""
    from models.erasures import erasures_of
    from models.learned_file import read_learned
    from models.manifest import BundleCorrupt
    from models.registry import Registry
    from models.warm_start import CannotBegin

    if not settings.training.warm_start_epochs:
        return "SHALLOP_TRAINING__WARM_START_EPOCHS is 0"
    if champion is None:
        return "there is no champion to begin from"
    if erasures_of(store, champion.name, champion.version):
        return f"the champion {champion.version} learned from events that were erased since"
    try:
        registry = Registry(store)
        return read_learned(
            registry.fetch(champion.name, champion.version, settings.model_cache_path)
        )
    except (BundleCorrupt, CannotBegin) as error:
        return str(error)


def _latest_candidate(instance: dg.DagsterInstance) -> tuple[str, str]:
    """Name and version of the candidate trained last."""
    event = instance.get_latest_materialization_event(CANDIDATE_MODEL)
    if event is None or event.asset_materialization is None:
        raise dg.Failure("no candidate yet, materialize `candidate_model` first")
    metadata = event.asset_materialization.metadata
    return str(metadata["model_name"].value), str(metadata["model_version"].value)


def _metadata(candidate: "Candidate", store: ObjectStore, settings: Settings) -> dict[str, Any]:
    serving = settings.serving
    host = "127.0.0.1" if serving.host == "0.0.0.0" else serving.host
    measures = ("recall@20", "mrr@20")
    lines = [f"| model | {' | '.join(measures)} |", "|---|---|---|"]
    for model, figures in candidate.metrics.items():
        lines.append(f"| {model} | {' | '.join(f'{figures[one]:.4f}' for one in measures)} |")
    training, holdout = candidate.details["training"], candidate.details["holdout"]
    return {
        "model_name": candidate.name,
        "model_version": candidate.version,
        "serves": candidate.details["served"],
        "passed_gate": candidate.is_passed,
        "results": dg.MetadataValue.md("\n".join(lines)),
        "metrics": dg.MetadataValue.json(candidate.metrics),
        "n_predictions": holdout["n_predictions"],
        "n_sessions": training["n_sessions"],
        "n_items": training["n_items"],
        "weights": dg.MetadataValue.json((candidate.details["fusion"] or {}).get("weights", {})),
        "reranking": dg.MetadataValue.json(candidate.details["reranking"] or "off"),
        "events_per_second": training["events_per_second"],
        "train_seconds": training["train_seconds"],
        "device": training["device"],
        "resumed_trainings": dg.MetadataValue.json(training["resumed"]),
        "warm_start": dg.MetadataValue.json(training["warm_start"] or "off"),
        "report": dg.MetadataValue.url(
            f"http://{host}:{serving.port}/models/{candidate.version}/report"
        ),
        "report_file": dg.MetadataValue.path(
            store.uri(layout.bundle_key(candidate.name, candidate.version, "report.html"))
        ),
        "bundle": dg.MetadataValue.path(
            store.uri(layout.bundle_key(candidate.name, candidate.version))
        ),
    }

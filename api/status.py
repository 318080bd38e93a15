"""How the app is: /healthz, /readyz, /status and /metrics."""

import shutil
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from fastapi import APIRouter, Response
from pydantic import BaseModel

from api.catalogue import Catalogue
from api.champion import Champion
from api.metrics import CONTENT_TYPE, age_seconds
from api.parts import Parts, PartsDep
from ingest.appending import OutboxFull
from ingest.events import Decoded
from ingest.outbox_file import OutboxBroken
from models.registry import ChannelPointer

router = APIRouter(tags=["operation"])

_MIN_FREE_BYTES = 16 * 1024 * 1024


class Health(BaseModel):
    """The process answers."""

    status: str = "ok"


class Readiness(BaseModel):
    """Whether events can be accepted, and what else is there.

    `keys` is `required`, `open` (anybody may send), or what is wrong with their file.
    """

    ready: bool
    outbox: str
    keys: str
    model_loaded: bool
    store_reachable: bool | None


class CollectorStatus(BaseModel):
    """The outbox of this box; its counts are null while it cannot be read."""

    collector_id: str
    depth_limit: int
    depth: int | None = None
    oldest_waiting_seconds: float | None = None
    accepted: int | None = None
    shipped: int | None = None
    rejected: dict[str, int] | None = None
    last_flushed_at: datetime | None
    last_error: str | None


class ModelStatus(BaseModel):
    """The model that serves from this process.

    `name` and `version` are the registry's, `serves` is what ranks: `reranked`, `fusion`, or
    `gru4rec` alone.
    `erasures` took away events that it was trained on; the next refresh trains one without them.
    """

    name: str
    version: str
    serves: str
    created_at: datetime
    age_seconds: float
    promoted_at: datetime
    loaded_at: datetime
    snapshot_id: str
    n_items: int
    erasures: int
    weights: dict[str, float]
    metrics: dict[str, Any]


class RefusedCandidate(BaseModel):
    """The candidate that the gate refused last, after the champion was promoted."""

    version: str
    refused_at: datetime
    reason: str


class ChampionStatus(BaseModel):
    """The look-out for new champions; a failed one leaves the serving model where it is."""

    swaps: int
    checked_at: datetime | None
    last_error: str | None
    refused: RefusedCandidate | None


class DataStatus(BaseModel):
    """The latest marts."""

    snapshot_id: str
    created_at: datetime
    age_seconds: float
    n_items: int


class AccessStatus(BaseModel):
    """Who may call; `refused` counts by reason, of this worker since it started."""

    open: bool
    require_keys: str
    write_keys: int
    secret_keys: int
    refused: dict[str, int]
    last_error: str | None


class Links(BaseModel):
    """Where else to look."""

    docs: str = "/docs"
    metrics: str = "/metrics"
    dagster: str


class Status(BaseModel):
    """Everything at a glance; `errors` is empty when all is well."""

    version: str
    started_at: datetime
    access: AccessStatus
    collector: CollectorStatus
    model: ModelStatus | None
    champion: ChampionStatus
    data: DataStatus | None
    links: Links
    errors: list[str]


@router.get("/healthz", summary="Is the process alive?")
async def healthz() -> Health:
    """The process is alive."""
    return Health()


@router.get(
    "/readyz",
    summary="Can events be accepted?",
    responses={503: {"description": "Events cannot be accepted."}},
)
async def readyz(parts: PartsDep, response: Response) -> Readiness:
    """200 while events can be accepted; a missing model or store is told apart."""
    outbox = await _outbox_state(parts)
    keys = parts.access.keys.look()
    is_ready = outbox == "ok" and not keys.is_locked
    if not is_ready:
        response.status_code = 503
    return Readiness(
        ready=is_ready,
        outbox=outbox,
        keys=keys.error or ("required" if keys.is_required else "open"),
        model_loaded=parts.champion.current is not None,
        store_reachable=parts.catalogue.is_store_reachable,
    )


@router.get("/status", summary="Everything at a glance")
async def status(parts: PartsDep) -> Status:
    """What the collector, the model and the data are doing, for people and for alarms."""
    champion, collector, access = parts.champion, _collector(parts), _access(parts)
    refused = _refused(champion.refusal) if champion.refusal else None
    found = {
        "access": access.last_error,
        "collector": collector.last_error,
        "champion": champion.last_error,
        "data": parts.catalogue.last_error,
        "erasures": parts.erasures.last_error,
        "gate": f"candidate {refused.version} was refused: {refused.reason}" if refused else None,
    }
    return Status(
        version=version("shallop"),
        started_at=parts.started_at,
        access=access,
        collector=collector,
        model=_model(champion.current, parts.erasures.n_of_model) if champion.current else None,
        champion=ChampionStatus(
            swaps=champion.n_swaps,
            checked_at=champion.checked_at,
            last_error=champion.last_error,
            refused=refused,
        ),
        data=_data(parts.catalogue.current) if parts.catalogue.current else None,
        links=Links(dagster=parts.settings.serving.dagster_url),
        errors=[f"{part}: {error}" for part, error in found.items() if error],
    )


@router.get(
    "/metrics",
    summary="For Prometheus",
    response_class=Response,
    responses={200: {"content": {"text/plain": {}}}},
)
async def metrics(parts: PartsDep) -> Response:
    """Counters and gauges for Prometheus, of all workers together."""
    gauges = parts.metrics
    collector = _collector(parts)
    unknown = float("nan")
    gauges.outbox_depth.set(unknown if collector.depth is None else collector.depth)
    gauges.outbox_oldest.set(collector.oldest_waiting_seconds or 0)
    if collector.last_flushed_at:
        gauges.flushed_at.set(collector.last_flushed_at.timestamp())
    champion = parts.champion.current
    gauges.open.set(not parts.access.keys.look().is_required)
    gauges.set_model_age(champion.scorer.created_at if champion else None)
    return Response(gauges.text(), media_type=CONTENT_TYPE)


async def _outbox_state(parts: Parts) -> str:
    """`ok`, or why events cannot be accepted, found by committing none of them."""
    try:
        await parts.outbox.append(Decoded([], [], datetime.now(UTC), "readyz"))
        depth = parts.outbox.depth()
        free = shutil.disk_usage(parts.settings.outbox_path.parent).free
    except (OutboxBroken, OutboxFull, OSError) as error:
        return str(error)
    limit = parts.settings.ingest.outbox_limit_events
    if depth >= limit:
        return str(OutboxFull(depth, limit))
    if free < _MIN_FREE_BYTES:
        return f"the disk of the outbox is full, bytes free: `{free}`"
    return "ok"


def _access(parts: Parts) -> AccessStatus:
    access = parts.access
    keys = access.keys.look()
    n_usable = keys.n_usable(datetime.now(UTC))
    return AccessStatus(
        open=not keys.is_required,
        require_keys=access.keys.mode,
        write_keys=n_usable["write"],
        secret_keys=n_usable["secret"],
        refused=dict(access.refused),
        last_error=keys.error,
    )


def _collector(parts: Parts) -> CollectorStatus:
    outbox, flusher = parts.outbox, parts.flusher
    status = CollectorStatus(
        collector_id=outbox.collector_id,
        depth_limit=parts.settings.ingest.outbox_limit_events,
        last_flushed_at=flusher.last_flushed_at,
        last_error=flusher.last_error,
    )
    try:
        oldest = outbox.oldest_received_at()
        counted = {
            "depth": outbox.depth(),
            "oldest_waiting_seconds": age_seconds(oldest) if oldest else None,
            **outbox.counts(),
        }
    except OutboxBroken as error:
        return status.model_copy(update={"last_error": str(error)})
    return status.model_copy(update=counted)


def _model(champion: Champion, n_erasures: int) -> ModelStatus:
    scorer = champion.scorer
    return ModelStatus(
        name=scorer.name,
        version=scorer.version,
        serves=scorer.source,
        created_at=scorer.created_at,
        age_seconds=age_seconds(scorer.created_at),
        promoted_at=champion.pointer.promoted_at,
        loaded_at=champion.loaded_at,
        snapshot_id=scorer.snapshot_id,
        n_items=scorer.n_items,
        erasures=n_erasures,
        weights=scorer.weights,
        metrics=scorer.metrics,
    )


def _refused(refusal: ChannelPointer) -> RefusedCandidate:
    return RefusedCandidate(
        version=refusal.version, refused_at=refusal.promoted_at, reason=refusal.reason
    )


def _data(catalogue: Catalogue) -> DataStatus:
    return DataStatus(
        snapshot_id=catalogue.snapshot_id,
        created_at=catalogue.created_at,
        age_seconds=age_seconds(catalogue.created_at),
        n_items=len(catalogue),
    )

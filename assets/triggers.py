"""What starts a refresh, and who hears when it fails."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import dagster as dg
import httpx
import msgspec
from dagster._core.execution.plan.objects import StepFailureData

from assets.instance import end_dead_refresh
from assets.raw import RAW_EVENTS, RawRange
from warehouse import layout
from warehouse.settings import Settings
from warehouse.store import ObjectInfo, ObjectStore, StoreUnavailable, open_store

REFRESH = "refresh"

refresh_job = dg.define_asset_job(
    REFRESH,
    selection=dg.AssetSelection.all() - dg.AssetSelection.assets("compacted_raw", "expired_data"),
    description="Raw events to marts, model and reports: all of these assets, in order.",
)


@dataclass(frozen=True)
class Landed:
    """How far raw events had come at a moment: last sequence number per collector."""

    at: datetime
    high_water: dict[str, int]

    def n_new(self, objects: Iterable[ObjectInfo]) -> tuple[int, dict[str, int]]:
        """Events in `objects` that came after this, and the high water with them."""
        n_events, reached = 0, dict(self.high_water)
        for found in objects:
            landed = RawRange.of(found.key)
            if landed is None:
                continue
            before = self.high_water.get(landed.collector, 0)
            n_events += max(0, landed.last - max(landed.first - 1, before))
            reached[landed.collector] = max(reached.get(landed.collector, 0), landed.last)
        return n_events, reached

    def later_of(self, other: "Landed") -> "Landed":
        """What both together have seen."""
        names = {*self.high_water, *other.high_water}
        return Landed(
            max(self.at, other.at),
            {
                name: max(self.high_water.get(name, 0), other.high_water.get(name, 0))
                for name in names
            },
        )


def refresh_schedule(settings: Settings) -> dg.ScheduleDefinition:
    """The refresh that happens whatever the shop does."""
    return dg.ScheduleDefinition(
        name="refresh_schedule",
        job=refresh_job,
        cron_schedule=settings.refresh.cron,
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.RUNNING,
    )


@dg.sensor(
    job=refresh_job,
    minimum_interval_seconds=60,
    default_status=dg.DefaultSensorStatus.RUNNING,
)
def refresh_after_events(
    context: dg.SensorEvaluationContext, settings: dg.ResourceParam[Settings]
) -> dg.SensorResult | dg.SkipReason:
    """Starts a refresh before its time once enough new raw events have landed.

    Counts from the names of the objects, and only of the days since the last refresh began. A
    refresh whose process was killed is reported failed first, and goes on in the next one.
    """
    if _is_running(context.instance, settings):
        return dg.SkipReason("a refresh is running")
    last = _last_refresh(context)
    try:
        n_new, high_water = last.n_new(_objects_since(open_store(settings), last.at))
    except StoreUnavailable as error:
        return dg.SkipReason(str(error))
    if n_new < settings.refresh.after_events:
        return dg.SkipReason(
            f"{n_new} new raw events, a refresh starts at {settings.refresh.after_events}"
        )
    cursor = msgspec.json.encode(Landed(datetime.now(UTC), high_water)).decode()
    return dg.SensorResult(
        run_requests=[dg.RunRequest(tags={"shallop/new_events": str(n_new)})], cursor=cursor
    )


@dg.run_failure_sensor(minimum_interval_seconds=30, default_status=dg.DefaultSensorStatus.RUNNING)
def failure_webhook(
    context: dg.RunFailureSensorContext, settings: dg.ResourceParam[Settings]
) -> None:
    """Posts every failed run to the alert webhook, where one is set."""
    url = settings.refresh.alert_webhook_url.get_secret_value()
    if not url:
        return
    run = context.dagster_run
    errors = step_errors(context.get_step_failure_events())
    post_alert(
        url,
        {
            "event": "run_failed",
            "job": run.job_name,
            "run_id": run.run_id,
            "failed_steps": list(errors),
            "error": "; ".join(errors.values()) or context.failure_event.message or "",
            "url": f"{settings.serving.dagster_url}/runs/{run.run_id}",
        },
    )


def step_errors(failures: Iterable[dg.DagsterEvent]) -> dict[str, str]:
    """By failed step, the message of its innermost error, without the stack."""
    return {failure.step_key or "": _message(failure.step_failure_data) for failure in failures}


def post_alert(url: str, payload: dict[str, object]) -> None:
    """POST `payload` as JSON. Raises httpx.HTTPError when it is not taken."""
    with httpx.Client(transport=httpx.HTTPTransport(retries=2), timeout=10) as client:
        client.post(url, json=payload).raise_for_status()


def _last_refresh(context: dg.SensorEvaluationContext) -> Landed:
    """The later of what this sensor asked for and what any refresh has seen."""
    asked = msgspec.json.decode(context.cursor, type=Landed) if context.cursor else None
    event = context.instance.get_latest_materialization_event(RAW_EVENTS)
    if event is None or event.asset_materialization is None:
        return asked or Landed(datetime.fromtimestamp(0, UTC), {})
    known = event.asset_materialization.metadata["high_water"].value
    seen = Landed(
        datetime.fromtimestamp(event.timestamp, UTC), msgspec.convert(known, dict[str, int])
    )
    return seen if asked is None else asked.later_of(seen)


def _objects_since(store: ObjectStore, moment: datetime) -> Iterable[ObjectInfo]:
    """Raw objects of the days from the one before `moment`; all of them if it is long ago.

    Events that land in earlier days wait for the schedule.
    """
    day, today = moment - timedelta(days=1), datetime.now(UTC)
    if today - day > timedelta(days=30):
        yield from store.list(layout.RAW_EVENTS)
        return
    while day.date() <= today.date():
        key = layout.raw_key(layout.RAW_EVENTS, day, "", 0, 0)
        yield from store.list(key.rpartition("/hour=")[0])
        day += timedelta(days=1)


def _is_running(instance: dg.DagsterInstance, settings: Settings) -> bool:
    end_dead_refresh(instance, settings)
    unfinished = [
        dg.DagsterRunStatus.QUEUED,
        dg.DagsterRunStatus.NOT_STARTED,
        dg.DagsterRunStatus.STARTING,
        dg.DagsterRunStatus.STARTED,
    ]
    found = instance.get_runs(dg.RunsFilter(job_name=REFRESH, statuses=unfinished), limit=1)
    return bool(found)


def _message(failure: StepFailureData) -> str:
    if failure.user_failure_data and failure.user_failure_data.description:
        return failure.user_failure_data.description
    error = failure.error
    while error is not None and error.cause is not None:
        error = error.cause
    return error.message.strip() if error is not None else "no error was recorded"

"""One refresh in this process: events to marts, model and reports, without a server."""

import sys
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from io import StringIO
from typing import Any, Literal
from uuid import uuid4

import dagster as dg

from assets.definitions import build_definitions
from assets.instance import HEADLESS, end_orphans, open_instance
from assets.marts import MART_SNAPSHOT
from assets.raw import RAW_EVENTS
from assets.training import CANDIDATE_MODEL, GATE, NOT_ENOUGH_DATA
from assets.triggers import REFRESH, step_errors
from warehouse.contracts import MART_SCHEMAS
from warehouse.settings import Settings

# Dagster logs every event to the terminal otherwise.
_QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}

_STATES = {
    dg.DagsterEventType.STEP_START: "started",
    dg.DagsterEventType.STEP_SUCCESS: "done",
    dg.DagsterEventType.STEP_FAILURE: "failed",
    dg.DagsterEventType.STEP_SKIPPED: "skipped",
}


Outcome = Literal["promoted", "refused", "not_enough_data"]


class RefreshFailed(RuntimeError):
    """A step of the refresh failed; what was published before stays published."""


@dataclass(frozen=True)
class Progress:
    """A step of the refresh that `started`, is `done`, `failed` or was `skipped`."""

    step: str
    state: str


@dataclass(frozen=True)
class RefreshResult:
    """What a refresh made.

    `outcome` tells of the model: `promoted`; `refused` by the gate, `reason` says why and the
    champion before stays; or `not_enough_data` to train or judge one, `reason` says what is
    missing. `serves` is what the candidate serves: `reranked`, `fusion` or `gru4rec`.
    `metrics` are those of the candidate and its baselines, by model and measure; `counts` are rows
    of the snapshot by mart, and of what it is made of: `raw_events`, and `staged_events` without
    their repetitions. `left_out` are sessions that nothing was learned from and the events in them,
    by reason.
    """

    run_id: str
    snapshot_id: str
    outcome: Outcome
    reason: str
    model_version: str | None
    serves: str | None
    metrics: dict[str, dict[str, float]] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    left_out: dict[str, dict[str, int]] = field(default_factory=dict)
    seconds: float = 0.0


def run_refresh(
    settings: Settings, on_event: Callable[[Progress], None] | None = None
) -> RefreshResult:
    """Run the job `refresh` here, recorded in the Dagster instance of `settings.home`.

    `on_event` hears of every step. Raises RefreshRunning when another refresh is under way, and
    RefreshFailed when a step fails for other reasons than the quality or the lack of data.
    """
    started = time.monotonic()
    with open_instance(settings) as instance:
        end_orphans(instance, settings)
        result = _executed(settings, instance, on_event)
    return _summary(result, time.monotonic() - started)


def _executed(
    settings: Settings,
    instance: dg.DagsterInstance,
    on_event: Callable[[Progress], None] | None,
) -> dg.ExecuteInProcessResult:
    run_id = str(uuid4())
    terminal = sys.stdout

    def listen(entry: Any) -> None:
        event = entry.dagster_event
        state = _STATES.get(event.event_type) if event else None
        if on_event and state:
            with redirect_stdout(terminal):
                on_event(Progress(event.step_key.replace("__", "/"), state))

    instance.add_event_listener(run_id, listen)
    job = build_definitions(settings).resolve_job_def(REFRESH)
    # dagster-dbt repeats dbt's output on stdout; it is in dbt's own log and in the run's.
    with redirect_stdout(StringIO()):
        return job.execute_in_process(
            run_config=_QUIET,
            instance=instance,
            run_id=run_id,
            tags={HEADLESS: "true"},
            raise_on_error=False,
        )


def _summary(result: dg.ExecuteInProcessResult, seconds: float) -> RefreshResult:
    outcome, reason = model_outcome(result)
    metadata = _metadata(result)
    candidate, marts = metadata.get(CANDIDATE_MODEL, {}), metadata[MART_SNAPSHOT]
    return RefreshResult(
        run_id=result.run_id,
        snapshot_id=marts["snapshot_id"],
        outcome=outcome,
        reason=reason,
        model_version=candidate.get("model_version"),
        serves=candidate.get("serves"),
        metrics=candidate.get("metrics", {}),
        counts={
            "raw_events": metadata[RAW_EVENTS]["n_events"],
            "staged_events": marts["n_staged_events"],
            **{mart: marts[f"n_{mart}"] for mart in MART_SCHEMAS},
        },
        left_out=marts["left_out"],
        seconds=seconds,
    )


def model_outcome(result: dg.ExecuteInProcessResult) -> tuple[Outcome, str]:
    """How it ended for the model, and why. Raises RefreshFailed."""
    if result.success:
        return "promoted", ""
    errors = step_errors(event for event in result.all_events if event.is_step_failure)
    refusals = [
        evaluation.description or "a check failed"
        for evaluation in result.get_asset_check_evaluations()
        if evaluation.check_name == GATE and not evaluation.passed
    ]
    if refusals and len(errors) == 1:
        return "refused", "; ".join(refusals)
    if len(errors) == 1 and next(iter(errors.values())).startswith(NOT_ENOUGH_DATA):
        return "not_enough_data", next(iter(errors.values()))
    failed = "; ".join(f"{step}: {error}" for step, error in errors.items())
    raise RefreshFailed(f"refresh failed (run {result.run_id}): {failed or _why(result)}")


def _metadata(result: dg.ExecuteInProcessResult) -> dict[dg.AssetKey, dict[str, Any]]:
    """Values of the metadata of what was materialized."""
    return {
        event.materialization.asset_key: {
            name: value.value for name, value in event.materialization.metadata.items()
        }
        for event in result.get_asset_materialization_events()
    }


def _why(result: dg.ExecuteInProcessResult) -> str:
    """What ended a run in which no step failed."""
    failures = [event for event in result.all_events if event.is_failure]
    if not failures:
        return "see the run in the web UI"
    error = failures[-1].job_failure_data.error if failures[-1].is_job_failure else None
    while error and error.cause:
        error = error.cause
    return f"{failures[-1].message} {error.message if error else ''}".strip()

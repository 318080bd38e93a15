"""The code location: `dagster -m assets.definitions`."""

import dagster as dg

from assets.compaction import compact_job, compact_schedule, compacted_raw
from assets.drift import drift_report
from assets.marts import dbt_models, mart_snapshot
from assets.raw import raw_events
from assets.resources import resources
from assets.retention import expired_data, retention_job, retention_schedule
from assets.training import candidate_model, champion_model, gate
from assets.triggers import (
    failure_webhook,
    refresh_after_events,
    refresh_job,
    refresh_schedule,
)
from warehouse.settings import Settings, get_settings


def build_definitions(settings: Settings) -> dg.Definitions:
    """Everything that Dagster runs, for one set of settings. Raises DbtParseFailed."""
    return dg.Definitions(
        assets=[
            raw_events,
            compacted_raw,
            expired_data,
            dbt_models(settings),
            mart_snapshot,
            candidate_model,
            champion_model,
            drift_report,
        ],
        asset_checks=[gate],
        jobs=[refresh_job, compact_job, retention_job],
        schedules=[refresh_schedule(settings), compact_schedule, retention_schedule(settings)],
        sensors=[refresh_after_events, failure_webhook],
        resources=resources(settings),
        # One process for all steps: a step is short, and starting a process for it costs seconds.
        executor=dg.in_process_executor,
    )


@dg.definitions
def defs() -> dg.Definitions:
    """What `dagster` loads, with the settings of its environment."""
    return build_definitions(get_settings())

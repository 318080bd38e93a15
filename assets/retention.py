"""How long things are kept: what the settings `SHALLOP_PRIVACY__*` let go is removed."""

import dagster as dg

from assets.instance import open_instance
from assets.raw import RAW_EVENTS
from assets.resources import WAREHOUSE_POOL, Materialized, RefreshLock
from warehouse import retention
from warehouse.retention import Freed
from warehouse.settings import Settings
from warehouse.store import open_store

# Never deleted, however old: the newest runs name the snapshot and the candidate of their assets.
_RUNS_KEPT = 50
_BATCH_RUNS = 500


def expire(settings: Settings, *, is_dry: bool = False) -> list[Freed]:
    """Remove what is older than it may be; whoever calls this holds the refresh's lock.

    Safe to stop and to run again. Raises StoreUnavailable.
    """
    from models.retention import expire_models

    store, privacy = open_store(settings), settings.privacy
    models, pinned = expire_models(store, privacy.keep_models, is_dry=is_dry)
    freed = [
        *retention.expire_raw(
            store, settings.warehouse_path, retention.cutoff(privacy.raw_days), is_dry=is_dry
        ),
        retention.expire_rejected(store, retention.cutoff(privacy.rejected_days), is_dry=is_dry),
        models,
        retention.expire_snapshots(store, privacy.keep_snapshots, pinned, is_dry=is_dry),
        retention.expire_reports(store, privacy.keep_reports, is_dry=is_dry),
        _expire_runs(settings, is_dry),
    ]
    return [one for one in freed if one.n]


@dg.asset(deps=[RAW_EVENTS], group_name="raw", pool=WAREHOUSE_POOL)
def expired_data(
    settings: dg.ResourceParam[Settings], refresh_lock: dg.ResourceParam[RefreshLock]
) -> Materialized:
    """Raw, rejected, snapshots, reports, models and runs older than they may be, removed.

    Nothing that a channel serves or goes back to, and no raw object that staging has not read.
    """
    return dg.MaterializeResult(
        metadata={one.what.replace(" ", "_"): one.n for one in expire(settings)}
    )


retention_job = dg.define_asset_job("retention", selection=dg.AssetSelection.assets(expired_data))


def retention_schedule(settings: Settings) -> dg.ScheduleDefinition:
    """The daily removal of what is too old."""
    return dg.ScheduleDefinition(
        name="retention_schedule",
        job=retention_job,
        cron_schedule=settings.privacy.cron,
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.RUNNING,
    )


def _expire_runs(settings: Settings, is_dry: bool) -> Freed:
    before = retention.cutoff(settings.privacy.run_days)
    if before is None or not settings.dagster_path.exists():
        return Freed("Dagster runs", 0)
    with open_instance(settings) as instance:
        newest = {run.run_id for run in instance.get_runs(limit=_RUNS_KEPT)}
        old = [
            record.dagster_run.run_id
            for record in instance.get_run_records(
                dg.RunsFilter(created_before=before), limit=_BATCH_RUNS
            )
            if record.dagster_run.is_finished and record.dagster_run.run_id not in newest
        ]
        for run_id in () if is_dry else old:
            instance.delete_run(run_id)
    return Freed("Dagster runs", len(old))

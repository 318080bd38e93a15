"""Maintenance of raw: few objects, however many the collector landed."""

import dagster as dg

from assets.raw import RAW_EVENTS
from assets.resources import WAREHOUSE_POOL, Materialized, RefreshLock
from warehouse.compaction import compact
from warehouse.settings import Settings
from warehouse.store import open_store


@dg.asset(deps=[RAW_EVENTS], group_name="raw", kinds={"parquet"}, pool=WAREHOUSE_POOL)
def compacted_raw(
    settings: dg.ResourceParam[Settings], refresh_lock: dg.ResourceParam[RefreshLock]
) -> Materialized:
    """Small raw objects of closed hours merged into one each; every row is conserved.

    Safe to stop and to run again at any time. Takes the refresh's lock: dbt must find the objects
    that it has listed.
    """
    done = compact(open_store(settings))
    return dg.MaterializeResult(
        metadata={
            "n_merged": done.n_merged,
            "n_written": done.n_written,
            "n_removed": done.n_removed,
            "n_rows": done.n_rows,
        }
    )


compact_job = dg.define_asset_job("compact", selection=dg.AssetSelection.assets(compacted_raw))

# Away from the refresh of the default settings; an hour not closed yet waits for the next day.
compact_schedule = dg.ScheduleDefinition(
    name="compact_schedule",
    job=compact_job,
    cron_schedule="15 5 * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
)

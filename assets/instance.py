"""The embedded Dagster instance: its home, and the runs that a killed process left behind."""

import time
from pathlib import Path

import dagster as dg

from assets.resources import WAREHOUSE_POOL, last_refresh, refresh_lock
from warehouse.settings import Settings

# Tag of runs that execute in the process that asked for them, such as `shallop refresh`.
HEADLESS = "shallop/headless"

_WHY = "its process ended before the run did"
_END_SECONDS = 2.0  # at most, from letting go of the lock to a run's last event

_EMBEDDED = Path(__file__).with_name("dagster.yaml")
_UNFINISHED = [
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
]


def install_dagster_home(settings: Settings) -> Path:
    """Make `settings.dagster_path` ready to be DAGSTER_HOME; its path.

    A `dagster.yaml` there that is not ours (its first line says) is left alone.
    """
    home = settings.dagster_path
    home.mkdir(parents=True, exist_ok=True)
    ours, installed = _EMBEDDED.read_text(), home / "dagster.yaml"
    if not installed.exists() or (installed.read_text() != ours and _is_managed(installed)):
        installed.write_text(ours)
    return home


def open_instance(settings: Settings) -> dg.DagsterInstance:
    """The instance that the web UI and the daemon of this home use as well."""
    return dg.DagsterInstance.from_config(str(install_dagster_home(settings)))


def end_orphans(instance: dg.DagsterInstance, settings: Settings) -> int:
    """Report runs failed whose process was killed: headless ones, and the last refresh; how many.

    Frees the warehouse's pool as well, which a killed run holds for ever. No run that holds it can
    be alive once the refresh lock is ours. Raises RefreshRunning.
    """
    n_dead = int(end_dead_refresh(instance, settings))
    with refresh_lock(settings, "none yet"):
        orphans = instance.get_runs(dg.RunsFilter(tags={HEADLESS: "true"}, statuses=_UNFINISHED))
        for run in orphans:
            instance.report_run_failed(run, _WHY)
        storage = instance.event_log_storage
        pool = storage.get_concurrency_info(WAREHOUSE_POOL)
        claimed = {slot.run_id for slot in pool.claimed_slots}
        for run_id in claimed | {step.run_id for step in pool.pending_steps}:
            storage.free_concurrency_slots_for_run(run_id)
    return n_dead + len(orphans)


def end_dead_refresh(instance: dg.DagsterInstance, settings: Settings) -> bool:
    """Report the refresh failed whose process was killed, with Dagster or alone; whether one was.

    Dagster starts one run at a time: it would wait for a run that nothing runs any more. The lock
    of the last refresh tells, since the kernel lets go of it when the process dies.
    """
    run_id = last_refresh(settings)
    if not run_id or not _is_unfinished(instance, run_id):
        return False
    time.sleep(_END_SECONDS)
    run = instance.get_run_by_id(run_id)
    if run is None or not _is_unfinished(instance, run_id):
        return False
    instance.report_run_failed(run, _WHY)
    instance.event_log_storage.free_concurrency_slots_for_run(run_id)
    return True


def _is_unfinished(instance: dg.DagsterInstance, run_id: str) -> bool:
    run = instance.get_run_by_id(run_id)
    return run is not None and not run.is_finished


def _is_managed(path: Path) -> bool:
    return path.read_text().startswith(_EMBEDDED.read_text().partition("\n")[0])

"""`shallop compact`: raw stays few objects."""

from cli.console import console, fail, load_settings
from warehouse import compaction
from warehouse.compaction import NotConserved
from warehouse.store import open_store


def compact() -> None:
    """Merge the small raw objects of closed hours into one each; every row is conserved."""
    from assets.resources import RefreshRunning, refresh_lock

    settings = load_settings()
    try:
        with refresh_lock(settings, "compact"):  # dbt must find the objects that it has listed
            done = compaction.compact(open_store(settings))
    except (NotConserved, RefreshRunning) as error:
        fail(str(error))
    console.print(
        f"{done.n_merged:,} objects merged into {done.n_written:,} of {done.n_rows:,} rows, "
        f"{done.n_removed:,} removed"
    )

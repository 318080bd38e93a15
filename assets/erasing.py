"""Runs whose logs name a person: what a failed check showed of its rows, for example."""

import sqlite3
from contextlib import closing

from assets.instance import open_instance
from warehouse.person import Person
from warehouse.settings import Settings


def forget_runs(settings: Settings, person: Person) -> int:
    """Delete the Dagster runs in whose events a long id of the person stands; how many.

    The pages of Dagster's own SQLite files are then written anew. Nothing is made where no run ever
    was.
    """
    if not settings.dagster_path.exists():
        return 0
    n_runs = 0
    with open_instance(settings) as instance:
        for run in instance.get_runs():
            if any(person.stands_in(str(entry)) for entry in instance.all_logs(run.run_id)):
                instance.delete_run(run.run_id)
                n_runs += 1
    if n_runs:
        for path in settings.dagster_path.rglob("*.db"):
            with closing(sqlite3.connect(path, isolation_level=None)) as connection:
                connection.execute("vacuum")
    return n_runs

"""An erasure in the collector's home, and Dagster's code in a home of its own, as in containers."""

from pathlib import Path

import pytest

from assets.refresh import Progress, RefreshFailed, run_refresh
from tests.cli.person_box import OTHERS, PERSON, USER, Box, fill
from warehouse import followed_erasures, layout, snapshot, staged
from warehouse.settings import Settings, StorageSettings

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
]


@pytest.fixture
def app(settings: Settings) -> Box:
    box = Box(settings)
    fill(box)
    return box


@pytest.fixture
def code(settings: Settings) -> Box:
    """Another home that shares the store."""
    storage = StorageSettings(uri=settings.store_uri)
    home = settings.home.with_name("home-of-code")
    return Box(settings.model_copy(update={"home": home, "storage": storage}))


def staged_ids(box: Box) -> set[str]:
    tables = staged.staged_tables(box.settings.warehouse_path)
    return {one for table in tables for one in table["event_id"].to_pylist()}


def test_the_next_build_follows_it(app: Box, code: Box) -> None:
    run_refresh(code.settings)
    assert staged_ids(code) == {one["event_id"] for one in PERSON + OTHERS}
    erasure = app.erase("--user", USER)
    assert code.found()
    result = run_refresh(code.settings)
    assert code.found() == []
    assert staged_ids(code) == {one["event_id"] for one in OTHERS}
    assert snapshot.latest(code.store).snapshot_id == result.snapshot_id
    assert followed_erasures.follow(code.settings, code.store) == []  # each is followed once
    assert app.run("erase", "verify", erasure).returncode == 0


def test_marts_that_were_built_beside_one_are_not_published(app: Box, code: Box) -> None:
    erased = []

    def erase_once(progress: Progress) -> None:
        if progress.step == "dbt_models" and progress.state == "done":
            erased.append(app.erase("--user", USER))

    with pytest.raises(RefreshFailed, match="run `shallop refresh` again") as failed:
        run_refresh(code.settings, erase_once)
    assert erased[0] in str(failed.value)
    assert list(code.store.list(layout.MARTS)) == []
    assert staged_ids(code) > {one["event_id"] for one in PERSON}
    assert followed_erasures.follow(code.settings, code.store) == erased
    assert not staged_ids(code) & {one["event_id"] for one in PERSON}


def test_a_refresh_waits_for_one_that_was_killed(app: Box, code: Box) -> None:
    script = str(Path(__file__).with_name("erase_and_die.py"))
    assert app.run("5", "erase", "--yes", "--user", USER, script=script).returncode == -9
    with pytest.raises(RefreshFailed, match="an erasure is under way"):
        run_refresh(code.settings)
    assert app.run("erase", "--yes").returncode == 0
    assert len(followed_erasures.follow(code.settings, code.store)) == 1

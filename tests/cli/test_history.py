"""`shallop replay` as users meet it: rehearsed, straight into raw, and told what is wrong."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

import shallop
from warehouse.settings import get_settings

Run = Callable[..., Result]
EVENTS = """event_time,event_type,item_id,user_id
2026-01-01,view,a,u
2026-01-01,view,a,u
2026-01-02,glance,b,u
,view,c,u
"""


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Run]:
    """Runs `shallop replay …` beside a file `events.csv`, where no app answers."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SHALLOP_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("SHALLOP_SERVING__PORT", "9")
    monkeypatch.setenv("COLUMNS", "200")
    (tmp_path / "events.csv").write_text(EVENTS)

    def run(*arguments: str) -> Result:
        get_settings.cache_clear()
        return CliRunner().invoke(shallop.app, ["replay", *arguments])

    yield run
    get_settings.cache_clear()


def test_a_rehearsal_shows_events_and_the_accounting(run: Run, tmp_path: Path) -> None:
    result = run("events.csv", "--dry-run")
    assert result.exit_code == 0, result.output
    for part in ('"event_name": "view_item"', "format `shallop`", "a row without a time",
                 "unknown_event_name", "`glance`"):  # fmt: skip
        assert part in result.output
    assert not (tmp_path / "home" / "store").exists()
    report = json.loads(run("events.csv", "--dry-run", "--json").stdout)
    assert (report["rows"], report["skipped"], report["events"]) == (4, 1, 3)
    assert (report["accepted"], report["rejected_by_reason"]) == (2, {"unknown_event_name": 1})


def test_direct_is_written_once_and_rejections_are_no_failure(run: Run, tmp_path: Path) -> None:
    first = run("events.csv", "--direct")
    assert first.exit_code == 0, first.output
    assert "shallop rejected list" in first.output
    again = json.loads(run("events.csv", "--direct", "--json").stdout)
    assert (again["already_there"], again["sent"]) == (3, 0)
    assert len(list((tmp_path / "home" / "store").rglob("*.parquet"))) == 2


@pytest.mark.parametrize(
    ("arguments", "status", "part"),
    [
        (("events.csv", "--format", "reese46"), 1, "did you mean `rees46`"),
        (("events.csv", "--timezone", "Berlin"), 2, "`Europe/Berlin`"),
        (("events.csv", "--direct", "--restart"), 2, "--restart"),
        (("events.csv", "--format", "mapping"), 1, "belong together"),
        (("events.csv", "--mapping", "no.toml"), 1, "no.toml"),
        (("*.tsv",), 2, "no such file"),
    ],
)
def test_what_is_wrong_is_said_with_the_remedy(
    run: Run, arguments: tuple[str, ...], status: int, part: str
) -> None:
    result = run(*arguments)
    assert result.exit_code == status, result.output
    assert part in result.output

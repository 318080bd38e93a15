"""Rejected events from the command line: listed, shown, and replayed into raw."""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path
from typing import Any

import msgspec
import pyarrow.parquet as pq
import pytest
from click.testing import Result
from typer.testing import CliRunner

import shallop
from ingest.events import decode_events
from ingest.flusher import Flusher
from ingest.outbox import Outbox
from warehouse.layout import RAW_EVENTS
from warehouse.settings import Settings, get_settings
from warehouse.store import open_store

Run = Callable[..., Result]
EVENT = {"event_name": "view_item", "session_id": "s", "items": [{"item_id": "a"}]}


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Runs `shallop …` where two events were rejected: a nameless one and one ahead of time."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SHALLOP_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("SHALLOP_SERVING__PORT", "9")
    settings = Settings(_env_file=None)
    outbox = Outbox(settings.outbox_path, settings.ingest)
    ahead = (datetime.now(UTC) + timedelta(days=3)).isoformat()
    sent = [{**EVENT, "event_name": "swipe"}, {**EVENT, "occurred_at": ahead}]
    outbox.append_now(
        decode_events(
            msgspec.json.encode(sent), limits=settings.ingest, received_at=datetime.now(UTC),
            ip=None, user_agent=None, source="json",
        )
    )  # fmt: skip
    Flusher(outbox, open_store(settings), settings.ingest).flush_once()
    outbox.close()

    def run(*arguments: str) -> Result:
        get_settings.cache_clear()
        return CliRunner().invoke(shallop.app, ["rejected", *arguments])

    return run


def test_they_are_listed_by_reason_and_shown_with_their_bytes(run: Run) -> None:
    listed = run("list")
    assert listed.exit_code == 0, listed.output
    assert "unknown_event_name" in listed.output
    assert "future_timestamp" in listed.output
    ids = run("list", "--ids", "--reason", "unknown_event_name").output
    assert ids.count("\n") == 1
    shown = run("show", re.split(r"\s", ids)[0])
    assert '"event_name":"swipe"' in shown.output
    assert run("list", "--day", "2020-01-01").output.startswith("nothing was rejected")


def test_an_unknown_id_is_named(run: Run) -> None:
    result = run("show", "nobody-1")
    assert result.exit_code == 1
    assert "`nobody-1`" in result.output


def test_what_is_still_wrong_is_counted_and_left_alone(run: Run) -> None:
    result = run("replay")
    assert result.exit_code == 0, result.output
    assert "2 found, 0 replayed before, 0 replayed now, 2 still rejected" in result.output
    assert "1 still rejected: unknown_event_name" in result.output


def test_after_a_fix_they_are_accepted_once(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHALLOP_INGEST__MAX_FUTURE_SECONDS", "864000")
    first, second = run("replay"), run("replay")
    assert "1 replayed now, 1 still rejected; 1 events accepted" in first.output
    assert "1 replayed before, 0 replayed now" in second.output
    (event,) = raw_events(Settings(_env_file=None))
    assert event["event_name"] == "view_item"
    assert run("list", "--reason", "future_timestamp").output.count("1") >= 2
    ids = run("list", "--ids", "--reason", "future_timestamp").output
    assert "replayed since" in run("show", ids.split()[0]).output


def raw_events(settings: Settings) -> list[dict[str, Any]]:
    store = open_store(settings)
    return [
        row
        for found in store.list(RAW_EVENTS)
        for row in pq.read_table(BytesIO(store.get(found.key))).to_pylist()
    ]

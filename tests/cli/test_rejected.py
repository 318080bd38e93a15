"""Rejected events from the command line, replayed through the real app."""

import re
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
import uvicorn
from click.testing import Result
from typer.testing import CliRunner

import shallop
from api.app import create_app
from ingest.events import decode_events
from ingest.flusher import Flusher
from ingest.outbox import Outbox
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


@pytest.fixture
def collector_url(run: Run, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The app with the fixed settings, on the same outbox, shipping nothing meanwhile."""
    monkeypatch.setenv("SHALLOP_INGEST__MAX_FUTURE_SECONDS", "864000")
    monkeypatch.setenv("SHALLOP_INGEST__FLUSH_INTERVAL_SECONDS", "600")
    app = create_app(Settings(_env_file=None))
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        assert thread.is_alive(), "the app did not start"
        time.sleep(0.01)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join()


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


def test_what_is_still_wrong_is_counted_and_not_sent(run: Run) -> None:
    result = run("replay")  # nothing listens: nothing may be sent
    assert result.exit_code == 0, result.output
    assert "2 found, 0 accepted" in result.output
    assert "1 still rejected: unknown_event_name" in result.output


def test_after_a_fix_they_are_accepted_as_the_same_events(
    run: Run, monkeypatch: pytest.MonkeyPatch, collector_url: str
) -> None:
    monkeypatch.setenv("SHALLOP_INGEST__MAX_FUTURE_SECONDS", "864000")
    for _ in range(2):
        result = run("replay", "--url", collector_url)
        assert result.exit_code == 0, result.output
        assert "2 found, 1 accepted, 0 rejected anew" in result.output
    settings = Settings(_env_file=None)
    outbox = Outbox(settings.outbox_path, settings.ingest)
    lines = outbox.file.rows("select lines from batch where stream = 'events'")
    ids = {msgspec.json.decode(line)["event_id"] for (blob,) in lines for line in blob.splitlines()}
    assert len(lines) == 2
    assert len(ids) == 1
    outbox.close()

"""What the tests of history share: reading a history whole, and the real command in a process."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import polars as pl
import pytest

from ingest.history.frame import bodies
from ingest.history.history import open_history
from warehouse.settings import IngestSettings, Settings

Read = Callable[..., Any]


class Whole:
    """All of a history: its events as they would be sent, and what was left out."""

    def __init__(self, names: list[Path], format_name: str = "auto", **how: Any) -> None:
        self.history = open_history(names, format_name, limits=IngestSettings(), **how)
        self.survey = self.history.survey()
        self.frames: list[pl.DataFrame] = list(self.history.events(self.survey))
        self.events: list[dict[str, Any]] = [
            msgspec.json.decode(body) for frame in self.frames for body in bodies(frame)
        ]
        self.skipped = dict(self.survey.tally.skipped)
        self.n_rows = self.survey.tally.n_rows
        assert len(self.events) == self.survey.n_events

    @property
    def ids(self) -> list[str]:
        return [event["event_id"] for event in self.events]


@pytest.fixture
def read() -> Read:
    """Reads files, folders or patterns as one history."""

    def read(*names: Path, **how: Any) -> Whole:
        return Whole(list(names), **how)

    return read


@pytest.fixture
def start_replay() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts `shallop replay` in a process of its own; killed at the end if still there."""
    started = []

    def start(settings: Settings, *arguments: object) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "shallop", "replay", *map(str, arguments)],
            env={
                "PATH": os.environ["PATH"],
                "PYTHONPATH": str(Path(__file__).parents[3]),
                **settings.store_environment(),
                "POLARS_MAX_THREADS": "1",
            },
            cwd=settings.home.parent,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()

"""A shop's home with a person in it, the commands its owner types, and where traces of them are."""

import gzip
import json
import os
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_URL, uuid5

import duckdb
import msgspec
import pyarrow.parquet as pq

from ingest.events import decode_events
from ingest.flusher import Flusher
from ingest.outbox import Outbox
from ingest.rows import table_of
from tests.transforms.conftest import Shop
from warehouse import layout, snapshot
from warehouse.settings import Settings
from warehouse.store import ObjectStore, open_store

ROOT = Path(__file__).parents[2]
START = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=5)
VISITOR, USER = "visitor-zoë-77", "customer-4711"
NEIGHBOURS = ("visitor-zoë-7", "visitor-zoë-771", "isitor-zoë-77", "k")
# In every form that an id has in bytes; longer ids of neighbours are no trace.
TRACES = [
    form.encode()
    for one in (VISITOR, USER, "session-of-zoë")
    for form in (one, json.dumps(one)[1:-1])
]


def event(number: int, visitor_id: str | None, **fields: Any) -> dict[str, Any]:
    return {
        "event_id": str(uuid5(NAMESPACE_URL, f"{visitor_id} {number}")),
        "event_name": "view_item",
        "occurred_at": (START + timedelta(minutes=number)).isoformat(),
        "visitor_id": visitor_id,
        "items": [{"item_id": f"item-{number % 5}"}],
        **fields,
    }


PERSON = [
    event(1, VISITOR),
    event(2, VISITOR, session_id="session-of-zoë-1"),
    event(3, None, session_id="session-of-zoë-1"),
    event(4, VISITOR, user_id=USER, session_id="session-of-zoë-2"),
    event(5, "tablet", user_id=USER, session_id="session-of-zoë-3"),
    event(6, "someone", extra={"invited_by": {"anonymousId": VISITOR}}),
    event(7, "someone", page_url="https://shop/?visitor_id=visitor-zo%C3%AB-77"),
]
OTHERS = [
    *(event(10 + n, one) for n, one in enumerate(NEIGHBOURS)),
    event(20, "tablet", user_id="customer-47110", session_id="s-tablet"),
    *(event(30 + n, f"other-{n % 7}", session_id=f"s-{n % 7}") for n in range(60)),
]
REJECTED = [
    event(40, VISITOR, event_name="nonsense"),
    event(41, "x", items=[{"item_id": 7}], extra={"note": f"called {VISITOR}."}),
    event(42, NEIGHBOURS[1], event_name="nonsense"),
]


class Box:
    """A home with everything in it, and the commands that a user would type."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.store: ObjectStore = open_store(settings)
        self.environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            **settings.store_environment(),
            "COLUMNS": "200",
            "OMP_NUM_THREADS": "1",
        }

    def run(self, *arguments: str, script: str = "-m shallop") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *script.split(), *arguments], env=self.environment,
            cwd=self.settings.home.parent, capture_output=True, text=True, check=False,
        )  # fmt: skip

    def erase(self, *arguments: str) -> str:
        """Run `shallop erase --yes`; the id of its record."""
        done = self.run("erase", "--yes", *arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout.split("record ")[1].split(",")[0]

    def take_in(self, events: list[dict[str, Any]], *, ship: bool = True) -> Counter[str]:
        """Events as the collector takes them; what became of them."""
        outbox = Outbox(self.settings.outbox_path, self.settings.ingest)
        decoded = decode_events(
            msgspec.json.encode(events), limits=self.settings.ingest,
            received_at=datetime.now(UTC), ip=None, user_agent=None, source="json",
        )  # fmt: skip
        outbox.append_now(decoded)
        if ship:
            Flusher(outbox, self.store, self.settings.ingest).drain()
        outbox.close()
        return +Counter(
            accepted=len(decoded.events), rejected=len(decoded.rejected), erased=decoded.n_erased
        )

    def rows(self, prefix: str) -> list[dict[str, Any]]:
        return [
            row
            for info in self.store.list(prefix)
            for row in pq.read_table(BytesIO(self.store.get(info.key))).to_pylist()
        ]

    def visitors(self) -> Counter[str | None]:
        return Counter(row["visitor_id"] for row in self.rows(layout.RAW_EVENTS))

    def build(self) -> None:
        """dbt's models and tests, and the snapshot published."""
        snapshot_id = snapshot.new_snapshot_id()
        Shop(self.settings).build(snapshot_id)
        snapshot.publish(self.store, snapshot.describe(self.store, snapshot_id))

    def found(self) -> list[str]:
        """Where a trace is: each byte of each object and file, and what compressed ones hold."""
        objects = ((info.key, self.store.get(info.key)) for info in self.store.list(""))
        files = (
            (str(path), path.read_bytes())
            for path in self.settings.home.rglob("*")
            if path.is_file()
        )
        return [
            name
            for name, data in (*objects, *files)
            for form in _forms(name, data)
            if any(_has(form, trace) for trace in TRACES)
        ]


def _forms(name: str, data: bytes) -> Iterator[bytes]:
    yield data
    if name.endswith(".parquet"):
        yield repr(pq.read_table(BytesIO(data)).to_pylist()).encode()
    if data[:2] == b"\x1f\x8b":
        yield gzip.decompress(data)
    if name.endswith("/outbox.sqlite"):  # what is packed
        with closing(sqlite3.connect(f"file:{name}?mode=ro", uri=True)) as connection:
            for stream, lines in connection.execute("select stream, lines from batch").fetchall():
                yield repr(table_of(stream, [lines]).to_pylist()).encode()
    if name.endswith(".duckdb"):
        with duckdb.connect(name, read_only=True) as connection:
            for (table,) in connection.execute("select table_name from duckdb_tables()").fetchall():
                yield repr(connection.execute(f"from {table}").fetchall()).encode()


def _has(data: bytes, trace: bytes) -> bool:
    """Whether a trace is there that is not the beginning or end of a neighbour's id."""
    place = data.find(trace)
    while place >= 0:
        after = data[place + len(trace) : place + len(trace) + 1]
        is_sessions = trace.startswith(b"session")
        if is_sessions or not (after.isdigit() or after == b"0"):
            return True
        place = data.find(trace, place + 1)
    return False


def fill(box: Box) -> None:
    box.take_in([*PERSON[:4], *OTHERS[:10], *REJECTED])
    box.take_in([*PERSON[4:], *OTHERS[10:]])

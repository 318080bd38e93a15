"""Raw objects as the collector writes them, and real dbt builds over them."""

import subprocess
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from io import BytesIO
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from assets.project import PROJECT_DIR, dbt_command, dbt_process_environment, run_path
from warehouse import layout
from warehouse.contracts import RAW_EVENT_SCHEMA
from warehouse.duck import seed_extensions
from warehouse.folder_store import FolderStore
from warehouse.settings import Settings
from warehouse.store import open_store

START = datetime(2026, 1, 10, 10, 0, tzinfo=UTC)


def make_event(
    event_id: str,
    seconds: float = 0,
    *,
    items: Iterable[str | dict[str, Any]] = (),
    event_name: str = "view_item",
    visitor_id: str | None = "v",
    **fields: Any,
) -> dict[str, Any]:
    """A raw event `seconds` after START, received a second later."""
    occurred_at = START + timedelta(seconds=seconds)
    return {
        "event_id": event_id,
        "event_name": event_name,
        "occurred_at": occurred_at,
        "received_at": occurred_at + timedelta(seconds=1),
        "visitor_id": visitor_id,
        "items": [{"item_id": item} if isinstance(item, str) else item for item in items],
        "source": "test",
        "schema_version": 1,
        **fields,
    }


class Shop:
    """A store that raw objects land in, and the warehouse that dbt builds from it."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.store = open_store(settings)
        self._n_events = 0

    def land(self, events: list[dict[str, Any]], schema: pa.Schema = RAW_EVENT_SCHEMA) -> str:
        """Write one raw object, in the hour in which its first event was received."""
        table = pa.Table.from_pylist(events, schema=schema)
        first = self._n_events + 1
        self._n_events += len(events)
        key = layout.raw_key(
            layout.RAW_EVENTS, events[0]["received_at"], "c0", first, self._n_events
        )
        data = BytesIO()
        pq.write_table(table, data, compression="zstd")
        self.store.put(key, data.getvalue())
        return key

    def build(self, snapshot_id: str = "", *arguments: str) -> None:
        """`dbt build`, all tests included; exports the marts under `snapshot_id`."""
        if isinstance(self.store, FolderStore):
            (self.store.root / layout.MARTS / snapshot_id).mkdir(parents=True, exist_ok=True)
        else:
            seed_extensions(self.settings)
        target = run_path(self.settings)
        environment = dbt_process_environment(self.settings, target, snapshot_id)
        done = subprocess.run(
            dbt_command(self.settings, "build", *arguments),
            env={**environment, "DBT_LOG_FORMAT": "text", "DBT_USE_COLORS": "false"},
            cwd=PROJECT_DIR,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout

    def mart(self, snapshot_id: str, mart: str) -> pa.Table:
        """An exported mart, as it was written."""
        return pq.read_table(BytesIO(self.store.get(layout.mart_key(snapshot_id, mart))))

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """Rows of the warehouse that dbt has built."""
        with duckdb.connect(str(self.settings.warehouse_path), read_only=True) as connection:
            connection.execute("set timezone = 'UTC'")
            return connection.execute(sql).fetchall()


@pytest.fixture(scope="module")
def event() -> Callable[..., dict[str, Any]]:
    """Makes one raw event, see `make_event`."""
    return make_event


@pytest.fixture(scope="module")
def open_shop(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Shop]:
    """Opens shops, each with a home of its own, in a folder unless given other settings."""

    def opened(settings: Settings | None = None) -> Shop:
        home = tmp_path_factory.mktemp("shop")
        return Shop(settings or Settings(_env_file=None, home=home))

    return opened

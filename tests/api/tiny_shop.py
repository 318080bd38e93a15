"""What the tests of the app share: a tiny shop of a cyclic catalogue, and how to fill its store."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from uuid import uuid4

import pyarrow as pa
import pyarrow.parquet as pq
from fastapi.testclient import TestClient

from api.app import create_app
from models.registry import Registry
from warehouse import layout, snapshot
from warehouse.settings import Settings
from warehouse.store import ObjectStore

N_ITEMS = 24
ITEM_IDS = [f"item-{number:02d}" for number in range(N_ITEMS)]
CATEGORIES = ("Home/Mugs", "Home/Bags", "Office/Pens")
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
SNAPSHOT_ID = "20260101T000000000000Z"


@contextmanager
def serving(settings: Settings) -> Iterator[TestClient]:
    with TestClient(create_app(settings), raise_server_exceptions=False) as client:
        yield client


def publish_marts(
    store: ObjectStore, marts: dict[str, pa.Table], snapshot_id: str = SNAPSHOT_ID
) -> None:
    for mart, table in marts.items():
        data = BytesIO()
        pq.write_table(table, data)
        store.put(layout.mart_key(snapshot_id, mart), data.getvalue())
    data = BytesIO()
    raw_objects = [{"raw_object": f"x/{layout.raw_key(layout.RAW_EVENTS, NOON, 'c0', 1, 9)}",
                    "n_events": 9}]  # fmt: skip
    pq.write_table(pa.Table.from_pylist(raw_objects), data)
    store.put(layout.raw_objects_key(snapshot_id), data.getvalue())
    snapshot.publish(store, snapshot.describe(store, snapshot_id))


def promote(store: ObjectStore, folder: Path) -> str:
    """Upload a bundle and make it the champion; its version."""
    registry = Registry(store)
    name, version = registry.upload(folder)
    registry.promote(name, version, reason="test")
    return version


def view(item_id: str, session_id: str = "s-1", **fields: object) -> dict[str, object]:
    """A `view_item` event as a shop's page sends it."""
    return {
        "event_id": str(uuid4()),
        "event_name": "view_item",
        "occurred_at": datetime.now(UTC).isoformat(),
        "session_id": session_id,
        "items": [{"item_id": item_id}],
        **fields,
    }


def wait_for(is_true: Callable[[], bool]) -> None:
    """Ask again until so; the app looks at its store every 20 ms."""
    for _ in range(5_000):
        if is_true():
            return
    raise AssertionError("the app never got there")

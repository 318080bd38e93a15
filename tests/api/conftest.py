"""The real app over a folder store, with marts and tiny models of a cyclic catalogue; a browser."""

import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest
from fastapi.testclient import TestClient
from playwright.sync_api import Browser, sync_playwright

from models.candidate import build_candidate
from models.config import GRU4RecConfig
from tests.api.access_requests import SHOP
from tests.api.key_maker import write_key
from tests.api.tiny_shop import (
    CATEGORIES,
    ITEM_IDS,
    N_ITEMS,
    SNAPSHOT_ID,
    promote,
    publish_marts,
    serving,
)
from warehouse.contracts import MART_SCHEMAS
from warehouse.settings import ServingSettings, Settings, TrainingSettings
from warehouse.store import ObjectStore, open_store

FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--no-first-run", "--disable-quic",
]  # fmt: skip


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(
        _env_file=None,
        home=tmp_path / "home",
        serving=ServingSettings(champion_poll_seconds=0.02),
    )


@pytest.fixture
def store(settings: Settings) -> ObjectStore:
    return open_store(settings)


@pytest.fixture
def client(settings: Settings) -> Iterator[TestClient]:
    """The app over an empty store."""
    with serving(settings) as client:
        yield client


@pytest.fixture
def web(settings: Settings) -> str:
    """A write key for the pages of one origin."""
    return write_key(settings, SHOP)


@pytest.fixture
def closed(settings: Settings, web: str) -> Iterator[TestClient]:
    """The app with one write key, `web`."""
    with serving(settings) as client:
        yield client


@pytest.fixture
def shop(
    settings: Settings, store: ObjectStore, marts: dict[str, pa.Table], bundles: list[Path]
) -> Iterator[TestClient]:
    """The app over marts and a champion."""
    publish_marts(store, marts)
    promote(store, bundles[0])
    with serving(settings) as client:
        yield client


@pytest.fixture(scope="session")
def marts() -> dict[str, pa.Table]:
    """Marts of sessions that walk the catalogue in one direction, from everywhere."""
    started_at = datetime(2026, 1, 1, tzinfo=UTC)
    steps = [
        {
            "session_id": f"session-{number:03d}",
            "step": step,
            "item_id": ITEM_IDS[(number * 7 + step) % N_ITEMS],
            "event_name": "view_item",
            "occurred_at": started_at + timedelta(minutes=30 * number, seconds=step),
        }
        for number in range(240)
        for step in range(6)
    ]
    items = [
        {
            "item_id": item_id,
            "title": f"Thing {number}" if number else "<img src=x onerror=alert(1)> & co",
            "category": CATEGORIES[number % len(CATEGORIES)],
            "price": 5.0 + number,
            "n_views": 60,
            "n_carts": 0,
            "n_purchases": 0,
            "first_seen_at": started_at,
            "last_seen_at": started_at,
        }
        for number, item_id in enumerate(ITEM_IDS)
    ]
    popularity = [
        {"item_id": item_id, "rank": rank, "score": 100.0 - rank, "n_events": 60}
        for rank, item_id in enumerate(ITEM_IDS, start=1)
    ]
    rows = {"training_steps": steps, "items": items, "popularity": popularity, "sessions": []}
    return {
        mart: pa.Table.from_pylist(rows[mart], schema=schema)
        for mart, schema in MART_SCHEMAS.items()
    }


@pytest.fixture(scope="session")
def bundles(marts: dict[str, pa.Table], tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two real model bundles, told apart by their seed."""
    return [_bundle(marts, seed, tmp_path_factory.mktemp("bundles")) for seed in (1, 2)]


def _bundle(marts: dict[str, pa.Table], seed: int, folder: Path) -> Path:
    candidate = build_candidate(
        marts["training_steps"],
        marts["items"],
        marts["popularity"],
        training=TrainingSettings(device="cpu", seed=seed),
        config=GRU4RecConfig(
            loss="cross-entropy", layers=(32,), n_epochs=12, batch_size=16, n_sample=0,
            learning_rate=0.1, dropout_embed=0.0, dropout_hidden=0.0,
        ),
        snapshot_id=SNAPSHOT_ID,
        folder=folder,
    )  # fmt: skip
    return candidate.folder


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium. Not for longer than a module: while it is open, its loop runs in this thread."""
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("no Chromium on this machine (Debian: apt-get install chromium)")
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        yield launched
        launched.close()

"""A small shop whose sessions walk round a ring of items, as marts and as sessions."""

import os
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from models.bundle import BundleContent, read_bundle, write_bundle
from models.candidate import Candidate, build_candidate
from models.dataset import Sessions, Steps
from models.fusion import Fusion
from models.gru4rec import GRU4RecConfig
from models.recipe import parts_of
from models.scorer import SessionScorer, golden_sessions
from warehouse.contracts import MART_SCHEMAS
from warehouse.provenance import RawObjects
from warehouse.settings import TrainingSettings
from warehouse.snapshot import LeftOut, MartExport, Snapshot

if not torch.cuda.is_available():  # Triton asks as it is imported: its interpreter runs on a CPU
    os.environ.setdefault("TRITON_INTERPRET", "1")

N_RING = 30
SMALL = GRU4RecConfig(
    layers=(16,), n_epochs=4, batch_size=8, n_sample=32, dropout_embed=0.0, dropout_hidden=0.0,
    learning_rate=0.1, momentum=0.2,
)  # fmt: skip


def ring_sessions(n_sessions: int, seed: int = 7) -> list[list[int]]:
    """Sessions that begin anywhere on the ring and go on to the next item, 2 to 8 steps."""
    rng = np.random.default_rng(seed)
    starts, lengths = rng.integers(0, N_RING, n_sessions), rng.integers(2, 9, n_sessions)
    return [
        [(int(start) + step) % N_RING for step in range(int(length))]
        for start, length in zip(starts, lengths, strict=True)
    ]


N_HALVES = 60


def onward_sessions(n_sessions: int, seed: int = 7) -> list[list[int]]:
    """Sessions of 12 to 20 items of one half of the catalogue, in any order, none of them twice.

    Neighbours and network find the half. That nobody goes back to what was seen is what is left to
    learn, and no part of the fusion can say it.
    """
    rng = np.random.default_rng(seed)
    half = N_HALVES // 2
    return [
        (rng.permutation(half)[:length] + half * rng.integers(2)).tolist()
        for length in rng.integers(12, 21, n_sessions)
    ]


def steps_mart(
    sessions: list[list[int]],
    gap: timedelta = timedelta(minutes=5),
    opened: datetime = datetime(2026, 1, 1, tzinfo=UTC),
) -> pa.Table:
    """The mart `training_steps` of these sessions, one beginning every `gap` from `opened`."""
    rows = [
        {
            "session_id": f"s{number:05d}",
            "step": step,
            "item_id": f"item-{item}",
            "event_name": "view_item",
            "occurred_at": opened + number * gap + timedelta(seconds=step),
        }
        for number, session in enumerate(sessions)
        for step, item in enumerate(session)
    ]
    return pa.Table.from_pylist(rows, schema=MART_SCHEMAS["training_steps"])


def items_mart(n_items: int = N_RING) -> pa.Table:
    """The mart `items`; even items are boats, odd ones oars."""
    seen = datetime(2026, 1, 1, tzinfo=UTC)
    rows = [
        {
            "item_id": f"item-{item}", "title": f"Item {item}",
            "category": "oars" if item % 2 else "boats", "price": 10.0 + item, "n_views": 1,
            "n_carts": 0, "n_purchases": 0, "first_seen_at": seen, "last_seen_at": seen,
        }
        for item in range(n_items)
    ]  # fmt: skip
    return pa.Table.from_pylist(rows, schema=MART_SCHEMAS["items"])


def popularity_mart(n_items: int = N_RING) -> pa.Table:
    """The mart `popularity`: item-0 leads."""
    rows = [
        {"item_id": f"item-{item}", "rank": item + 1, "score": float(n_items - item), "n_events": 1}
        for item in range(n_items)
    ]
    return pa.Table.from_pylist(rows, schema=MART_SCHEMAS["popularity"])


def ids_of(content: BundleContent) -> list[str]:
    """The items of a bundle by `item_idx`."""
    return [item.item_id for item in content.items]


@pytest.fixture(scope="session")
def small() -> GRU4RecConfig:
    """Hyperparameters that learn the ring within a second."""
    return SMALL


@pytest.fixture(scope="session")
def ring_lists() -> list[list[int]]:
    """The same sessions as lists of items."""
    return ring_sessions(600)


@pytest.fixture(scope="session")
def ring() -> Sessions:
    """600 sessions round the ring."""
    return Sessions.from_lists(ring_sessions(600), N_RING)


@pytest.fixture(scope="session")
def build() -> Callable[..., Candidate]:
    """Builds a candidate of some sessions round the ring; keywords go to its settings."""

    def built(
        sessions: list[list[int]], folder: Path, *, champion: SessionScorer | None = None,
        checkpoints: Path | None = None, **training: Any,
    ) -> Candidate:  # fmt: skip
        return build_candidate(
            steps_mart(sessions), items_mart(), popularity_mart(),
            training=TrainingSettings(**training), config=SMALL, snapshot_id="snapshot-2",
            folder=folder, champion=champion, checkpoints=checkpoints,
        )  # fmt: skip

    return built


SNAPSHOT = Snapshot(
    "snapshot-1", datetime(2026, 1, 2, tzinfo=UTC),
    {"training_steps": MartExport("marts/snapshot-1/training_steps.parquet", 9, "ab" * 32)},
    RawObjects(2, 1234, "cd" * 32, ["raw/events/one.parquet", "raw/events/two.parquet"]),
    {"bot_agent": LeftOut(3, 17), "too_many_events": LeftOut(1, 1001), "too_fast": LeftOut(0, 0)},
)  # fmt: skip


@pytest.fixture(scope="session")
def candidate(tmp_path_factory: pytest.TempPathFactory) -> Candidate:
    """A judged bundle of the ring's shop, where two more items are popular but untrained."""
    return build_candidate(
        steps_mart(ring_sessions(600)), items_mart(N_RING + 2), popularity_mart(N_RING + 2),
        training=TrainingSettings(), config=SMALL, snapshot_id="snapshot-1", snapshot=SNAPSHOT,
        folder=tmp_path_factory.mktemp("candidates"),
    )  # fmt: skip


@pytest.fixture(scope="session")
def fused(candidate: Candidate, ring: Sessions, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The candidate's bundle with every part of the fusion at work."""
    content = read_bundle(candidate.folder)
    sessions = Sessions.from_lists(
        [[ids_of(content).index(f"item-{item}") for item in one] for one in ring_sessions(600)],
        ring.n_items,
    )
    fusion = Fusion(
        parts_of(content.model, sessions),
        {"gru4rec": 0.5, "vmis-knn": 0.3, "sequential-rules": 0.2},
    )
    content = replace(content, fusion=fusion)
    samples = [sessions.item_idx[:4].tolist(), sessions.item_idx[8:9].tolist()]
    content = replace(content, golden=golden_sessions(content, samples))
    folder = tmp_path_factory.mktemp("fused") / "bundle"
    write_bundle(content, folder)
    return folder


@pytest.fixture(scope="session")
def reranked(tmp_path_factory: pytest.TempPathFactory) -> Candidate:
    """A judged bundle of a shop whose shoppers never go back to what they have seen."""
    return build_candidate(
        steps_mart(onward_sessions(600)), items_mart(N_HALVES), popularity_mart(N_HALVES),
        training=TrainingSettings(), config=SMALL, snapshot_id="snapshot-1",
        folder=tmp_path_factory.mktemp("reranked"),
    )  # fmt: skip


@pytest.fixture
def bundle(candidate: Candidate, tmp_path: Path) -> Path:
    """A copy of the candidate's bundle that a test may damage."""
    folder = tmp_path / "bundle"
    folder.mkdir()
    for file in candidate.folder.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    return folder


@pytest.fixture(scope="session")
def real_split(shop_data: Path) -> Callable[[str], tuple[Sessions, Sessions]]:
    """Reads training and test sessions of a set of real events."""

    def read(name: str) -> tuple[Sessions, Sessions]:
        folder = shop_data / "splits" / name
        steps = Steps.from_split_file(folder / "train.parquet")
        catalogue = steps.catalogue()
        test, _ = Steps.from_split_file(folder / "test.parquet").known_to(catalogue)
        return steps.sessions(catalogue), test.sessions(catalogue)

    return read

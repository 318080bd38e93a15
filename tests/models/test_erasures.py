"""Bundles are marked when what they learned from is erased, and kept while a channel needs them."""

from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from models.erasures import BundleErasure, erasures_of, mark
from models.registry import Registry
from models.retention import expire_models
from tests.models.test_registry import another
from warehouse import layout
from warehouse.settings import Settings
from warehouse.store import ObjectStore, open_store

ERASURE = BundleErasure("e1", datetime(2026, 2, 1, tzinfo=UTC))


@pytest.fixture
def store(settings: Settings) -> ObjectStore:
    return open_store(settings)


@pytest.fixture
def registry(store: ObjectStore, bundle: Path) -> Registry:
    """Five versions, `v1` of January 1 to `v5` of January 5, each of a snapshot of its own."""
    made = Registry(store)
    for number in range(1, 6):
        bundle = another(bundle, f"v{number}", f"2026-01-0{number}T00:00:00Z")
        made.upload(bundle)
        key = layout.bundle_key("gru4rec", f"v{number}", "manifest.json")
        manifest = msgspec.json.decode(store.get(key)) | {"snapshot_id": f"s{number}"}
        store.put(key, msgspec.json.encode(manifest))
    return made


def test_bundles_of_a_snapshot_that_held_the_events_are_marked(
    registry: Registry, store: ObjectStore
) -> None:
    kept = ["s2", "s3", "s4", "s5"]
    assert mark(store, ERASURE, {"s3": {"x"}}, kept, None) == ["gru4rec v3"]
    marked = {info.version: info.n_erasures for info in registry.versions()}
    assert marked == {"v1": 0, "v2": 0, "v3": 1, "v4": 0, "v5": 0}
    mark(store, ERASURE, {"s3"}, kept, None)
    mark(store, BundleErasure("e2", ERASURE.erased_at), {"s3"}, kept, None)
    assert [one.erasure_id for one in erasures_of(store, "gru4rec", "v3")] == ["e1", "e2"]


def test_bundles_of_snapshots_gone_since_are_marked_by_their_time(
    registry: Registry, store: ObjectStore
) -> None:
    since = datetime(2026, 1, 2, tzinfo=UTC)
    assert mark(store, ERASURE, set(), ["s3"], since) == [
        "gru4rec v2", "gru4rec v4", "gru4rec v5",
    ]  # fmt: skip


def test_a_marked_bundle_is_whole_and_may_serve(
    registry: Registry, store: ObjectStore, tmp_path: Path
) -> None:
    mark(store, ERASURE, {"s5"}, ["s5"], None)
    assert registry.promote("gru4rec", "v5").version == "v5"


def test_what_a_channel_serves_or_goes_back_to_is_kept(
    registry: Registry, store: ObjectStore
) -> None:
    for version in ("v1", "v3"):
        registry.promote("gru4rec", version)
    mark(store, ERASURE, {"s2"}, ["s2"], None)
    told, _ = expire_models(store, 1, is_dry=True)
    freed, pinned = expire_models(store, 1, is_dry=False)
    assert told == freed
    assert freed.n == 2
    assert {info.version for info in registry.versions()} == {"v1", "v3", "v5"}
    assert pinned == {"s1", "s3", "s5"}
    assert registry.rollback().version == "v1"
    assert not [info for info in store.list(layout.MODELS) if "/v2/" in info.key]

"""Bundles are marked when what they learned from is erased, and kept while a channel needs them."""

from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from models.erasures import BundleErasure, erasures_of, inherit, mark
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


def begun_from(store: ObjectStore, child: str, *ancestors: str) -> None:
    """As if the training of `child` had begun from these versions, the latest first."""
    key = layout.bundle_key("gru4rec", child, "manifest.json")
    manifests = [
        msgspec.json.decode(store.get(layout.bundle_key("gru4rec", one, "manifest.json")))
        for one in ancestors
    ]
    line = [
        {name: one[name] for name in ("version", "snapshot_id", "created_at")} for one in manifests
    ]
    manifest = msgspec.json.decode(store.get(key)) | {"ancestors": line}
    store.put(key, msgspec.json.encode(manifest))


def test_what_began_from_a_bundle_is_marked_with_it(registry: Registry, store: ObjectStore) -> None:
    begun_from(store, "v4", "v3", "v2")
    begun_from(store, "v5", "v4", "v3", "v2")
    kept = ["s2", "s3", "s4", "s5"]
    assert mark(store, ERASURE, {"s3"}, kept, None) == ["gru4rec v3", "gru4rec v4", "gru4rec v5"]
    # Of v2's snapshot nobody knows any more; v2 itself need not be kept for its line to be marked.
    store.delete(layout.bundle_key("gru4rec", "v2", "manifest.json"))
    later = BundleErasure("e2", ERASURE.erased_at)
    since = datetime(2026, 1, 2, tzinfo=UTC)
    assert mark(store, later, set(), ["s1", "s3", "s4", "s5"], since) == [
        "gru4rec v4", "gru4rec v5",
    ]  # fmt: skip


def test_a_bundle_in_the_making_inherits_the_erasures_of_what_it_began_from(
    registry: Registry, store: ObjectStore
) -> None:
    mark(store, ERASURE, {"s3"}, ["s2", "s3", "s4", "s5"], None)
    begun_from(store, "v5", "v4", "v3")
    assert inherit(store, "gru4rec", "v4") == []
    assert inherit(store, "gru4rec", "v5") == [ERASURE]
    assert inherit(store, "gru4rec", "v5") == [ERASURE]
    assert erasures_of(store, "gru4rec", "v5") == [ERASURE]
    assert erasures_of(store, "gru4rec", "v4") == []

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from models.bundle import FILES, FUSION_FILES
from models.candidate import Candidate
from models.manifest import MANIFEST
from models.registry import (
    BundleCorrupt,
    BundleRef,
    ChannelPointer,
    NoChampionModel,
    Registry,
    UnknownModel,
)
from models.scorer import SessionScorer
from tests.models.conftest import ring_sessions
from warehouse import layout
from warehouse.settings import Settings
from warehouse.store import ObjectStore, open_store

Build = Callable[..., Candidate]
ALL_FILES = (*FILES, *FUSION_FILES)


@pytest.fixture
def store(settings: Settings) -> ObjectStore:
    return open_store(settings)


@pytest.fixture
def registry(store: ObjectStore) -> Registry:
    return Registry(store)


def another(bundle: Path, version: str, created_at: str) -> Path:
    """The bundle under another version."""
    folder = bundle.with_name(version)
    bundle.rename(folder)
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest |= {"version": version, "created_at": created_at}
    (folder / MANIFEST).write_text(json.dumps(manifest))
    return folder


def three(registry: Registry, bundle: Path) -> list[str]:
    """Upload three versions, v1 the oldest."""
    for number in (1, 2, 3):
        bundle = another(bundle, f"v{number}", f"2026-01-0{number}T00:00:00Z")
        registry.upload(bundle)
    return ["v1", "v2", "v3"]


def round_trip(registry: Registry, candidate: Candidate, cache: Path) -> None:
    assert registry.upload(candidate.folder) == ("gru4rec", candidate.version)
    pointer = registry.promote("gru4rec", candidate.version, reason="first")
    assert registry.pointer() == pointer
    assert (pointer.channel, pointer.reason, pointer.previous) == ("champion", "first", None)
    folder = registry.fetch(pointer.name, pointer.version, cache)
    assert folder == cache / "gru4rec" / candidate.version
    scorer, original = SessionScorer.load(folder), SessionScorer.load(candidate.folder)
    assert scorer.recommend(["item-4"], 10) == original.recommend(["item-4"], 10)
    [info] = registry.versions()
    assert (info.version, info.channels) == (candidate.version, ["champion"])
    assert info.metrics == candidate.metrics["fusion"]
    assert info.n_bytes == sum(file.stat().st_size for file in candidate.folder.iterdir())
    assert info.load_seconds is not None
    assert info.load_seconds > 0
    assert registry.manifest("gru4rec", candidate.version)["snapshot_id"] == "snapshot-1"
    assert registry.metrics("gru4rec", candidate.version)["models"] == candidate.metrics
    assert all(check["passed"] for check in registry.checks("gru4rec", candidate.version))


def test_round_trip_through_a_folder(registry: Registry, candidate: Candidate, tmp_path: Path):
    round_trip(registry, candidate, tmp_path / "cache")


def test_round_trip_through_s3(s3_settings: Settings, candidate: Candidate, tmp_path: Path):
    round_trip(Registry(open_store(s3_settings)), candidate, tmp_path / "cache")


def test_an_empty_registry_has_no_champion(registry: Registry):
    assert registry.versions() == []
    for look in (registry.pointer, registry.rollback):
        with pytest.raises(NoChampionModel, match="`champion`"):
            look()


def test_promotions_and_rollbacks_walk_the_history(registry: Registry, bundle: Path):
    for version in three(registry, bundle):
        registry.promote("gru4rec", version)
    assert registry.pointer().previous == BundleRef("gru4rec", "v2")
    assert [info.version for info in registry.versions()] == ["v3", "v2", "v1"]
    back = registry.rollback()
    assert (back.version, back.reason) == ("v2", "rolled back from v3")
    assert back.previous == BundleRef("gru4rec", "v1")
    assert registry.rollback().version == "v1"
    with pytest.raises(NoChampionModel, match=r"nothing to roll back to.*`gru4rec v1`"):
        registry.rollback()
    assert registry.pointer().version == "v1"


def test_promoting_what_already_serves_changes_nothing(registry: Registry, bundle: Path):
    versions = three(registry, bundle)
    registry.promote("gru4rec", versions[0])
    pointer = registry.promote("gru4rec", versions[1])
    assert registry.promote("gru4rec", versions[1], reason="again") == pointer


def test_channels_are_apart(registry: Registry, bundle: Path):
    versions = three(registry, bundle)
    registry.promote("gru4rec", versions[0])
    registry.promote("gru4rec", versions[1], channel="shadow")
    assert registry.pointer().version == "v1"
    assert registry.pointer("shadow").version == "v2"
    assert {info.version: info.channels for info in registry.versions()} == {
        "v1": ["champion"], "v2": ["shadow"], "v3": [],
    }  # fmt: skip


@pytest.mark.parametrize("file", [*ALL_FILES, MANIFEST])
def test_a_bundle_that_is_not_whole_is_not_promoted(
    registry: Registry, store: ObjectStore, bundle: Path, file: str
):
    versions = three(registry, bundle)
    registry.promote("gru4rec", versions[0])
    store.delete(layout.bundle_key("gru4rec", "v2", file))
    with pytest.raises(UnknownModel, match=f"v2.*{file}"):
        registry.promote("gru4rec", "v2")
    assert registry.pointer().version == "v1"


def test_an_interrupted_upload_cannot_be_seen(
    registry: Registry, store: ObjectStore, candidate: Candidate, monkeypatch: pytest.MonkeyPatch
):
    written: list[str] = []
    put = store.put

    def fail_at_the_last(key: str, data: bytes) -> None:
        if len(written) == len(ALL_FILES):
            raise ConnectionError("gone")
        written.append(key)
        put(key, data)

    monkeypatch.setattr(store, "put", fail_at_the_last)
    with pytest.raises(ConnectionError):
        registry.upload(candidate.folder)
    assert registry.versions() == []
    with pytest.raises(UnknownModel):
        registry.promote("gru4rec", candidate.version)


def test_a_damaged_bundle_is_neither_uploaded_nor_fetched(
    registry: Registry, store: ObjectStore, bundle: Path, tmp_path: Path
):
    name, version = registry.upload(bundle)
    key = layout.bundle_key(name, version, "model.safetensors")
    store.put(key, store.get(key)[:-1])
    cache = tmp_path / "cache"
    with pytest.raises(BundleCorrupt, match=r"model\.safetensors should have sha256"):
        registry.fetch(name, version, cache)
    assert [path for path in cache.rglob("*") if path.is_file()] == []
    (bundle / "config.json").write_text("{}")
    with pytest.raises(BundleCorrupt, match=r"config\.json"):
        registry.upload(bundle)


def test_a_damaged_local_copy_is_fetched_again_and_a_good_one_is_not(
    registry: Registry, store: ObjectStore, candidate: Candidate, tmp_path: Path
):
    name, version = registry.upload(candidate.folder)
    folder = registry.fetch(name, version, tmp_path)
    (folder / "golden.json").write_text("[]")
    assert registry.fetch(name, version, tmp_path) == folder
    SessionScorer.load(folder)
    for file in (*ALL_FILES, MANIFEST):
        store.delete(layout.bundle_key(name, version, file))
    assert registry.fetch(name, version, tmp_path) == folder


@pytest.mark.parametrize("word", ["../../raw", "", "a/b", ".hidden", "a b"])
def test_names_cannot_leave_the_registry(registry: Registry, tmp_path: Path, word: str):
    for call in (
        lambda: registry.manifest("gru4rec", word),
        lambda: registry.fetch(word, "v1", tmp_path),
        lambda: registry.promote(word, "v1"),
        lambda: registry.pointer(word),
    ):
        with pytest.raises(UnknownModel, match="letters, digits"):
            call()


def test_unknown_versions_say_where_to_look(registry: Registry, tmp_path: Path):
    for look in (registry.manifest, registry.metrics, registry.checks, registry.promote):
        with pytest.raises(UnknownModel, match="shallop registry list"):
            look("gru4rec", "v9")
    with pytest.raises(UnknownModel):
        registry.fetch("gru4rec", "v9", tmp_path)


def test_the_pointer_is_plain_json(registry: Registry, store: ObjectStore, candidate: Candidate):
    registry.upload(candidate.folder)
    registry.promote("gru4rec", candidate.version)
    written = json.loads(store.get(layout.channel_key("champion")))
    assert written["version"] == candidate.version
    assert set(written) == set(ChannelPointer.__dataclass_fields__)


def test_a_refusal_stands_until_another_model_is_promoted(registry: Registry, bundle: Path):
    versions = three(registry, bundle)
    assert registry.refusal() is None
    refused = registry.refuse("gru4rec", versions[0], "worse than popularity")
    assert registry.refusal() == refused
    registry.promote("gru4rec", versions[1])
    assert registry.refusal() is None
    registry.refuse("gru4rec", versions[2], "leaks")
    found = registry.refusal()
    assert found is not None
    assert (found.version, found.reason) == ("v3", "leaks")
    assert registry.pointer().version == "v2"
    assert {info.version: info.channels for info in registry.versions()} == {
        "v1": [], "v2": ["champion"], "v3": ["refused"],
    }  # fmt: skip


def test_a_rollback_brings_back_weights_items_fallbacks_and_snapshot_together(
    registry: Registry, candidate: Candidate, build: Build, tmp_path: Path
):
    backwards = [session[::-1] for session in ring_sessions(300)]
    later = build(backwards, tmp_path / "later")
    for made in (candidate, later):
        registry.promote(*registry.upload(made.folder))

    def served() -> tuple[SessionScorer, list[str]]:
        pointer = registry.pointer()
        scorer = SessionScorer.load(registry.fetch(pointer.name, pointer.version, tmp_path / "c"))
        ranking = scorer.recommend(["item-4"], 40, exclude=["item-4"])
        return scorer, [one.item_id for one in ranking.items]

    after, list_after = served()
    assert (after.version, after.snapshot_id) == (later.version, "snapshot-2")
    assert list_after[0] == "item-3"
    assert "item-31" not in list_after
    registry.rollback()
    before, list_before = served()
    assert (before.version, before.snapshot_id) == (candidate.version, "snapshot-1")
    assert list_before[0] == "item-5"
    assert list_before[-2:] == ["item-30", "item-31"]
    assert before.item_ids != after.item_ids

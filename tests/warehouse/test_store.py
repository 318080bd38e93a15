"""Both stores behave alike, whatever lies behind them."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import uuid4

import pytest
from pydantic import SecretStr

from warehouse.folder_store import FolderStore
from warehouse.settings import Settings, StorageSettings
from warehouse.store import ObjectNotFound, ObjectStore, StoreUnavailable, open_store


@pytest.fixture(params=["folder", "s3"])
def store(request: pytest.FixtureRequest) -> ObjectStore:
    kind = "settings" if request.param == "folder" else "s3_settings"
    made = open_store(request.getfixturevalue(kind))
    made.prepare()
    return made


def test_put_replaces_and_get_returns_the_bytes(store: ObjectStore) -> None:
    store.put("a/b.json", b"one")
    store.put("a/b.json", b"two!")
    assert store.get("a/b.json") == b"two!"
    assert store.stat("a/b.json").size == 4


def test_put_if_absent_writes_once(store: ObjectStore) -> None:
    assert store.put_if_absent("raw/x.parquet", b"first")
    assert not store.put_if_absent("raw/x.parquet", b"second")
    assert store.get("raw/x.parquet") == b"first"


def test_of_many_writers_of_one_key_exactly_one_wins(store: ObjectStore) -> None:
    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(lambda i: store.put_if_absent("race", f"{i}".encode()), range(16)))
    assert won.count(True) == 1
    assert store.get("race") == str(won.index(True)).encode()


def test_list_is_recursive_sorted_and_bounded_by_the_folder(store: ObjectStore) -> None:
    for key in ("raw/b/2", "raw/a/1", "raw2/c"):
        store.put(key, b"x")
    assert [found.key for found in store.list("raw")] == ["raw/a/1", "raw/b/2"]
    assert list(store.list("nothing")) == []


def test_delete_is_idempotent(store: ObjectStore) -> None:
    store.put("gone", b"x")
    store.delete("gone")
    store.delete("gone")
    with pytest.raises(ObjectNotFound, match="gone"):
        store.get("gone")
    with pytest.raises(ObjectNotFound, match="gone"):
        store.stat("gone")


def test_a_bucket_that_is_missing_is_empty_and_made_by_the_first_write(
    s3_settings: Settings,
) -> None:
    for write in (ObjectStore.put, ObjectStore.put_if_absent):
        uri = f"s3://missing-{uuid4().hex[:12]}"
        storage = s3_settings.storage.model_copy(update={"uri": uri})
        store = open_store(s3_settings.model_copy(update={"storage": storage}))
        assert list(store.list("raw")) == []
        with pytest.raises(ObjectNotFound):
            store.get("raw/x")
        getattr(store, write.__name__)("raw/x", b"1")
        assert store.get("raw/x") == b"1"


def test_a_write_that_was_cut_off_is_not_there_and_can_be_made_again(s3_settings: Settings) -> None:
    store = open_store(s3_settings)
    store.put("raw/cut.parquet", b"")  # as SeaweedFS keeps a PUT that ended after its headers
    assert list(store.list("raw")) == []
    assert store.put_if_absent("raw/cut.parquet", b"whole")
    assert not store.put_if_absent("raw/cut.parquet", b"other")
    assert store.get("raw/cut.parquet") == b"whole"
    assert [found.key for found in store.list("raw")] == ["raw/cut.parquet"]


def test_a_folder_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(StoreUnavailable, match="cannot write to the store"):
        FolderStore(tmp_path / "file" / "store").prepare()


def test_a_key_cannot_leave_the_folder(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("x")
    with pytest.raises(ObjectNotFound):
        FolderStore(tmp_path / "store").get("../secret")


def test_an_s3_server_that_is_down_is_named(tmp_path: Path) -> None:
    settings = Settings(
        _env_file=None,
        home=tmp_path,
        storage=StorageSettings(
            uri="s3://lake", s3_endpoint="http://127.0.0.1:9", s3_access_key="k", s3_secret_key="s"
        ),
    )
    with pytest.raises(StoreUnavailable, match="SHALLOP_STORAGE__S3_ENDPOINT"):
        open_store(settings).prepare()


def test_wrong_keys_are_refused_with_the_servers_reason(s3_settings: Settings) -> None:
    storage = s3_settings.storage.model_copy(update={"s3_access_key": SecretStr("somebody")})
    with pytest.raises(StoreUnavailable, match=r"InvalidAccessKeyId|AccessDenied"):
        open_store(s3_settings.model_copy(update={"storage": storage})).prepare()

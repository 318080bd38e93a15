"""The champion is exchanged while it serves, and stays when its successor is no good."""

import shutil
import threading
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from models.registry import Registry
from tests.api.tiny_shop import ITEM_IDS, promote, serving, view, wait_for
from warehouse import layout
from warehouse.settings import Settings
from warehouse.store import ObjectStore


def champion(client: TestClient) -> dict[str, object]:
    found: dict[str, object] = client.get("/status").json()["champion"]
    return found


def version(client: TestClient) -> str:
    reply = client.get("/recommend", params={"items": ITEM_IDS[1]})
    assert reply.status_code == 200, reply.text
    found: str = reply.json()["model_version"]
    return found


def test_a_promotion_swaps_the_model_without_a_failed_request(
    shop: TestClient, store: ObjectStore, bundles: list[Path]
) -> None:
    assert version(shop) == bundles[0].name
    promotion = threading.Thread(target=promote, args=(store, bundles[1]))
    promotion.start()
    seen = []
    wait_for(lambda: seen.append(version(shop)) or seen[-1] == bundles[1].name)
    promotion.join()
    assert set(seen) <= {bundles[0].name, bundles[1].name}
    assert champion(shop)["swaps"] == 2
    Registry(store).rollback()
    wait_for(lambda: version(shop) == bundles[0].name)


def test_a_corrupt_bundle_keeps_the_serving_model_and_is_tried_once(
    shop: TestClient, store: ObjectStore, bundles: list[Path], caplog: pytest.LogCaptureFixture
) -> None:
    registry = Registry(store)
    name, bad = registry.upload(bundles[1])
    key = layout.bundle_key(name, bad, "model.safetensors")
    weights = bytearray(store.get(key))
    weights[-1] ^= 0xFF
    store.put(key, bytes(weights))
    registry.promote(name, bad)
    wait_for(lambda: champion(shop)["last_error"] is not None)
    first = champion(shop)
    assert str(first["last_error"]).startswith("bundle_corrupt: ")
    wait_for(lambda: champion(shop)["checked_at"] != first["checked_at"])
    assert version(shop) == bundles[0].name
    status = shop.get("/status").json()
    assert status["errors"] == [f"champion: {first['last_error']}"]
    assert 'shallop_champion_errors_total{reason="bundle_corrupt"} 1.0' in shop.get("/metrics").text
    assert sum("champion_kept" in record.message for record in caplog.records) == 1
    # Mended and promoted anew, it serves.
    registry.upload(bundles[1])
    registry.rollback()
    wait_for(lambda: champion(shop)["last_error"] is None)
    registry.promote(name, bad)
    wait_for(lambda: version(shop) == bad)


@pytest.mark.parametrize("pointer", [b"{", b"{}", b"\xff"])
def test_a_damaged_pointer_keeps_the_serving_model(
    shop: TestClient, store: ObjectStore, bundles: list[Path], pointer: bytes
) -> None:
    store.put(layout.channel_key(layout.CHAMPION), pointer)
    wait_for(lambda: "pointer_damaged" in str(champion(shop)["last_error"]))
    assert version(shop) == bundles[0].name


def test_a_missing_bundle_is_said_and_found_once_it_is_there(
    client: TestClient, store: ObjectStore, bundles: list[Path]
) -> None:
    promote(store, bundles[0])
    shutil.rmtree(Path(store.uri(layout.MODELS)) / "gru4rec")
    promoted = store.get(layout.channel_key(layout.CHAMPION))
    store.put(layout.channel_key(layout.CHAMPION), promoted)
    assert client.get("/healthz").status_code == 200
    Registry(store).upload(bundles[0])
    wait_for(lambda: client.get("/status").json()["model"] is not None)
    assert version(client) == bundles[0].name


def test_the_store_may_go_while_a_model_serves(
    settings: Settings, store: ObjectStore, bundles: list[Path]
) -> None:
    promote(store, bundles[0])
    folder = Path(settings.store_uri)
    away = folder.with_name("away")
    with serving(settings) as client:
        folder.rename(away)
        folder.write_text("not a folder")
        wait_for(lambda: champion(client)["last_error"] is not None)
        assert version(client) == bundles[0].name
        assert client.post("/events", json=view("mug")).status_code == 202
        ready = client.get("/readyz")
        assert ready.status_code == 200
        assert ready.json() == {
            "ready": True, "outbox": "ok", "keys": "open",
            "model_loaded": True, "store_reachable": False,
        }  # fmt: skip


def test_a_start_without_the_store_serves_the_last_champion(
    settings: Settings, store: ObjectStore, bundles: list[Path]
) -> None:
    promote(store, bundles[0])
    with serving(settings) as client:
        assert version(client) == bundles[0].name
    folder = Path(settings.store_uri)
    folder.rename(folder.with_name("away"))
    folder.write_text("not a folder")
    with serving(settings) as client:
        assert version(client) == bundles[0].name
        assert "store_unavailable" in str(champion(client)["last_error"])


def test_the_store_down_at_the_start_loses_no_event(settings: Settings, store: ObjectStore) -> None:
    folder = Path(settings.store_uri)
    folder.parent.mkdir(parents=True)
    folder.write_text("not a folder")
    with serving(settings) as client:
        assert client.post("/events", json=[view("a"), view("b")]).status_code == 202
        assert client.get("/readyz").json()["store_reachable"] is False
        assert client.get("/recommend?session=s-1").status_code == 503
    folder.unlink()
    with serving(settings) as client:
        assert client.get("/status").json()["collector"]["depth"] == 2
    assert len(list(store.list(layout.RAW_EVENTS))) == 1

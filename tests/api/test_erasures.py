"""The app answers for erased events as for others, keeps none, and tells which model knew them."""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
from fastapi.testclient import TestClient

from models.erasures import BundleErasure, mark
from tests.api.tiny_shop import SNAPSHOT_ID, promote, publish_marts, serving, view
from warehouse import erasure_record
from warehouse.erasure import FOR_EVER, Tombstone, digest, key_id, make_key
from warehouse.settings import Settings
from warehouse.store import ObjectStore

VISITOR = "visitor-who-left"


def record(settings: Settings, store: ObjectStore, key: bytes | None = None) -> None:
    """An erasure that another box, or an earlier outbox of this one, made."""
    key = key or make_key(settings)
    stone = Tombstone(digest(key, "visitor", VISITOR), FOR_EVER)
    made = erasure_record.Record(
        id="e1", erased_at=datetime.now(UTC), code_version="0", given={"visitor": 1},
        key_id=key_id(key), tombstones={"visitor": [stone]},
    )  # fmt: skip
    erasure_record.write(store, made, key)


def eventually(holds: Callable[[], bool]) -> bool:
    for _ in range(200):
        if holds():
            return True
        time.sleep(0.02)
    return False


def status_errors(client: TestClient) -> list[str]:
    errors: list[str] = client.get("/status").json()["errors"]
    return errors


def test_tombstones_of_the_store_hold_here_within_moments(
    settings: Settings, store: ObjectStore
) -> None:
    with serving(settings) as client:
        assert client.post("/events", json=view("a", visitor_id=VISITOR)).json()["accepted"] == 1
        record(settings, store)

        def is_erased() -> bool:
            reply = client.post("/events", json=view("a", visitor_id=VISITOR))
            assert reply.status_code == 202
            return bool(reply.json().get("erased"))

        assert eventually(is_erased)
        reply = client.post(
            "/events", json=[view("a", visitor_id=VISITOR), view("a", visitor_id="guest")]
        )
        assert (reply.status_code, reply.json()) == (
            202, {"accepted": 1, "rejected": 0, "errors": [], "erased": 1},
        )  # fmt: skip
        refused = view("a", visitor_id=VISITOR, event_name="nonsense")
        assert client.post("/events", json=refused).json()["erased"] == 1
        gif = client.get(f"/pixel.gif?event_name=page_view&visitor_id={VISITOR}")
        assert (gif.status_code, "X-Shallop-Error" in gif.headers) == (200, False)
        segment = {"type": "page", "anonymousId": VISITOR, "messageId": "m"}
        assert client.post("/v1/batch", json={"batch": [segment]}).json() == {"success": True}
        metrics = client.get("/metrics").text
        assert 'shallop_events_erased_total{source="pixel"} 1.0' in metrics
        assert 'shallop_events_erased_total{source="segment"} 1.0' in metrics
        assert status_errors(client) == []
    with serving(settings) as client:  # a start knows them from its own file
        reply = client.post("/events", json=view("a", visitor_id=VISITOR))
        assert reply.json()["erased"] == 1


def test_a_record_of_another_key_is_an_alarm(settings: Settings, store: ObjectStore) -> None:
    record(settings, store, b"of another box, far away")
    with serving(settings) as client:
        assert eventually(lambda: "SHALLOP_PRIVACY__KEY" in str(status_errors(client)))
        assert client.post("/events", json=view("a")).status_code == 202


def test_status_tells_how_many_erasures_the_model_outlived(
    settings: Settings, store: ObjectStore, marts: dict[str, pa.Table], bundles: list[Path]
) -> None:
    publish_marts(store, marts)
    promote(store, bundles[0])
    with serving(settings) as client:
        assert client.get("/status").json()["model"]["erasures"] == 0
        mark(store, BundleErasure("e1", datetime.now(UTC)), {SNAPSHOT_ID}, [SNAPSHOT_ID], None)
        assert eventually(lambda: client.get("/status").json()["model"]["erasures"] == 1)

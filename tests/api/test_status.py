"""Health, readiness, status and metrics through the app."""

import logging
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from fastapi.testclient import TestClient

from tests.api.tiny_shop import ITEM_IDS, SNAPSHOT_ID, publish_marts, serving, view, wait_for
from warehouse.settings import Settings
from warehouse.store import ObjectStore


def test_an_empty_shop_is_ready(client: TestClient) -> None:
    assert client.get("/healthz").json() == {"status": "ok"}
    ready = client.get("/readyz")
    assert ready.status_code == 200
    assert ready.json() == {
        "ready": True, "outbox": "ok", "keys": "open",
        "model_loaded": False, "store_reachable": True,
    }  # fmt: skip
    status = client.get("/status").json()
    assert (status["model"], status["data"], status["errors"]) == (None, None, [])


def test_status_tells_model_data_and_collector(shop: TestClient, bundles: list[Path]) -> None:
    shop.post("/events", json=[view("mug"), view("mug", event_name="wave")])
    status = shop.get("/status").json()
    collector = status["collector"]
    assert collector["accepted"] == 1
    assert collector["rejected"] == {"unknown_event_name": 1}
    assert collector["depth"] == 1
    assert collector["oldest_waiting_seconds"] >= 0
    assert collector["depth_limit"] == 2_000_000
    assert status["model"]["name"] == "gru4rec"
    assert status["model"]["version"] == bundles[0].name
    assert status["model"]["serves"] == "fusion"
    assert status["model"]["snapshot_id"] == SNAPSHOT_ID
    assert status["model"]["metrics"]["recall@20"] > 0.9
    assert status["model"]["age_seconds"] >= 0
    assert status["data"]["snapshot_id"] == SNAPSHOT_ID
    assert status["data"]["n_items"] == len(ITEM_IDS)
    assert status["champion"]["swaps"] == 1
    assert status["links"]["dagster"] == "http://127.0.0.1:3000"


def test_a_removed_outbox_is_not_ready(client: TestClient, settings: Settings) -> None:
    settings.outbox_path.unlink()
    ready = client.get("/readyz")
    assert ready.status_code == 503
    assert ready.json()["ready"] is False
    assert str(settings.outbox_path) in ready.json()["outbox"]


def test_metrics_count_what_happened(shop: TestClient) -> None:
    shop.post("/events", json=[view("item-01"), view("mug", event_name="wave")])
    shop.get("/recommend?session=s-1")
    shop.get("/recommend?session=other")
    shop.get("/recommend?session=s-1&k=0")
    shop.get("/no/such/page")
    shop.request("WEIRD", "/events")
    reply = shop.get("/metrics")
    assert reply.headers["content-type"].startswith("text/plain")
    lines = reply.text.splitlines()
    for line in (
        'shallop_events_accepted_total{source="json"} 1.0',
        'shallop_events_rejected_total{reason="unknown_event_name",source="json"} 1.0',
        'shallop_requests_total{method="POST",path="/events",status="202"} 1.0',
        'shallop_requests_total{method="other",path="/events",status="405"} 1.0',
        'shallop_requests_total{method="GET",path="/recommend",status="200"} 2.0',
        'shallop_requests_total{method="GET",path="/recommend",status="422"} 1.0',
        'shallop_requests_total{method="GET",path="unmatched",status="404"} 1.0',
        'shallop_recommendations_total{fallback="none",source="gru4rec"} 1.0',
        'shallop_recommendations_total{fallback="unknown_session",source="popularity"} 1.0',
        'shallop_request_seconds_count{path="/recommend"} 3.0',
        "shallop_outbox_depth 1.0",
        "shallop_model_loaded 1.0",
        "shallop_champion_swaps_total 1.0",
    ):
        assert line in lines


def test_damaged_marts_keep_the_catalogue_and_are_said(
    settings: Settings, store: ObjectStore, marts: dict[str, pa.Table]
) -> None:
    publish_marts(store, marts)
    with serving(settings) as client:
        assert client.get("/items").json()["total"] == len(ITEM_IDS)
        store.put("marts/latest.json", b"{}")
        wait_for(lambda: client.get("/status").json()["errors"] != [])
        assert client.get("/status").json()["errors"][0].startswith("data: marts_damaged: ")
        assert client.get("/items").json()["total"] == len(ITEM_IDS)
        publish_marts(store, marts, "20260102T000000000000Z")
        wait_for(lambda: client.get("/status").json()["errors"] == [])
        assert client.get("/status").json()["data"]["snapshot_id"] == "20260102T000000000000Z"


@pytest.mark.parametrize("path", ["/status", "/recommend?session=s-1"])
def test_an_error_of_ours_shows_no_trace_but_its_request_id(
    shop: TestClient,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    path: str,
) -> None:
    app: Any = shop.app
    # Broken where no thread of the app's own looks.
    with monkeypatch.context() as patch:
        if path == "/status":
            patch.delattr(app.state.parts.flusher, "last_error")
        else:
            patch.delattr(app.endpoints["/recommend"], "_batcher")
        reply = shop.get(path, headers={"X-Request-ID": "shop-42"})
    assert reply.status_code == 500
    assert reply.json()["error"]["code"] == "internal_error"
    assert "shop-42" in reply.json()["error"]["message"]
    assert "Traceback" not in reply.text
    assert "AttributeError" not in reply.text
    assert reply.headers["x-request-id"] == "shop-42"
    failed = [record for record in caplog.records if "request_failed" in record.message]
    assert failed[0].levelno == logging.ERROR
    assert failed[0].exc_info


@pytest.mark.parametrize("sent", ["", "a b", "x" * 65, "näh"])
def test_a_request_id_that_is_no_plain_word_is_replaced(client: TestClient, sent: str) -> None:
    for path in ("/healthz", "/recommend"):
        reply = client.get(path, headers={"X-Request-ID": sent.encode()})
        assert reply.headers["x-request-id"] != sent
        assert len(reply.headers["x-request-id"]) == 32

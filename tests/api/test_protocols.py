"""Other protocols over HTTP: answered as their clients expect, and all that came in is kept."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from api.protocols import GIF
from ingest.protocols.routes import SEGMENT_CALLS
from tests.api.test_collector import raw_rows
from tests.api.tiny_shop import serving, view
from warehouse import layout
from warehouse.settings import IngestSettings, ServingSettings, Settings
from warehouse.store import ObjectStore

GA4_EVENT = {"name": "view_item", "params": {"items": [{"item_id": "mug"}]}}
GA4 = {"client_id": "c-1", "events": [GA4_EVENT]}


def call(name: str = "track", **fields: Any) -> dict[str, Any]:
    return {
        "type": name,
        "event": "Product Viewed",
        "anonymousId": "a-1",
        "properties": {"product_id": "mug"},
        **fields,
    }


def test_every_protocol_counts_by_its_name(settings: Settings, store: ObjectStore) -> None:
    with serving(settings) as client:
        lines = "\n".join(json.dumps(view("mug")) for _ in range(3))
        reply = client.post(
            "/events", content=lines, headers={"Content-Type": "application/x-ndjson"}
        )
        assert (reply.status_code, reply.json()["accepted"]) == (202, 3)
        client.post("/events", json=view("mug"))
        client.post("/mp/collect?measurement_id=G-1&api_secret=x", json=GA4)
        client.post("/v1/track", json=call())
        client.get("/pixel.gif?event_name=view_item&session_id=s&item_id=mug")
        client.get("/pixel.gif?event_name=wave")
        metrics = client.get("/metrics").text
        for source, n in (("ndjson", 3), ("json", 1), ("ga4_mp", 1), ("segment", 1), ("pixel", 1)):
            assert f'shallop_events_accepted_total{{source="{source}"}} {n}.0' in metrics
        assert 'rejected_total{reason="unknown_event_name",source="pixel"} 1.0' in metrics
    sources = [row["source"] for row in raw_rows(store, layout.RAW_EVENTS)]
    assert sorted(sources) == ["ga4_mp", "json", "ndjson", "ndjson", "ndjson", "pixel", "segment"]


class TestSegment:
    @pytest.mark.parametrize(("path", "name"), SEGMENT_CALLS.items())
    def test_every_call(
        self, settings: Settings, store: ObjectStore, path: str, name: str | None
    ) -> None:
        body = call(name) if name else {"batch": [call("track")]}
        if name:
            del body["type"]
        with serving(settings) as client:
            reply = client.post(path, json=body, auth=("write-key", ""))
            assert (reply.status_code, reply.json()) == (200, {"success": True})
        accepted, rejected = (
            raw_rows(store, prefix) for prefix in (layout.RAW_EVENTS, layout.RAW_REJECTED)
        )
        if name in ("identify", "group", "alias"):
            assert (accepted, rejected[0]["reason"]) == ([], "unmapped_event")
            assert json.loads(rejected[0]["body"]) == call(name)  # type: ignore[arg-type]
        else:
            ours = "page_view" if name in ("page", "screen") else "view_item"
            assert (accepted[0]["event_name"], rejected) == (ours, [])

    def test_a_retry_is_the_same_event(self, settings: Settings, store: ObjectStore) -> None:
        with serving(settings) as client:
            for _ in range(2):
                client.post("/v1/batch", json={"batch": [call(messageId="m-1")]})
        first, second = raw_rows(store, layout.RAW_EVENTS)
        assert first["event_id"] == second["event_id"]

    def test_its_own_counts_are_let_go(self, settings: Settings, store: ObjectStore) -> None:
        with serving(settings) as client:
            assert client.post("/v1/m", content=b'{"series":[]}').json() == {"success": True}
        assert raw_rows(store, layout.RAW_REJECTED) == []

    def test_an_unreadable_body_is_400(self, client: TestClient) -> None:
        reply = client.post("/v1/batch", content=b"{")
        assert (reply.status_code, reply.json()["error"]["code"]) == (400, "invalid_json")


class TestGa4:
    def test_the_answer_is_empty(self, client: TestClient) -> None:
        reply = client.post("/mp/collect", json=GA4)
        assert (reply.status_code, reply.content) == (204, b"")
        assert "content-length" not in reply.headers
        unmapped = {"client_id": "c", "events": [{"name": "session_start"}]}
        assert client.post("/mp/collect", json=unmapped).status_code == 204
        status = client.get("/status").json()["collector"]
        assert (status["accepted"], status["rejected"]) == (1, {"unmapped_event": 1})

    def test_debug_says_what_is_wrong_and_keeps_nothing(self, client: TestClient) -> None:
        assert client.post("/debug/mp/collect", json=GA4).json() == {"validationMessages": []}
        wrong = {"client_id": "c", "events": [{"name": "session_start"}]}
        (message,) = client.post("/debug/mp/collect", json=wrong).json()["validationMessages"]
        assert message["fieldPath"] == "events[0].name"
        assert message["validationCode"] == "NAME_INVALID"
        assert message["description"].endswith("`session_start`")
        reply = client.post("/debug/mp/collect", content=b"{")
        assert (reply.status_code, len(reply.json()["validationMessages"])) == (200, 1)
        assert client.get("/status").json()["collector"]["accepted"] == 0

    def test_an_unreadable_body_is_400(self, client: TestClient) -> None:
        assert client.post("/mp/collect", content=b"{").status_code == 400


class TestPixel:
    def test_it_is_an_image_that_nobody_caches(
        self, settings: Settings, store: ObjectStore
    ) -> None:
        with serving(settings) as client:
            reply = client.get(
                "/pixel.gif?event_name=page_view&session_id=s",
                headers={"Referer": "https://shop/sale"},
            )
        assert (reply.status_code, reply.content) == (200, GIF)
        assert reply.headers["content-type"] == "image/gif"
        assert "no-store" in reply.headers["cache-control"]
        assert "set-cookie" not in reply.headers
        assert raw_rows(store, layout.RAW_EVENTS)[0]["page_url"] == "https://shop/sale"

    def test_an_error_is_an_image_too_and_kept(
        self, settings: Settings, store: ObjectStore
    ) -> None:
        with serving(settings) as client:
            reply = client.get("/pixel.gif?event_name=wave&session_id=s")
        assert (reply.status_code, reply.content) == (200, GIF)
        assert reply.headers["x-shallop-error"] == "unknown_event_name"
        (kept,) = raw_rows(store, layout.RAW_REJECTED)
        assert kept["body"] == b"event_name=wave&session_id=s"

    def test_a_full_outbox_is_503_and_an_image(self, settings: Settings) -> None:
        blocked = Path(settings.store_uri)
        blocked.parent.mkdir(parents=True)
        blocked.write_text("a file where the store's folder should be")
        full = settings.model_copy(update={"ingest": IngestSettings(outbox_limit_events=1)})
        with serving(full) as client:
            replies = [client.get("/pixel.gif?event_name=page_view&session_id=s") for _ in "12"]
            blocked.unlink()
        assert [reply.status_code for reply in replies] == [200, 503]
        assert replies[1].content == GIF
        assert int(replies[1].headers["retry-after"]) > 0


class TestGzip:
    @pytest.mark.parametrize("path", ["/events", "/v1/track"])
    def test_it_is_unpacked(self, client: TestClient, path: str) -> None:
        body = json.dumps(view("mug") if path == "/events" else call()).encode()
        reply = client.post(path, content=gzip.compress(body), headers={"Content-Encoding": "gzip"})
        assert reply.is_success

    @pytest.mark.parametrize(
        ("body", "status", "code"),
        [
            (gzip.compress(b" " * 2**20, mtime=0), 413, "body_too_large"),
            (b"{}", 400, "invalid_gzip"),
            (b"", 400, "invalid_gzip"),
            (gzip.compress(b"{}", mtime=0)[:-4], 400, "invalid_gzip"),
            (gzip.compress(b"{}") + b"{}", 400, "invalid_gzip"),
        ],
        ids=["bomb", "plain", "empty", "cut", "followed"],
    )
    def test_what_is_none_is_refused(
        self, settings: Settings, body: bytes, status: int, code: str
    ) -> None:
        small = settings.model_copy(update={"ingest": IngestSettings(max_body_bytes=4096)})
        with serving(small) as client:
            reply = client.post("/events", content=body, headers={"Content-Encoding": "gzip"})
        assert (reply.status_code, reply.json()["error"]["code"]) == (status, code)


def test_a_beacon_of_64_kib(client: TestClient) -> None:
    page_url = "https://shop/" + "x" * 5_000
    events = [view("mug", page_url=page_url) for _ in range(12)]
    body = json.dumps(events).encode().ljust(65_536)
    reply = client.post(
        "/events", content=body, headers={"Content-Type": "text/plain;charset=UTF-8"}
    )
    assert (reply.status_code, reply.json()["accepted"]) == (202, 12)


def test_a_preflight_of_segments_browser_library(settings: Settings) -> None:
    open_to = ServingSettings(cors_origins=("https://shop.example",))
    with serving(settings.model_copy(update={"serving": open_to})) as client:
        reply = client.options(
            "/v1/t",
            headers={
                "Origin": "https://shop.example",
                "Access-Control-Request-Method": "POST",
                "Access-Control-Request-Headers": "authorization,content-type,x-retry-count",
            },
        )
    assert reply.status_code == 200
    assert reply.headers["access-control-allow-origin"] == "https://shop.example"


def test_every_path_is_documented(client: TestClient) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    assert set(client.app.endpoints) <= set(paths)  # type: ignore[attr-defined]
    for path, endpoint in client.app.endpoints.items():  # type: ignore[attr-defined]
        assert sorted(paths[path]) == sorted(method.lower() for method in endpoint.methods)

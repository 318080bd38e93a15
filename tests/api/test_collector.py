"""POST /events through the app: acknowledgement, refusals, and what stays when nothing can."""

import json
import sqlite3
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from fastapi.testclient import TestClient

from tests.api.tiny_shop import serving, view, wait_for
from warehouse import layout
from warehouse.settings import IngestSettings, Settings
from warehouse.store import ObjectStore


def raw_rows(store: ObjectStore, prefix: str) -> list[dict[str, object]]:
    return [
        row
        for found in store.list(prefix)
        for row in pq.read_table(BytesIO(store.get(found.key))).to_pylist()
    ]


def test_one_event_is_acknowledged_and_shipped(settings: Settings, store: ObjectStore) -> None:
    event = view("mug", visitor_id="v-1")
    with serving(settings) as client:
        reply = client.post("/events", json=event)
        assert reply.status_code == 202
        assert reply.json() == {"accepted": 1, "rejected": 0, "errors": []}
    rows = raw_rows(store, layout.RAW_EVENTS)
    assert [row["event_id"] for row in rows] == [event["event_id"]]
    assert rows[0]["user_agent"] == "testclient"
    assert rows[0]["source"] == "json"


def test_right_and_wrong_events_share_a_request(settings: Settings, store: ObjectStore) -> None:
    wrong = view("mug", event_name="wave")
    with serving(settings) as client:
        reply = client.post("/events", json=[view("mug"), wrong, view("cup")])
        assert reply.status_code == 202
        body = reply.json()
        assert (body["accepted"], body["rejected"]) == (2, 1)
        (error,) = body["errors"]
        assert (error["index"], error["field"]) == (1, "event_name")
        assert error["reason"] == "unknown_event_name"
        assert error["message"].endswith("`wave`")
    (kept,) = raw_rows(store, layout.RAW_REJECTED)
    assert json.loads(kept["body"])["event_name"] == "wave"


def test_nothing_accepted_is_422_and_still_kept(settings: Settings, store: ObjectStore) -> None:
    with serving(settings) as client:
        reply = client.post("/events", json=[view("mug", items=[]), view("mug", event_name="wave")])
        assert reply.status_code == 422
        body = reply.json()
        assert body["error"]["code"] == "missing_items"
        assert body["error"]["field"] == "items"
        assert (body["accepted"], body["rejected"], len(body["errors"])) == (0, 2, 2)
    assert len(raw_rows(store, layout.RAW_REJECTED)) == 2


def test_minted_event_ids_are_counted(client: TestClient) -> None:
    event = view("mug")
    del event["event_id"]
    assert client.post("/events", json=[event, view("cup")]).json()["minted_event_ids"] == 1


@pytest.mark.parametrize(
    "content_type",
    ["text/plain;charset=UTF-8", "application/json", "application/x-www-form-urlencoded", None],
)
def test_a_beacon_is_accepted(client: TestClient, content_type: str | None) -> None:
    headers = {"Content-Type": content_type} if content_type else {}
    body = json.dumps(view("mug")).encode()
    assert client.post("/events", content=body, headers=headers).status_code == 202


@pytest.mark.parametrize(
    ("headers", "field"),
    [
        ({"Content-Type": "multipart/form-data; boundary=x"}, "Content-Type"),
        ({"Content-Type": "application/json", "Content-Encoding": "br"}, "Content-Encoding"),
    ],
)
def test_other_media_are_415(client: TestClient, headers: dict[str, str], field: str) -> None:
    reply = client.post("/events", content=b"{}", headers=headers)
    assert reply.status_code == 415
    assert reply.json()["error"]["field"] == field
    assert reply.json()["error"]["remedy"]


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 400, "invalid_json"),
        (b"{", 400, "invalid_json"),
        (b"\xff\xfe", 400, "invalid_json"),
        (b"[" * 50_000, 400, "invalid_json"),
        (b"7", 422, "not_events"),
        (b"null", 422, "not_events"),
        (b"[]", 422, "empty_batch"),
    ],
)
def test_a_body_without_events_is_refused(
    client: TestClient, body: bytes, status: int, code: str
) -> None:
    reply = client.post("/events", content=body)
    assert (reply.status_code, reply.json()["error"]["code"]) == (status, code)


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_other_methods_are_405(client: TestClient, method: str) -> None:
    reply = client.request(method, "/events")
    assert reply.status_code == 405
    assert reply.headers["allow"] == "POST"


class TestBodyLimit:
    LIMIT = 2048

    @pytest.fixture
    def client(self, settings: Settings) -> Iterator[TestClient]:
        small = settings.model_copy(update={"ingest": IngestSettings(max_body_bytes=self.LIMIT)})
        with serving(small) as client:
            yield client

    def test_a_declared_length_above_is_413(self, client: TestClient) -> None:
        reply = client.post("/events", content=b" " * (self.LIMIT + 1))
        assert reply.status_code == 413
        error = reply.json()["error"]
        assert error["message"].endswith(f"`{self.LIMIT}`")
        assert "MAX_BODY_BYTES" in error["remedy"]

    def test_an_undeclared_length_above_is_413(self, client: TestClient) -> None:
        reply = client.post("/events", content=iter([b" " * 1000] * 5))
        assert "content-length" not in reply.request.headers
        assert reply.status_code == 413

    def test_exactly_the_limit_is_read(self, client: TestClient) -> None:
        body = json.dumps(view("mug")).encode().ljust(self.LIMIT)
        assert client.post("/events", content=body).status_code == 202


def test_too_many_events_are_413(settings: Settings) -> None:
    few = settings.model_copy(update={"ingest": IngestSettings(max_batch_events=2)})
    with serving(few) as client:
        reply = client.post("/events", json=[view("a"), view("b"), view("c")])
    assert (reply.status_code, reply.json()["error"]["code"]) == (413, "too_many_events")


def test_a_full_outbox_is_503_until_there_is_room(settings: Settings) -> None:
    blocked = Path(settings.store_uri)
    blocked.parent.mkdir(parents=True)
    blocked.write_text("a file where the store's folder should be")
    small = settings.model_copy(
        update={"ingest": IngestSettings(outbox_limit_events=2, flush_interval_seconds=0.05)}
    )
    with serving(small) as client:
        assert client.post("/events", json=[view("a"), view("b")]).status_code == 202
        reply = client.post("/events", json=view("c"))
        assert reply.status_code == 503
        assert reply.json()["error"]["code"] == "outbox_full"
        assert int(reply.headers["retry-after"]) > 0
        ready = client.get("/readyz")
        assert (ready.status_code, ready.json()["ready"]) == (503, False)
        blocked.unlink()
        wait_for(lambda: client.get("/status").json()["collector"]["depth"] == 0)
        assert client.post("/events", json=view("c")).status_code == 202


def test_a_broken_outbox_is_503(client: TestClient, settings: Settings) -> None:
    with sqlite3.connect(settings.outbox_path) as connection:
        connection.execute("drop table batch")
    connection.close()
    reply = client.post("/events", json=view("mug"))
    assert (reply.status_code, reply.json()["error"]["code"]) == (503, "outbox_broken")
    assert "retry-after" in reply.headers
    assert client.get("/status").json()["collector"]["last_error"]
    assert client.get("/metrics").status_code == 200


def test_the_address_is_kept_truncated(settings: Settings, store: ObjectStore) -> None:
    with serving(settings) as client:
        direct = TestClient(client.app, client=("192.0.2.77", 1234))
        direct.portal = client.portal
        direct.post("/events", json=view("mug"))
    assert raw_rows(store, layout.RAW_EVENTS)[0]["ip_prefix"] == "192.0.2.0/24"

"""Bodies that are refused as a whole: kept as they came, within bounds, and never by halves."""

import gzip
from typing import Any

import pytest

from tests.api.test_collector import raw_rows
from tests.api.tiny_shop import serving
from warehouse import layout
from warehouse.settings import IngestSettings, Settings
from warehouse.store import ObjectStore

LIMIT = 100_000
BOMB = gzip.compress(b" " * (LIMIT + 1))


@pytest.mark.parametrize(
    ("path", "body", "headers", "reason", "kept"),
    [
        ("/events", b"{", {}, "invalid_json", b"{"),
        ("/events", b"a=1", {"Content-Type": "image/png"}, "unsupported_media_type", b"a=1"),
        ("/v1/t", b"x", {"Content-Encoding": "br"}, "unsupported_encoding", b"x"),
        ("/v1/b", b"x", {"Content-Encoding": "gzip"}, "invalid_gzip", b"x"),
        ("/mp/collect", BOMB, {"Content-Encoding": "gzip"}, "body_too_large", BOMB),
        ("/events", b"y" * (LIMIT + 1), {}, "body_too_large", b"y" * 65_536),
        ("/g/collect?cid=1", b"en=a\n" * 1_001, {}, "too_many_events", b"en=a\n" * 1_001),
    ],
)
def test_it_is_kept_as_it_came(
    settings: Settings,
    store: ObjectStore,
    path: str,
    body: bytes,
    headers: dict[str, str],
    reason: str,
    kept: bytes,
) -> None:
    with serving(limited(settings, max_body_bytes=LIMIT)) as client:
        reply = client.post(path, content=body, headers={"User-Agent": "Shop/1"} | headers)
        assert reply.status_code in (400, 413, 415)
        assert reply.json()["error"]["code"] == reason
    (row,) = raw_rows(store, layout.RAW_REJECTED)
    assert (row["reason"], row["body"], row["target"]) == (reason, kept, path)
    assert row["user_agent"] == "Shop/1"
    cut = "x-shallop-cut" if kept != body else headers.get("Content-Encoding", "identity")
    assert row["encoding"] == cut


@pytest.mark.parametrize("body", [b"", b" \n", b"[]"])
def test_one_without_events_is_not_worth_keeping(
    settings: Settings, store: ObjectStore, body: bytes
) -> None:
    with serving(settings) as client:
        assert client.post("/events", content=body).status_code in (400, 422)
    assert raw_rows(store, layout.RAW_REJECTED) == []


def test_beyond_the_allowance_they_are_counted(settings: Settings, store: ObjectStore) -> None:
    with serving(limited(settings, refused_bytes_per_hour=10)) as client:
        for _ in range(3):
            assert client.post("/events", content=b"{234567").status_code == 400
        metrics = client.get("/metrics").text
    assert 'shallop_bodies_not_kept_total{source="json"} 2.0' in metrics
    assert len(raw_rows(store, layout.RAW_REJECTED)) == 1


def test_what_cannot_be_kept_is_not_refused_for_good(settings: Settings) -> None:
    with serving(limited(settings, outbox_limit_events=1, flush_interval_seconds=600)) as client:
        assert client.post("/events", content=b"{").status_code == 400
        reply = client.post("/events", content=b"{")
    assert (reply.status_code, reply.json()["error"]["code"]) == (503, "outbox_full")


@pytest.mark.parametrize("origin", [None, "http://shop.example", "https://shop.example"])
def test_segments_settings_name_us_as_the_only_destination(
    settings: Settings, origin: str | None
) -> None:
    with serving(settings) as client:
        headers = {"Origin": origin} if origin else {}
        reply = client.get("/v1/projects/key-1/settings", headers=headers)
    protocol = "https" if origin and origin.startswith("https") else "http"
    segment = {"apiKey": "key-1", "apiHost": "testserver/v1", "protocol": protocol}
    assert reply.json()["integrations"] == {"Segment.io": segment}


def limited(settings: Settings, **limits: Any) -> Settings:
    return settings.model_copy(update={"ingest": IngestSettings(**limits)})

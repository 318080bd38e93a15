"""Where a request may carry its key, and that no key is kept of it."""

import gzip
import json

import pytest
from fastapi.testclient import TestClient

from api import access
from api.protocols import GIF
from tests.api.access_requests import (
    EVENT_REQUESTS,
    GA4,
    MESSAGE,
    SHOP,
    basic,
    error_of,
)
from tests.api.key_maker import bearer, secret_key, write_key
from tests.api.test_collector import raw_rows
from tests.api.tiny_shop import serving, view
from warehouse import layout
from warehouse.settings import Settings
from warehouse.store import ObjectStore


class TestPlaces:
    @pytest.fixture(params=["write", "secret"])
    def key(self, request: pytest.FixtureRequest, settings: Settings) -> str:
        made: str = (
            write_key(settings) if request.param == "write" else secret_key(settings, "admin")
        )
        return made

    def test_headers(self, settings: Settings, key: str) -> None:
        with serving(settings) as client:
            for headers in (
                bearer(key), basic(key), {"X-Write-Key": key}, {"X-Api-Key": key},
                {"Authorization": f"bearer  {key}"},
                {"Authorization": basic(key)["Authorization"].replace("Basic", "bAsIc")},
            ):  # fmt: skip
                reply = client.post("/events", json=view("a"), headers=headers)
                assert reply.status_code == 202, headers

    def test_a_proxys_own_credentials_do_not_hide_it(self, settings: Settings, key: str) -> None:
        with serving(settings) as client:
            headers = basic("proxy-user") | {"X-Api-Key": key}
            assert client.post("/events", json=view("a"), headers=headers).status_code == 202
            body = MESSAGE | {"writeKey": key}
            assert client.post("/v1/t", json=body, headers=basic("proxy-user")).status_code == 200

    def test_ga4s_api_secret(self, settings: Settings, key: str) -> None:
        with serving(settings) as client:
            path = f"/mp/collect?measurement_id=G-1&api_secret={key}"
            assert client.post(path, json=GA4).status_code == 204

    @pytest.mark.parametrize("packed", [False, True])
    def test_segments_body(self, settings: Settings, key: str, packed: bool) -> None:
        bodies = [
            ("/v1/t", MESSAGE | {"writeKey": key}),
            ("/v1/b", {"batch": [MESSAGE], "writeKey": key}),
            ("/v1/batch", {"batch": [MESSAGE | {"writeKey": key}]}),
            ("/v1/m", {"series": [], "writeKey": key}),
        ]
        with serving(settings) as client:
            for path, body in bodies:
                # A beacon's own type, and half of an emoji, as browsers cut texts.
                content = json.dumps(body).replace("Product V", "\\ud83d Product V").encode()
                headers = {"Content-Type": "text/plain;charset=UTF-8"}
                if packed:
                    content, headers = (
                        gzip.compress(content),
                        headers | {"Content-Encoding": "gzip"},
                    )
                reply = client.post(path, content=content, headers=headers)
                assert (reply.status_code, reply.json()) == (200, {"success": True})
            assert client.post("/events", json={"writeKey": key}).status_code == 401

    @pytest.mark.parametrize(
        "content", [b"", b"[]", b"{", b"\xff", b'{"writeKey": 7}', b"[" * 9999]
    )
    def test_a_body_without_one_is_401(self, closed: TestClient, content: bytes) -> None:
        assert closed.post("/v1/t", content=content).status_code == 401

    def test_too_large_a_body_is_413_before_its_key_is_known(self, closed: TestClient) -> None:
        reply = closed.post("/v1/t", content=b" " * 1_048_577)
        assert (reply.status_code, reply.json()["error"]["code"]) == (413, "body_too_large")

    def test_a_write_key_in_the_address(self, settings: Settings) -> None:
        key = write_key(settings)
        with serving(settings) as client:
            assert client.post(f"/events?key={key}", json=view("a")).status_code == 202
            pixel = client.get(f"/pixel.gif?event_name=page_view&session_id=s&key={key}")
            assert (pixel.status_code, pixel.content) == (200, GIF)

    def test_a_secret_key_in_the_address_is_refused(self, settings: Settings) -> None:
        key = secret_key(settings, "admin")
        with serving(settings) as client:
            reply = client.get(f"/status?key={key}")
            assert (reply.status_code, error_of(reply)["code"]) == (403, "secret_key_in_url")

    def test_a_wrong_key_is_not_repeated(self, closed: TestClient, web: str) -> None:
        wrong = web[:-4] + "AAAA"
        for reply in (
            closed.post(f"/events?key={wrong}", json=view("a")),
            closed.post("/events", json=view("a"), headers=bearer(wrong)),
            closed.post("/v1/t", json=MESSAGE | {"writeKey": wrong}),
        ):
            assert reply.status_code == 401
            assert error_of(reply)["code"] == "invalid_key"
            assert wrong[20:] not in reply.text + str(reply.headers)


class TestNothingIsKept:
    def test_no_key_is_in_raw_rejected_logs_metrics_or_status(
        self, settings: Settings, store: ObjectStore, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level("DEBUG")
        public, secret = write_key(settings, SHOP), secret_key(settings, "admin")
        wheel = MESSAGE | {"event": "Wheel Spun"}
        pixel = "event_name=page_view&session_id=s&note=mine"
        told = ""
        with serving(settings) as client:
            for key in (public, secret, public[:-4] + "AAAA"):
                for method, path, body in [
                    *EVENT_REQUESTS,
                    ("POST", "/events", view("a") | {"writeKey": key, "more": {"key": f"x{key}"}}),
                    ("POST", "/events", view("a", event_name=key)),
                    ("POST", "/events", f"[{key}"),
                    ("POST", "/v1/t", wheel | {"writeKey": key}),
                    ("POST", "/v1/batch", {"batch": [wheel | {"writeKey": key}, key]}),
                    ("POST", f"/mp/collect?api_secret={key}", GA4 | {"events": [{"name": key}]}),
                    ("GET", f"/pixel.gif?{pixel}&key={key}", None),
                    ("GET", f"/pixel.gif?key={key}&{pixel}", None),
                    ("GET", f"/pixel.gif?{pixel}&page_url=https://shop.example/%3Fkey={key}", None),
                    ("GET", f"/pixel.gif?event_name={key}&key={key}", None),
                    ("GET", f"/recommend?session=s&k={key}&key={key}", None),
                    ("GET", f"/items?limit={key}", None),
                ]:  # fmt: skip
                    for headers in ({}, bearer(key), basic(key), {"X-Write-Key": key}):
                        reply = client.request(method, path, json=body, headers=headers)
                        assert reply.status_code < 500 or path.startswith("/recommend")
                        told += f"{reply.text}{reply.headers}"
            told += client.get("/metrics", headers=bearer(secret)).text
            told += client.get("/status", headers=bearer(secret)).text
        files = [path for path in settings.home.rglob("*") if path.is_file()]
        rows = [*raw_rows(store, layout.RAW_EVENTS), *raw_rows(store, layout.RAW_REJECTED)]
        assert len(rows) > 50
        notes = [row for row in rows if "mine" in str(row.get("extra"))]
        assert notes
        assert {row["page_url"] for row in notes} == {None, "https://shop.example/?key=shp_***"}
        logged = [one.getMessage() for one in caplog.records if one.name != "httpx2"]
        kept = repr(rows) + repr(logged) + told + "".join(repr(file.read_bytes()) for file in files)
        for key in (public, secret):
            assert key.split("_", 3)[-1][:20] not in kept

    def test_the_context_of_one_request_is_not_anothers(self, settings: Settings, web: str) -> None:
        with serving(settings) as client:
            client.post("/events", json=view("a"), headers=bearer(web))
        assert access.caller.get() is access.ANYBODY

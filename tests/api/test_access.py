"""Keys through the app: who gets in, who does not, and what he is told."""

import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from fastapi.testclient import TestClient

from api.protocols import GIF
from api.scopes import OPEN_FOLDERS, OPEN_PATHS
from tests.api.access_requests import (
    EVENT_REQUESTS,
    READ_REQUESTS,
    error_of,
    with_access,
)
from tests.api.key_maker import bearer, id_of, revoke, secret_key, write_key
from tests.api.tiny_shop import ITEM_IDS, promote, publish_marts, serving, view
from warehouse.settings import Settings
from warehouse.store import ObjectStore


class TestWithoutKeys:
    def test_a_fresh_app_is_open_and_says_so(
        self, client: TestClient, caplog: pytest.LogCaptureFixture
    ) -> None:
        for method, path, body in EVENT_REQUESTS:
            assert client.request(method, path, json=body).status_code < 300
        assert client.get("/status").json()["access"] == {
            "open": True, "require_keys": "auto", "write_keys": 0, "secret_keys": 0,
            "refused": {}, "last_error": None,
        }  # fmt: skip
        assert client.get("/readyz").json()["keys"] == "open"
        assert "shallop_open 1.0" in client.get("/metrics").text

    def test_the_log_says_so(self, settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
        with serving(settings):
            pass
        assert any("collector_open" in record.message for record in caplog.records)

    def test_always_asks_even_without_any(self, settings: Settings) -> None:
        with serving(with_access(settings, require_keys="always")) as client:
            reply = client.post("/events", json=view("mug"))
            assert (reply.status_code, error_of(reply)["code"]) == (401, "missing_key")
            assert client.get("/readyz").json()["keys"] == "required"

    def test_never_asks_nobody(self, settings: Settings, web: str) -> None:
        with serving(with_access(settings, require_keys="never")) as client:
            assert client.post("/events", json=view("mug")).status_code == 202
            assert client.get("/status").json()["access"]["open"] is True


class TestClosed:
    @pytest.mark.parametrize(("method", "path", "body"), EVENT_REQUESTS + READ_REQUESTS)
    def test_nothing_goes_without_a_key(
        self, closed: TestClient, method: str, path: str, body: Any
    ) -> None:
        reply = closed.request(method, path, json=body)
        assert reply.status_code == 401
        if path.startswith("/pixel.gif"):
            assert (reply.content, reply.headers["x-shallop-error"]) == (GIF, "missing_key")
        else:
            assert error_of(reply)["code"] == "missing_key"
            assert reply.headers["www-authenticate"].startswith("Bearer")

    @pytest.mark.parametrize(
        "path",
        ["/", "/docs", "/openapi.json", "/favicon.ico", "/healthz", "/readyz", "/shallop.js",
         "/shallop.mjs", "/shallop-carousel.js", "/static/shop.css"],
    )  # fmt: skip
    def test_pages_scripts_and_health_stay_open(self, closed: TestClient, path: str) -> None:
        assert closed.get(path).status_code == 200

    @pytest.mark.parametrize(
        "path",
        ["//status", "/status/", "/STATUS", "/static/../status", "/healthz/../status", "/%73tatus",
         "/status;x", "/items%2fitem-01", "/readyz/status"],
    )  # fmt: skip
    def test_no_other_spelling_of_a_path_gets_in(self, closed: TestClient, path: str) -> None:
        reply = closed.get(f"http://testserver{path}", follow_redirects=False)
        assert reply.status_code in (401, 404)
        assert "collector" not in reply.json()

    @pytest.mark.parametrize(("method", "path", "body"), EVENT_REQUESTS)
    def test_a_write_key_sends_by_every_protocol(
        self, closed: TestClient, web: str, method: str, path: str, body: Any
    ) -> None:
        reply = closed.request(method, path, json=body, headers=bearer(web))
        assert reply.status_code in (200, 202, 204)

    @pytest.mark.parametrize(
        ("path", "code"),
        [("/status", 403), ("/metrics", 403), ("/items", 403), ("/items/item-01", 403),
         ("/categories", 403), ("/no/such/path", 403), ("/recommend?items=a", 503)],
    )  # fmt: skip
    def test_a_write_key_reads_recommendations_alone(
        self, closed: TestClient, web: str, path: str, code: int
    ) -> None:
        reply = closed.get(path, headers=bearer(web))
        assert reply.status_code == code
        if code == 403:
            assert error_of(reply)["code"] == "missing_scope"
            assert id_of(web) in error_of(reply)["message"]

    def test_scopes_of_secret_keys(self, settings: Settings, closed: TestClient) -> None:
        status = secret_key(settings, "status:read")
        events = secret_key(settings, "events:write")
        admin = secret_key(settings, "admin")
        self.see_new_keys(closed)
        assert closed.get("/status", headers=bearer(status)).status_code == 200
        assert closed.get("/metrics", headers=bearer(status)).status_code == 200
        assert closed.post("/events", json=view("a"), headers=bearer(status)).status_code == 403
        assert closed.post("/events", json=view("a"), headers=bearer(events)).status_code == 202
        assert closed.get("/status", headers=bearer(events)).status_code == 403
        for method, path, body in EVENT_REQUESTS:
            assert closed.request(method, path, json=body, headers=bearer(admin)).is_success
        assert closed.get("/status", headers=bearer(admin)).status_code == 200
        assert closed.get("/no/such/path", headers=bearer(admin)).status_code == 404

    @staticmethod
    def see_new_keys(client: TestClient) -> None:
        app: Any = client.app
        app.access.keys._next_look = float("-inf")

    def test_a_revoked_key_is_refused_within_a_second(
        self, settings: Settings, closed: TestClient, web: str
    ) -> None:
        assert closed.post("/events", json=view("a"), headers=bearer(web)).status_code == 202
        revoke(settings, web)
        time.sleep(1.1)
        reply = closed.post("/events", json=view("a"), headers=bearer(web))
        assert (reply.status_code, error_of(reply)["code"]) == (401, "revoked_key")
        # And with no good key left it does not open.
        assert closed.post("/events", json=view("a")).status_code == 401

    def test_refusals_are_counted(self, settings: Settings, web: str) -> None:
        status = secret_key(settings, "status:read")
        with serving(settings) as client:
            client.post("/events", json=view("a"))
            client.post("/events", json=view("a"), headers=bearer("shp_pub_x"))
            client.post("/events", json=view("a"), headers=bearer(status))
            told = client.get("/status", headers=bearer(status)).json()["access"]
            assert told["refused"] == {"missing_key": 1, "invalid_key": 1, "missing_scope": 1}
            assert (told["write_keys"], told["secret_keys"], told["open"]) == (1, 1, False)
            text = client.get("/metrics", headers=bearer(status)).text
            assert 'shallop_requests_refused_total{reason="missing_key"} 1.0' in text
            assert "shallop_open 0.0" in text

    def test_a_damaged_file_at_the_start_lets_nobody_in(
        self, settings: Settings, web: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        settings.keys_path.write_text("{")
        with serving(settings) as client:
            reply = client.post("/events", json=view("a"), headers=bearer(web))
            assert (reply.status_code, reply.json()["error"]["code"]) == (503, "keys_unreadable")
            assert int(reply.headers["retry-after"]) > 0
            ready = client.get("/readyz")
            assert (ready.status_code, ready.json()["ready"]) == (503, False)
            assert str(settings.keys_path) in ready.json()["keys"]
        assert any("keys_unreadable" in record.message for record in caplog.records)

    def test_one_damaged_later_keeps_the_keys_and_is_said(
        self, settings: Settings, web: str
    ) -> None:
        status = secret_key(settings, "status:read")
        with serving(settings) as client:
            settings.keys_path.write_text("{")
            self.see_new_keys(client)
            assert client.post("/events", json=view("a"), headers=bearer(web)).status_code == 202
            assert client.post("/events", json=view("a")).status_code == 401
            told = client.get("/status", headers=bearer(status)).json()
            assert any(str(settings.keys_path) in error for error in told["errors"])
            ready = client.get("/readyz")
            assert ready.status_code == 200
            assert str(settings.keys_path) in ready.json()["keys"]


class TestOwnSession:
    def test_a_write_key_asks_by_the_session_not_by_the_visitor(
        self,
        settings: Settings,
        store: ObjectStore,
        marts: dict[str, pa.Table],
        bundles: list[Path],
    ) -> None:
        publish_marts(store, marts)
        promote(store, bundles[0])
        public, secret = write_key(settings), secret_key(settings, "admin")
        with serving(settings) as client:
            seen = view(ITEM_IDS[3], "s-unguessable", visitor_id="anna@shop.example")
            assert client.post("/events", json=seen, headers=bearer(public)).status_code == 202

            def fallback(key: str, session: str) -> Any:
                query = {"session": session, "k": "1"}
                reply = client.get("/recommend", params=query, headers=bearer(key))
                assert reply.status_code == 200
                return (reply.json()["fallback"] or {}).get("reason")

            assert fallback(public, "s-unguessable") is None
            assert fallback(public, "anna@shop.example") == "unknown_session"
            assert fallback(secret, "anna@shop.example") is None


def test_the_document_says_what_each_route_asks_for(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    schemes = document["components"]["securitySchemes"]
    assert {scheme["type"] for scheme in schemes.values()} == {"http", "apiKey"}
    for path, operations in document["paths"].items():
        for operation in operations.values():
            if path in OPEN_PATHS or path.startswith(OPEN_FOLDERS):
                assert "security" not in operation
                continue
            assert {"401", "403", "429"} <= set(operation["responses"])
            assert {"RateLimit", "RateLimit-Policy", "Retry-After"} <= set(
                operation["responses"]["429"]["headers"]
            )
            asked = [scopes for one in operation["security"] for scopes in one.values()]
            assert asked == [asked[0]] * len(schemes)
    assert document["paths"]["/status"]["get"]["security"][1] == {"bearer": ["status:read"]}

"""Keys, origins and rates through the app: who gets in, who does not, and what he is told."""

import gzip
import json
import time
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from fastapi.testclient import TestClient
from httpx import Response

from api import access
from api.protocols import GIF
from tests.api.key_maker import bearer, id_of, revoke, secret_key, write_key
from tests.api.test_collector import raw_rows
from tests.api.tiny_shop import ITEM_IDS, promote, publish_marts, serving, view
from warehouse import layout
from warehouse.access_settings import AccessSettings
from warehouse.settings import ServingSettings, Settings
from warehouse.store import ObjectStore

SHOP = "https://shop.example"
MESSAGE = {"type": "track", "event": "Product Viewed", "messageId": "m-1", "anonymousId": "v-1",
           "properties": {"product_id": "mug"}}  # fmt: skip
GA4 = {"client_id": "c-1", "events": [{"name": "page_view"}]}


def with_access(settings: Settings, **values: Any) -> Settings:
    return settings.model_copy(update={"access": AccessSettings(**values)})


def error_of(reply: Response) -> dict[str, str]:
    error: dict[str, str] = reply.json()["error"]
    assert error["remedy"]
    assert error["field"]
    return error


def basic(user: str) -> dict[str, str]:
    return {"Authorization": "Basic " + b64encode(f"{user}:".encode()).decode()}


@pytest.fixture
def web(settings: Settings) -> str:
    return write_key(settings, SHOP)


@pytest.fixture
def closed(settings: Settings, web: str) -> Iterator[TestClient]:
    """The app with one write key, `web`."""
    with serving(settings) as client:
        yield client


EVENT_REQUESTS: list[tuple[str, str, Any]] = [
    ("POST", "/events", view("mug")),
    ("POST", "/v1/track", MESSAGE),
    ("POST", "/v1/t", MESSAGE),
    ("POST", "/v1/batch", {"batch": [MESSAGE]}),
    ("POST", "/v1/m", {"series": []}),
    ("POST", "/mp/collect", GA4),
    ("POST", "/debug/mp/collect", GA4),
    ("GET", "/pixel.gif?event_name=page_view&session_id=s-1", None),
]
READ_REQUESTS = [
    ("GET", "/recommend?session=s-1", None),
    ("GET", "/status", None),
    ("GET", "/metrics", None),
    ("GET", "/items", None),
    ("GET", "/items/item-01", None),
    ("GET", "/categories", None),
    ("GET", "/no/such/path", None),
    ("DELETE", "/visitors/v-1", None),
]


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


class TestOrigins:
    @pytest.mark.parametrize(
        ("listed", "origin", "status"),
        [
            ((SHOP,), SHOP, 202),
            ((SHOP,), None, 202),  # a server, a mail
            ((SHOP,), "https://evil.example", 403),
            ((SHOP,), "null", 403),
            (("null",), "null", 202),
            (("*",), "https://any.example", 202),
            (("https://*.shop.example",), "https://de.shop.example", 202),
            (("https://*.shop.example",), SHOP, 403),
            ((), SHOP, 403),
            ((), "http://testserver", 202),  # our own page
        ],
    )
    def test_of_a_write_key(
        self, settings: Settings, store: ObjectStore, listed: tuple[str, ...], origin: str | None,
        status: int,
    ) -> None:  # fmt: skip
        key = write_key(settings, *listed)
        headers = bearer(key) | ({"Origin": origin} if origin else {})
        with serving(settings) as client:
            reply = client.post("/events", json=view("a"), headers=headers)
            assert reply.status_code == status
            if status == 403:
                error = error_of(reply)
                assert (error["code"], error["field"]) == ("origin_not_allowed", "Origin")
                assert "access-control-allow-origin" not in reply.headers
            elif origin and origin != "http://testserver":
                assert reply.headers["access-control-allow-origin"] == origin
            assert "access-control-allow-credentials" not in reply.headers
        assert len(raw_rows(store, layout.RAW_EVENTS)) == (status == 202)

    def test_of_the_settings_hold_for_every_key(self, settings: Settings) -> None:
        key = write_key(settings)
        listed = settings.serving.model_copy(update={"cors_origins": (SHOP,)})
        with serving(settings.model_copy(update={"serving": listed})) as client:
            headers = bearer(key) | {"Origin": SHOP}
            assert client.post("/events", json=view("a"), headers=headers).status_code == 202

    def test_one_keys_page_may_not_use_anothers(self, settings: Settings) -> None:
        key = write_key(settings, SHOP)
        write_key(settings, "https://other.example")
        with serving(settings) as client:
            headers = bearer(key) | {"Origin": "https://other.example"}
            assert client.post("/events", json=view("a"), headers=headers).status_code == 403

    def test_of_an_open_collector_with_a_list(self, settings: Settings) -> None:
        listed = ServingSettings(cors_origins=(SHOP,), champion_poll_seconds=0.02)
        with serving(settings.model_copy(update={"serving": listed})) as client:
            for origin, status in ((SHOP, 202), ("https://evil.example", 403)):
                reply = client.post("/events", json=view("a"), headers={"Origin": origin})
                assert reply.status_code == status

    def test_our_own_page_behind_a_proxy_that_renames_the_host(self, settings: Settings) -> None:
        key = write_key(settings)
        headers = bearer(key) | {"Origin": SHOP, "Sec-Fetch-Site": "same-origin"}
        with serving(settings) as client:
            assert client.post("/events", json=view("a"), headers=headers).status_code == 202

    def test_a_secret_key_in_a_page_is_refused(self, settings: Settings) -> None:
        key = secret_key(settings, "admin")
        with serving(settings) as client:
            reply = client.post("/events", json=view("a"), headers=bearer(key) | {"Origin": SHOP})
            assert (reply.status_code, error_of(reply)["code"]) == (403, "secret_key_in_browser")

    def test_a_preflight_needs_no_key(self, closed: TestClient) -> None:
        asked = {"Origin": SHOP, "Access-Control-Request-Method": "POST",
                 "Access-Control-Request-Headers": "authorization,x-write-key"}  # fmt: skip
        reply = closed.options("/events", headers=asked)
        assert reply.status_code == 200
        assert reply.headers["access-control-allow-origin"] == SHOP
        assert "X-Write-Key" in reply.headers["access-control-allow-headers"]
        assert reply.headers["vary"] == "Origin"
        assert "access-control-allow-credentials" not in reply.headers

    def test_a_preflight_of_another_page_is_refused(self, closed: TestClient) -> None:
        asked = {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
        reply = closed.options("/events", headers=asked)
        assert (reply.status_code, error_of(reply)["code"]) == (403, "origin_not_allowed")
        assert "access-control-allow-origin" not in reply.headers

    def test_refusals_can_be_read_by_a_listed_page(self, closed: TestClient) -> None:
        reply = closed.post("/events", json=view("a"), headers={"Origin": SHOP})
        assert reply.status_code == 401
        assert reply.headers["access-control-allow-origin"] == SHOP
        assert "Retry-After" in reply.headers["access-control-expose-headers"]

    def test_a_revoked_keys_page_may_not_read_any_more(self, settings: Settings, web: str) -> None:
        write_key(settings, "https://other.example")
        revoke(settings, web)
        with serving(settings) as client:
            reply = client.post("/events", json=view("a"), headers={"Origin": SHOP})
            assert "access-control-allow-origin" not in reply.headers


class TestRates:
    def test_of_a_key_counts_events(self, settings: Settings, store: ObjectStore) -> None:
        key = write_key(settings, rate=0.001, burst=5)
        with serving(settings) as client:

            def send(n_events: int) -> Response:
                events = [view("a") for _ in range(n_events)]
                return client.post("/events", json=events, headers=bearer(key))

            assert [send(n).status_code for n in (2, 2, 1, 1)] == [202, 202, 202, 429]
            reply = send(1)
            error = error_of(reply)
            assert (error["code"], error["field"]) == ("rate_limited", "key")
            assert int(reply.headers["retry-after"]) > 900
            assert reply.headers["ratelimit-policy"] == '"key";q=5;w=5000'
            assert reply.headers["ratelimit"].startswith('"key";r=0;t=')
            app: Any = client.app
            assert app.access.refused == {"rate_limited_key": 2}
        assert len(raw_rows(store, layout.RAW_EVENTS)) == 5

    @pytest.mark.parametrize(("method", "path", "body"), EVENT_REQUESTS)
    def test_hold_for_every_protocol(
        self, settings: Settings, method: str, path: str, body: Any
    ) -> None:
        key = write_key(settings, rate=0.001, burst=1)
        with serving(settings) as client:
            first, second = (
                client.request(method, path, json=body, headers=bearer(key)) for _ in range(2)
            )
            assert (first.is_success, second.status_code) == (True, 429)
            assert "retry-after" in second.headers
            if path.startswith("/pixel.gif"):
                assert second.content == GIF

    def test_rejected_events_count_too(self, settings: Settings) -> None:
        key = write_key(settings, rate=0.001, burst=3)
        with serving(settings) as client:
            wrong = [view("a", event_name="wave") for _ in range(3)]
            assert client.post("/events", json=wrong, headers=bearer(key)).status_code == 422
            assert client.post("/events", json=view("a"), headers=bearer(key)).status_code == 429

    def test_of_an_address_with_a_write_key(self, settings: Settings) -> None:
        limited = with_access(settings, address_events_per_second=0.001, address_burst_events=2)
        public, secret = write_key(settings), secret_key(settings, "admin")
        with serving(limited) as client:

            def send(address: str, key: str) -> int:
                other = TestClient(client.app, client=(address, 1234))
                other.portal = client.portal
                return other.post("/events", json=view("a"), headers=bearer(key)).status_code

            assert [send("192.0.2.1", public) for _ in range(3)] == [202, 202, 429]
            assert send("192.0.2.2", public) == 202
            assert [send("192.0.2.1", secret) for _ in range(3)] == [202] * 3
            # One customer's network is one address.
            addresses = [f"2001:db8:1:2::{n}" for n in range(1, 4)]
            assert [send(address, public) for address in addresses] == [202, 202, 429]
            assert send("2001:db8:1:3::1", public) == 202

    def test_recommendations_count_too(self, settings: Settings) -> None:
        key = write_key(settings, rate=0.001, burst=1)
        with serving(settings) as client:
            statuses = [
                client.get("/recommend?items=a", headers=bearer(key)).status_code for _ in range(2)
            ]
        assert statuses == [503, 429]  # there is no model


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


def test_the_document_says_what_each_route_asks_for(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    schemes = document["components"]["securitySchemes"]
    assert {scheme["type"] for scheme in schemes.values()} == {"http", "apiKey"}
    for path, operations in document["paths"].items():
        for operation in operations.values():
            if path in access.OPEN_PATHS or path.startswith(access.OPEN_FOLDERS):
                assert "security" not in operation
                continue
            assert {"401", "403", "429"} <= set(operation["responses"])
            assert {"RateLimit", "RateLimit-Policy", "Retry-After"} <= set(
                operation["responses"]["429"]["headers"]
            )
            asked = [scopes for one in operation["security"] for scopes in one.values()]
            assert asked == [asked[0]] * len(schemes)
    assert document["paths"]["/status"]["get"]["security"][1] == {"bearer": ["status:read"]}

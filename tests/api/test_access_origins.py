"""Origins of pages: whose browsers may send and read."""

import pytest
from fastapi.testclient import TestClient

from tests.api.access_requests import (
    SHOP,
    error_of,
)
from tests.api.key_maker import bearer, revoke, secret_key, write_key
from tests.api.test_collector import raw_rows
from tests.api.tiny_shop import serving, view
from warehouse import layout
from warehouse.settings import ServingSettings, Settings
from warehouse.store import ObjectStore


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

"""Rates of keys and of addresses, through the app."""

from typing import Any

import pytest
from fastapi.testclient import TestClient
from httpx import Response

from api.protocols import GIF
from tests.api.access_requests import (
    EVENT_REQUESTS,
    error_of,
    with_access,
)
from tests.api.key_maker import bearer, secret_key, write_key
from tests.api.test_collector import raw_rows
from tests.api.tiny_shop import serving, view
from warehouse import layout
from warehouse.settings import Settings
from warehouse.store import ObjectStore


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

"""What is kept of a sender: address and browser, in events and in what is rejected."""

import json
from datetime import UTC, datetime
from typing import Any, Literal

import pytest

from ingest.agents import family
from ingest.events import Decoded, decode_json, request_context
from ingest.protocols import ga4, pixel, segment
from ingest.traces import kept_address, reduced
from warehouse.settings import IngestSettings

CHROME = (
    "Mozilla/5.0 (Linux; Android 14; Pixel 8) AppleWebKit/537.36 (KHTML, like Gecko) "
    "Chrome/128.0.6613.127 Mobile Safari/537.36"
)
ADDRESS = "203.0.113.77"
Agent = Literal["keep", "family", "drop"]


@pytest.mark.parametrize(
    ("agent", "name"),
    [
        (CHROME, "Chrome 128 / Android"),
        ("Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) "
         "Chrome/128.0.0.0 Safari/537.36 Edg/128.0.0.0", "Edge 128 / Windows"),
        ("Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) "
         "Chrome/127.0.0.0 Safari/537.36 OPR/113.0.0.0", "Opera 113 / Linux"),
        ("Mozilla/5.0 (Linux; Android 13; SM-S918B) AppleWebKit/537.36 (KHTML, like Gecko) "
         "SamsungBrowser/25.0 Chrome/121.0.0.0 Mobile Safari/537.36",
         "Samsung Internet 25 / Android"),
        ("Mozilla/5.0 (iPhone; CPU iPhone OS 17_6 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like "
         "Gecko) Version/17.6 Mobile/15E148 Safari/604.1", "Safari 17 / iOS"),
        ("Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) "
         "Version/17.5 Safari/605.1.15", "Safari 17 / macOS"),
        ("Mozilla/5.0 (iPhone; CPU iPhone OS 17_6 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like "
         "Gecko) CriOS/128.0.6613.92 Mobile/15E148 Safari/604.1", "Chrome 128 / iOS"),
        ("Mozilla/5.0 (Android 14; Mobile; rv:129.0) Gecko/129.0 Firefox/129.0",
         "Firefox 129 / Android"),
        ("Mozilla/5.0 (iPhone; CPU iPhone OS 17_6 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like "
         "Gecko) Mobile/15E148 Instagram 340.0.3", "WebKit / iOS"),
        ("Mozilla/5.0 (X11; CrOS x86_64 14541.0.0) AppleWebKit/537.36 (KHTML, like Gecko) "
         "Chrome/128.0.0.0 Safari/537.36", "Chrome 128 / ChromeOS"),
        ("Mozilla/5.0 (Windows NT 10.0; WOW64; Trident/7.0; rv:11.0) like Gecko",
         "Internet Explorer 11 / Windows"),
        ("Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) "
         "HeadlessChrome/128.0.0.0 Safari/537.36", "HeadlessChrome 128 / Linux"),
        ("Mozilla/5.0 (Linux; Android 6.0.1; Nexus 5X) AppleWebKit/537.36 (KHTML, like Gecko) "
         "Chrome/128.0 Mobile Safari/537.36 (compatible; Googlebot/2.1; "
         "+http://www.google.com/bot.html)", "Googlebot 2"),
        ("facebookexternalhit/1.1 (+http://www.facebook.com/externalhit_uatext.php)",
         "facebookexternalhit 1"),
        ("analytics-python/2.3.3", "analytics-python 2"),
        ("curl/8.5.0", "curl 8"),
        ("Mozilla/5.0", "other"),
        ("12345", "other"),
    ],
)  # fmt: skip
def test_the_family_of_a_browser(agent: str, name: str) -> None:
    assert family(agent) == name
    assert family(name) == name


def test_bits_of_an_address() -> None:
    bits = IngestSettings(ipv4_prefix_bits=16, ipv6_prefix_bits=32)
    assert kept_address(ADDRESS, bits) == "203.0.0.0/16"
    assert kept_address("2001:db8:aaaa::1", bits) == "2001:db8::/32"
    assert kept_address(ADDRESS, IngestSettings()) == "203.0.113.0/24"
    assert kept_address("no address", IngestSettings()) is None
    assert kept_address(ADDRESS, IngestSettings(keep_ip_prefix=False)) is None


def segment_message(event: str) -> dict[str, Any]:
    hints = {"brands": [{"brand": "Chromium", "version": "128"}], "platform": "SecretPlatform"}
    return {
        "type": "track", "event": event, "anonymousId": "v-1", "writeKey": "their-own-key",
        "context": {"ip": ADDRESS, "userAgent": CHROME, "userAgentData": hints},
        "properties": {"product_id": "mug"},
    }  # fmt: skip


def both(protocol: str, limits: IngestSettings) -> Decoded:
    """An event that is accepted and one that is rejected, from a browser at an address."""
    context = request_context(
        limits=limits, received_at=datetime.now(UTC), ip=ADDRESS, user_agent=CHROME, source="test"
    )
    if protocol == "segment":
        messages = [segment_message("Product Viewed"), segment_message("Wheel Spun")]
        return segment.decode(json.dumps({"batch": messages}).encode(), context, call=None)
    if protocol == "ga4":
        events = [{"name": "page_view"}, {"name": "wheel"}]
        body = {"client_id": "c", "ip_override": ADDRESS, "user_agent": CHROME, "events": events}
        return ga4.decode(json.dumps(body).encode(), context)
    if protocol == "pixel":
        agent = CHROME.replace(" ", "+").replace(";", "%3B")
        decoded = Decoded([], [], context.received_at, "pixel")
        for name in ("page_view", "wheel"):
            query = f"event_name={name}&session_id=s&user_agent={agent}&ip={ADDRESS}".encode()
            one = pixel.decode(query, context, page_url=None)
            decoded.events += one.events
            decoded.rejected += one.rejected
        return decoded
    own = {"event_name": "page_view", "session_id": "s", "ip": ADDRESS, "user_agent": CHROME}
    return decode_json(json.dumps([own, own | {"event_name": "wheel"}]).encode(), context)


@pytest.mark.parametrize("protocol", ["json", "segment", "ga4", "pixel"])
@pytest.mark.parametrize("keep_ip_prefix", [True, False])
@pytest.mark.parametrize("agent", ["keep", "family", "drop"])
def test_every_protocol_keeps_no_more_than_it_may(
    protocol: str, agent: Agent, keep_ip_prefix: bool
) -> None:
    decoded = both(protocol, IngestSettings(user_agent=agent, keep_ip_prefix=keep_ip_prefix))
    (event,), ((_, rejected),) = decoded.events, decoded.rejected
    kept = f"{event} {rejected.decode()}"
    assert ADDRESS not in kept
    assert ("203.0.113.0" in kept) is keep_ip_prefix
    assert event.ip_prefix == ("203.0.113.0/24" if keep_ip_prefix else None)
    expected = {"keep": CHROME, "family": "Chrome 128 / Android", "drop": None}[agent]
    assert event.user_agent == expected
    if agent != "keep":
        assert "6613" not in kept
        assert "Pixel 8" not in kept
        assert "SecretPlatform" not in kept
    assert ("Chrome" in kept) is (agent != "drop")
    assert "their-own-key" not in kept


def test_what_was_reduced_is_rejected_for_the_same_reason_again() -> None:
    limits = IngestSettings(user_agent="family")
    (_, rejected) = both("segment", limits).rejected[0]
    context = request_context(
        limits=limits, received_at=datetime.now(UTC), ip=None, user_agent=None, source="test"
    )
    again = segment.decode(rejected, context, call="track")
    assert again.rejected[0][0].reason == "unmapped_event"
    assert json.loads(again.rejected[0][1]) == json.loads(rejected)


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ('{"ip": "IP67"}', '{"ip": "IP67"}'),  # of a torch
        ('{"ip" : "203.0.113.7", "x": 1', '{"ip" : "203.0.113.0", "x": 1'),  # broken JSON
        ('{"ip": "2001:db8:aaaa:bbbb::1"}', '{"ip": "2001:db8:aaaa::"}'),
        ('{"ip": 7}', '{"ip": 7}'),
        ('{"note": "my ip is 203.0.113.7"}', '{"note": "my ip is 203.0.113.7"}'),
        ("a=1&uip=203.0.113.7", "a=1&uip=203.0.113.0"),
        ("chip=203.0.113.7", "chip=203.0.113.7"),
    ],
)
def test_only_addresses_are_truncated(text: str, kept: str) -> None:
    assert reduced(text, IngestSettings()) == kept


def test_client_hints_of_broken_json_are_cut_off() -> None:
    limits = IngestSettings(user_agent="drop")
    assert reduced('{"a": 1, "userAgentData": {"brands": [', limits) == (
        '{"a": 1, "userAgentData": null'
    )


@pytest.mark.parametrize("agent", ["keep", "drop"])
def test_a_complaint_about_a_browser_does_not_repeat_it(agent: Agent) -> None:
    context = request_context(
        limits=IngestSettings(user_agent=agent), received_at=datetime.now(UTC), ip=None,
        user_agent=None, source="test",
    )  # fmt: skip
    event = {"event_name": "page_view", "session_id": "s", "user_agent": "SecretBrowser" * 500}
    ((rejection, _),) = decode_json(json.dumps(event).encode(), context).rejected
    assert rejection.field == "user_agent"
    assert ("SecretBrowser" in rejection.message) is (agent == "keep")

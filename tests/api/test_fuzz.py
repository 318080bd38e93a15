"""Any bytes to any collecting route: never our fault, and all that was sent is somewhere.

What is acknowledged adds up to what was sent; a body that is refused as a whole is kept as it came.
"""

import gzip
import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, urlencode

import pytest
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ingest.protocols.routes import SEGMENT_CALLS
from tests.api.tiny_shop import serving
from tests.ingest.test_protocols import (
    _ANYTHING,
    _GA4_EVENT,
    _GA4_SHARED,
    _MESSAGE,
    _NAMES,
    _SENT,
    _VALUES,
)
from warehouse.settings import IngestSettings, Settings

LIMIT = 8_192
# What JSON texts may hold that Python's own encoder does not write: broken, or barely right.
_ODD = st.sampled_from(
    [b"NaN", b"Infinity", b"-1e999", b"1" * 400, rb'"\ud83d"', rb'"\udc00\ud800"', b'"\xff"',
     b"[" * 3_000 + b"]" * 3_000, b'{"a":' * 900 + b"1" + b"}" * 900, b'"\x00"', b"tru", b""]
)  # fmt: skip


class Kept:
    """The app and its account of what came in."""

    def __init__(self, client: TestClient) -> None:
        self.client = client

    def counts(self) -> tuple[int, int]:
        collector = self.client.get("/status").json()["collector"]
        return collector["accepted"], sum(collector["rejected"].values())


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kept]:
    app_settings = Settings(
        _env_file=None,
        home=tmp_path_factory.mktemp("fuzz") / "home",
        ingest=IngestSettings(max_body_bytes=LIMIT, max_batch_events=5, flush_interval_seconds=600),
    )
    with serving(app_settings) as client:
        yield Kept(client)


def send(
    kept: Kept,
    method: str,
    path: str,
    body: bytes = b"",
    n_sent: int | None = None,
    **headers: str,
) -> None:
    """Send it, and check what must always hold; `n_sent` where the events are known to be so many.

    Of a body of unknown content, acknowledged or not, something must be kept.
    """
    accepted, rejected = kept.counts()
    reply = kept.client.request(method, path, content=body, headers=headers)
    now_accepted, now_rejected = kept.counts()
    n_accepted, n_rejected = now_accepted - accepted, now_rejected - rejected
    assert reply.status_code in (200, 202, 204, 400, 413, 415, 422), reply.text
    if reply.headers.get("content-type") == "application/json" and reply.status_code >= 400:
        assert reply.json()["error"]["code"]
    is_whole = n_accepted == 0 and n_rejected == 1
    if n_sent is not None and reply.status_code < 300:
        assert n_accepted + n_rejected == n_sent
    elif reply.status_code in (400, 413, 415):
        assert is_whole or not body.strip()
    else:
        assert n_accepted + n_rejected > 0 or is_empty(reply.json())


def is_empty(answer: dict[str, Any]) -> bool:
    return bool(answer["error"]["code"] == "empty_batch")


FUZZ = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
_BYTES = st.binary(max_size=80) | st.text(max_size=80).map(str.encode) | _ODD
_PACKED = st.one_of(
    _BYTES.map(gzip.compress),
    _BYTES.map(lambda body: gzip.compress(body)[:-3]),
    st.just(gzip.compress(b" " * 20_000)),
    _BYTES,
)
_ROUTES = st.sampled_from(["/events", "/mp/collect", "/g/collect?v=2&cid=1.2", *SEGMENT_CALLS])
_QUERY = st.binary(max_size=60).map(lambda raw: quote(raw, safe="&=%+~"))


@FUZZ
@given(_ROUTES, _BYTES)
def test_any_bytes(kept: Kept, path: str, body: bytes) -> None:
    send(kept, "POST", path, body, **{"Content-Type": "text/plain"})


@FUZZ
@given(_ROUTES, _PACKED, st.sampled_from(["gzip", "GZIP ", "br", "\xe9", "x-shallop-cut"]))
def test_any_packing(kept: Kept, path: str, body: bytes, encoding: str) -> None:
    send(kept, "POST", path, body, **{"Content-Encoding": encoding.encode("latin-1")})  # type: ignore[arg-type]


@FUZZ
@given(st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=30), _BYTES)
def test_any_type(kept: Kept, media_type: str, body: bytes) -> None:
    send(kept, "POST", "/events", body, **{"Content-Type": media_type})


@FUZZ
@given(_ROUTES, st.integers(LIMIT + 1, 4 * LIMIT), st.booleans())
def test_any_length(kept: Kept, path: str, n_bytes: int, is_declared: bool) -> None:
    accepted, rejected = kept.counts()
    body = b"{" + b"x" * (n_bytes - 1)
    content: Any = body if is_declared else iter([body[:1000], body[1000:]])
    assert kept.client.post(path, content=content).status_code == 413
    assert kept.counts() == (accepted, rejected + 1)


@FUZZ
@given(st.lists(_SENT, min_size=1, max_size=5))
def test_our_json(kept: Kept, events: list[Any]) -> None:
    send(kept, "POST", "/events", json.dumps(events).encode(), len(events))


@FUZZ
@given(st.lists(_SENT, min_size=1, max_size=5))
def test_lines(kept: Kept, events: list[Any]) -> None:
    body = b"\n".join(json.dumps(event).encode() for event in events)
    send(kept, "POST", "/events", body, len(events), **{"Content-Type": "application/x-ndjson"})


@FUZZ
@given(
    st.lists(_GA4_EVENT, min_size=1, max_size=5),
    st.fixed_dictionaries({}, optional=_GA4_SHARED),
    _QUERY,
)
def test_measurement_protocol(
    kept: Kept, events: list[Any], shared: dict[str, Any], query: str
) -> None:
    body = json.dumps(shared | {"events": events}).encode()
    send(kept, "POST", f"/mp/collect?{query}", body, len(events))


_PARAMETERS = st.lists(
    st.tuples(
        st.sampled_from(["en", "cid", "uid", "sid", "pr1", "pr2", "_p", "_s", "dl", "gcs", "cu",
                         "ep.event_id", "epn.value", "ep", "ep.", "up.a"]) | st.text(max_size=6),
        st.sampled_from(["view_item", "page_view", "idmug~nmA~~B~pr1", "~~~", "1", ""])
        | st.text(max_size=12),
    ),
    max_size=6,
).map(lambda pairs: urlencode(pairs, errors="replace"))  # fmt: skip


@FUZZ
@given(_PARAMETERS, st.lists(_PARAMETERS.filter(bool), max_size=5), st.booleans())
def test_gtag(kept: Kept, query: str, lines: list[str], is_get: bool) -> None:
    body = b"" if is_get else "\n".join(lines).encode()
    n_sent = len(lines) if body else 1
    send(kept, "GET" if is_get else "POST", f"/g/collect?v=2&{query}", body, n_sent)


@FUZZ
@given(st.sampled_from([path for path, call in SEGMENT_CALLS.items() if call]), _MESSAGE)
def test_segment_calls(kept: Kept, path: str, message: Any) -> None:
    send(kept, "POST", path, json.dumps(message).encode(), 1)


@FUZZ
@given(
    st.sampled_from([path for path, call in SEGMENT_CALLS.items() if not call]),
    st.lists(_MESSAGE, min_size=1, max_size=5),
    st.dictionaries(st.sampled_from(["context", "sentAt", "x"]), _ANYTHING),
)
def test_segment_batches(
    kept: Kept, path: str, messages: list[Any], shared: dict[str, Any]
) -> None:
    send(kept, "POST", path, json.dumps({"batch": messages} | shared).encode(), len(messages))


@FUZZ
@given(st.lists(st.tuples(_NAMES, _VALUES), max_size=8), _QUERY)
def test_pixels(kept: Kept, pairs: list[tuple[str, str]], garbage: str) -> None:
    query = urlencode(pairs, errors="replace")
    send(kept, "GET", f"/pixel.gif?{query}&{garbage}", n_sent=1)


@pytest.mark.parametrize("path", ["/events", "/mp/collect", "/v1/track", "/v1/batch"])
@pytest.mark.parametrize(
    "odd", [b"NaN", b"1" * 400, rb'"\ud83d"', b"[" * 800 + b"]" * 800, b'"\xff"', b"[" * 9_000]
)
def test_odd_values_in_right_events(kept: Kept, path: str, odd: bytes) -> None:
    bodies = {
        "/events": b'[{"event_name":"page_view","session_id":"s","x":%s}]',
        "/mp/collect": b'{"client_id":"c","events":[{"name":"page_view","params":{"x":%s}}]}',
        "/v1/track": b'{"event":"page_view","anonymousId":"a","properties":{"x":%s}}',
        "/v1/batch": b'{"batch":[{"type":"page","anonymousId":"a","properties":{"x":%s}}]}',
    }
    send(kept, "POST", path, bodies[path] % odd, 1)

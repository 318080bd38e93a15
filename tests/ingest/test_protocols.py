"""Whatever a stranger sends in any protocol: accepted + rejected = sent, or the body is refused."""

import itertools
import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.contract import to_arrow
from ingest.events import Decoded, InvalidBody, decode_json, request_context
from ingest.protocols import ga4, ga4_web, ndjson, pixel, segment
from ingest.rules import Context
from warehouse.contracts import EVENT_NAMES
from warehouse.settings import IngestSettings

CONTEXT = request_context(
    limits=IngestSettings(),
    received_at=datetime.now(UTC),
    ip=None,
    user_agent=None,
    source="test",
)

_TEXT = st.text(max_size=12)
_FLOATS = st.floats(allow_nan=False, allow_infinity=False)  # JSON has neither
_SCALAR = st.none() | st.booleans() | st.integers() | _FLOATS | _TEXT
_ANYTHING = st.recursive(
    _SCALAR,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXT, inner, max_size=3),
    max_leaves=8,
)


def _mostly(value: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """What belongs there, and now and then anything else."""
    return st.integers(0, 15).flatmap(lambda roll: value if roll else _ANYTHING)


def _objects(
    needed: tuple[str, ...] = (), **values: st.SearchStrategy[Any]
) -> st.SearchStrategy[Any]:
    """Objects with the `needed` fields, some of the others, and one that nobody knows."""
    fields = {name: _mostly(value) for name, value in values.items()}
    optional = {name: value for name, value in fields.items() if name not in needed}
    return _mostly(
        st.fixed_dictionaries(
            {name: fields[name] for name in needed}, optional=optional | {"z": _ANYTHING}
        )
    )


_ID = st.text(min_size=1, max_size=8) | st.integers() | st.sampled_from(["", None, "x" * 257])
_NUMBER = st.sampled_from([0, 1, 12.5, 2**31, -1, "1", "1.5", "-2", "", None, "1e999", "٣", "nan"])
_WHEN = st.sampled_from(
    ["2026-01-01T00:00:00Z", "2026-01-01", "2026-01-01T00:00:00.1+05:00", "", "1772359200000",
     1_772_359_200_000, 1_772_359_200_000_000, "9" * 30, 10**40, -1, None]
)  # fmt: skip
_ITEM = _objects(
    ("product_id", "item_id"), product_id=_ID, sku=_ID, id=_ID, item_id=_ID, name=_TEXT,
    category=_TEXT, price=_NUMBER, quantity=_NUMBER, position=_NUMBER, index=_NUMBER,
)  # fmt: skip
_ITEMS = st.lists(_ITEM, min_size=1, max_size=3)
_PROPERTIES = _objects(
    ("items",), products=_ITEMS, items=_ITEMS, product_id=_ID, price=_NUMBER, quantity=_NUMBER,
    value=_NUMBER, revenue=_NUMBER, currency=_TEXT, url=_TEXT, session_id=_ID,
)  # fmt: skip
_MESSAGE = _objects(
    ("type", "event", "anonymousId", "properties"),
    type=st.sampled_from(["track", "track", "page", "screen", "identify", "nothing"]),
    event=st.sampled_from([*segment.EVENTS, "Cart Viewed"]),
    messageId=st.uuids().map(str) | _TEXT,
    anonymousId=_ID,
    userId=_ID,
    timestamp=_WHEN,
    properties=_PROPERTIES,
    context=_objects(page=_objects(url=_TEXT), ip=_TEXT, consent=_ANYTHING, userAgent=_TEXT),
)
_GA4_EVENT = _objects(
    ("name", "params"),
    name=st.sampled_from([*ga4.EVENTS, "session_start"]),
    timestamp_micros=_WHEN,
    params=_PROPERTIES,
)
_GA4_SHARED = {
    "client_id": _mostly(_ID), "user_id": _ID, "timestamp_micros": _WHEN, "consent": _ANYTHING,
    "ip_override": _TEXT, "z": _ANYTHING,
}  # fmt: skip
_SENT = _objects(
    ("event_name", "session_id", "items"),
    event_id=st.uuids().map(str),
    event_name=st.sampled_from([*EVENT_NAMES, "wave"]),
    occurred_at=_WHEN,
    session_id=st.text(min_size=1, max_size=8),
    items=_ITEMS,
    value=_NUMBER,
)


def check(
    decode: Callable[[bytes, Context], Decoded], body: bytes, n_sent: int | None = None
) -> None:
    """The one thing that must always hold."""
    try:
        decoded = decode(body, CONTEXT)
    except InvalidBody as error:
        refused = error.status
    else:
        refused = _check_kept(decode, decoded, n_sent)
    assert refused in (None, 400, 413, 422)


def _check_kept(
    decode: Callable[[bytes, Context], Decoded], decoded: Decoded, n_sent: int | None
) -> None:
    n_kept = len(decoded.events) + len(decoded.rejected)
    assert n_kept == (n_sent or n_kept) > 0
    assert to_arrow(decoded.events).num_rows == len(decoded.events)
    assert all(len(event.event_id) == 36 for event in decoded.events)
    for rejection, raw in decoded.rejected:
        assert rejection.reason
        assert rejection.message
        # What is kept can be read again, to the same end.
        ((again, _),) = decode(_wrapped(decode, raw), CONTEXT).rejected
        assert again.reason == rejection.reason


def _wrapped(decode: Callable[[bytes, Context], Decoded], raw: bytes) -> bytes:
    """A rejected message as a request of its own."""
    return b'{"batch":[%s]}' % raw if decode is _batch else raw


def _batch(body: bytes, context: Context) -> Decoded:
    return segment.decode(body, context, call=None)


def _track(body: bytes, context: Context) -> Decoded:
    return segment.decode(body, context, call="track")


def _pixel(body: bytes, context: Context) -> Decoded:
    return pixel.decode(body, context, page_url=None)


@settings(max_examples=120, deadline=None)
@given(
    st.lists(_MESSAGE, min_size=1, max_size=4),
    st.dictionaries(st.sampled_from(["context", "sentAt", "x"]), _ANYTHING),
)
def test_segment_batches(messages: list[Any], shared: dict[str, Any]) -> None:
    check(_batch, json.dumps({"batch": messages} | shared).encode(), len(messages))


@settings(max_examples=120, deadline=None)
@given(_MESSAGE)
def test_segment_calls(message: Any) -> None:
    check(_track, json.dumps(message).encode(), 1)


@settings(max_examples=120, deadline=None)
@given(
    st.lists(_GA4_EVENT, min_size=1, max_size=4),
    st.fixed_dictionaries({}, optional=_GA4_SHARED),
)
def test_ga4(events: list[Any], shared: dict[str, Any]) -> None:
    check(ga4.decode, json.dumps(shared | {"events": events}).encode(), len(events))


_NAMES = st.sampled_from([*pixel.EVENT_PARAMETERS, *pixel.ITEM_PARAMETERS, "utm_source"]) | _TEXT
_VALUES = _TEXT | st.sampled_from(["view_item", "purchase", "1", "1.5", "2026-01-01"])


@settings(max_examples=120, deadline=None)
@given(st.lists(st.tuples(_NAMES, _VALUES), max_size=8))
def test_pixels(query: list[tuple[str, str]]) -> None:
    right = [("event_name", "view_item"), ("session_id", "s"), ("item_id", "a")]
    check(_pixel, urlencode([*right, *query]).encode(), 1)


@settings(max_examples=120, deadline=None)
@given(st.lists(_SENT, min_size=1, max_size=4))
def test_lines(events: list[Any]) -> None:
    check(ndjson.decode, b"\n".join(json.dumps(event).encode() for event in events), len(events))


@pytest.mark.parametrize("decode", [_batch, _track, ga4.decode, _pixel, ndjson.decode])
@settings(max_examples=50, deadline=None)
@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
def test_any_bytes(decode: Callable[[bytes, Context], Decoded], body: bytes) -> None:
    check(decode, body)


@pytest.mark.parametrize("depth", [50, 150, 300, 900, 990, 1_000, 1_100, 5_000, 100_000])
def test_nesting_beyond_reason(depth: int) -> None:
    for nested in (b"[" * depth + b"]" * depth, b'{"a":' * depth + b"1" + b"}" * depth):
        message = b'{"type":"page","name":"page_view","anonymousId":"a","properties":%s}' % nested
        check(_batch, b'{"batch":[%s]}' % message, 1)
        check(_track, message, 1)
        check(
            ga4.decode,
            b'{"client_id":"a","events":[{"name":"page_view","params":{"a":%s}}]}' % nested,
            1,
        )
        check(ndjson.decode, b'{"event_name":"page_view","session_id":"a","x":%s}' % nested, 1)


@pytest.mark.parametrize("decode", [decode_json, ndjson.decode])
def test_nesting_that_can_be_read_and_not_written(
    decode: Callable[[bytes, Context], Decoded],
) -> None:
    """Writing `extra` takes a few more frames than reading it."""
    reasons = set()
    for depth in range(850, 1_000):
        nested = b"[" * depth + b"]" * depth
        body = b'{"event_name":"page_view","session_id":"a","extra":{"z":%s}}' % nested
        try:
            reasons |= {rejection.reason for rejection, _ in decode(body, CONTEXT).rejected}
        except InvalidBody as error:
            reasons.add(error.reason)
    assert reasons <= {"too_deep", "invalid_json"}


class TestLines:
    EVENT = b'{"event_name":"page_view","session_id":"s"}'

    def test_right_lines(self) -> None:
        decoded = ndjson.decode(b"\n" + self.EVENT + b"\r\n\n" + self.EVENT, CONTEXT)
        assert (len(decoded.events), decoded.rejected, decoded.n_minted) == (2, [], 2)

    def test_a_wrong_line_costs_only_itself(self) -> None:
        wrong = [b"{", b"17", b"[]", b'{"event_name":"wave","session_id":"s"}', b"\xff"]
        decoded = ndjson.decode(b"\n".join([self.EVENT, *wrong, self.EVENT]), CONTEXT)
        assert len(decoded.events) == 2
        assert [raw for _, raw in decoded.rejected] == wrong
        assert [rejection.index for rejection, _ in decoded.rejected] == [1, 2, 3, 4, 5]
        assert [rejection.reason for rejection, _ in decoded.rejected] == [
            "invalid_json", "not_an_object", "not_an_object", "unknown_event_name", "invalid_json",
        ]  # fmt: skip

    def test_unknown_fields_and_cut_emojis_are_kept(self) -> None:
        line = rb'{"event_name":"page_view","session_id":"s","title":"\ud83d"}'
        (event,) = ndjson.decode(line, CONTEXT).events
        assert msgspec.json.decode(event.extra or "") == {"title": "�"}

    @pytest.mark.parametrize(
        ("body", "status", "reason"),
        [
            (b"", 422, "empty_batch"),
            (b"\n \r\n", 422, "empty_batch"),
            (b"{}\n" * 1_001, 413, "too_many_events"),
            (b" " * (2**20 + 1), 413, "body_too_large"),
        ],
    )
    def test_a_body_without_lines_is_refused(self, body: bytes, status: int, reason: str) -> None:
        with pytest.raises(InvalidBody) as caught:
            ndjson.decode(body, CONTEXT)
        assert (caught.value.status, caught.value.reason) == (status, reason)


class TestDocument:
    """docs/protocols.md says of names and places what the code does."""

    TEXT = (Path(__file__).parents[2] / "docs" / "protocols.md").read_text()

    def table(self, head: str) -> dict[str, tuple[str, ...]]:
        """The table under a head, `code` by `code`."""
        lines = self.TEXT.split(f"| {head} |\n", 1)[1].splitlines()[1:]
        rows = itertools.takewhile(lambda line: line.startswith("|"), lines)
        cells = [re.findall(r"`([^`]+)`", row) for row in rows]
        return {first: tuple(rest) for first, *rest in cells}

    @pytest.mark.parametrize(
        ("head", "names"),
        [
            ("event | track call", segment.EVENTS),
            (
                "item field | product field",
                segment.ITEM_FIELDS | {"price": "price", "quantity": "quantity"},
            ),
            ("event | GA4 event", ga4.EVENTS),
        ],
    )
    def test_names(self, head: str, names: dict[str, str]) -> None:
        found = {theirs: ours for ours, many in self.table(head).items() for theirs in many}
        assert found == names

    @pytest.mark.parametrize(
        ("head", "places"),
        [
            ("field | places in a message", segment.FIELDS),
            ("field | places in an event", ga4.FIELDS),
            ("field | places in a hit", ga4_web.FIELDS),
        ],
    )
    def test_places(self, head: str, places: dict[str, tuple[str, ...]]) -> None:
        assert self.table(head) == places

    def test_places_of_a_page_call(self) -> None:
        own = self.table("field | places in a page call")
        assert segment.FIELDS | own == segment.PAGE_FIELDS

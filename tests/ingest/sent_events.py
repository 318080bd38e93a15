"""Events as clients send them, right and wrong, for hypothesis; and bodies that were damaged."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from unittest.mock import patch

import msgspec
from hypothesis import strategies as st

from ingest import reader, session_columns
from ingest.events import request_context
from ingest.moments import from_microseconds
from ingest.rules import Context
from warehouse.contracts import EVENT_NAMES
from warehouse.settings import IngestSettings

NOW = datetime(2026, 3, 1, 12, 30, 15, 123_457, tzinfo=UTC)
IDS = st.uuids().map(str) | st.uuids().map(lambda one: str(one).upper())
TEXT = st.none() | st.text(max_size=12) | st.sampled_from(['a"b', "a\\b", "\n\t\x00", "ü🛶", "a,b"])
WORDS = TEXT | st.sampled_from(["one", "two"])
TIMES = st.integers(946_684_800_000_000, 1_772_000_000_000_000).map(
    lambda passed: from_microseconds(passed).isoformat()
)
ITEM = st.fixed_dictionaries(
    {},
    optional={
        "item_id": st.none()
        | st.text(min_size=1, max_size=8)
        | st.sampled_from(['"', "\\", "\x01"]),
        "item_name": TEXT,
        "price": st.none() | st.floats(0, 1e9) | st.integers(0, 10**6),
        "quantity": st.none() | st.integers(0, 2**31 - 1),
        "index": st.none() | st.integers(0, 2**31 - 1),
    },
)
RIGHT = st.fixed_dictionaries(
    {
        "event_id": IDS,
        "event_name": st.sampled_from(EVENT_NAMES),
        "session_id": st.sampled_from([None, "", "s1", "s2", 's"3']),
        "visitor_id": st.sampled_from(["v1", "v2"]),
        "items": st.lists(ITEM, min_size=1, max_size=3).map(
            lambda items: [{"item_id": "first"}, *items]
        ),
    },
    optional={
        "occurred_at": TIMES
        | st.integers(946_684_800_000, 1_772_000_000_000)
        | st.none()
        | st.just("2026-03-01T13:30:15.5+02:30"),
        "user_id": WORDS,
        "item_list_id": WORDS,
        "recommendation_id": WORDS,
        "value": st.none() | st.floats(0, 1e12),
        "currency": st.sampled_from([None, "EUR", ""]),
        "page_url": WORDS,
        "referrer": WORDS,
        "user_agent": st.sampled_from([None, "", "Mozilla/5.0 Firefox/128.0"]),
        "consent": WORDS,
        "extra": st.none() | st.sampled_from([{"a": [1, None]}, '{"ip": "203.0.113.9"}', {}]),
    },
)
# Put into a body where chance has it, or in place of what is there.
ODD_BYTES = (
    b"", b'"', b"\\", b"\\u", b"\\ud83d", b"\\udef6", b"\\u00e9", b"\\u0000", b"\\x", b"\x00",
    b"\x1f", b"\x7f", b"\x80", b"\xc3", b"\xc3\xa9", b"\xc0\x80", b"\xe0\x80\x80", b"\xed\xa0\x80",
    b"\xf0\x9f\x9b\xb6", b"\xf4\x90\x80\x80", b"\xff", b"\xef\xbb\xbf", b"{", b"}", b"[", b"]",
    b",", b":", b" ", b"\t\r\n", b"\x0c", b"null", b"true", b"-", b"0", b"00", b"1e5", b"1e400",
    b"1e-400", b".5", b"1.", b"1.0", b"-0", b"-0.0", b"9007199254740993", b"18446744073709551616",
    b"2147483648", b"0.30000000000000004", b"NaN", b"+1", b"1E+2", b'"event_id":null,',
    b'"extra":{"a":[{}]},', b'"extra":"{\\"a\\":1}",', b'"extra":"no",', b'"extra":[],',
    b'"extra":' + b"[" * 40 + b"]" * 40 + b",", b'"extra":{"b":' + b"[" * 40 + b"]" * 40 + b"},",
    b'"user_agent":"Mozilla/5.0",', b'"unknown":1,', b'"value":3,', b'"value":"3",',
    b'"items":[],', b'"items":[null],', b'"items":[{}],', b'"session_id":"",',
    b'"event_name":"purchase",', b'"event\\u005fname":"purchase",',
    b'"occurred_at":1772000000000,', b'"occurred_at":1772000000000.0,', b'"occurred_at":1e12,',
    b'"occurred_at":"2026-02-29T00:00:00Z",', b'"occurred_at":"2026-02-28T24:00:00Z",',
    b'"occurred_at":"2026-02-28T23:59:60Z",', b'"occurred_at":"2026-02-28t23:59:59z",',
    b'"occurred_at":"2026-02-28 23:59:59Z",', b'"occurred_at":"2026-02-28T23:59:59.1234567Z",',
    b'"occurred_at":"2026-02-28T23:59:59-00:00",', b'"occurred_at":"2026-02-28T23:59:59+0100",',
    b'"occurred_at":"2026-02-28T23:59:59+23:59",',
    b'"occurred_at":"2000-01-01T00:59:59.999999+01:00",',
    b'"occurred_at":"1999-12-31T23:59:59.999999Z",',
    b'"occurred_at":"2026-03-02T12:30:15.123457Z",',
    b'"occurred_at":"2026-03-02T12:30:15.123458Z",',
)  # fmt: skip


def context_of(limits: IngestSettings | None = None, at: datetime = NOW) -> Context:
    """A browser's request."""
    return request_context(
        limits=limits or IngestSettings(), received_at=at, ip="203.0.113.9",
        user_agent="Mozilla/5.0 Chrome/128.0", source="json",
    )  # fmt: skip


@contextmanager
def without_compiled_code() -> Iterator[None]:
    """As on a machine without a compiler."""
    with (
        patch.object(reader, "compiled", lambda: None),
        patch.object(session_columns, "compiled", lambda: None),
    ):
        yield


def damaged(body: bytes, chance: random.Random) -> bytes:
    """A body in which some bytes were put in, left out, changed, doubled or cut off."""
    for _ in range(chance.choice((0, 1, 1, 1, 2, 4))):
        place = chance.randrange(len(body) + 1)
        end = min(len(body), place + chance.choice((0, 0, 0, 1, 2, 12)))
        odd = chance.choice(ODD_BYTES)
        what = chance.randrange(6)
        if what == 0:  # in front of a field
            fields = [i for i in range(len(body)) if body.startswith(b'"event_name"', i)]
            place = end = chance.choice(fields or [place])
        elif what == 1:
            odd = bytes([chance.randrange(256)])
        elif what == 2:
            odd = body[place : place + chance.randrange(60)]
        elif what == 3:  # in place of a value
            colons = [i + 1 for i, byte in enumerate(body) if byte == ord(":")]
            place = chance.choice(colons or [place])
            end = min((i for i in range(place, len(body)) if body[i] in b",}]"), default=place)
        elif what == 4 and chance.random() < 0.1:
            odd, end = b"", len(body)
        body = body[:place] + odd + body[end:]
    return body


def damaged_bodies(n_bodies: int) -> list[bytes]:
    """Bodies of a few events that are right, nearly right and far from it; always the same."""
    chance = random.Random(20)
    event = {
        "event_id": "3F2504e0-4f89-41d3-9a0c-0305e82c3301", "event_name": "view_item",
        "visitor_id": "v", "session_id": "s", "occurred_at": "2026-02-28T10:00:00.5+01:00",
        "items": [
            {"item_id": "ü🛶", "item_name": 'a"\\\n', "price": 49.5, "quantity": 2, "index": 0}
        ],
        "value": 0.30000000000000004, "currency": "EUR", "page_url": "https://shop.example/p",
        "extra": {"a": [1, {"b": None}]}, "consent": "\x00", "user_agent": "Mozilla/5.0",
    }  # fmt: skip
    fewer = {name: event[name] for name in ("items", "visitor_id", "event_name", "event_id")}
    texts = [b"x" * n for n in (255, 256, 257, 2048, 2049, 8192, 8193)]
    bodies = [msgspec.json.encode([event, fewer]).replace(b"shop.example", one) for one in texts]
    bodies += [b'[{"visitor_id":"' + "ü".encode() * n + b'"}]' for n in (256, 257)]
    while len(bodies) < n_bodies:
        body = msgspec.json.encode([chance.choice((event, fewer)) for _ in range(2)])
        if chance.random() < 0.2:
            body = body.replace(b":", b" : ").replace(b",", b" ,\n\t")
        bodies.append(damaged(body, chance))
    return bodies

"""Batches in columns are what single events are: accepted, kept, shipped and folded alike."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from datetime import datetime, timedelta
from typing import Any
from unittest.mock import patch

import msgspec
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest import events, session_columns, sessions
from ingest.columns import MIN_TOGETHER, Together
from ingest.contract import to_arrow
from ingest.events import Decoded, decode_json
from ingest.rows import are_columns, events_table, lines_of, packed_columns, packed_lines
from tests.ingest.sent_events import NOW, RIGHT, context_of, without_compiled_code
from warehouse.contracts import RAW_EVENT_SCHEMA
from warehouse.settings import IngestSettings

Way = Callable[[], AbstractContextManager[None]]
WAYS: list[Way] = [nullcontext, without_compiled_code]

# Wrong in one way each, or right in a way that columns leave to single events.
ODD: list[dict[str, Any]] = [
    {"event_id": None},
    {"event_id": "3f2504e0-4f89-41d3-9a0c-0305e82c330"},
    {"event_id": "3f2504e0-4f89-41d3-9a0c-0305e82c3301,"},
    {"event_id": "3f2504e0,4f89-41d3-9a0c-0305e82c3301"},
    {"event_id": "3f2504e0-4f89-41d3-9a0c-0305e82c330ü"},
    {"event_id": "3f2504e0-4f89-41d3-9a0c-0305e82c330x"},
    {"event_id": 7},
    {"event_name": "no"},
    {"event_name": None},
    {"visitor_id": "", "session_id": None},
    {"visitor_id": None, "session_id": ""},
    {"visitor_id": "v" * 257},
    {"event_name": "view_item", "items": []},
    {"event_name": "view_item", "items": None},
    {"event_name": "view_item", "items": [{"item_name": "no id"}]},
    {"event_name": "view_item", "items": [{"item_name": "no id"}, {"item_id": "a"}]},
    {"event_name": "page_view", "items": []},
    {"event_name": "page_view", "items": [{"item_id": str(n)} for n in range(201)]},
    {"occurred_at": "1999-12-31T23:59:59.999999Z"},
    {"occurred_at": "0001-01-01T00:00:00+14:00"},
    {"occurred_at": (NOW + timedelta(days=1, microseconds=1)).isoformat()},
    {"occurred_at": (NOW + timedelta(days=1)).isoformat()},
    {"occurred_at": "2026-03-01T12:00:00"},
    {"occurred_at": 10**30},
    {"occurred_at": 12},
    {"extra": "[]"},
    {"extra": "{"},
    {"unknown": 1},
    {"value": -1},
]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("agent", ["keep", "family", "drop"])
@settings(max_examples=60, deadline=None)
@given(st.lists(RIGHT, min_size=1, max_size=5))
def test_right_batches_are_kept_and_shipped_as_single_events_are(
    agent: str, way: Way, sent: list[dict[str, Any]]
) -> None:
    limits = IngestSettings(user_agent=agent)
    body = msgspec.json.encode(sent) + b" " * 4_096
    with way():
        together = decode_together(body, limits)
    singly = decode_singly(body, limits)
    assert isinstance(together.events, Together)
    assert not isinstance(singly.events, Together)
    assert list(together.events) == singly.events
    assert list(together.persons()) == list(singly.persons())
    packed = packed_columns([together.events, together.events])
    lines = packed_lines([*singly.events, *singly.events])
    assert are_columns(packed.data)
    assert not are_columns(lines.data)
    table = events_table([packed.data])
    assert table.schema.equals(RAW_EVENT_SCHEMA, check_metadata=True)
    assert table.equals(to_arrow([*singly.events, *singly.events]))
    both = events_table([lines.data, packed.data, lines.data])
    assert both.equals(pa.concat_tables([table, table, table]).combine_chunks())


def test_rows_that_lack_empty_columns_are_read_as_before() -> None:
    event = {"event_id": "3f2504e0-4f89-41d3-9a0c-0305e82c3301", "event_name": "page_view",
             "visitor_id": "v"}  # fmt: skip
    table = to_arrow(list(decode_singly(msgspec.json.encode([event])).events))
    full = [name for name in table.column_names if not table[name].null_count]
    assert len(full) < len(table.column_names)
    stream = pa.BufferOutputStream()
    with pa.ipc.new_stream(stream, table.select(full).schema) as writer:
        writer.write_table(table.select(full))
    data = stream.getvalue()
    packed = pa.Codec("lz4_raw").compress(data, asbytes=True)
    piece = b"\x02" + len(data).to_bytes(4, "little") + packed
    assert events_table([piece]).equals(table)
    sessions_of = session_columns.session_rows(events_table([piece], session_columns.SCHEMA))
    assert sessions_of["key"].to_pylist() == ["v:v"]


@pytest.mark.parametrize("odd", ODD, ids=str)
@pytest.mark.parametrize("place", [0, -1])
@pytest.mark.parametrize("way", WAYS)
def test_an_odd_event_is_judged_as_by_itself(way: Way, odd: dict[str, Any], place: int) -> None:
    sent = [
        {
            "event_id": f"3f2504e0-4f89-41d3-9a0c-0305e82c33{n:02x}",
            "event_name": "view_item",
            "visitor_id": "v",
            "items": [{"item_id": "a"}],
            "page_url": "https://shop.example/" + "p" * 100,
        }
        for n in range(MIN_TOGETHER)
    ]
    sent[place] |= odd
    body = msgspec.json.encode(sent)
    with way():
        together = decode(body)
    singly = decode_singly(body)
    assert together.rejected == singly.rejected
    assert together.n_minted == singly.n_minted
    assert [known(one) for one in together.events] == [known(one) for one in singly.events]


@pytest.mark.parametrize("way", WAYS)
@settings(max_examples=100, deadline=None)
@given(st.lists(RIGHT, min_size=1, max_size=40), st.integers(0, 40))
def test_sessions_are_folded_as_from_single_events(
    way: Way, sent: list[dict[str, Any]], cut: int
) -> None:
    accepted = [
        *decode_singly(msgspec.json.encode(sent[:cut] or sent)).events,
        *decode_singly(
            msgspec.json.encode(sent[cut:] or sent), at=NOW + timedelta(minutes=1)
        ).events,
    ]
    lines = packed_lines(accepted).data
    expected: dict[str, sessions.SessionPart] = {}
    sessions.add(expected, sessions.decode_session_events(lines_of(lines)))
    table = events_table([lines], session_columns.SCHEMA)
    chunks = pa.concat_tables([table.slice(0, cut), table.slice(cut)])
    with way():
        rows = session_columns.session_rows(table)
        assert session_columns.session_rows(chunks).equals(rows)
    assert rows.schema.equals(session_columns.ROWS)
    assert rows["key"].to_pylist() == sorted(expected, key=str.encode)
    for row in rows.to_pylist():
        found, wanted = sessions.SessionPart(), expected[row["key"]]
        found.add(row["visitor_id"], row["seen_at"], row["steps"])
        assert found == wanted
        assert row["has_items"] == wanted.has_items


@pytest.mark.parametrize("way", WAYS)
def test_no_events_make_no_sessions(way: Way) -> None:
    with way():
        rows = session_columns.session_rows(session_columns.SCHEMA.empty_table())
    assert rows.equals(pa.RecordBatch.from_pylist([], session_columns.ROWS))


def decode(body: bytes, limits: IngestSettings | None = None, at: datetime = NOW) -> Decoded:
    return decode_json(body, context_of(limits, at))


def decode_together(body: bytes, limits: IngestSettings) -> Decoded:
    """As if every batch were large."""
    with patch.object(events, "MIN_TOGETHER", 1):
        return decode(body, limits)


def decode_singly(body: bytes, limits: IngestSettings | None = None, at: datetime = NOW) -> Decoded:
    """As if no batch were large."""
    with patch.object(events, "MIN_TOGETHER", 10_000):
        return decode(body, limits, at)


def known(event: Any) -> dict[str, Any]:
    """An event without the id that may have been minted."""
    fields = msgspec.structs.asdict(event)
    return {name: value for name, value in fields.items() if name != "event_id"}

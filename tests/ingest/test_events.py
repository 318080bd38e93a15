"""The event contract, each rule of it, and that nothing a stranger sends gets past both."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin
from uuid import UUID

import msgspec
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.contract import Event, EventItem, to_arrow
from ingest.events import Decoded, InvalidBody, decode_events
from ingest.traces import truncated_address
from warehouse.contracts import EVENT_NAMES, RAW_EVENT_SCHEMA
from warehouse.settings import IngestSettings

Make = Callable[..., dict[str, Any]]
Decode = Callable[..., Decoded]


def test_the_model_is_the_arrow_schema() -> None:
    made = pa.schema([_arrow_field(field) for field in msgspec.structs.fields(Event)])
    assert made.equals(RAW_EVENT_SCHEMA)


def test_an_event_is_kept_as_sent_with_what_we_add(decoded: Decode, sent: Make) -> None:
    event_id = "3F2504E0-4F89-41D3-9A0C-0305E82C3301"
    received_at = datetime(2026, 3, 1, 12, tzinfo=UTC)
    item = {"item_id": "a", "item_name": "Lamp", "price": 3, "quantity": 2, "index": 0}
    body = sent(
        event_id=event_id, occurred_at="2026-03-01T12:59:59.5+01:00", items=[item], value=6.5,
        user_id="", recommendation_id="r-1", consent="granted",
    )  # fmt: skip
    (event,) = decoded(body, received_at).events
    assert event.event_id == event_id.lower()
    assert event.occurred_at == datetime(2026, 3, 1, 11, 59, 59, 500_000, tzinfo=UTC)
    assert event.received_at == received_at
    assert event.items == [EventItem("a", "Lamp", None, 3.0, 2, 0)]
    assert (event.value, event.user_id, event.recommendation_id) == (6.5, None, "r-1")
    assert (event.source, event.schema_version, event.ip_prefix) == ("test", 1, "203.0.113.0/24")
    assert event.user_agent == "Browser/1.0"
    assert event.extra is None


@pytest.mark.parametrize("name", EVENT_NAMES)
def test_every_name_of_the_vocabulary_is_accepted(decoded: Decode, sent: Make, name: str) -> None:
    assert decoded(sent(event_name=name)).events[0].event_name == name


def test_a_missing_id_is_minted_and_counted(decoded: Decode, sent: Make) -> None:
    result = decoded([sent(event_id=...), sent(), sent(event_id=...)])
    assert result.n_minted == 2
    assert len({UUID(event.event_id) for event in result.events}) == 3
    assert decoded([sent(event_id=...), sent(event_name="no")]).n_minted == 1


def test_time_may_be_missing_or_epoch_milliseconds(decoded: Decode, sent: Make) -> None:
    received_at = datetime(2026, 3, 1, 12, tzinfo=UTC)
    missing, number = decoded(
        [sent(occurred_at=...), sent(occurred_at=1_767_225_600_123)], received_at
    ).events
    assert missing.occurred_at == received_at
    assert number.occurred_at == datetime(2026, 1, 1, 0, 0, 0, 123_000, tzinfo=UTC)


def test_unknown_fields_are_kept_in_extra(decoded: Decode, sent: Make) -> None:
    plain, merged, of_items, own = decoded(
        [
            sent(coupon="SPRING", source="app"),
            sent(coupon="SPRING", extra={"a": 1}),
            sent(items=[{"item_id": "a"}, {"item_id": "b", "item_brand": "B"}]),
            sent(extra='{"a": [1, 2]}'),
        ]
    ).events
    assert json.loads(plain.extra or "") == {"coupon": "SPRING", "source": "app"}
    assert plain.source == "test"
    assert json.loads(merged.extra or "") == {"coupon": "SPRING", "a": 1}
    assert json.loads(of_items.extra or "") == {"items": [{}, {"item_brand": "B"}]}
    assert [item.item_id for item in of_items.items or ()] == ["a", "b"]
    assert own.extra == '{"a": [1, 2]}'


@pytest.mark.parametrize(
    ("changes", "field", "reason", "part"),
    [
        ({"event_name": "bought"}, "event_name", "unknown_event_name", "`bought`"),
        ({"event_name": "bought"}, "event_name", "unknown_event_name", "`purchase`"),
        ({"event_name": ...}, "event_name", "missing_event_name", "`view_item`"),
        ({"event_name": 7}, "event_name", "bad_type", "must be text"),
        ({"event_id": "17"}, "event_id", "bad_event_id", "`17`"),
        ({"event_id": 17}, "event_id", "bad_type", "UUID"),
        ({"items": ...}, "items", "missing_items", "`view_item`"),
        ({"items": []}, "items", "missing_items", "item_id"),
        ({"items": [{"item_name": "Lamp"}]}, "items", "missing_items", "item_id"),
        ({"items": [{"item_id": ""}]}, "items[0].item_id", "empty", "1 to 256"),
        ({"items": [{"item_id": "x" * 257}]}, "items[0].item_id", "too_long", "256"),
        ({"items": [{"item_id": 17}]}, "items[0].item_id", "bad_type", "`17`"),
        ({"items": ["oak-lamp"]}, "items[0]", "bad_type", "item_id"),
        ({"items": {"item_id": "a"}}, "items", "bad_type", "array"),
        ({"items": [{"item_id": "a"}] * 201}, "items", "too_many_items", "`201`"),
        ({"items": [{"item_id": "a", "price": -1}]}, "items[0].price", "out_of_range", "`-1`"),
        ({"items": [{"item_id": "a", "price": "9"}]}, "items[0].price", "bad_type", "quotes"),
        ({"items": [{"item_id": "a", "quantity": -1}]}, "items[0].quantity", "out_of_range", "-1"),
        ({"items": [{"item_id": "a", "quantity": 1.5}]}, "items[0].quantity", "bad_type", "whole"),
        ({"items": [{"item_id": "a", "index": 2**31}]}, "items[0].index", "out_of_range", "whole"),
        ({"value": -0.01}, "value", "out_of_range", "`-0.01`"),
        ({"value": True}, "value", "bad_type", "`true`"),
        ({"session_id": ..., "visitor_id": ...}, "session_id", "missing_visitor", "visitor_id"),
        ({"session_id": "", "visitor_id": ""}, "session_id", "missing_visitor", "not empty"),
        ({"session_id": "s" * 257}, "session_id", "too_long", "256"),
        ({"page_url": "u" * 8193}, "page_url", "too_long", "8192"),
        ({"user_agent": "u" * 2049}, "user_agent", "too_long", "2048"),
        ({"extra": "not JSON"}, "extra", "bad_type", "`not JSON`"),
        ({"extra": "[1]"}, "extra", "bad_type", "object"),
        ({"occurred_at": "2026-01-01T00:00:00"}, "occurred_at", "bad_timestamp", "zone"),
        ({"occurred_at": "yesterday"}, "occurred_at", "bad_timestamp", "`yesterday`"),
        ({"occurred_at": 1_767_225_600}, "occurred_at", "bad_timestamp", "milliseconds"),
        ({"occurred_at": 10**40}, "occurred_at", "bad_timestamp", "RFC 3339"),
        ({"occurred_at": "0001-01-01T00:00:00+23:59"}, "occurred_at", "bad_timestamp", "RFC 3339"),
        ({"occurred_at": 1.5}, "occurred_at", "bad_type", "`1.5`"),
        ({"occurred_at": "2999-01-01T00:00:00Z"}, "occurred_at", "future_timestamp", "2999"),
    ],
)
def test_a_wrong_event_is_rejected_by_name(
    decoded: Decode, sent: Make, changes: dict[str, Any], field: str, reason: str, part: str
) -> None:
    wrong = msgspec.json.encode(sent(**changes))
    result = decoded(b"[" + msgspec.json.encode(sent()) + b" , " + wrong + b"]")
    assert len(result.events) == 1
    ((rejection, body),) = result.rejected
    assert (rejection.index, rejection.field, rejection.reason) == (1, field, reason)
    assert part in rejection.message
    assert body == wrong


def test_events_up_to_a_day_ahead_are_accepted(decoded: Decode, sent: Make) -> None:
    now = datetime.now(UTC)
    day = timedelta(days=1)
    assert decoded(sent(occurred_at=(now + day).isoformat()), now).events
    result = decoded(sent(occurred_at=(now + day + timedelta(seconds=1)).isoformat()), now)
    assert result.rejected[0][0].reason == "future_timestamp"


def test_what_is_no_event_costs_only_itself(decoded: Decode, sent: Make) -> None:
    good = msgspec.json.encode(sent())
    for wrong, reason in (
        (b"17", "not_an_object"),
        (b'{"page_url": "\xff"}', "invalid_json"),
        (b'{"value": 1e999}', "invalid_json"),
    ):
        result = decoded(b"[" + wrong + b"," + good + b"]")
        assert len(result.events) == 1
        assert [(rejection.reason, body) for rejection, body in result.rejected] == [
            (reason, wrong)
        ]


def test_a_text_cut_in_the_middle_of_an_emoji_is_mended(decoded: Decode) -> None:
    title = r"cut \ud83d, whole \ud83d\ude00, only \ude00, escaped \\ud83d"
    body = rb'{"event_name":"page_view","session_id":"s","consent":"%s"}' % title.encode()
    for sent_body in (body, b"[" + body + b"]"):
        (event,) = decoded(sent_body).events
        assert event.consent == r"cut �, whole 😀, only �, escaped \ud83d"


@pytest.mark.parametrize(
    ("body", "status", "reason"),
    [
        (b"", 400, "invalid_json"),
        (b"{", 400, "invalid_json"),
        (b"[{}", 400, "invalid_json"),
        (b"{} {}", 400, "invalid_json"),
        (b"[" * 100_000, 400, "invalid_json"),
        (b"17", 422, "not_events"),
        (b"1" * 400, 422, "not_events"),
        (b'"\xff"', 422, "not_events"),
        (b'"text"', 422, "not_events"),
        (b"null", 422, "not_events"),
        (b" [ ] ", 422, "empty_batch"),
        (b"[" + b"{}," * 1000 + b"{}]", 413, "too_many_events"),
        (b"[" + b" " * 2**20 + b"]", 413, "body_too_large"),
    ],
)
def test_a_body_without_events_is_refused(
    decoded: Decode, body: bytes, status: int, reason: str
) -> None:
    with pytest.raises(InvalidBody) as caught:
        decoded(body)
    assert (caught.value.status, caught.value.reason) == (status, reason)
    assert caught.value.message == str(caught.value)


def test_addresses_are_truncated_or_dropped(sent: Make) -> None:
    assert truncated_address("203.0.113.77") == "203.0.113.0/24"
    assert truncated_address("2001:db8:aaaa:bbbb::1") == "2001:db8:aaaa::/48"
    assert truncated_address("::ffff:203.0.113.77") == "203.0.113.0/24"
    assert truncated_address("testclient") is None
    result = decode_events(
        msgspec.json.encode(sent()),
        limits=IngestSettings(keep_ip_prefix=False),
        received_at=datetime.now(UTC),
        ip="203.0.113.77",
        user_agent=None,
        source="test",
    )
    assert result.events[0].ip_prefix is None
    assert result.events[0].user_agent is None


def test_events_become_rows_of_the_contract(decoded: Decode, sent: Make) -> None:
    long = "ü" * 3_000_000
    events = decoded(
        [sent(value=0.1, items=[{"item_id": 'q"uote\n', "price": 12.34}]), sent(event_id=...)]
    ).events
    events[1].extra = long  # longer than any block that Arrow reads by default
    table = to_arrow(events)
    assert table.schema.equals(RAW_EVENT_SCHEMA)
    assert table.to_pylist() == [
        msgspec.structs.asdict(event)
        | {"items": [msgspec.structs.asdict(item) for item in event.items or ()]}
        for event in events
    ]
    assert to_arrow([]).schema.equals(RAW_EVENT_SCHEMA)


_FIELDS = {
    "event_id": st.uuids().map(str) | st.text(max_size=40),
    "event_name": st.sampled_from(EVENT_NAMES) | st.text(max_size=5),
    "occurred_at": st.datetimes(timezones=st.timezones()).map(datetime.isoformat)
    | st.integers()
    | st.floats()
    | st.text(max_size=20),
    "session_id": st.text(max_size=300),
    "visitor_id": st.text(max_size=10),
    "items": st.lists(
        st.fixed_dictionaries(
            {}, optional={"item_id": st.text(max_size=5), "price": st.floats(), "x": st.none()}
        ),
        max_size=3,
    ),
    "value": st.floats() | st.integers(),
}
_ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)
_EVENTS = st.fixed_dictionaries(
    {}, optional={name: value | _ANYTHING for name, value in _FIELDS.items()} | {"z": _ANYTHING}
)


@settings(max_examples=300, deadline=None)
@given(st.lists(_EVENTS | _ANYTHING, min_size=1, max_size=5))
def test_of_any_json_every_event_is_accepted_or_rejected(events: list[Any]) -> None:
    # Python's encoder also writes what is no JSON (NaN) or no text (lone surrogates).
    body = json.dumps(events).encode()
    try:
        result = _decode(body)
    except InvalidBody as error:
        status = error.status
    else:
        status = 202
        assert len(result.events) + len(result.rejected) == len(events)
        assert to_arrow(result.events).num_rows == len(result.events)
    assert status in (202, 400)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
def test_any_bytes_are_refused_or_accounted_for(body: bytes) -> None:
    try:
        result = _decode(body)
    except InvalidBody as error:
        status = error.status
    else:
        status = 202
        assert len(result.events) + len(result.rejected) >= 1
    assert status in (202, 400, 413, 422)


def _decode(body: bytes) -> Decoded:
    return decode_events(
        body,
        limits=IngestSettings(),
        received_at=datetime.now(UTC),
        ip=None,
        user_agent=None,
        source="test",
    )


_ARROW_TYPES: dict[Any, pa.DataType] = {
    str: pa.string(),
    float: pa.float64(),
    datetime: pa.timestamp("us", tz="UTC"),
}
_ARROW_INTEGERS = {"schema_version": pa.int16(), "quantity": pa.int32(), "index": pa.int32()}


def _arrow_field(field: msgspec.structs.FieldInfo) -> pa.Field:
    """The Arrow field that a field of the model asks for."""
    options = [field.type]
    if get_origin(field.type) in (Union, UnionType):
        options = list(get_args(field.type))
    (kind,) = (option for option in options if option is not NoneType)
    return pa.field(field.name, _arrow_type(field.name, kind), nullable=NoneType in options)


def _arrow_type(name: str, kind: Any) -> pa.DataType:
    if hasattr(kind, "__metadata__"):
        kind = get_args(kind)[0]
    if get_origin(kind) is list:
        (item,) = get_args(kind)
        return pa.list_(pa.struct([_arrow_field(field) for field in msgspec.structs.fields(item)]))
    return _ARROW_INTEGERS[name] if kind is int else _ARROW_TYPES[kind]

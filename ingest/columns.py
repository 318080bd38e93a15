"""The events of one request accepted together, column by column.

A batch in which every event surely keeps the rules is judged by a few looks at whole columns and
packed as columns for the outbox. Where one event may not keep them, or needs an id, the answer is
None and `Context.accept` judges each by itself, so what is accepted is the same (tested equal).
"""

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from itertools import chain, compress
from operator import attrgetter
from typing import Any, overload

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
from msgspec.structs import astuple

from ingest.contract import Event, EventItem, SentEvent
from ingest.rules import EARLIEST, KNOWN_NAMES, NAMES_WITH_ITEMS, Context, InvalidEvent
from warehouse.contracts import EVENT_SCHEMA_VERSION, RAW_EVENT_SCHEMA

# Fewer events than this are kept as lines: a column costs some 10 µs, however short it is.
MIN_TOGETHER = 32

_TYPES = {field.name: field.type for field in RAW_EVENT_SCHEMA}
_ITEM_FIELDS = list(_TYPES["items"].value_type)
_EARLIEST = EARLIEST.timestamp()
_ANY_ID = b"00000000-0000-0000-0000-000000000000,"
_HEX_AS_0 = bytes.maketrans(b"123456789abcdefABCDEF", b"0" * 21)
_PERSON = ["visitor_id", "user_id", "session_id", "occurred_at"]
_NEVER_EMPTY = ("visitor_id", "user_id", "session_id")  # kept as null where they are ""
_AS_SENT = (
    "event_name", "item_list_id", "recommendation_id", "value", "currency", "page_url", "referrer",
    "consent",
)  # fmt: skip
# What a request adds to each of its events, and to an event that does not say otherwise.
_OF_THE_REQUEST: dict[str, Callable[[Context], Any]] = {
    "received_at": attrgetter("received_at"),
    "user_agent": lambda context: context.agent_of(None),
    "ip_prefix": attrgetter("ip_prefix"),
    "source": attrgetter("source"),
    "schema_version": lambda context: EVENT_SCHEMA_VERSION,
}

Column = Sequence[Any]
Times = npt.NDArray[np.int64]


class SentTogether(SentEvent, gc=False, forbid_unknown_fields=True):
    """A `SentEvent` of which `event_id` is checked for all events of a request at once."""

    event_id: str | None = None


_FIELDS = SentTogether.__struct_fields__
decode_together = msgspec.json.Decoder(list[SentTogether]).decode


class Together(Sequence[Event]):
    """Accepted events of one request as columns; single ones are made only for who asks for them.

    `batch` has all columns of RAW_EVENT_SCHEMA.
    """

    def __init__(self, batch: pa.RecordBatch, received_at: datetime) -> None:
        self.batch = batch
        self.received_at = received_at
        self._events: list[Event] | None = None

    def __len__(self) -> int:
        return int(self.batch.num_rows)

    @overload
    def __getitem__(self, index: int) -> Event: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Event]: ...

    def __getitem__(self, index: int | slice) -> Event | Sequence[Event]:
        if self._events is None:
            self._events = [_event(row) for row in self.batch.to_pylist()]
        return self._events[index]

    def __eq__(self, other: object) -> bool:
        return list(self) == other

    def persons(self) -> Iterator[tuple[str | None, str | None, str | None, datetime]]:
        """Visitor, user, session and `occurred_at` of each event."""
        for row in self.batch.select(_PERSON).to_pylist():
            yield row["visitor_id"], row["user_id"], row["session_id"], row["occurred_at"]


def _event(row: dict[str, Any]) -> Event:
    items = row.pop("items")
    return Event(items=items and [EventItem(**item) for item in items], **row)


def accepted_together(sent: Sequence[SentEvent], context: Context) -> Together | None:
    """All events of a request, None where one is not surely right."""
    columns: dict[str, Column] = dict(
        zip(_FIELDS, zip(*map(astuple, sent), strict=True), strict=True)
    )
    try:
        times = _times(columns["occurred_at"], context)
        if times is None or not _keep_the_rules(columns, context):
            return None
        kept = _kept(columns, context)
    except (InvalidEvent, RecursionError, ArithmeticError, ValueError):
        return None
    return Together(_batch(kept, times, context), context.received_at)


def _times(sent: Column, context: Context) -> Times | None:
    """`occurred_at` in microseconds; None where one is out of bounds."""
    if set(map(type, sent)) != {datetime}:
        sent = [context.time_of(one) for one in sent]
    # Within the bounds a float is exact to less than half a microsecond.
    seconds = np.fromiter(map(datetime.timestamp, sent), np.float64, len(sent))
    if seconds.min() < _EARLIEST or seconds.max() > context.latest.timestamp():
        return None
    return np.rint(seconds * 1e6).astype(np.int64)


def _keep_the_rules(columns: dict[str, Column], context: Context) -> bool:
    """Whether all events surely keep the rules that the decoder does not know."""
    names, items = columns["event_name"], columns["items"]
    if not (KNOWN_NAMES.issuperset(names) and _are_ids(columns["event_id"])):
        return False
    sessions = columns["session_id"]
    if not all(sessions) and not all(map(_either, sessions, columns["visitor_id"])):
        return False
    for listed in compress(items, map(NAMES_WITH_ITEMS.__contains__, names)):
        if not (listed and listed[0].item_id):
            return False
    return max(map(len, filter(None, items)), default=0) <= context.limits.max_event_items


def _either(one: str | None, other: str | None) -> bool:
    return bool(one or other)


def _are_ids(ids: Column) -> bool:
    """Whether each is a UUID; joined by commas they all have their places."""
    try:
        joined = ",".join(ids)
    except TypeError:  # one is missing and must be minted
        return False
    return joined.encode().translate(_HEX_AS_0) == (_ANY_ID * len(ids))[:-1]


def _kept(columns: dict[str, Column], context: Context) -> dict[str, Column]:
    """The columns as they are kept, those of nulls alone left out. Raises InvalidEvent."""
    ids = ",".join(columns["event_id"])
    kept: dict[str, Column] = {"event_id": ids.lower().split(",")}
    for name in _NEVER_EMPTY:
        column = columns[name]
        if any(column):
            kept[name] = [one or None for one in column] if "" in column else column
    for name in _AS_SENT:
        if _holds_something(columns[name]):
            kept[name] = columns[name]
    if any(columns["items"]):
        kept["items"] = columns["items"]
    if any(columns["user_agent"]):
        kept["user_agent"] = [context.agent_of(one) for one in columns["user_agent"]]
    if _holds_something(columns["extra"]):
        kept["extra"] = [context.extra_of(one) for one in columns["extra"]]
    return kept


def _holds_something(column: Column) -> bool:
    return column[0] is not None or column.count(None) < len(column)


def _batch(columns: dict[str, Column], times: Times, context: Context) -> pa.RecordBatch:
    """All columns of the contract; those that `columns` lacks are the request's or empty."""
    n_events = len(times)
    arrays = []
    for name, kind in _TYPES.items():
        if name == "occurred_at":
            arrays.append(pa.array(times).view(kind))
        elif name in columns:
            column = columns[name]
            arrays.append(_items(column) if name == "items" else pa.array(column, kind))
        else:
            value = _OF_THE_REQUEST[name](context) if name in _OF_THE_REQUEST else None
            arrays.append(pa.repeat(pa.scalar(value, kind), n_events))
    return pa.RecordBatch.from_arrays(arrays, schema=RAW_EVENT_SCHEMA)


def _items(column: Column) -> pa.Array:
    """The items of events, null where an event has none."""
    lengths = [len(items) if items else 0 for items in column]
    ends = np.zeros(len(column) + 1, dtype=np.int32)
    np.cumsum(lengths, out=ends[1:])
    flat = zip(*map(astuple, chain.from_iterable(filter(None, column))), strict=True)
    values = [pa.array(one, field.type) for one, field in zip(flat, _ITEM_FIELDS, strict=True)]
    is_null = None if all(lengths) else np.append(np.equal(lengths, 0), False)
    offsets = pa.array(ends, mask=is_null)
    return pa.ListArray.from_arrays(
        offsets, pa.StructArray.from_arrays(values, fields=_ITEM_FIELDS)
    )

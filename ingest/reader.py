"""The compiled reader of a request's events: from the bytes of JSON to Arrow columns in one pass.

`event_reader.h` reads what is surely right and declines all else: msgspec and `ingest.rules` then
judge the body, and what is accepted and kept is the same (tested equal). Without a compiler all
bodies go that way.
"""

import ctypes
from ctypes import byref
from functools import lru_cache
from typing import Any

import msgspec
import pyarrow as pa
from msgspec.inspect import StrType, UnionType, type_info

from ingest.compiled import ArrowArray, Text, compiled
from ingest.contract import EventItem, SentEvent
from ingest.moments import microseconds
from ingest.rules import DECODE_ERRORS, EARLIEST, Context, InvalidEvent
from warehouse.contracts import (
    EVENT_NAMES,
    EVENT_SCHEMA_VERSION,
    ITEM_EVENT_NAMES,
    RAW_EVENT_SCHEMA,
)

_ITEM_TEXTS = ("item_id", "item_name", "item_category")
_NO_LIMIT = 2**62
_EXTRA = RAW_EVENT_SCHEMA.get_field_index("extra")
_decode_extra = msgspec.json.Decoder(dict[str, Any] | str).decode


class _Rules(ctypes.Structure):
    _fields_ = (
        ("names", Text),
        ("n_item_names", ctypes.c_int64),
        ("max_chars", ctypes.c_int64 * (len(SentEvent.__struct_fields__) + len(_ITEM_TEXTS))),
        ("max_events", ctypes.c_int64),
        ("max_items", ctypes.c_int64),
        ("earliest", ctypes.c_int64),
        ("schema_version", ctypes.c_int64),
        ("keeps_agents", ctypes.c_int64),
    )


class _Request(ctypes.Structure):
    _fields_ = (
        ("received_at", ctypes.c_int64),
        ("latest", ctypes.c_int64),
        ("agent", Text),
        ("ip_prefix", Text),
        ("source", Text),
    )


def read(body: bytes, context: Context) -> pa.RecordBatch | None:
    """The events of a JSON array as kept (RAW_EVENT_SCHEMA), None where one is not surely right."""
    library = compiled()
    if library is None:
        return None
    limits = context.limits
    rules = _rules(limits.max_batch_events, limits.max_event_items, limits.user_agent == "keep")
    request = _Request(
        microseconds(context.received_at),
        microseconds(context.latest),
        Text.of(context.agent_of(None)),
        Text.of(context.ip_prefix),
        Text.of(context.source),
    )
    array = ArrowArray()
    found = library.read_events(byref(rules), byref(request), body, len(body), byref(array))
    if not found:
        return None
    batch = array.taken(RAW_EVENT_SCHEMA)
    return batch if found == 1 else _with_extra(batch, context)


@lru_cache(maxsize=64)
def _rules(max_events: int, max_items: int, keeps_agents: bool) -> _Rules:
    others = (name for name in EVENT_NAMES if name not in ITEM_EVENT_NAMES)
    most = {**_max_chars(SentEvent), **_max_chars(EventItem)}
    texts = (*SentEvent.__struct_fields__, *_ITEM_TEXTS)
    return _Rules(
        Text.of("\n".join((*ITEM_EVENT_NAMES, *others))),
        len(ITEM_EVENT_NAMES),
        tuple(most.get(name, _NO_LIMIT) for name in texts),
        max_events,
        max_items,
        microseconds(EARLIEST),
        EVENT_SCHEMA_VERSION,
        keeps_agents,
    )


def _max_chars(kind: type[msgspec.Struct]) -> dict[str, int]:
    """How many characters the texts of the contract may have."""
    found = {}
    for field in type_info(kind).fields:  # type: ignore[attr-defined]
        assert isinstance(field.type, UnionType)
        for one in field.type.types:
            if isinstance(one, StrType) and one.max_length is not None:
                found[field.name] = one.max_length
    return found


def _with_extra(batch: pa.RecordBatch, context: Context) -> pa.RecordBatch | None:
    """`extra` as it may be kept, for that as it was sent; None where one is not right."""
    sent = batch.column(_EXTRA).view(pa.binary()).to_pylist()
    try:
        kept = [None if one is None else context.extra_of(_decode_extra(one)) for one in sent]
    except (*DECODE_ERRORS, InvalidEvent):
        return None
    return batch.set_column(_EXTRA, RAW_EVENT_SCHEMA.field(_EXTRA), pa.array(kept, pa.string()))

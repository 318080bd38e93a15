"""What many events add to live sessions, worked out over whole columns.

It says of a table what `sessions.add` says of single events (tested equal), without Python's lock:
compiled (`session_rows.h`), or mostly in Arrow where there is no compiler.
"""

import ctypes
from ctypes import byref

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ingest.compiled import ArrowArray, Text, compiled
from warehouse.contracts import RAW_EVENT_SCHEMA, STEP_EVENT_NAMES

_ITEM_ID = RAW_EVENT_SCHEMA.field("items").type.value_type.field("item_id")
# The columns that sessions are made of.
SCHEMA = pa.schema(
    [
        *(
            RAW_EVENT_SCHEMA.field(name)
            for name in (
                "event_id", "event_name", "occurred_at", "received_at", "visitor_id", "session_id",
            )
        ),
        RAW_EVENT_SCHEMA.field("items"),
    ]
)  # fmt: skip

_STEP_NAMES = pa.array(STEP_EVENT_NAMES)
_STEPS_TEXT = Text.of("\n".join(STEP_EVENT_NAMES))
_TO_BE_ESCAPED = r'["\\\x00-\x1f]'
_encode = msgspec.json.Encoder().encode

Places = npt.NDArray[np.int64]


# What some events add to a session: `steps` are JSON arrays, one a line, in their order; `seen_at`
# is microseconds on our clock, `has_items` 0 or 1.
ROWS = pa.schema(
    [
        pa.field("key", pa.string()),
        pa.field("visitor_id", pa.string()),
        pa.field("seen_at", pa.int64()),
        pa.field("steps", pa.string()),
        pa.field("has_items", pa.int8()),
    ]
)


def session_rows(table: pa.Table) -> pa.RecordBatch:
    """What the events of a table (SCHEMA) add to their sessions (ROWS), sorted by key."""
    library = compiled()
    found = None if library is None else _compiled_rows(library, table)
    return _arrow_rows(table) if found is None else found


def _compiled_rows(library: ctypes.CDLL, table: pa.Table) -> pa.RecordBatch | None:
    arrays = [ArrowArray.of(batch) for batch in table.to_batches()]
    try:
        pointers = (ctypes.c_void_p * len(arrays))(*map(ctypes.addressof, arrays))
        rows = ArrowArray()
        made = library.session_rows(pointers, len(arrays), byref(_STEPS_TEXT), byref(rows))
        return rows.taken(ROWS) if made else None
    finally:
        for array in arrays:
            array.let_go()


def _arrow_rows(table: pa.Table) -> pa.RecordBatch:
    if not table.num_rows:
        return pa.RecordBatch.from_pylist([], ROWS)
    session_id = _filled(table["session_id"])
    visitor_id = _filled(table["visitor_id"])
    key = pc.if_else(
        pc.is_valid(session_id),
        pc.binary_join_element_wise("s:", session_id, "", null_handling="replace"),
        pc.binary_join_element_wise("v:", visitor_id, "", null_handling="replace"),
    ).dictionary_encode()
    n_keys = len(key.dictionary)
    of_key = key.indices.to_numpy()
    seen_at = np.zeros(n_keys, dtype=np.int64)
    np.maximum.at(seen_at, of_key, _microseconds(table["received_at"]))
    last_named = np.full(n_keys, -1)
    named = np.flatnonzero(pc.is_valid(visitor_id).to_numpy(zero_copy_only=False))
    last_named[of_key[named]] = named  # of repeated places the last value stays
    lines, event, has_item = _lines(table, session_id)
    of_line = of_key[event]
    has_items = np.zeros(n_keys, dtype=np.int8)
    has_items[of_line[has_item]] = 1
    columns = [
        key.dictionary,
        visitor_id.take(pa.array(last_named, mask=last_named < 0)),
        pa.array(seen_at),
        _joined(lines, of_line, n_keys),
        pa.array(has_items),
    ]
    order = pc.array_sort_indices(key.dictionary)
    return pa.RecordBatch.from_arrays([one.take(order) for one in columns], schema=ROWS)


def _filled(column: pa.ChunkedArray) -> pa.Array:
    """A column of text with null in place of what is empty."""
    whole = column.combine_chunks()
    return pc.if_else(pc.equal(whole, ""), pa.scalar(None, pa.string()), whole)


def _microseconds(column: pa.ChunkedArray) -> Places:
    times: Places = column.combine_chunks().cast(pa.int64()).to_numpy()
    return times


def _lines(table: pa.Table, session_id: pa.Array) -> tuple[pa.Array, Places, npt.NDArray[np.bool_]]:
    """The steps of all events as lines, in order; the event of each, and whether it has an item."""
    is_step = pc.is_in(table["event_name"].combine_chunks(), _STEP_NAMES)
    items = table["items"].combine_chunks()
    event = pc.list_parent_indices(items).cast(pa.int64()).to_numpy()
    item_id = _filled(pa.chunked_array([pc.struct_field(pc.list_flatten(items), "item_id")]))
    place = np.arange(len(event)) - np.searchsorted(event, event)
    is_wanted = pc.and_(is_step.take(pa.array(event)), pc.is_valid(item_id))
    wanted = np.flatnonzero(is_wanted.to_numpy(zero_copy_only=False))
    # Without a session_id, what is no step keeps the visitor's session alive: an empty item.
    is_idle = pc.and_(pc.invert(is_step), pc.is_null(session_id))
    idle = np.flatnonzero(is_idle.to_numpy(zero_copy_only=False))
    event = np.concatenate((event[wanted], idle))
    place = np.concatenate((place[wanted], np.zeros(len(idle), dtype=np.int64)))
    text = pa.concat_arrays(
        [_quoted(item_id.take(pa.array(wanted))), pa.array(['""'] * len(idle), pa.string())]
    )
    order = np.argsort(event, kind="stable")
    of = pa.array(event[order])
    lines = pc.binary_join_element_wise(
        pc.binary_join_element_wise("[", _text(table["occurred_at"].take(of)), ""),
        pc.binary_join_element_wise('"', table["event_id"].take(of).combine_chunks(), '"', ""),
        pa.array(place[order]).cast(pa.string()),
        pc.binary_join_element_wise(text.take(pa.array(order)), "]\n", ""),
        ",",
    )
    return lines, event[order], order < len(wanted)


def _text(times: pa.ChunkedArray) -> pa.Array:
    return times.combine_chunks().cast(pa.int64()).cast(pa.string())


def _quoted(texts: pa.Array) -> pa.Array:
    """Each text as JSON."""
    if pc.any(pc.match_substring_regex(texts, _TO_BE_ESCAPED)).as_py():
        return pa.array([_encode(text).decode() for text in texts.to_pylist()], pa.string())
    return pc.binary_join_element_wise('"', texts, '"', "")


def _joined(lines: pa.Array, of_key: Places, n_keys: int) -> pa.Array:
    """The lines of each key, joined in their order."""
    ends = np.zeros(n_keys + 1, dtype=np.int32)
    np.cumsum(np.bincount(of_key, minlength=n_keys), out=ends[1:])
    sorted_lines = lines.take(pa.array(np.argsort(of_key, kind="stable")))
    return pc.binary_join(pa.ListArray.from_arrays(pa.array(ends), sorted_lines), "")

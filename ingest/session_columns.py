"""What many events add to live sessions, worked out over whole columns.

It says of a table what `sessions.add` says of single events (tested equal), mostly in Arrow and
without Python's lock.
"""

from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

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
_TO_BE_ESCAPED = r'["\\\x00-\x1f]'
_encode = msgspec.json.Encoder().encode

Places = npt.NDArray[np.int64]


class SessionRow(NamedTuple):
    """What some events add to a session: `steps` are JSON arrays, one a line, in their order."""

    key: str
    visitor_id: str | None
    seen_at: int
    steps: str
    has_items: bool


def session_rows(table: pa.Table) -> list[SessionRow]:
    """What the events of a table (SCHEMA) add to their sessions, sorted by key."""
    if not table.num_rows:
        return []
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
    has_items = np.zeros(n_keys, dtype=np.bool_)
    has_items[of_line[has_item]] = True
    order = pc.array_sort_indices(key.dictionary)
    return [
        SessionRow(*row)
        for row in zip(
            key.dictionary.take(order).to_pylist(),
            visitor_id.take(pa.array(last_named, mask=last_named < 0)).take(order).to_pylist(),
            pa.array(seen_at).take(order).to_pylist(),
            _joined(lines, of_line, n_keys).take(order).to_pylist(),
            pa.array(has_items).take(order).to_pylist(),
            strict=True,
        )
    ]


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

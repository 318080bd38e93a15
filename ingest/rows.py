"""Rows of the outbox as bytes: JSON lines, or columns where many events came together.

The one way in and out: what lies in `batch.lines` is lines as they are, lines or an Arrow stream in
one block of LZ4, told apart by the first byte. Versions before 4 of the file have lines alone.
"""

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from itertools import groupby
from typing import NamedTuple

import msgspec
import pyarrow as pa

from ingest.columns import Together
from ingest.contract import Event, table_from_lines
from ingest.events import Decoded
from ingest.outbox_file import EVENTS
from warehouse.contracts import RAW_EVENT_SCHEMA, REJECTED_SCHEMA

_LINES, _COLUMNS = b"\x01", b"\x02"  # JSON lines begin with `{`
_SIZE_BYTES = 4
_SHORT = 1_024  # bytes that are not worth a compression

_lz4 = pa.Codec("lz4_raw")
_encode_lines = msgspec.json.Encoder().encode_lines


class RejectedRow(msgspec.Struct, gc=False):
    """One rejected event (REJECTED_SCHEMA) as the outbox keeps it; `body` is base64 in JSON."""

    received_at: datetime
    source: str
    reason: str
    message: str
    body: bytes
    user_agent: str | None = None
    ip_prefix: str | None = None
    page_url: str | None = None
    target: str | None = None
    encoding: str | None = None

    @classmethod
    def of(cls, decoded: Decoded) -> "Iterator[RejectedRow]":
        """The rejected events of a request."""
        origin = decoded.origin
        for rejection, body in decoded.rejected:
            yield cls(
                decoded.received_at,
                decoded.source,
                rejection.reason,
                rejection.message,
                body,
                origin.user_agent,
                origin.ip_prefix,
                origin.page_url,
                origin.target,
                origin.encoding,
            )


_decode_rejected = msgspec.json.Decoder(RejectedRow).decode_lines


class Packed(NamedTuple):
    """Rows as the outbox keeps them, and how many bytes they take in memory."""

    data: bytes
    n_bytes: int


def packed_lines(rows: Sequence[Event | RejectedRow]) -> Packed:
    """Rows as JSON lines."""
    lines = _encode_lines(rows)
    if len(lines) < _SHORT:
        return Packed(lines, len(lines))
    return _compressed(_LINES, lines)


def packed_columns(parts: Sequence[Together]) -> Packed:
    """The events of some requests as columns."""
    stream = pa.BufferOutputStream()
    with pa.ipc.new_stream(stream, RAW_EVENT_SCHEMA) as writer:
        for part in parts:
            writer.write_batch(part.batch)
    return _compressed(_COLUMNS, stream.getvalue())


def are_columns(piece: bytes) -> bool:
    """Whether this row of the outbox holds columns."""
    return piece[:1] == _COLUMNS


def lines_of(piece: bytes) -> bytes:
    """The JSON lines that a row of the outbox holds."""
    if piece[:1] != _LINES:
        return piece
    return bytes(_opened(piece, asbytes=True))


def events_table(pieces: Iterable[bytes], schema: pa.Schema = RAW_EVENT_SCHEMA) -> pa.Table:
    """Rows of the stream of events, in their order, with the columns of `schema`."""
    tables = [schema.empty_table()]
    for is_columns, group in groupby(pieces, key=are_columns):
        if is_columns:
            tables += (_columns_of(piece, schema) for piece in group)
        else:
            tables.append(table_from_lines(b"".join(map(lines_of, group)), schema))
    return pa.concat_tables(tables, promote_options="default").combine_chunks()


def table_of(stream: str, pieces: Iterable[bytes]) -> pa.Table:
    """Rows of the outbox as the table that raw keeps."""
    if stream == EVENTS:
        return events_table(pieces)
    rejected = (row for piece in pieces for row in _decode_rejected(lines_of(piece)))
    rows = [msgspec.structs.asdict(row) for row in rejected]
    return pa.Table.from_pylist(rows, schema=REJECTED_SCHEMA)


def _columns_of(piece: bytes, schema: pa.Schema) -> pa.Table:
    table = pa.ipc.open_stream(_opened(piece, asbytes=False)).read_all()
    known = set(table.column_names)
    return table.select([name for name in schema.names if name in known])


def _compressed(kind: bytes, data: bytes | pa.Buffer) -> Packed:
    size = len(data).to_bytes(_SIZE_BYTES, "little")
    return Packed(b"".join((kind, size, _lz4.compress(data, asbytes=True))), len(data))


def _opened(piece: bytes, *, asbytes: bool) -> bytes | pa.Buffer:
    size = int.from_bytes(piece[1 : 1 + _SIZE_BYTES], "little")
    return _lz4.decompress(memoryview(piece)[1 + _SIZE_BYTES :], size, asbytes=asbytes)

"""Ranges of the outbox on their way to the object store.

A range is written down before it is shipped and deleted after; whoever is killed in between finds
it again and repeats exactly that range.
"""

import sqlite3
from dataclasses import dataclass
from datetime import datetime

import pyarrow as pa

from ingest.moments import from_microseconds
from ingest.outbox_file import EVENTS, OutboxFile
from ingest.rows import table_of

# Of rows in one range, unpacked, so that shipping takes a bounded part of the app's memory.
MAX_BYTES = 64_000_000

_HOUR = 3_600_000_000


@dataclass(frozen=True)
class Shipment:
    """A range of one stream, all of it received within one UTC hour."""

    stream: str
    first_seq: int
    last_seq: int
    received_at: datetime

    @property
    def n_rows(self) -> int:
        return self.last_seq - self.first_seq + 1


def begin(file: OutboxFile, stream: str, max_rows: int) -> Shipment | None:
    """The range to ship now: the one begun, or a new one, which is then durable."""
    with file.transaction() as connection:
        found = connection.execute(
            "select first_seq, last_seq, received_at from shipment where stream = ?", (stream,)
        ).fetchone()
        if found is None:
            found = _next_range(connection, stream, max_rows)
            if found is None:
                return None
            connection.execute(
                "insert into shipment (stream, first_seq, last_seq, received_at) "
                "values (?, ?, ?, ?)",
                (stream, *found),
            )
    first_seq, last_seq, received_at = found
    return Shipment(stream, first_seq, last_seq, from_microseconds(received_at))


def rows_of(file: OutboxFile, shipment: Shipment) -> pa.Table:
    """The rows of a range as the table that raw keeps."""
    found = file.rows(
        "select lines from batch where stream = ? and first_seq between ? and ? order by first_seq",
        shipment.stream,
        shipment.first_seq,
        shipment.last_seq,
    )
    return table_of(shipment.stream, (piece for (piece,) in found))


def finish(file: OutboxFile, shipment: Shipment) -> None:
    """Delete a range that is in the store."""
    key = (shipment.stream, shipment.first_seq, shipment.last_seq)
    with file.transaction() as connection:
        ended = connection.execute(
            "delete from shipment where stream = ? and first_seq = ? and last_seq = ?", key
        )
        if not ended.rowcount:  # finished before
            return
        connection.execute("delete from batch where stream = ? and first_seq between ? and ?", key)
        connection.execute(
            "update stream set n_out = n_out + ? where name = ?", (shipment.n_rows, shipment.stream)
        )


def _next_range(
    connection: sqlite3.Connection, stream: str, max_rows: int
) -> tuple[int, int, int] | None:
    """First and last number, and time, of the rows to ship next, all of one hour.

    Events that the sessions have not taken in yet stay.
    """
    batches = connection.execute(
        "select first_seq, last_seq, received_at, max(n_bytes, length(lines)) from batch "
        "where stream = ? "
        "and (stream <> ? or last_seq <= (select n_folded from stream where name = ?)) "
        "order by first_seq",
        (stream, EVENTS, EVENTS),
    )
    first = batches.fetchone()
    if first is None:
        return None
    first_seq, range_end, received_at, n_bytes = first
    for _, last_seq, batch_received_at, batch_bytes in batches:
        n_bytes += batch_bytes
        is_another_hour = batch_received_at // _HOUR != received_at // _HOUR
        if is_another_hour or last_seq - first_seq >= max_rows or n_bytes > MAX_BYTES:
            break
        range_end = last_seq
    return first_seq, range_end, received_at

"""A group of requests into the outbox, in one transaction.

What is written is made before the transaction begins, so that other processes wait for their turn
only as long as the disk takes; it is made again in the rare case that not all of it may be kept.
"""

import sqlite3
from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import groupby
from operator import attrgetter
from typing import NamedTuple

from ingest.columns import Together
from ingest.contract import Event
from ingest.erasing import ErasedIds
from ingest.events import Decoded
from ingest.moments import microseconds
from ingest.outbox_file import EVENTS, REJECTED, OutboxFile
from ingest.rows import Packed, RejectedRow, packed_columns, packed_lines
from warehouse.erasure import Tombstones
from warehouse.person import named_in
from warehouse.settings import IngestSettings

_RECEIVED_AT = attrgetter("received_at")
_INSERT = (
    "insert into batch (stream, first_seq, last_seq, received_at, lines, n_bytes) "
    "values (?, ?, ?, ?, ?, ?)"
)
_COUNT_REASON = "insert into rejection values (?, 1) on conflict (reason) do update set n = n + 1"


class OutboxFull(RuntimeError):
    """As many events wait for the store as may wait; nothing of this request was kept."""

    def __init__(self, depth: int, limit: int) -> None:
        super().__init__(
            f"at most {limit} events may wait for the object store, is it up? "
            f"See SHALLOP_INGEST__OUTBOX_LIMIT_EVENTS; waiting: `{depth}`"
        )
        self.depth = depth
        self.limit = limit


class _Part(NamedTuple):
    """Rows of one stream and one hour, to be one row of the table."""

    stream: str
    n_rows: int
    received_at: int
    packed: Packed


class _Work(NamedTuple):
    """What a group of requests adds: parts by stream, in order, and why events were rejected."""

    parts: list[_Part]
    reasons: list[str]

    def n_rows(self, stream: str) -> int:
        return sum(part.n_rows for part in self.parts if part.stream == stream)


class Appender:
    """Appends to one outbox file; `n_bytes` written and `n_unfolded` are of the last time."""

    def __init__(self, file: OutboxFile, settings: IngestSettings, erased: ErasedIds) -> None:
        self.n_unfolded = 0
        self.n_bytes = 0
        self._file = file
        self._settings = settings
        self._erased = erased

    def append(self, group: list[Decoded]) -> list[Exception | None]:
        """Make a group durable; for each request None, or OutboxFull. Raises OutboxBroken."""
        work = self._work(group)
        with self._file.transaction() as connection:
            depth, n_unfolded, version = connection.execute(
                "select sum(n_in - n_out), sum(iif(name = ?, n_in - n_folded, 0)), "
                "(select version from erasure) from stream",
                (EVENTS,),
            ).fetchall()[0]
            changed = bool(version) and self._take_out_erased(connection, version, group)
            outcomes = self._outcomes(depth, group)
            if changed or any(outcomes):
                kept = zip(group, outcomes, strict=True)
                work = self._work([decoded for decoded, refused in kept if refused is None])
            self._write(connection, work)
        self.n_unfolded = n_unfolded + work.n_rows(EVENTS)
        self.n_bytes = sum(len(part.packed.data) for part in work.parts)
        return outcomes

    def _work(self, group: list[Decoded]) -> _Work:
        group = sorted(group, key=_RECEIVED_AT)
        parts: list[_Part] = []
        for requests in _by_hour(group):
            parts += _parts_of_hour(requests, self._settings.flush_max_rows)
        reasons = [why.reason for decoded in group for why, _ in decoded.rejected]
        return _Work(parts, reasons)

    def _outcomes(self, depth: int, group: list[Decoded]) -> list[Exception | None]:
        """None for what there is room for."""
        limit = self._settings.outbox_limit_events
        sizes = [len(decoded.events) + len(decoded.rejected) for decoded in group]
        if depth + sum(sizes) <= limit:
            return [None] * len(group)
        outcomes: list[Exception | None] = []
        for n_rows in sizes:
            if depth + n_rows > limit:
                outcomes.append(OutboxFull(depth, limit))
            else:
                depth += n_rows
                outcomes.append(None)
        return outcomes

    def _take_out_erased(
        self, connection: sqlite3.Connection, version: int, group: list[Decoded]
    ) -> bool:
        """Let go of what was erased and is sent again: in the transaction, so none slips by.

        Whether there was any.
        """
        tombstones = self._erased.of_version(connection, version)
        n_erased = [_take_out(decoded, tombstones) for decoded in group]
        return sum(n_erased) > 0

    def _write(self, connection: sqlite3.Connection, work: _Work) -> None:
        """Number the rows and insert them."""
        for stream in (EVENTS, REJECTED):
            n_rows = work.n_rows(stream)
            if not n_rows:
                continue
            n_in = connection.execute(
                "update stream set n_in = n_in + ? where name = ? returning n_in", (n_rows, stream)
            ).fetchall()[0][0]
            first_seq = n_in - n_rows + 1
            for _, n_rows, received_at, packed in (p for p in work.parts if p.stream == stream):
                last_seq = first_seq + n_rows - 1
                connection.execute(_INSERT, (stream, first_seq, last_seq, received_at, *packed))
                first_seq = last_seq + 1
        if work.reasons:
            connection.executemany(_COUNT_REASON, [(reason,) for reason in work.reasons])


def _by_hour(group: list[Decoded]) -> list[list[Decoded]]:
    """Requests in order of their receipt, those of each hour together."""
    if not group or _hour(group[0]) == _hour(group[-1]):
        return [group]
    return [list(hour) for _, hour in groupby(group, key=_hour)]


def _hour(decoded: Decoded) -> datetime:
    return decoded.received_at.replace(minute=0, second=0, microsecond=0)


def _parts_of_hour(requests: Sequence[Decoded], max_rows: int) -> Iterator[_Part]:
    """The rows of requests of one hour: batches as columns, all other events as lines."""
    single: list[Event] = []
    together: list[Together] = []
    rejected: list[RejectedRow] = []
    for decoded in requests:
        events = decoded.events
        # Not `isinstance`, which asks an abstract class in Python.
        if type(events) is Together and len(events) <= max_rows:
            together.append(events)
        else:
            single += events
        if decoded.rejected:
            rejected += RejectedRow.of(decoded)
    for some in _at_most(together, max_rows):
        received_at = microseconds(some[0].received_at)
        yield _Part(EVENTS, sum(map(len, some)), received_at, packed_columns(some))
    yield from _lines(EVENTS, single, max_rows)
    yield from _lines(REJECTED, rejected, max_rows)


def _at_most(together: list[Together], max_rows: int) -> Iterator[list[Together]]:
    """Requests in order, of at most `max_rows` events each time."""
    some: list[Together] = []
    n_rows = 0
    for events in together:
        if some and n_rows + len(events) > max_rows:
            yield some
            some, n_rows = [], 0
        some.append(events)
        n_rows += len(events)
    if some:
        yield some


def _lines(stream: str, rows: Sequence[Event | RejectedRow], max_rows: int) -> Iterator[_Part]:
    for start in range(0, len(rows), max_rows):
        some = rows[start : start + max_rows]
        yield _Part(stream, len(some), microseconds(some[0].received_at), packed_lines(some))


def _take_out(decoded: Decoded, tombstones: Tombstones) -> int:
    """Take what was erased out of a request; how much that was."""
    hidden = [tombstones.hides(*person) for person in decoded.persons()]
    events = decoded.events
    if any(hidden):
        events = [event for event, is_hidden in zip(events, hidden, strict=True) if not is_hidden]
    rejected = [
        (rejection, body)
        for rejection, body in decoded.rejected
        if not any(
            tombstones.hides_any(named_in(text))
            for text in (body, decoded.origin.target, decoded.origin.page_url)
            if text
        )
    ]
    n_erased = len(decoded.events) - len(events) + len(decoded.rejected) - len(rejected)
    decoded.n_erased += n_erased
    decoded.events, decoded.rejected = events, rejected
    return n_erased

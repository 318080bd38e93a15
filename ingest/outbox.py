"""The outbox: where accepted events are durable before the collector acknowledges them.

One file per box (`ingest.outbox_file`), opened by every worker process. In each process one thread
writes: requests that arrive together share one transaction. Live sessions are read from the outbox
itself, and folded into a table after the acknowledgement (`ingest.sessions`). A transaction is few
statements, however many events: Python's lock changes hands at each.
"""

import asyncio
import logging
import queue
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from pathlib import Path
from typing import Any

import msgspec

from ingest import sessions
from ingest.contract import Event
from ingest.events import Decoded
from ingest.outbox_file import EVENTS, REJECTED, OutboxBroken, OutboxFile
from ingest.session_tail import SessionTail
from ingest.sessions import from_microseconds, microseconds
from warehouse.settings import IngestSettings

logger = logging.getLogger(__name__)

_MAX_GROUP_EVENTS = 5_000

_encoder = msgspec.json.Encoder()


class OutboxFull(RuntimeError):
    """As many events wait for the store as may wait; nothing of this request was kept."""

    def __init__(self, depth: int, limit: int) -> None:
        super().__init__(
            f"at most {limit} events may wait for the object store, is it up? "
            f"See SHALLOP_INGEST__OUTBOX_LIMIT_EVENTS; waiting: `{depth}`"
        )
        self.depth = depth
        self.limit = limit


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


@dataclass(frozen=True)
class _Request:
    """One waiting append; without a loop its future is a concurrent one."""

    decoded: Decoded
    future: "asyncio.Future[None] | Future[None]"
    loop: asyncio.AbstractEventLoop | None


class Outbox:
    """The collector's durable queue and session state. Methods are safe from any thread."""

    def __init__(self, path: Path, settings: IngestSettings) -> None:
        """Open the file at `path`, making it where missing. Raises OutboxBroken."""
        self.path = path
        self.settings = settings
        self.file = OutboxFile(path)
        self.collector_id = self.file.collector_id
        self._tail = SessionTail(self.file, settings)
        self._queue: queue.SimpleQueue[_Request | None] = queue.SimpleQueue()
        self._closing = threading.Lock()
        self._is_closed = False
        self._n_unfolded = 0
        self._writer = threading.Thread(target=self._write, name="outbox-writer", daemon=True)
        self._writer.start()

    async def append(self, decoded: Decoded) -> None:
        """Return once the events are on disk. Raises OutboxFull, OutboxBroken."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        self._submit(_Request(decoded, future, loop))
        await future

    def append_now(self, decoded: Decoded) -> None:
        """`append` for callers without an event loop."""
        future: Future[None] = Future()
        self._submit(_Request(decoded, future, None))
        future.result()

    def session_steps(self, key: str) -> list[str]:
        """Item ids of a live session, oldest first, repeats collapsed; empty when unknown.

        `key` is a `session_id`; else a `visitor_id`, whose latest session ends after
        `session_gap_seconds` without an event.
        """
        return self._tail.items(key)

    def depth(self) -> int:
        """Events that wait to be shipped."""
        return int(self.file.row("select n_in - n_out from stream where name = ?", EVENTS)[0])

    def oldest_received_at(self) -> datetime | None:
        """When the event that waits longest was received."""
        found = self.file.row(
            "select received_at from batch where stream = ? order by first_seq limit 1", EVENTS
        )
        return from_microseconds(found[0]) if found else None

    def counts(self) -> dict[str, Any]:
        """Events accepted and shipped, and rejected by reason, since the file was made."""
        accepted, shipped = self.file.row("select n_in, n_out from stream where name = ?", EVENTS)
        rejected = self.file.rows("select reason, n from rejection order by reason")
        return {"accepted": accepted, "rejected": dict(rejected), "shipped": shipped}

    def close(self) -> None:
        """Write what was submitted, then let go of the file; later appends raise OutboxBroken."""
        with self._closing:
            if self._is_closed:
                return
            self._is_closed = True
            self._queue.put(None)
        self._writer.join()
        self.file.close()

    def _submit(self, request: _Request) -> None:
        with self._closing:
            if self._is_closed:
                raise OutboxBroken(f"the outbox is closed: `{self.path}`")
            self._queue.put(request)

    def _write(self) -> None:
        """Commit what waits, in groups, until told to end."""
        is_last = False
        while not is_last:
            group, is_last = self._next_group()
            if group:
                _resolve(group, self._commit([request.decoded for request in group]))
                self._fold()

    def _next_group(self) -> tuple[list[_Request], bool]:
        """The requests that wait now, at least one; and whether no more will come."""
        group: list[_Request] = []
        n_events = 0
        request = self._queue.get()
        while request is not None:
            group.append(request)
            n_events += len(request.decoded.events)
            if n_events >= _MAX_GROUP_EVENTS:
                return group, False
            try:
                request = self._queue.get_nowait()
            except queue.Empty:
                return group, False
        return group, True

    def _commit(self, group: list[Decoded]) -> list[Exception | None]:
        """Make a group durable; for each request None, or why it is not."""
        try:
            with self.file.transaction() as connection:
                return self._append(connection, group)
        except OutboxBroken as error:
            logger.error("outbox=broken n_requests=%d error=%s", len(group), error)
            return [error] * len(group)
        except Exception as error:  # the writer must outlive any group, or all would wait for ever
            logger.exception("outbox=failed n_requests=%d", len(group))
            failed = OutboxBroken(f"writing the outbox failed: `{error!r}`")
            return [failed] * len(group)

    def _fold(self) -> None:
        """Keep what is left to fold, and so what a reader has to read, within bounds."""
        try:
            while self._n_unfolded >= sessions.FOLD_EVENTS:
                sessions.fold(self.file, self.settings)
                self._n_unfolded = sessions.n_unfolded(self.file)
        except Exception:  # the events are durable: the next group tries again
            logger.exception("sessions=not_folded n_events=%d", self._n_unfolded)

    def _append(
        self, connection: sqlite3.Connection, group: list[Decoded]
    ) -> list[Exception | None]:
        depth, self._n_unfolded = connection.execute(
            "select sum(n_in - n_out), sum(iif(name = ?, n_in - n_folded, 0)) from stream",
            (EVENTS,),
        ).fetchall()[0]
        limit = self.settings.outbox_limit_events
        outcomes: list[Exception | None] = []
        kept: list[Decoded] = []
        for decoded in group:
            n_rows = len(decoded.events) + len(decoded.rejected)
            if depth + n_rows > limit:
                outcomes.append(OutboxFull(depth, limit))
            else:
                depth += n_rows
                outcomes.append(None)
                kept.append(decoded)
        kept.sort(key=lambda decoded: decoded.received_at)
        events = [event for decoded in kept for event in decoded.events]
        rejected = [row for decoded in kept for row in _rejected_rows(decoded)]
        if events:
            self._append_rows(connection, EVENTS, events)
        if rejected:
            self._append_rows(connection, REJECTED, rejected)
            connection.executemany(
                "insert into rejection values (?, 1) on conflict (reason) do update set n = n + 1",
                [(row.reason,) for row in rejected],
            )
        return outcomes

    def _append_rows(
        self, connection: sqlite3.Connection, stream: str, rows: Sequence[Event | RejectedRow]
    ) -> None:
        """Number rows, sorted by `received_at`, and append them to a stream."""
        last_seq = connection.execute(
            "update stream set n_in = n_in + ? where name = ? returning n_in", (len(rows), stream)
        ).fetchall()[0][0]
        first_seq = last_seq - len(rows) + 1
        for part in _parts(rows, self.settings.flush_max_rows):
            connection.execute(
                "insert into batch (stream, first_seq, last_seq, received_at, lines) "
                "values (?, ?, ?, ?, ?)",
                (
                    stream,
                    first_seq,
                    first_seq + len(part) - 1,
                    microseconds(part[0].received_at),
                    _encoder.encode_lines(part),
                ),
            )
            first_seq += len(part)


def _rejected_rows(decoded: Decoded) -> Iterator[RejectedRow]:
    origin = decoded.origin
    for rejection, body in decoded.rejected:
        yield RejectedRow(
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


def _hour(row: Event | RejectedRow) -> datetime:
    return row.received_at.replace(minute=0, second=0, microsecond=0)


def _parts(
    rows: Sequence[Event | RejectedRow], max_rows: int
) -> Iterator[Sequence[Event | RejectedRow]]:
    """Sorted rows cut at hours, and at `max_rows`."""
    hours = [rows]
    if _hour(rows[0]) != _hour(rows[-1]):
        hours = [list(part) for _, part in groupby(rows, key=_hour)]
    for hour in hours:
        for start in range(0, len(hour), max_rows):
            yield hour[start : start + max_rows]


def _resolve(group: list[_Request], outcomes: list[Exception | None]) -> None:
    """Tell the waiting, with one wake-up for each event loop."""
    by_loop: dict[asyncio.AbstractEventLoop, list[tuple[Any, Exception | None]]] = {}
    for request, outcome in zip(group, outcomes, strict=True):
        if request.loop is None:
            _settle([(request.future, outcome)])
        else:
            by_loop.setdefault(request.loop, []).append((request.future, outcome))
    for loop, settled in by_loop.items():
        try:
            loop.call_soon_threadsafe(_settle, settled)
        except RuntimeError:  # the loop was closed: nobody waits any more
            continue


def _settle(settled: list[tuple[Any, Exception | None]]) -> None:
    for future, error in settled:
        if future.done():  # the request was given up meanwhile
            continue
        if error is None:
            future.set_result(None)
        else:
            future.set_exception(error)

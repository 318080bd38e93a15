"""The outbox: where accepted events are durable before the collector acknowledges them.

One file per box (`ingest.outbox_file`), opened by every worker process. In each process one thread
writes: requests that arrive together share one transaction. Live sessions are read from the outbox
itself, and folded into a table after the acknowledgement (`ingest.sessions`). A transaction is few
statements, however many events: Python's lock changes hands at each.
"""

import asyncio
import logging
import queue
import threading
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from ingest import sessions
from ingest.appending import Appender
from ingest.erasing import ErasedIds
from ingest.events import Decoded
from ingest.outbox_file import EVENTS, OutboxBroken, OutboxFile
from ingest.session_tail import SessionTail
from ingest.sessions import from_microseconds
from warehouse.settings import IngestSettings

logger = logging.getLogger(__name__)

_MAX_GROUP_EVENTS = 5_000


@dataclass(frozen=True)
class _Request:
    """One waiting append; without a loop its future is a concurrent one."""

    decoded: Decoded
    future: "asyncio.Future[None] | Future[None]"
    loop: asyncio.AbstractEventLoop | None


class Outbox:
    """The collector's durable queue and session state. Methods are safe from any thread."""

    def __init__(
        self, path: Path, settings: IngestSettings, erase_key: bytes | None = None
    ) -> None:
        """Open the file at `path`, making it where missing. Raises OutboxBroken.

        `erase_key` reads the tombstones of erased ids; None: that of the file beside the outbox.
        """
        self.path = path
        self.settings = settings
        self.file = OutboxFile(path)
        self.erased = ErasedIds(self.file, erase_key)
        self.collector_id = self.file.collector_id
        self._tail = SessionTail(self.file, settings)
        self._queue: queue.SimpleQueue[_Request | None] = queue.SimpleQueue()
        self._closing = threading.Lock()
        self._is_closed = False
        self._appender = Appender(self.file, settings, self.erased)
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

    def session_steps(self, key: str, *, by_visitor: bool = True) -> list[str]:
        """Item ids of a live session, oldest first, repeats collapsed; empty when unknown.

        `key` is a `session_id`; else, unless not `by_visitor`, a `visitor_id`, whose latest session
        ends after `session_gap_seconds` without an event.
        """
        return self._tail.items(key, by_visitor=by_visitor)

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
            return self._appender.append(group)
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
            while self._appender.n_unfolded >= sessions.FOLD_EVENTS:
                sessions.fold(self.file, self.settings)
                self._appender.n_unfolded = sessions.n_unfolded(self.file)
        except Exception:  # the events are durable: the next group tries again
            logger.exception("sessions=not_folded n_events=%d", self._appender.n_unfolded)


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

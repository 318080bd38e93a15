"""The flusher: ships the outbox to raw, each row into exactly one object.

A range is written down (`ingest.shipments`), becomes one Parquet object under a name that follows
from it, is read back, and only then leaves the outbox. After a kill, wherever it struck, the next
flusher repeats exactly that range: the write is conditional, and an object that is there already
must hold the same rows. Of all processes with the outbox open one flushes at a time: the one that
has the lock on a file beside it.
"""

import fcntl
import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic

import pyarrow as pa

from ingest import sessions, shipments
from ingest.outbox import Outbox
from ingest.outbox_file import EVENTS, REJECTED, OutboxBroken
from ingest.shipments import Shipment
from warehouse.layout import RAW_EVENTS, RAW_REJECTED, raw_key
from warehouse.parquet import read_parquet
from warehouse.raw_erasure import hidden_events, hidden_rejected
from warehouse.raw_rows import RawRows, WrongRowCount
from warehouse.settings import IngestSettings
from warehouse.store import ObjectStore, StoreUnavailable

logger = logging.getLogger(__name__)

_PREFIXES = {EVENTS: RAW_EVENTS, REJECTED: RAW_REJECTED}
_MAX_WAIT_SECONDS = 30.0
_DRAIN_LOCK_SECONDS = 10.0


class RawConflict(RuntimeError):
    """The store has other rows under a name that only this range may have; nothing was deleted."""


class FlusherBusy(RuntimeError):
    """Another process holds the flusher's lock for too long."""


class Flusher:
    """A thread that ships the outbox every `flush_interval_seconds`, and until it is empty."""

    def __init__(self, outbox: Outbox, store: ObjectStore, settings: IngestSettings) -> None:
        self.outbox = outbox
        self.store = store
        self.settings = settings
        self.last_error: str | None = None
        self.last_flushed_at: datetime | None = None
        self._purged_to = 0
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin flushing in the background."""
        self._stopping.clear()
        self._thread = threading.Thread(target=self._run, name="flusher", daemon=True)
        self._thread.start()

    def stop(self, drain: bool = True) -> None:
        """End the thread; with `drain` ship first what waits, within `drain_seconds`.

        What a store that is down or slow leaves behind stays durable in the outbox, and is shipped
        by the next flusher.
        """
        deadline = monotonic() + self.settings.drain_seconds
        self._stopping.set()
        last = threading.Thread(
            target=self._drain, args=(deadline, drain), name="flusher-drain", daemon=True
        )
        last.start()
        last.join(self.settings.drain_seconds)
        self._thread = None
        n_waiting = self._depth()
        if drain and (n_waiting or last.is_alive()):
            logger.warning(
                "flush=left depth=%d path=%s error=%r", n_waiting, self.outbox.path, self.last_error
            )

    def _drain(self, deadline: float, drain: bool) -> None:
        if self._thread:
            self._thread.join()
        if not drain:
            return
        lock_seconds = min(_DRAIN_LOCK_SECONDS, deadline - monotonic())
        with self._attempt(), _flush_lock(self.outbox.path, lock_seconds) as is_ours:
            while is_ours and monotonic() < deadline and self._ship_once():
                pass

    def flush_once(self) -> int:
        """Ship at most one range of each stream; the number of rows shipped.

        0 also where another process is flushing. Raises StoreUnavailable, OutboxBroken,
        RawConflict.
        """
        with _flush_lock(self.outbox.path) as is_ours:
            return self._ship_once() if is_ours else 0

    def drain(self, wait_seconds: float = 60.0) -> int:
        """Ship all that waits now, also where others flush; the number of rows shipped.

        Raises FlusherBusy, StoreUnavailable, OutboxBroken, RawConflict.
        """
        n_rows = 0
        with _flush_lock(self.outbox.path, wait_seconds) as is_ours:
            if not is_ours:
                raise FlusherBusy(
                    "another process ships the outbox and does not end, look at its log: "
                    f"`{self.outbox.path}`"
                )
            reached = dict(self.outbox.file.rows("select name, n_in from stream"))
            while any(
                n_out < reached[name]
                for name, n_out in self.outbox.file.rows("select name, n_out from stream")
            ):
                n_rows += self._ship_once()
        return n_rows

    def _run(self) -> None:
        wait_seconds = self.settings.flush_interval_seconds
        while not self._stopping.wait(wait_seconds):
            wait_seconds = self.settings.flush_interval_seconds
            with self._attempt():
                while self.flush_once() and self.outbox.depth() >= self.settings.flush_max_rows:
                    if self._stopping.is_set():
                        return
                self._purged_to = sessions.purge(self.outbox.file, self._purged_to, self.settings)
                self._tidy()
            if self.last_error:
                wait_seconds = min(2 * wait_seconds, _MAX_WAIT_SECONDS)

    def _tidy(self) -> None:
        """Give the disk back what the outbox does not need any more, beside those who write."""
        while self.outbox.file.shrink() and not self._stopping.is_set():
            pass
        self.outbox.file.checkpoint()

    @contextmanager
    def _attempt(self) -> Iterator[None]:
        """Keep what goes wrong in `last_error`, and log it when it changes."""
        try:
            yield
        except (StoreUnavailable, OutboxBroken, RawConflict) as error:
            if self.last_error != str(error):
                logger.error("flush=failed depth=%d error=%s", self._depth(), error)
            self.last_error = str(error)
        except Exception as error:  # the thread must go on: nothing else ships
            if self.last_error != repr(error):
                logger.exception("flush=failed depth=%d", self._depth())
            self.last_error = repr(error)
        else:
            if self.last_error:
                logger.warning("flush=recovered depth=%d", self._depth())
            self.last_error = None

    def _depth(self) -> int:
        try:
            return self.outbox.depth()
        except OutboxBroken:
            return -1

    def _ship_once(self) -> int:
        self.outbox.fold_waiting()  # what leaves must be folded
        n_rows = 0
        for stream in (EVENTS, REJECTED):
            shipment = shipments.begin(self.outbox.file, stream, self.settings.flush_max_rows)
            if shipment:
                self._ship(shipment)
                n_rows += shipment.n_rows
        if n_rows:
            self.last_flushed_at = datetime.now(UTC)
        return n_rows

    def _without_erased(self, shipment: Shipment, table: pa.Table) -> RawRows:
        """The rows to ship: of what waited when it was erased, nothing."""
        rows = RawRows.of(table, shipment.first_seq, shipment.last_seq)
        tombstones = self.outbox.erased.now()
        hidden = hidden_events if shipment.stream == EVENTS else hidden_rejected
        return rows.without(hidden(table, tombstones)) if len(tombstones) else rows

    def _ship(self, shipment: Shipment) -> None:
        table = shipments.rows_of(self.outbox.file, shipment)
        if table.num_rows != shipment.n_rows:
            raise RawConflict(
                f"outbox range {shipment.first_seq}..{shipment.last_seq} of {shipment.stream} "
                f"should hold {shipment.n_rows} rows, it holds: `{table.num_rows}`"
            )
        rows = self._without_erased(shipment, table)
        key = raw_key(
            _PREFIXES[shipment.stream],
            shipment.received_at,
            self.outbox.collector_id,
            shipment.first_seq,
            shipment.last_seq,
        )
        data = rows.parquet()
        self.store.put_if_absent(key, data)
        # What is there now, written by us or before us, is what counts.
        stored = self.store.get(key)
        if stored != data and not _read(key, shipment, stored).is_same(rows):
            raise RawConflict(
                f"the store has other rows than the outbox under one name, compare them and remove "
                f"the wrong object: `{key}`"
            )
        shipments.finish(self.outbox.file, shipment)
        logger.info(
            "flush=done stream=%s rows=%d bytes=%d key=%s",
            shipment.stream,
            shipment.n_rows,
            len(stored),
            key,
        )


def _read(key: str, shipment: Shipment, data: bytes) -> RawRows:
    try:
        return RawRows.of(read_parquet(data), shipment.first_seq, shipment.last_seq)
    except (WrongRowCount, pa.ArrowInvalid) as error:
        raise RawConflict(f"an object in raw is not what its name says: {error}: `{key}`") from None


@contextmanager
def _flush_lock(outbox_path: Path, wait_seconds: float = 0.0) -> Iterator[bool]:
    """Whether the one flusher's lock is ours; the system frees it with the process."""
    descriptor = os.open(outbox_path.with_suffix(".flush.lock"), os.O_RDWR | os.O_CREAT, 0o644)
    waited = threading.Event()
    try:
        while not (is_ours := _try_lock(descriptor)) and wait_seconds > 0:
            waited.wait(0.05)
            wait_seconds -= 0.05
        yield is_ours
    finally:
        os.close(descriptor)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True

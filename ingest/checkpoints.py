"""Checkpoints of the outbox's WAL while it is small, beside those who write.

SQLite makes one within the commit that finds the WAL too large: at 200,000 events a second that is
32 MB every .7 s, and 50 ms in which nobody is acknowledged. A thread that is told of what was
written makes them sooner, and no commit waits for it.
"""

import logging
import threading

from ingest.outbox_file import OutboxBroken, OutboxFile

logger = logging.getLogger(__name__)

_BYTES = 4_000_000  # of packed rows; the WAL then has about three times as much


class Checkpoints:
    """One process's thread; it sleeps while little is written."""

    def __init__(self, file: OutboxFile) -> None:
        self._file = file
        self._n_bytes = 0
        self._due = threading.Event()
        self._is_closed = False
        self._thread = threading.Thread(target=self._run, name="outbox-checkpoints", daemon=True)
        self._thread.start()

    def wrote(self, n_bytes: int) -> None:
        """Told of what was committed. For the writer's thread alone."""
        self._n_bytes += n_bytes
        if self._n_bytes >= _BYTES:
            self._n_bytes = 0
            self._due.set()

    def close(self) -> None:
        """End the thread; the last connection to the file moves what is left."""
        self._is_closed = True
        self._due.set()
        self._thread.join()

    def _run(self) -> None:
        while self._due.wait() and not self._is_closed:
            self._due.clear()
            try:
                self._file.checkpoint()
            except OutboxBroken as error:  # a commit makes it in the end
                logger.warning("outbox=not_checkpointed error=%s", error)

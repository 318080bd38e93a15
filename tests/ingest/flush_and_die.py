"""Flushes the outbox, and kills itself (SIGKILL) at one chosen call of the store.

Argument: `before_put`, `after_put`, `before_get`, `after_get`, or `never`, which flushes all.
"""

import os
import signal
import sys

from ingest.flusher import Flusher
from ingest.outbox import Outbox
from warehouse.settings import Settings
from warehouse.store import ObjectStore, open_store


class DeadlyStore:
    """A store that lets nobody live past one point."""

    def __init__(self, store: ObjectStore, point: str) -> None:
        self._store = store
        self._point = point

    def put_if_absent(self, key: str, data: bytes) -> bool:
        self._pass("before_put")
        is_new = self._store.put_if_absent(key, data)
        self._pass("after_put")
        return is_new

    def get(self, key: str) -> bytes:
        self._pass("before_get")
        data = self._store.get(key)
        self._pass("after_get")
        return data

    def _pass(self, point: str) -> None:
        if point == self._point:
            os.kill(os.getpid(), signal.SIGKILL)


settings = Settings(_env_file=None)
outbox = Outbox(settings.outbox_path, settings.ingest)
store = DeadlyStore(open_store(settings), sys.argv[1])
flusher = Flusher(outbox, store, settings.ingest)  # type: ignore[arg-type]
while flusher.flush_once():
    continue
outbox.close()

"""Group commit: requests that arrive together become durable by one transaction.

One thread commits. An event loop hands over what came within one of its turns by one message, and
is woken by one when that is durable: a thread that is woken for each request takes Python's lock as
often, which cost half as much again as the commits themselves.
"""

import asyncio
import logging
import queue
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from functools import partial
from typing import NamedTuple

from ingest.events import Decoded

logger = logging.getLogger(__name__)

_MAX_GROUP_EVENTS = 5_000

Outcome = Exception | None
# Told once what became of a request.
Done = Callable[[Outcome], None]


class _Waiting(NamedTuple):
    """A request and who waits for it, in the thread of `loop`; without one, in any."""

    decoded: Decoded
    done: Done
    loop: asyncio.AbstractEventLoop | None


class GroupCommit:
    """Commits requests in groups. Methods are safe from any thread."""

    def __init__(
        self,
        commit: Callable[[list[Decoded]], list[Outcome]],
        afterwards: Callable[[], None],
        when_closed: Callable[[], Exception],
    ) -> None:
        """`commit` gives None for each request of a group that is durable, else what its caller is
        told; `afterwards` is called when these know. Neither may raise. `when_closed` makes what
        is raised for requests that come after `close`.
        """
        self._commit = commit
        self._afterwards = afterwards
        self._when_closed = when_closed
        self._arrived: dict[asyncio.AbstractEventLoop, list[_Waiting]] = {}
        self._queue: queue.SimpleQueue[list[_Waiting] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._is_closed = False
        self._thread = threading.Thread(target=self._run, name="outbox-writer", daemon=True)
        self._thread.start()

    async def add(self, decoded: Decoded) -> None:
        """Return once the request is durable, else raise its outcome."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.begin(decoded, partial(_resolve, future))
        await future

    def begin(self, decoded: Decoded, done: Done) -> None:
        """`add` for callers within an event loop that do not wait: it calls `done` in its turn."""
        loop = asyncio.get_running_loop()
        with self._lock:
            self._check_open()
            arrived = self._arrived.get(loop)
            if arrived is None:
                arrived = self._arrived[loop] = []
                # Called after all that is ready to run now.
                loop.call_soon(self._hand_over, loop)
            arrived.append(_Waiting(decoded, done, loop))

    def add_now(self, decoded: Decoded) -> None:
        """`add` for callers without an event loop."""
        future: Future[None] = Future()
        with self._lock:
            self._check_open()
            self._queue.put([_Waiting(decoded, partial(_resolve, future), None)])
        future.result()

    def close(self) -> bool:
        """Commit what was added, and end; False where that was done before."""
        with self._lock:
            if self._is_closed:
                return False
            self._is_closed = True
            for arrived in self._arrived.values():
                self._queue.put(arrived)
            self._arrived.clear()
            self._queue.put(None)
        self._thread.join()
        return True

    def _check_open(self) -> None:
        if self._is_closed:
            raise self._when_closed()

    def _hand_over(self, loop: asyncio.AbstractEventLoop) -> None:
        with self._lock:
            arrived = self._arrived.pop(loop, None)  # None: taken by `close`
            if arrived:
                self._queue.put(arrived)

    def _run(self) -> None:
        is_last = False
        while not is_last:
            group, is_last = self._next_group()
            if group:
                _tell(group, self._commit([waiting.decoded for waiting in group]))
                self._afterwards()

    def _next_group(self) -> tuple[list[_Waiting], bool]:
        """The requests that wait now, at least one; and whether no more will come."""
        group: list[_Waiting] = []
        n_events = 0
        some = self._queue.get()
        while some is not None:
            group += some
            n_events += sum(len(waiting.decoded.events) for waiting in some)
            if n_events >= _MAX_GROUP_EVENTS:
                return group, False
            try:
                some = self._queue.get_nowait()
            except queue.Empty:
                return group, False
        return group, True


def _tell(group: Iterable[_Waiting], outcomes: Iterable[Outcome]) -> None:
    """Tell the waiting, with one wake-up for each event loop."""
    by_loop: dict[asyncio.AbstractEventLoop | None, list[tuple[Done, Outcome]]] = {}
    for waiting, outcome in zip(group, outcomes, strict=True):
        by_loop.setdefault(waiting.loop, []).append((waiting.done, outcome))
    for loop, settled in by_loop.items():
        if loop is None:
            _settle(settled)
            continue
        try:
            loop.call_soon_threadsafe(_settle, settled)
        except RuntimeError:  # the loop was closed: nobody waits any more
            continue


def _settle(settled: list[tuple[Done, Outcome]]) -> None:
    for done, outcome in settled:
        try:
            done(outcome)
        except Exception:  # what befalls one must not keep the others waiting
            logger.exception("outbox=not_told outcome=%r", outcome)


def _resolve(future: "asyncio.Future[None] | Future[None]", outcome: Outcome) -> None:
    if future.done():  # the request was given up meanwhile
        return
    if outcome is None:
        future.set_result(None)
    else:
        future.set_exception(outcome)

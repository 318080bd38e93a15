"""POST /events of one event on the shortest way: no task, no coroutine, one write.

Most requests of a shop's pages are one event that is right. Such a request is answered here as
`api.front` and `api.collector` would, by the functions that they use; whatever else it is, is left
to them before anything was done for it.
"""

import asyncio
from collections.abc import Callable, Iterable
from functools import partial
from time import perf_counter

import msgspec
from starlette.types import Scope

from api.collector import Collector, reply_to
from api.cors import allowing
from api.front import Front, Reply, headers_of, request_id_of
from api.scopes import scope_of
from ingest.appending import OutboxFull
from ingest.events import Decoded
from ingest.outbox_file import OutboxBroken
from ingest.protocols.routes import EVENTS_PATH
from warehouse import log

STATE = "single_events"  # under this name connections find it in the app's state
METHOD, PATH = "POST", EVENTS_PATH
MAX_BODY_BYTES = 4_096

# Sends a whole reply: status, headers, body.
Send = Callable[[int, Iterable[tuple[bytes, bytes]], bytes], None]


class _Asked(msgspec.Struct, frozen=True, gc=False):
    """A request that is answered here."""

    id: bytes
    origin: bytes | None
    decoded: Decoded
    send: Send
    started: float


class SingleEvents:
    """What a connection asks before it asks the app. For the thread of the event loop alone."""

    def __init__(self, front: Front, collector: Collector) -> None:
        self._front = front
        self._collector = collector
        self._needed = scope_of(PATH, True) or ""

    def take(self, scope: Scope, body: bytes, send: Send) -> bool:
        """Whether this request, a METHOD of PATH, is answered here: `send` is called later.

        Where not, nothing was done.
        """
        started = perf_counter()
        headers = dict(scope["headers"])
        if len(headers) < len(scope["headers"]):  # one came twice: whoever reads it chooses
            return False
        try:
            decoded = self._collector.plain(scope, headers, body)
        except Exception:  # a defect, which the long way meets too: it has an answer for it
            return False
        if decoded is None:
            return False
        asked = _Asked(request_id_of(scope), headers.get(b"origin"), decoded, send, started)
        try:
            self._front.access.admit_now(self._needed, scope, headers)
            self._collector.outbox.begin_append(decoded, partial(self._end, asked))
        except Exception as error:
            # Not at once: a client may have sent any number of requests together.
            asyncio.get_running_loop().call_soon(self._end, asked, error)
        return True

    def _end(self, asked: _Asked, error: Exception | None) -> None:
        """Reply; `error` is why the event was not kept."""
        log.request_id.set(asked.id.decode())
        reply = self._reply(asked.decoded, error)
        headers = headers_of(reply, asked.id)
        if asked.origin is not None and self._front.access.may_read(asked.origin.decode("latin-1")):
            headers += allowing(asked.origin)
        asked.send(reply.status, headers, reply.body)
        self._front.observe(PATH, METHOD, reply.status, asked.started)

    def _reply(self, decoded: Decoded, error: Exception | None) -> Reply:
        try:
            if isinstance(error, OutboxFull | OutboxBroken):
                raise self._collector.unavailable(error)
            if error is not None:
                raise error
            self._collector.count(decoded)
            return reply_to(decoded)
        except Exception as found:
            return self._front.instead(self._collector, METHOD, PATH, found)

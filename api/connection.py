"""A client's connection: uvicorn's own, with a short way for requests of one event.

uvicorn gives each request a task and writes the head and the body of a reply each by itself: half
of what an event costs. `EventsConnection` is for its option `http`; uvicorn reads the requests, and
answers all that `api.single_events` does not take. Nothing of a request is done twice: what is
unusual is left before anything was done for it.
"""

from collections.abc import Iterable
from functools import partial
from typing import Any

from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

from api.single_events import MAX_BODY_BYTES, METHOD, PATH, STATE, SingleEvents

_FORWARDED = frozenset((b"x-forwarded-for", b"x-forwarded-proto"))


class EventsConnection(HttpToolsProtocol):
    """One connection. Overrides what begins a request's task, and what its body's end calls."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._single_events: SingleEvents | None = self.app_state.get(STATE)
        # A request whose body is not here yet.
        self._begun: RequestResponseCycle | None = None

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        if app is not self.app or not self._is_short(cycle):
            super()._start_asgi_task(cycle, app)
        elif cycle.more_body:
            self._begun = cycle
        else:  # it was sent with the one before
            self._take(cycle)

    def on_message_complete(self) -> None:
        super().on_message_complete()
        cycle, self._begun = self._begun, None
        if cycle is not None:
            self._take(cycle)

    def _is_short(self, cycle: RequestResponseCycle) -> bool:
        """Whether this may be a request of one event, from a client that reads our replies."""
        scope = cycle.scope
        return (
            self._single_events is not None
            and scope["path"] == PATH
            and scope["method"] == METHOD
            and not scope["root_path"]
            and not self.access_log
            and not self.flow.write_paused
            and not cycle.waiting_for_100_continue
            and _length(scope["headers"]) <= MAX_BODY_BYTES
        )

    def _take(self, cycle: RequestResponseCycle) -> None:
        assert self._single_events is not None
        scope = self._as_forwarded(cycle.scope)
        if not self._single_events.take(scope, bytes(cycle.body), partial(self._reply, cycle)):
            super()._start_asgi_task(cycle, self.app)

    def _as_forwarded(self, scope: Any) -> Any:
        """The scope as the app sees it, which says who is behind a trusted proxy."""
        if not self.config.proxy_headers or all(
            name not in _FORWARDED for name, _ in scope["headers"]
        ):
            return scope
        forwarded = scope.copy()
        middleware = ProxyHeadersMiddleware(_nothing, self.config.forwarded_allow_ips)
        try:
            # It waits for nothing, so it ends at once.
            middleware(forwarded, _nothing, _nothing).send(None)
        except StopIteration:
            return forwarded
        raise AssertionError("uvicorn's middleware for proxies waits for something")

    def _reply(
        self,
        cycle: RequestResponseCycle,
        status: int,
        headers: Iterable[tuple[bytes, bytes]],
        body: bytes,
    ) -> None:
        """Write a whole reply, as `cycle.send` would in two, and go on to the next request."""
        if cycle.disconnected:
            return
        parts = [STATUS_LINE[status]]
        for name, value in (*self.server_state.default_headers, *headers):
            parts += (name, b": ", value, b"\r\n")
        if not cycle.keep_alive:
            parts.append(b"connection: close\r\n")
        parts += (b"\r\n", body)
        self.transport.write(b"".join(parts))
        cycle.response_complete = True
        if not cycle.keep_alive:
            self.transport.close()
        self.on_response_complete()


def _length(headers: Iterable[tuple[bytes, bytes]]) -> float:
    """Length of the body as declared; infinite where it is not."""
    for name, value in headers:
        if name == b"content-length":
            return int(value) if value.isdigit() and len(value) < 10 else float("inf")
    return float("inf")


async def _nothing(*_: Any) -> Any: ...

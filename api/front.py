"""The front of the app: request ids, timing, and the hot paths as bare ASGI functions.

An endpoint of a hot path takes the ASGI scope and gives a whole `Reply`; nothing of FastAPI runs
for it. Everything else goes on to FastAPI.
"""

import logging
import re
from collections.abc import Mapping
from random import getrandbits
from time import perf_counter
from typing import Protocol, runtime_checkable

import msgspec
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.access import AccessControl
from api.errors import ClientGone, Refused, internal_error, method_not_allowed
from api.metrics import Metrics
from api.seldom import Seldom
from warehouse import log

logger = logging.getLogger(__name__)

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")


class Reply(msgspec.Struct, frozen=True, gc=False):
    """A whole reply; its body is JSON unless said otherwise, and empty with status 204."""

    status: int
    body: bytes
    headers: Mapping[str, str] | None = None
    content_type: bytes = b"application/json"


class Endpoint(Protocol):
    """One hot path."""

    @property
    def methods(self) -> tuple[str, ...]:
        """What it answers."""

    async def answer(self, scope: Scope, receive: Receive) -> Reply:
        """The reply to one request of these `methods`. Raises Refused, ClientGone."""


@runtime_checkable
class OwnErrors(Protocol):
    """A hot path whose clients read no JSON."""

    def refusal(self, error: Refused) -> Reply:
        """What is replied in place of the error's JSON."""


class Front:
    """ASGI middleware around FastAPI."""

    def __init__(
        self,
        app: ASGIApp,
        endpoints: Mapping[str, Endpoint],
        access: AccessControl,
        metrics: Metrics,
    ) -> None:
        self.app = app
        self.endpoints = endpoints
        self.access = access
        self.metrics = metrics
        self._seldom = Seldom()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = perf_counter()
        request_id = request_id_of(scope)
        log.request_id.set(request_id.decode())
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        endpoint = self.endpoints.get(path)
        if endpoint is None:
            await self._pass_on(scope, receive, send, request_id, started)
            return
        try:
            reply = await self._answered(endpoint, path, scope, receive)
        except ClientGone:
            return
        await _send_reply(send, reply, request_id)
        self.observe(path, scope["method"], reply.status, started)

    async def _pass_on(
        self, scope: Scope, receive: Receive, send: Send, request_id: bytes, started: float
    ) -> None:
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        try:
            scope, receive = await self.access.admit(path, False, scope, receive)
        except Refused as error:
            await _send_reply(send, _as_reply(error), request_id)
            self.observe("refused", scope["method"], error.status, started)
            return
        status = 0
        is_whole = False

        async def send_marked(message: Message) -> None:
            nonlocal status, is_whole
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), (b"x-request-id", request_id)]
            else:
                is_whole = not message.get("more_body", False)
            await send(message)

        try:
            await self.app(scope, receive, send_marked)
        except Exception:
            # Starlette has sent `errors.internal_error`, unless the reply had already begun.
            logger.exception("request_failed method=%s path=%s", scope["method"], scope["path"])
            if not is_whole:
                raise  # only a cut connection tells the client
        route = getattr(scope.get("route"), "path", None) or "unmatched"
        self.observe(route, scope["method"], status, started)

    async def _answered(
        self, endpoint: Endpoint, path: str, scope: Scope, receive: Receive
    ) -> Reply:
        """The endpoint's reply, or the error in its place."""
        if scope["method"] not in endpoint.methods:
            allowed = ", ".join(endpoint.methods)
            return _as_reply(method_not_allowed(scope["method"], path, allowed))
        try:
            scope, receive = await self.access.admit(path, True, scope, receive)
            return await endpoint.answer(scope, receive)
        except ClientGone:
            raise
        except Exception as error:
            return self.instead(endpoint, scope["method"], path, error)

    def instead(self, endpoint: Endpoint, method: str, path: str, error: Exception) -> Reply:
        """What is replied in place of an endpoint's answer."""
        if not isinstance(error, Refused):
            logger.error("request_failed method=%s path=%s", method, path, exc_info=error)
            return _as_reply(internal_error(log.request_id.get()))
        if error.status >= 500 and self._seldom.is_due(error.detail.code):
            logger.warning("request_refused path=%s error=%r", path, error.detail.message)
        return endpoint.refusal(error) if isinstance(endpoint, OwnErrors) else _as_reply(error)

    def observe(self, path: str, method: str, status: int, started: float) -> None:
        """Count a request that was answered; `started` is of `perf_counter`."""
        seconds = perf_counter() - started
        self.metrics.observe_request(path, method, status, seconds)
        if logger.isEnabledFor(logging.DEBUG):
            logger.debug(
                "request method=%s path=%s status=%d ms=%.2f", method, path, status, seconds * 1e3
            )


def _as_reply(error: Refused) -> Reply:
    return Reply(error.status, error.body, error.headers)


def request_id_of(scope: Scope) -> bytes:
    """The client's `X-Request-ID` where it is a plain word, else a new one."""
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _REQUEST_ID.fullmatch(value):
            return bytes(value)
    return b"%032x" % getrandbits(128)


def headers_of(reply: Reply, request_id: bytes) -> list[tuple[bytes, bytes]]:
    """The headers of a whole reply, as ASGI has them."""
    headers = [(b"x-request-id", request_id)]
    if reply.status != 204:
        headers += (
            (b"content-type", reply.content_type),
            (b"content-length", str(len(reply.body)).encode()),
        )
    if reply.headers:
        headers += (
            (name.lower().encode(), value.encode()) for name, value in reply.headers.items()
        )
    return headers


async def _send_reply(send: Send, reply: Reply, request_id: bytes) -> None:
    headers = headers_of(reply, request_id)
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    await send({"type": "http.response.body", "body": reply.body})

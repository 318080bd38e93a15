"""Cross-origin requests (CORS): which pages may read what is replied.

A preflight carries no key, so it and every reply go by the origins that any usable key lists, and
those of the settings; whether *this* key lists the page is asked with the request itself
(`api.access`). Nothing here ever allows credentials: there are no cookies, and so `*` is safe.
"""

from collections.abc import Callable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.errors import Refused, shown

Headers = tuple[tuple[bytes, bytes], ...]

_ALLOWED = (
    (b"access-control-allow-methods", b"GET, POST"),
    (
        b"access-control-allow-headers",
        # X-Retry-Count is sent by Segment's library for browsers.
        b"Authorization, Content-Encoding, Content-Type, X-Api-Key, X-Request-ID, X-Retry-Count, "
        b"X-Write-Key",
    ),
    (b"access-control-max-age", b"600"),
)
_EXPOSED = (b"access-control-expose-headers", b"RateLimit, RateLimit-Policy, Retry-After, "
            b"X-Request-ID")  # fmt: skip
_ALLOW_ORIGIN = b"access-control-allow-origin"
_VARY = (b"vary", b"Origin")


class Cors:
    """ASGI middleware outside of all others, so that errors can be read too."""

    def __init__(self, app: ASGIApp, may_read: Callable[[str], bool]) -> None:
        self.app = app
        self._may_read = may_read

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        origin = _header(scope, b"origin") if scope["type"] == "http" else None
        if origin is None:
            await self.app(scope, receive, send)
        elif scope["method"] == "OPTIONS" and _header(scope, b"access-control-request-method"):
            await self._preflight(origin, send)
        elif self._may_read(origin.decode("latin-1")):
            await self.app(scope, receive, _allowing(origin, send))
        else:
            await self.app(scope, receive, send)

    async def _preflight(self, origin: bytes, send: Send) -> None:
        text = origin.decode("latin-1")
        if self._may_read(text):
            headers = [(_ALLOW_ORIGIN, origin), _VARY, *_ALLOWED]
            status, body = 200, b""
        else:
            refused = Refused(
                403,
                "origin_not_allowed",
                f"pages of this origin may not call the app: `{shown(text)}`",
                field="Origin",
                remedy="list it in SHALLOP_SERVING__CORS_ORIGINS, or make a key with "
                "`shallop keys create --origin`",
            )
            headers = [(b"content-type", b"application/json"), _VARY]
            status, body = 403, refused.body
        headers.append((b"content-length", str(len(body)).encode()))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})


def _header(scope: Scope, wanted: bytes) -> bytes | None:
    for name, value in scope["headers"]:
        if name == wanted:
            return bytes(value)
    return None


def allowing(origin: bytes) -> Headers:
    """What tells the browser that pages of this origin may read the reply."""
    return (_ALLOW_ORIGIN, origin), _VARY, _EXPOSED


def _allowing(origin: bytes, send: Send) -> Send:
    """`send`, which also tells the browser that pages of this origin may read the reply."""

    async def send_allowing(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = message.get("headers", ())
            if not any(name == _ALLOW_ORIGIN for name, _ in headers):
                message["headers"] = [*headers, *allowing(origin)]
        await send(message)

    return send_allowing

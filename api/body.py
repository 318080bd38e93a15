"""A request's body: read up to a limit, and without keys."""

import msgspec
from starlette.types import Message, Receive, Scope

from api.errors import ClientGone
from api.keys import blanked
from ingest import bodies
from ingest.events import InvalidBody
from ingest.traces import reduced_bytes
from warehouse.settings import IngestSettings

# Of a body that is refused for its length, this much is waited for, and kept.
_CUT_BYTES = 65_536


class SentBody(msgspec.Struct, frozen=True, gc=False):
    """A body as it was sent; of one longer than may be, its beginning, with `encoding` CUT."""

    data: bytes
    encoding: str

    def unpacked(self, limit: int) -> bytes:
        """What was packed, at most `limit` bytes, our keys in it blanked. Raises InvalidBody.

        Blanked, so that no protocol can keep a key.
        """
        return blanked(self.with_keys(limit))

    def with_keys(self, limit: int) -> bytes:
        """`unpacked`, for who looks for a key in it. Raises InvalidBody."""
        if self.encoding == bodies.CUT:
            raise bodies.too_large(limit)
        return bodies.unpacked(self.data, self.encoding, limit)

    def to_keep(self, limits: IngestSettings) -> "SentBody":
        """This body as it may be kept: as it was sent, unless a key, or more of an address or a
        browser's name than settings allow, is in it.
        """
        try:
            plain = self.with_keys(limits.max_body_bytes)
        except InvalidBody:
            return SentBody(reduced_bytes(blanked(self.data), limits), self.encoding)
        clean = reduced_bytes(blanked(plain), limits)
        return self if clean == plain else SentBody(clean, "identity")


async def read_body(receive: Receive, headers: dict[bytes, bytes], limit: int) -> SentBody:
    """The request's body, if it has at most `limit` bytes, else its beginning. Raises ClientGone.

    Counted while it comes in, since `Content-Length` may be missing. Our keys in it are blanked,
    so that no protocol can keep one.
    """
    declared = headers.get(b"content-length", b"")
    is_too_large = declared.isdigit() and (len(declared) >= 20 or int(declared) > limit)
    enough = _CUT_BYTES if is_too_large else limit + 1
    parts: list[bytes] = []
    n_bytes, more = 0, True
    while more and n_bytes < enough:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        parts.append(message.get("body", b""))
        n_bytes += len(parts[-1])
        more = message.get("more_body", False)
    body = b"".join(parts)
    if is_too_large or n_bytes > limit:
        return SentBody(body[:_CUT_BYTES], bodies.CUT)
    encoding = headers.get(b"content-encoding")
    if encoding is None:
        return SentBody(body, "identity")
    return SentBody(body, encoding.decode("latin-1").strip().lower())


def replayed(scope: Scope, body: bytes) -> tuple[Scope, Receive]:
    """The request as if its body, read and unpacked before, were yet to be read."""
    plain = [
        (name, value)
        for name, value in scope["headers"]
        if name not in (b"content-encoding", b"content-length")
    ]

    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    return {**scope, "headers": plain}, receive

"""A request's body, read up to a limit."""

from dataclasses import dataclass

from starlette.types import Receive

from api.front import ClientGone
from ingest import bodies

# Of a body that is refused for its length, this much is waited for, and kept.
_CUT_BYTES = 65_536


@dataclass(frozen=True)
class SentBody:
    """A body as it was sent; of one longer than may be, its beginning, with `encoding` CUT."""

    data: bytes
    encoding: str

    def unpacked(self, limit: int) -> bytes:
        """What was packed, at most `limit` bytes. Raises InvalidBody."""
        if self.encoding == bodies.CUT:
            raise bodies.too_large(limit)
        return bodies.unpacked(self.data, self.encoding, limit)


async def read_body(receive: Receive, headers: dict[bytes, bytes], limit: int) -> SentBody:
    """The request's body, if it has at most `limit` bytes, else its beginning. Raises ClientGone.

    Counted while it comes in, since `Content-Length` may be missing.
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
    encoding = headers.get(b"content-encoding", b"identity").decode("latin-1")
    return SentBody(body, encoding.strip().lower())

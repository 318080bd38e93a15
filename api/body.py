"""A request's body: read up to a limit, unpacked where it was compressed, and without keys."""

import zlib

from starlette.types import Message, Receive, Scope

from api.errors import ClientGone, Refused, shown
from api.keys import blanked

_GZIP = 16 + zlib.MAX_WBITS


async def read_body(
    receive: Receive, headers: dict[bytes, bytes], limit: int, *, is_blanked: bool = True
) -> bytes:
    """The request's body of at most `limit` bytes, unpacked. Raises Refused, ClientGone.

    Counted while it comes in, since `Content-Length` may be missing. Our keys in it are blanked,
    so that no protocol can keep one.
    """
    encoding = headers.get(b"content-encoding", b"identity").strip().lower()
    if encoding not in (b"identity", b"gzip"):
        raise _unsupported(encoding.decode("latin-1"))
    declared = headers.get(b"content-length", b"")
    if declared.isdigit() and len(declared) < 20 and int(declared) > limit:
        raise _too_large(limit)
    message = await receive()
    body: bytes = message.get("body", b"")
    while message.get("more_body") and len(body) <= limit:
        message = await receive()
        body += message.get("body", b"")
    if message["type"] == "http.disconnect":
        raise ClientGone
    if len(body) > limit:
        raise _too_large(limit)
    if encoding == b"gzip":
        body = _unpacked(body, limit)
    return blanked(body) if is_blanked else body


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


def _unpacked(body: bytes, limit: int) -> bytes:
    """A gzip body; never more than `limit` bytes of it are unpacked. Raises Refused."""
    unpacker = zlib.decompressobj(_GZIP)
    try:
        unpacked = unpacker.decompress(body, limit + 1)
    except zlib.error as error:
        raise _not_gzip(str(error)) from None
    if len(unpacked) > limit:
        raise _too_large(limit)
    if not unpacker.eof or unpacker.unused_data:
        raise _not_gzip("it does not end where it should")
    return unpacked


def _not_gzip(why: str) -> Refused:
    return Refused(
        400,
        "invalid_gzip",
        f"the body is not what Content-Encoding says, one gzip stream: `{why}`",
        field="body",
        remedy="compress the whole body at once, or send it as it is without Content-Encoding",
    )


def _too_large(limit: int) -> Refused:
    return Refused(
        413,
        "body_too_large",
        f"a request body may have this many bytes, unpacked: `{limit}`",
        field="body",
        remedy="send smaller batches, or raise SHALLOP_INGEST__MAX_BODY_BYTES",
    )


def _unsupported(encoding: str) -> Refused:
    return Refused(
        415,
        "unsupported_encoding",
        f"a body compressed like this is not read: `{shown(encoding)}`",
        field="Content-Encoding",
        remedy="send `Content-Encoding: gzip`, or the body as it is without Content-Encoding",
    )

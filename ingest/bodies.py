"""The bytes of a request's body: unpacked where they were compressed, never beyond a limit."""

import zlib

from ingest.events import InvalidBody
from ingest.rules import shown

_GZIP = 16 + zlib.MAX_WBITS
# What is said in the place of an encoding where only the beginning of a body was kept.
CUT = "x-shallop-cut"


def unpacked(body: bytes, encoding: str, limit: int) -> bytes:
    """The body of a request whose `Content-Encoding` is `encoding`; at most `limit` bytes.

    Raises InvalidBody.
    """
    if len(body) > limit:
        raise too_large(limit)
    if encoding == "identity":
        return body
    if encoding == CUT:
        raise InvalidBody("body_cut", "it was too large, only its beginning was kept", status=413)
    if encoding != "gzip":
        raise InvalidBody(
            "unsupported_encoding",
            f"a body compressed like this is not read: `{shown(encoding)}`",
            status=415,
            field="Content-Encoding",
            remedy="send `Content-Encoding: gzip`, or the body as it is without Content-Encoding",
        )
    unpacker = zlib.decompressobj(_GZIP)
    try:
        found = unpacker.decompress(body, limit + 1)
    except zlib.error as error:
        raise _not_gzip(str(error)) from None
    if len(found) > limit:
        raise too_large(limit)
    if not unpacker.eof or unpacker.unused_data:
        raise _not_gzip("it does not end where it should")
    return found


def too_large(limit: int) -> InvalidBody:
    return InvalidBody(
        "body_too_large",
        f"a request body may have this many bytes, unpacked: `{limit}`",
        status=413,
        remedy="send smaller batches, or raise SHALLOP_INGEST__MAX_BODY_BYTES",
    )


def _not_gzip(why: str) -> InvalidBody:
    return InvalidBody(
        "invalid_gzip",
        f"the body is not what Content-Encoding says, one gzip stream: `{why}`",
        status=400,
        remedy="compress the whole body at once, or send it as it is without Content-Encoding",
    )

"""Where a request carries its key, as each protocol's own clients put it there."""

import re
from base64 import b64decode
from binascii import Error
from collections.abc import Iterator, Mapping
from urllib.parse import unquote_plus

import msgspec

from api.keys import blanked
from ingest.lenient import decode_mended
from ingest.rules import DECODE_ERRORS

# Segment's library for browsers names its key in the body alone where it sends a beacon.
MAY_CARRY_IN_BODY = "/v1/"

_HEADERS = ((b"x-write-key", "X-Write-Key"), (b"x-api-key", "X-Api-Key"))
_PARAMETERS = ("key", "api_secret", "write_key", "writeKey")
_KEY_PARAMETER = re.compile(rb"(?:^|(?<=&))[^&=]*=shp(?:_|%5F)(?:pub|sec)(?:_|%5F)[^&]*&?", re.I)


class SentKey(msgspec.Struct, frozen=True, gc=False):
    """What was sent as a key, and where, for messages."""

    token: str
    place: str


class _Message(msgspec.Struct):
    writeKey: str | None = None


class _Batch(_Message):
    batch: list[_Message] = []


_decode_message = msgspec.json.Decoder(_Message).decode
_decode_batch = msgspec.json.Decoder(_Batch).decode


def in_request(headers: Mapping[bytes, bytes], query: bytes) -> SentKey | None:
    """The key in headers or query; of several the first that looks like one of ours."""
    first: SentKey | None = None
    for sent in _places(headers, query):
        if is_ours(sent):
            return sent
        first = first or sent
    return first


def is_ours(sent: SentKey | None) -> bool:
    """Whether it looks like a key of ours, and not like a proxy's own credentials."""
    return sent is not None and sent.token.startswith("shp_")


def in_body(body: bytes) -> SentKey | None:
    """The `writeKey` of a Segment body, else of the first message that has one."""
    try:
        found = decode_mended(_decode_message, body).writeKey
        if not found:
            messages = decode_mended(_decode_batch, body).batch
            found = next((message.writeKey for message in messages if message.writeKey), None)
    except DECODE_ERRORS:
        return None
    return SentKey(found, "writeKey") if found else None


def without_keys(query: bytes) -> bytes:
    """A query string without keys; the very same where there is none."""
    if b"shp" not in query:
        return query
    return blanked(_KEY_PARAMETER.sub(b"", query).removesuffix(b"&"))


def _places(headers: Mapping[bytes, bytes], query: bytes) -> Iterator[SentKey]:
    scheme, _, credentials = headers.get(b"authorization", b"").strip().partition(b" ")
    credentials = credentials.strip()
    if scheme.lower() == b"bearer" and credentials:
        yield SentKey(credentials.decode("latin-1"), "Authorization: Bearer")
    if scheme.lower() == b"basic" and (user := _user(credentials)):
        yield SentKey(user, "Authorization: Basic")
    for header, place in _HEADERS:
        if value := headers.get(header):
            yield SentKey(value.decode("latin-1").strip(), place)
    for part in query.decode("latin-1").split("&") if query else ():
        name, _, text = part.partition("=")
        if name in _PARAMETERS and text:
            yield SentKey(unquote_plus(text), f"?{name}=")


def _user(credentials: bytes) -> str:
    """The user's name of Basic credentials, empty where they are none."""
    try:
        return b64decode(credentials, validate=True).split(b":")[0].decode("latin-1")
    except Error:
        return ""

"""Who an event is about: ids in its columns, and ids that its texts and original bytes name.

Texts are read at every depth: JSON, JSON within JSON, query strings and addresses, escaped or
percent-encoded, and what is broken by a pattern. An id under a key that names one (`client_id`,
`anonymousId`, …) counts; one of `LONG` characters or more also counts wherever it stands by itself.
A part of a longer id never does.
"""

import json
import re
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, unquote, unquote_plus

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

LONG = 6

_VISITOR_KEYS = frozenset(
    ("visitor", "visitorid", "anonymousid", "clientid", "cid", "appinstanceid", "deviceid",
     "distinctid")
)  # fmt: skip
_USER_KEYS = frozenset(("user", "userid", "uid", "customerid", "externalid"))
_SESSION_KEYS = frozenset(("session", "sessionid", "gasessionid", "sid"))

_TEXT_COLUMNS = ("extra", "page_url", "referrer")
_TOKEN = re.compile(r"[\w.\-@+:~|$]+")
_PAIR = re.compile(r"([\w-]+)[\"']?\s*[:=]\s*(?:\"([^\"]*)|'([^']*)|([^\"'&,;\s}\]]+))")
_SPACE = re.compile(r"\s")
_UNICODE = re.compile(r"\\u([0-9a-fA-F]{4})")
_WHOLE = re.compile(r"\d{1,18}", re.ASCII)
_MAX_ALTERNATIVES = 500
_GZIP = b"\x1f\x8b"
_MAX_UNPACKED_BYTES = 64_000_000
_MAX_DEPTH = 40  # of JSON within JSON; what is deeper is searched as text

_decode = msgspec.json.Decoder().decode
Mask = npt.NDArray[np.bool_]


@dataclass
class Named:
    """The ids that some text names, by the kind of key they stand under, and all its words."""

    visitors: set[str] = field(default_factory=set)
    users: set[str] = field(default_factory=set)
    sessions: set[str] = field(default_factory=set)
    texts: list[str] = field(default_factory=list)

    def by_kind(self) -> dict[str, set[str]]:
        """The ids as our columns would have them.

        A user's id stands in for a visitor's where there is none, and a session that is a number
        belongs to its visitor, as the adapters of the protocols have it.
        """
        visitors = self.visitors or self.users
        numbered = {
            f"{visitor}.{session}"
            for session in self.sessions
            if _WHOLE.fullmatch(session)
            for visitor in visitors
        }
        return {"visitor": visitors, "user": self.users, "session": self.sessions | numbered}


@dataclass(frozen=True)
class Person:
    """The ids of whom an erasure or an export is about."""

    visitors: frozenset[str] = frozenset()
    users: frozenset[str] = frozenset()
    sessions: frozenset[str] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.visitors or self.users or self.sessions)

    @classmethod
    def of(cls, kinds: Mapping[str, Iterable[str]]) -> "Person":
        """The inverse of `by_kind`."""
        return cls(*(frozenset(kinds.get(kind, ())) for kind in ("visitor", "user", "session")))

    def by_kind(self) -> dict[str, frozenset[str]]:
        return {"visitor": self.visitors, "user": self.users, "session": self.sessions}

    def ids(self) -> frozenset[str]:
        return self.visitors | self.users | self.sessions

    def is_named_in(self, text: bytes | str) -> bool:
        """Whether a text, of any form, is about this person."""
        named = named_in(text)
        if any(named.by_kind()[kind] & ids for kind, ids in self.by_kind().items()):
            return True
        return any(self.stands_in(text) for text in named.texts)

    def is_in_rows(self, table: pa.Table, session_column: str = "session_id") -> Mask:
        """Which rows of raw or staged events are about this person, (n_rows,)."""
        columns = {"visitor": "visitor_id", "user": "user_id", "session": session_column}
        mask = np.zeros(table.num_rows, dtype=np.bool_)
        for kind, ids in self.by_kind().items():
            if ids:
                found = pc.is_in(table[columns[kind]], value_set=pa.array(sorted(ids), pa.string()))
                mask |= found.combine_chunks().to_numpy(zero_copy_only=False)
        for name in _TEXT_COLUMNS:
            if name in table.column_names:
                self._add_named(mask, table[name])
        return mask

    def _add_named(self, mask: Mask, texts: pa.ChunkedArray) -> None:
        """Mark the rows whose text names the person; only those that might are decoded."""
        pattern = self._hint()
        might = pc.match_substring_regex(texts, pattern) if pattern else pc.is_valid(texts)
        might = pc.fill_null(might, False).combine_chunks().to_numpy(zero_copy_only=False)
        for row in np.flatnonzero(might & ~mask):
            mask[row] = self.is_named_in(texts[row].as_py())

    def _hint(self) -> str:
        """A pattern (RE2) of texts that may name the person: one of the ids, or an escape."""
        ids = self.ids() | {one.rpartition(".")[0] or one for one in self.sessions}
        if len(ids) > _MAX_ALTERNATIVES:
            return ""
        return "|".join([r"%", r"\\", *(re.escape(one) for one in sorted(ids))])

    def stands_in(self, text: str) -> bool:
        """Whether one of the long ids stands in a text, escaped or not, by itself."""
        long = {one for one in self.ids() if len(one) >= LONG}
        forms = {text, unquote(text), _UNICODE.sub(_unescaped, text)} if long else ()
        return any(_stand_in(long, form) for form in forms)


def named_in(text: bytes | str) -> Named:
    """The ids that a text names: JSON, JSON lines, a query string, an address, or broken.

    Bytes may be packed by gzip, and cut.
    """
    named = Named()
    if isinstance(text, bytes):
        text = _unpacked(text).decode("utf-8", "replace")
    _read(text, named, 0)
    return named


def _unpacked(data: bytes) -> bytes:
    if not data.startswith(_GZIP):
        return data
    try:
        return zlib.decompressobj(16 + zlib.MAX_WBITS).decompress(data, _MAX_UNPACKED_BYTES)
    except zlib.error:
        return data


def _read(text: str, named: Named, depth: int) -> None:
    value = _json(text) if depth <= _MAX_DEPTH else None
    if isinstance(value, dict | list):
        _walk(value, named, depth + 1)
        return
    named.texts.append(text)
    for line in text.splitlines() if "\n" in text else ():
        if isinstance(value := _json(line), dict | list):
            _walk(value, named, depth + 1)
    _read_pairs(text, named)


def _walk(value: Any, named: Named, depth: int) -> None:
    if depth > _MAX_DEPTH:
        named.texts.append(str(value))
    elif isinstance(value, dict):
        for key, inner in value.items():
            _take(str(key), inner, named)
            named.texts.append(str(key))
            _walk(inner, named, depth + 1)
    elif isinstance(value, list):
        for inner in value:
            _walk(inner, named, depth + 1)
    elif isinstance(value, str):
        if value[:1] in ("{", "["):
            _read(value, named, depth + 1)
        else:
            named.texts.append(value)
            if "=" in value or "%" in value:
                _read_pairs(value, named)


def _read_pairs(text: str, named: Named) -> None:
    """Keys and values of a query string, an address, or of broken JSON."""
    query = text.partition("?")[2] or text
    for part in {query, query.partition("#")[0], query.partition("#")[2]}:
        for key, value in parse_qsl(part):
            _take(key, value, named)
    for form in {text, unquote(text), unquote_plus(text)}:
        if form != text:
            named.texts.append(form)
        for key, *values in _PAIR.findall(form):
            _take(key, next((value for value in values if value), ""), named)


def _take(key: str, value: Any, named: Named) -> None:
    """Keep a value under a key that names an id."""
    if isinstance(value, bool) or not isinstance(value, str | int | float) or value == "":
        return
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    name = key.lower().replace("_", "").replace("-", "")
    for keys, ids in (
        (_VISITOR_KEYS, named.visitors),
        (_USER_KEYS, named.users),
        (_SESSION_KEYS, named.sessions),
    ):
        if name in keys:
            ids.add(str(value))


def _json(text: str) -> Any:
    """What a text is as JSON, None where it is none; cut surrogates and long numbers pass."""
    if text.lstrip()[:1] not in ("{", "["):
        return None
    try:
        return _decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        pass
    try:
        return json.loads(text, strict=False)
    except (ValueError, RecursionError):
        return None


def _stand_in(long: set[str], text: str) -> bool:
    words = set(_TOKEN.findall(text))
    if _SPACE.search(text):  # a sentence, or what is broken: its stops belong to no id
        words |= {word.rstrip(".:") for word in words}
    return bool(words & long) or any(
        one in text and _TOKEN.fullmatch(one) is None and _is_alone(one, text) for one in long
    )


def _unescaped(escape: re.Match[str]) -> str:
    return chr(int(escape[1], 16))


def _is_alone(one: str, text: str) -> bool:
    """Whether an id of odd characters stands in a text without being part of a longer word."""
    return re.search(rf"(?<![\w.\-@+:~|$]){re.escape(one)}(?![\w.\-@+:~|$])", text) is not None

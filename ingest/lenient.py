"""One event read with patience: cut texts mended, fields that are not ours moved to `extra`."""

import re
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

from ingest.contract import EventItem, SentEvent
from ingest.rules import DECODE_ERRORS, InvalidEvent, explained, extra_text, shown

_SENT_FIELDS = frozenset(SentEvent.__struct_fields__)
_ITEM_FIELDS = frozenset(EventItem.__struct_fields__)
# Any escape of a JSON text; a pair of surrogates or a lone one is captured.
_ESCAPE = re.compile(
    rb"\\(?:u([dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})"
    rb"|u([dD][89a-fA-F][0-9a-fA-F]{2})|.)",
    re.DOTALL,
)

T = TypeVar("T")

_decode_event = msgspec.json.Decoder(SentEvent).decode
_decode_any = msgspec.json.Decoder().decode
_decode_raw = msgspec.json.Decoder(msgspec.Raw).decode
_decode_raws = msgspec.json.Decoder(list[msgspec.Raw]).decode


def decode_mended(decode: Callable[[bytes], T], body: bytes) -> T:
    """The body decoded. Browsers cut texts in the middle of an emoji: that is mended."""
    try:
        return decode(body)
    except msgspec.DecodeError:
        mended = _ESCAPE.sub(_without_lone_surrogate, body)
        if mended == body:
            raise
        return decode(mended)


def _without_lone_surrogate(escape: re.Match[bytes]) -> bytes:
    return rb"\ufffd" if escape[2] else escape[0]


def raw_events(body: bytes) -> list[msgspec.Raw]:
    """The elements of a body that is an array, else the body. Raises DECODE_ERRORS."""
    if body.lstrip().startswith(b"["):
        return decode_mended(_decode_raws, body)
    return [decode_mended(_decode_raw, body)]


def decode_leniently(raw: bytes) -> SentEvent:
    """One event, its unknown fields moved to `extra`. Raises InvalidEvent."""
    try:
        return _decode_event(raw)
    except DECODE_ERRORS:
        pass
    return sent_event(fields_of(raw))


def fields_of(raw: bytes) -> dict[str, Any]:
    """One event as the object that it must be. Raises InvalidEvent."""
    try:
        fields = decode_mended(_decode_any, raw)
    except DECODE_ERRORS as error:
        raise InvalidEvent(
            "", "invalid_json", f"the event is not JSON in UTF-8: `{error}`"
        ) from None
    if not isinstance(fields, dict):
        raise InvalidEvent("", "not_an_object", f"an event must be an object: `{shown(fields)}`")
    return fields


def sent_event(fields: dict[str, Any]) -> SentEvent:
    """The event of these fields, the unknown of them moved to `extra`. Raises InvalidEvent."""
    known = {key: value for key, value in fields.items() if key in _SENT_FIELDS}
    unknown = {key: value for key, value in fields.items() if key not in _SENT_FIELDS}
    if isinstance(known.get("items"), list):
        known["items"], unknown_of_items = _split_items(known["items"])
        if any(unknown_of_items):
            unknown["items"] = unknown_of_items
    try:
        event = msgspec.convert(known, SentEvent)
    except msgspec.ValidationError as error:
        raise explained(error, known) from None
    if unknown:
        event.extra = unknown | _extra_fields(event.extra)
    return event


def _split_items(items: list[Any]) -> tuple[list[Any], list[dict[str, Any]]]:
    """Items with the fields of the contract, and for each the fields outside of it."""
    known: list[Any] = []
    unknown: list[dict[str, Any]] = []
    for item in items:
        if not isinstance(item, dict):
            known.append(item)
            unknown.append({})
            continue
        known.append({key: value for key, value in item.items() if key in _ITEM_FIELDS})
        unknown.append({key: value for key, value in item.items() if key not in _ITEM_FIELDS})
    return known, unknown


def _extra_fields(extra: dict[str, Any] | str | None) -> dict[str, Any]:
    if isinstance(extra, str):
        extra = _decode_any(extra_text(extra))
    return extra if isinstance(extra, dict) else {}

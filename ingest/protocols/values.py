"""Values as other protocols spell them, put as the contract has them.

A value that cannot be put so is left as it is: the contract's rules then name it.
"""

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from math import isfinite
from typing import Any
from urllib.parse import parse_qsl
from uuid import UUID, uuid5

import msgspec

from ingest.rules import InvalidEvent, shown

# Of ids that are made from a protocol's own; never to be changed, or a retry would count twice.
_NAMESPACE = UUID("6f1c3b5e-3c0e-5d0a-9a53-6b7a1f0b8e21")
_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_WHOLE = re.compile(r"\d{1,18}", re.ASCII)
_TEXTS = ("page_url", "referrer", "user_agent")

MAX_PARAMETERS = 1_000

_encode = msgspec.json.Encoder().encode


def take(fields: dict[str, Any], *paths: str) -> Any:
    """The value at the first of the dotted `paths` that has one, taken out of `fields`.

    None and empty text are no values. An object that is empty thereafter is taken out too.
    """
    for path in paths:
        holders = [fields]
        *parents, name = path.split(".")
        for parent in parents:
            inner = holders[-1].get(parent)
            if not isinstance(inner, dict):
                break
            holders.append(inner)
        else:
            if holders[-1].get(name) in (None, ""):
                continue
            value = holders[-1].pop(name)
            for holder, parent in zip(reversed(holders[:-1]), reversed(parents), strict=True):
                if not holder[parent]:
                    del holder[parent]
            return value
    return None


def taken_fields(fields: dict[str, Any], places: Mapping[str, tuple[str, ...]]) -> dict[str, Any]:
    """The fields of an event that are spelled alike everywhere, taken out of `fields`.

    `places` says for each, as `take` reads it, where it is; a protocol may lack the last few.
    """
    user_id = as_text(take(fields, *places["user_id"]))
    visitor_id = as_text(take(fields, *places["visitor_id"])) or user_id
    return {
        "user_id": user_id,
        "visitor_id": visitor_id,
        "session_id": session_of(visitor_id, take(fields, *places["session_id"])),
        "item_list_id": as_text(take(fields, *places["item_list_id"])),
        "recommendation_id": as_text(take(fields, *places["recommendation_id"])),
        "value": as_amount(take(fields, *places["value"])),
        "currency": as_text(take(fields, *places["currency"])),
        "consent": as_consent(take(fields, *places["consent"])),
        **{name: take(fields, *places.get(name, ())) for name in _TEXTS},
    }


def pairs_of(query: bytes) -> list[tuple[str, str]]:
    """Names and values of a query string, in order. Raises InvalidEvent."""
    try:
        return parse_qsl(
            query.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=MAX_PARAMETERS
        )
    except ValueError:
        raise InvalidEvent(
            "",
            "too_many_parameters",
            f"an address may have this many parameters, use POST /events: `{MAX_PARAMETERS}`",
        ) from None


def as_text(value: Any) -> Any:
    """An id or a name as text: `17` and `17.0` as `"17"`; empty text as None."""
    if isinstance(value, bool):
        return value
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value) if isinstance(value, int) else value or None


def as_amount(value: Any) -> Any:
    """An amount as a number: `"19.90"` as `19.9`; empty text as None."""
    if not isinstance(value, str):
        return value
    try:
        number = float(value)
    except ValueError:
        return value or None
    return number if isfinite(number) else value


def as_count(value: Any) -> Any:
    """A count as a whole number: `"2"` and `2.0` as `2`; empty text as None."""
    if isinstance(value, str):
        return int(value) if _WHOLE.fullmatch(value) else value or None
    return int(value) if isinstance(value, float) and value.is_integer() else value


def as_time(value: Any) -> Any:
    """RFC 3339 text, in UTC where it names no zone; digits as epoch milliseconds."""
    if not isinstance(value, str):
        return value
    if _WHOLE.fullmatch(value):
        return int(value)
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        return value or None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def as_consent(value: Any) -> Any:
    """Consent as text; an object as its JSON."""
    return _encode(value).decode() if isinstance(value, dict) else value


_ITEM_VALUES: dict[str, Callable[[Any], Any]] = {
    "item_id": as_text,
    "item_name": as_text,
    "item_category": as_text,
    "price": as_amount,
    "quantity": as_count,
    "index": as_count,
}


def as_items(sent: Any, fields: Mapping[str, str]) -> Any:
    """Items with the contract's names where `fields` names theirs, and the contract's values."""
    if not isinstance(sent, list):
        return sent
    return [as_item(item, fields) if isinstance(item, dict) else item for item in sent]


def as_item(sent: dict[str, Any], fields: Mapping[str, str]) -> dict[str, Any]:
    """One item; of several names for the same field the first that has a value counts."""
    item = dict(sent)
    for theirs, ours in fields.items():
        if item.get(ours) in (None, ""):
            value = take(item, theirs)
            if value is not None:
                item[ours] = value
    for name, as_value in _ITEM_VALUES.items():
        if name in item:
            item[name] = as_value(item[name])
    return item


def event_id_from(protocol: str, theirs: Any) -> str | None:
    """Their id of a message as a UUID, the same each time it is sent; None where it has none."""
    theirs = as_text(theirs)
    if not isinstance(theirs, str):
        return None
    return theirs if is_uuid(theirs) else str(uuid5(_NAMESPACE, f"{protocol}:{theirs}"))


def is_uuid(value: Any) -> bool:
    return isinstance(value, str) and _UUID.fullmatch(value) is not None


def session_of(visitor_id: Any, session_id: Any) -> Any:
    """A session's id; one that is a number is unique only together with its visitor's."""
    session_id = as_text(session_id)
    if isinstance(session_id, str) and _WHOLE.fullmatch(session_id) and visitor_id:
        return f"{visitor_id}.{session_id}"
    return session_id


def unmapped(field: str, name: Any) -> InvalidEvent:
    """An event that the protocol knows, and a shop's model has no use for yet."""
    return InvalidEvent(
        field, "unmapped_event", f"kept as rejected, no event of ours stands for: `{shown(name)}`"
    )

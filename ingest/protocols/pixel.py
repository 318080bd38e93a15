"""The pixel: an event in the query of an image's address, where no script can run."""

from typing import Any

from ingest.contract import EventItem, SentEvent
from ingest.events import Decoded, check_size, decoded_each
from ingest.lenient import sent_event
from ingest.protocols.values import as_amount, as_item, as_time, pairs_of
from ingest.rules import Context, InvalidEvent

SOURCE = "pixel"

# Parameters are named as the fields of an event and of an item; an item's may be repeated, the
# n-th of each belonging to the n-th item.
EVENT_PARAMETERS = tuple(
    name for name in SentEvent.__struct_fields__ if name not in ("items", "extra")
)
ITEM_PARAMETERS = EventItem.__struct_fields__
_VALUES = {"occurred_at": as_time, "value": as_amount}


def decode(query: bytes, context: Context, *, page_url: str | None) -> Decoded:
    """The one event of a query string, on the page at `page_url` unless it says. Raises InvalidBody
    where it is too long.
    """
    check_size(query, context.limits)
    return decoded_each(
        [query], context, lambda _, raw: (_read(raw, page_url), context), page_url=page_url
    )


def _read(query: bytes, page_url: str | None) -> SentEvent:
    values = _parameters(query)
    fields: dict[str, Any] = {}
    for name in EVENT_PARAMETERS:
        # Empty stands for absent: what fills in a template may have nothing to put there.
        if (found := values.pop(name, [""])[-1]) != "":
            fields[name] = _VALUES[name](found) if name in _VALUES else found
    if page_url and "page_url" not in fields:
        fields["page_url"] = page_url
    if items := _items(values):
        fields["items"] = items
    unknown = {name: found[0] if len(found) == 1 else found for name, found in values.items()}
    return sent_event(fields | ({"extra": unknown} if unknown else {}))


def _parameters(query: bytes) -> dict[str, list[str]]:
    """Every value of each parameter, in order. Raises InvalidEvent."""
    values: dict[str, list[str]] = {}
    for name, value in pairs_of(query):
        values.setdefault(name, []).append(value)
    return values


def _items(values: dict[str, list[str]]) -> list[dict[str, Any]]:
    """The items that the repeated parameters spell, taken out of `values`."""
    columns = {name: values.pop(name) for name in ITEM_PARAMETERS if name in values}
    columns = {name: found for name, found in columns.items() if any(found)}
    n_items = len(columns.get("item_id", ()))
    for name, found in columns.items():
        if len(found) != n_items:
            raise InvalidEvent(
                name,
                "uneven_items",
                f"each `item_id` needs its `{name}`, repeat them as often; {n_items} and: "
                f"`{len(found)}`",
            )
    rows = zip(*columns.values(), strict=True)
    return [as_item(_filled(dict(zip(columns, row, strict=True))), {}) for row in rows]


def _filled(item: dict[str, str]) -> dict[str, Any]:
    return {name: value for name, value in item.items() if value != ""}

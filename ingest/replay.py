"""Real events from files into the collector, over HTTP as a shop would send them.

A row is an event of the kind that shops export (`event_time`, `event_type`, `item_id`, …) or one in
our own form (`event_name`, …). Its event id follows from the file's content and the row's number: a
file replayed twice is the same events twice. What the collector would reject is sent all the
same: it keeps it with the reason.
"""

import logging
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID, uuid5

from ingest import tables
from ingest.sender import Accounting, CollectorUnreachable, encode, send
from ingest.tables import UnreadableFile

__all__ = [
    "Accounting",
    "CollectorUnreachable",
    "UnknownColumns",
    "UnreadableFile",
    "count_rows",
    "replay",
]

logger = logging.getLogger(__name__)

EVENT_NAME_OF = {
    "view": "view_item",
    "add_to_cart": "add_to_cart",
    "remove_from_cart": "remove_from_cart",
    "purchase": "purchase",
}

_NAMESPACE = UUID("6f1c2f0e-2a57-5d0b-9a3f-1f1f6f0a6b0d")
_NEEDED = ("event_time", "event_type", "item_id")
_WHO = ("session_id", "user_id")
_USED = frozenset({*_NEEDED, *_WHO, "price", "quantity", "category", "title", "currency"})
# Columns of our own events that the collector sets anew.
_OURS = frozenset({"received_at", "ip_prefix", "source", "schema_version"})


class UnknownColumns(ValueError):
    """A file has not the columns of events, nor those of items."""


@dataclass(frozen=True)
class ItemInfo:
    """What a shop knows about an item beside its events."""

    title: str | None
    category: str | None
    price: float | None


def replay(
    files: Iterable[Path],
    url: str,
    *,
    key: str = "",
    items: Path | None = None,
    progress: Callable[[int], None] | None = None,
) -> Accounting:
    """Send the rows of `files` to the collector at `url`, with `key` where it asks for one.

    Titles, categories and prices that the rows do not have come from `items`, else from a file
    `items.*` beside each. Raises UnknownColumns and UnreadableFile before anything is sent where a
    header tells, CollectorUnreachable when the collector stays away.
    """
    files = list(files)
    for file in files:
        _check_columns(file)
    shared = load_items(items) if items else None
    return send(_all_events(files, shared), url, key=key, progress=progress)


def count_rows(files: Iterable[Path]) -> int:
    """Rows of all files together. Raises UnreadableFile."""
    return sum(tables.count(file) for file in files)


def events_of(file: Path, items: dict[str, ItemInfo]) -> Iterator[dict[str, Any]]:
    """The events of a file as the collector takes them."""
    content = tables.digest(file)
    is_ours = "event_name" in tables.columns(file)
    for number, row in enumerate(tables.rows(file)):
        event = _own_event(row) if is_ours else _event(row, items)
        event.setdefault("event_id", str(uuid5(_NAMESPACE, f"{content}:{number}")))
        yield event


def load_items(file: Path) -> dict[str, ItemInfo]:
    """Titles, categories and prices by item id. Raises UnknownColumns, UnreadableFile."""
    names = tables.columns(file)
    if "item_id" not in names:
        raise UnknownColumns(
            f"items need a column `item_id`, and may have `title`, `category`, `price`; `{file}` "
            f"has: {_listed(names)}"
        )
    found = {
        str(row["item_id"]): ItemInfo(
            _text(row.get("title")), _text(row.get("category")), _number(row.get("price"))
        )
        for row in tables.rows(file)
    }
    logger.info("items=%s rows=%d", file, len(found))
    return found


def _all_events(files: list[Path], shared: dict[str, ItemInfo] | None) -> Iterator[bytes]:
    for file in files:
        items = shared if shared is not None else _items_beside(file)
        for event in events_of(file, items):
            yield encode(event)


def _items_beside(file: Path) -> dict[str, ItemInfo]:
    for suffix in tables.SUFFIXES:
        beside = file.with_name(f"items{suffix}")
        if beside.is_file() and beside != file:
            return load_items(beside)
    return {}


def _check_columns(file: Path) -> None:
    names = tables.columns(file)
    if "event_name" in names:
        return
    missing = [name for name in _NEEDED if name not in names]
    if not set(_WHO) & set(names):
        missing.append(" or ".join(_WHO))
    if missing:
        raise UnknownColumns(
            f"events need the columns {_listed(_NEEDED)} and one of {_listed(_WHO)} (or our own "
            f"form with `event_name`); `{file}` misses {_listed(missing)}, it has: {_listed(names)}"
        )


def _event(row: dict[str, Any], items: dict[str, ItemInfo]) -> dict[str, Any]:
    """A row as shops export it, as an event. Other columns are kept in `extra`."""
    item_id = _text(row["item_id"])
    info = items.get(item_id or "", ItemInfo(None, None, None))
    event_type = _text(row["event_type"])
    price = _number(row.get("price"))
    item = {
        "item_id": item_id,
        "item_name": _text(row.get("title")) or info.title,
        "item_category": _text(row.get("category")) or info.category,
        "price": info.price if price is None else price,
        "quantity": _whole(row.get("quantity")),
    }
    session_id, user_id = _text(row.get("session_id")), _text(row.get("user_id"))
    event = {
        "event_name": EVENT_NAME_OF.get(event_type or "", event_type),
        "occurred_at": _time(row["event_time"]),
        "session_id": session_id,
        "visitor_id": user_id or session_id,
        "user_id": user_id,
        "items": [_present(item)],
        "currency": _text(row.get("currency")),
        "extra": _present({key: row[key] for key in row if key not in _USED}) or None,
    }
    return _present(event)


def _own_event(row: dict[str, Any]) -> dict[str, Any]:
    """A row in our own form; what is not in the contract goes along for `extra`."""
    event = _present({key: value for key, value in row.items() if key not in _OURS})
    if isinstance(event.get("occurred_at"), datetime):
        event["occurred_at"] = _time(event["occurred_at"])
    if isinstance(event.get("items"), list):
        event["items"] = [
            _present(item) if isinstance(item, dict) else item for item in event["items"]
        ]
    return event


def _present(fields: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in fields.items() if value is not None}


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _text(value: Any) -> str | None:
    return None if value is None or value == "" else str(value)


def _number(value: Any) -> Any:
    """A float where there is one; what is no number is left for the collector to reject."""
    if value is None or value == "":
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        return value
    return number if math.isfinite(number) else None


def _whole(value: Any) -> Any:
    number = _number(value)
    return int(number) if isinstance(number, float) and number.is_integer() else number


def _time(value: Any) -> Any:
    """A time as RFC 3339 text; without a zone it is UTC."""
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            return value
    if isinstance(value, datetime):
        return (value if value.tzinfo else value.replace(tzinfo=UTC)).isoformat()
    return value

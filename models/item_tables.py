"""Items and fallbacks as the tables of a model bundle."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import pyarrow as pa

_DETAILS = [
    pa.field("item_id", pa.string(), nullable=False),
    pa.field("title", pa.string()),
    pa.field("category", pa.string()),
    pa.field("price", pa.float64()),
]
ITEMS_SCHEMA = pa.schema([pa.field("item_idx", pa.int32(), nullable=False), *_DETAILS])
FALLBACKS_SCHEMA = pa.schema(
    [
        pa.field("rank", pa.int64(), nullable=False),
        pa.field("score", pa.float64(), nullable=False),
        *_DETAILS,
    ]
)


@dataclass(frozen=True)
class Item:
    """What is known of an item; the shop may not have told us all of it."""

    item_id: str
    title: str | None = None
    category: str | None = None
    price: float | None = None


def described(item_ids: Sequence[str], known: Mapping[str, Item]) -> list[Item]:
    """What the shop says of each of `item_ids`, in their order."""
    return [known.get(item_id, Item(item_id)) for item_id in item_ids]


def items_of(table: pa.Table) -> list[Item]:
    """The items of either table, in its order."""
    columns = (table[name].to_pylist() for name in ("item_id", "title", "category", "price"))
    return [Item(*row) for row in zip(*columns, strict=True)]


def items_table(items: Sequence[Item]) -> pa.Table:
    """`items` by `item_idx`."""
    return pa.table(
        {"item_idx": pa.array(range(len(items)), pa.int32()), **_details(items)},
        schema=ITEMS_SCHEMA,
    )


def fallbacks_table(fallbacks: Sequence[tuple[Item, float]]) -> pa.Table:
    """Popular items with their scores, best first."""
    return pa.table(
        {
            "rank": pa.array(range(1, len(fallbacks) + 1), pa.int64()),
            "score": pa.array([score for _, score in fallbacks], pa.float64()),
            **_details([item for item, _ in fallbacks]),
        },
        schema=FALLBACKS_SCHEMA,
    )


def item_map_sha256(item_ids: Sequence[str]) -> str:
    """Digest of which `item_id` has which `item_idx`."""
    return sha256("\n".join(item_ids).encode()).hexdigest()


def _details(items: Sequence[Item]) -> dict[str, list[Any]]:
    return {
        name: [getattr(item, name) for item in items]
        for name in ("item_id", "title", "category", "price")
    }

"""The shop's items in order of popularity, from the latest marts.

Serves the pages, and popularity alone while no champion does. Kept as an Arrow table: a million
items are tens of megabytes, and filters run in C.
"""

import logging
from collections.abc import Collection
from datetime import datetime

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, Field

from warehouse import snapshot
from warehouse.snapshot import NoSnapshot, SchemaMismatch
from warehouse.store import ObjectNotFound, ObjectStore, StoreUnavailable

logger = logging.getLogger(__name__)


class ShopItem(BaseModel):
    """One item; what the shop's events never said is null."""

    item_id: str
    title: str | None
    category: str | None
    price: float | None


class CategoryCount(BaseModel):
    """A category and how many items it has."""

    category: str
    n_items: int


class ItemPage(BaseModel):
    """A page of items, most popular first; `total` counts all that match."""

    items: list[ShopItem]
    total: int = Field(ge=0)
    limit: int
    offset: int


class Catalogue:
    """The items of one mart snapshot."""

    def __init__(
        self, snapshot_id: str, created_at: datetime, items: pa.Table, popularity: pa.Table
    ) -> None:
        """`items` and `popularity` are the marts of these names (MART_SCHEMAS)."""
        self.snapshot_id = snapshot_id
        self.created_at = created_at
        columns = items.select(["item_id", "title", "category", "price"])
        ranks = popularity.select(["item_id", "rank", "score"])
        self._table = (
            columns.join(ranks, "item_id", join_type="left outer")
            .sort_by([("rank", "ascending"), ("item_id", "ascending")])
            .combine_chunks()
        )

    def __len__(self) -> int:
        return int(self._table.num_rows)

    def page(self, query: str, category: str, limit: int, offset: int) -> ItemPage:
        """Items whose title or id contains `query`, of `category`; empty strings ask for all."""
        table = self._table
        if category:
            table = table.filter(pc.equal(table["category"], category))
        if query:
            in_title = pc.match_substring(table["title"], query, ignore_case=True)
            in_id = pc.match_substring(table["item_id"], query, ignore_case=True)
            table = table.filter(pc.or_kleene(in_title, in_id))
        found = _items(table.slice(min(offset, table.num_rows), limit))
        return ItemPage(items=found, total=table.num_rows, limit=limit, offset=offset)

    def find(self, item_id: str) -> ShopItem | None:
        place = pc.index(self._table["item_id"], item_id).as_py()
        return _items(self._table.slice(place, 1))[0] if place >= 0 else None

    def categories(self) -> list[CategoryCount]:
        """Categories, that with most items first."""
        counts = pc.value_counts(self._table["category"].drop_null()).to_pylist()
        counts.sort(key=lambda count: (-count["counts"], count["values"]))
        return [
            CategoryCount(category=count["values"], n_items=count["counts"]) for count in counts
        ]

    def popular(
        self, k: int, exclude: Collection[str], category: str | None,
        price_min: float | None = None, price_max: float | None = None,
    ) -> list[tuple[ShopItem, float]]:  # fmt: skip
        """The `k` most popular items and their scores, none of `exclude`."""
        table = self._table.filter(pc.is_valid(self._table["rank"]))
        if category is not None:
            table = table.filter(pc.equal(table["category"], category))
        if price_min is not None:
            table = table.filter(pc.greater_equal(table["price"], price_min))
        if price_max is not None:
            table = table.filter(pc.less_equal(table["price"], price_max))
        table = table.slice(0, k + len(exclude))
        scored = zip(_items(table), table["score"].to_pylist(), strict=True)
        return [(item, score) for item, score in scored if item.item_id not in exclude][:k]


def _items(table: pa.Table) -> list[ShopItem]:
    rows = table.select(["item_id", "title", "category", "price"]).to_pylist()
    return [ShopItem.model_construct(**row) for row in rows]


class CatalogueHolder:
    """Holds the latest catalogue; `refresh` alone changes it, from one thread."""

    def __init__(self, store: ObjectStore) -> None:
        self.current: Catalogue | None = None
        self.last_error: str | None = None
        self.is_store_reachable: bool | None = None  # None before the first look
        self._store = store
        self._bad_snapshot_id: str | None = None

    def refresh(self) -> None:
        """Hold the latest snapshot's items; on any trouble say so and keep the last. Blocks."""
        is_reachable = True
        try:
            latest = snapshot.latest(self._store)
            held = self.current.snapshot_id if self.current else None
            if latest.snapshot_id not in (held, self._bad_snapshot_id):
                self._load(latest)
        except NoSnapshot:
            self.last_error = None
        except StoreUnavailable as error:
            is_reachable = False
            self._failed("store_unavailable", error)
        except (ObjectNotFound, msgspec.DecodeError) as error:
            self._failed("marts_damaged", error)
        except (SchemaMismatch, pa.ArrowInvalid) as error:
            self._bad_snapshot_id = latest.snapshot_id
            self._failed("marts_damaged", error)
        else:
            if latest.snapshot_id != self._bad_snapshot_id:
                self.last_error = None
        self.is_store_reachable = is_reachable

    def _load(self, latest: snapshot.Snapshot) -> None:
        marts = [
            snapshot.read_mart(self._store, latest.snapshot_id, mart)
            for mart in ("items", "popularity")
        ]
        self.current = Catalogue(latest.snapshot_id, latest.created_at, *marts)
        logger.info(
            "catalogue_loaded snapshot=%s n_items=%d", latest.snapshot_id, len(self.current)
        )

    def _failed(self, reason: str, error: Exception) -> None:
        message = f"{reason}: {error}"
        if message != self.last_error:
            logger.error("catalogue_kept reason=%s error=%r", reason, str(error))
        self.last_error = message

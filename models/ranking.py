"""What is asked of a scorer, and what it answers."""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from models.item_tables import Item

POPULARITY = "popularity"


@dataclass(frozen=True)
class Query:
    """Which items are asked for: the `k` likeliest after `session_items`, oldest step first.

    Items in `exclude`, outside `category` or of a price outside the bounds (or unknown, where one
    is given) are not wanted. Raises ValueError if `k` < 1.
    """

    session_items: Sequence[str]
    k: int
    exclude: Collection[str] = ()
    category: str | None = None
    price_min: float | None = None
    price_max: float | None = None

    def __post_init__(self) -> None:
        if self.k < 1:
            raise ValueError(f"at least one item must be asked for, `k` is: {self.k}")

    @property
    def has_price(self) -> bool:
        """Whether a price is asked for; an item of unknown price then has none of the wanted."""
        return self.price_min is not None or self.price_max is not None

    @property
    def low(self) -> float:
        """Least price wanted."""
        return -math.inf if self.price_min is None else self.price_min

    @property
    def high(self) -> float:
        """Greatest price wanted."""
        return math.inf if self.price_max is None else self.price_max

    def takes(self, item: Item) -> bool:
        """Whether an item has the wanted category and price."""
        if self.category is not None and item.category != self.category:
            return False
        if not self.has_price:
            return True
        return item.price is not None and self.low <= item.price <= self.high


@dataclass(frozen=True)
class Ranked:
    """One recommended item. `source` is the part that speaks most for it, or popularity.

    `score` orders the items of one reply that do not come from popularity, and those that do.
    """

    item_id: str
    score: float
    source: str


@dataclass(frozen=True)
class Ranking:
    """Recommended items, the best first.

    `source` is what answered: `popularity` where the model knows none of the session's items.
    `n_known` is how many steps of the session the model knows.
    """

    items: list[Ranked]
    source: str
    n_known: int

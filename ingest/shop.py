"""An invented shop: its catalogue, and how its shoppers wander through it.

What a shopper looks at next depends on what they look at now: items lead to others that go with
them, shoppers have a favourite category, and some items are simply popular. So sessions hold an
order to learn. None of it is real; figures on it say nothing about quality.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate, product
from random import Random

CURRENCY = "USD"
ITEMS_PER_CATEGORY = 24

_CATALOGUE_SEED = 20_170
# Category: middle price in USD, adjectives, nouns.
_CATEGORIES: dict[str, tuple[float, str, str]] = {
    "Home/Lighting": (
        68,
        "Oak Brass Linen Smoked-Glass",
        "Bedside-Lamp Floor-Lamp Pendant Wall-Light Desk-Lamp String-Lights",
    ),
    "Home/Bedding": (
        54,
        "Linen Washed-Cotton Bamboo Flannel",
        "Duvet-Cover Pillowcase Fitted-Sheet Throw Quilt Mattress-Topper",
    ),
    "Home/Storage": (
        47,
        "Rattan Oak Felt Steel",
        "Basket Shelf Trunk Coat-Rack Shoe-Rack Drawer-Unit",
    ),
    "Kitchen/Cookware": (
        72,
        "Cast-Iron Copper Steel Enamel",
        "Skillet Saucepan Casserole Kettle Roasting-Tin Wok",
    ),
    "Kitchen/Tableware": (
        22,
        "Stoneware Porcelain Slate Olive-Wood",
        "Dinner-Plate Cereal-Bowl Mug Serving-Board Jug Espresso-Cup",
    ),
    "Kitchen/Coffee": (
        39,
        "Ceramic Glass Walnut Steel",
        "Pour-Over Coffee-Grinder French-Press Milk-Jug Coffee-Scale Bean-Jar",
    ),
    "Garden/Planters": (
        26,
        "Terracotta Zinc Glazed Hanging",
        "Planter Window-Box Herb-Pot Plant-Stand Saucer-Set Watering-Can",
    ),
    "Garden/Furniture": (
        165,
        "Teak Acacia Rope Folding",
        "Bench Bistro-Table Lounger Armchair Side-Table Parasol",
    ),
    "Outdoor/Camping": (
        88,
        "Ultralight Family Trail Alpine",
        "Tent Sleeping-Bag Headlamp Camp-Stove Sleeping-Mat Dry-Bag",
    ),
    "Outdoor/Cycling": (
        49,
        "Commuter Gravel Waterproof Reflective",
        "Pannier Helmet Bike-Light Gloves Saddle-Bag Floor-Pump",
    ),
    "Clothing/Knitwear": (
        79,
        "Merino Cashmere Lambswool Cotton",
        "Cardigan Crew-Neck Roll-Neck Vest Beanie Scarf",
    ),
    "Clothing/Rainwear": (
        96,
        "Waxed Recycled Packable Breathable",
        "Parka Poncho Rain-Jacket Overtrousers Rain-Hat Wellington-Boots",
    ),
}


@dataclass(frozen=True)
class CatalogueItem:
    """One item of the invented shop; `price` in USD."""

    item_id: str
    title: str
    category: str
    price: float


@lru_cache(maxsize=1)
def catalogue() -> tuple[CatalogueItem, ...]:
    """All items, the same at every call."""
    random = Random(_CATALOGUE_SEED)
    items = []
    for category, (middle_price, adjectives, nouns) in _CATEGORIES.items():
        names = list(product(adjectives.split(), nouns.split()))
        random.shuffle(names)
        for number, (adjective, noun) in enumerate(names[:ITEMS_PER_CATEGORY], 1):
            items.append(
                CatalogueItem(
                    item_id=f"{category.split('/')[1][:3].upper()}-{number:03d}",
                    title=f"{adjective} {noun}".replace("-", " "),
                    category=category,
                    price=math.ceil(middle_price * random.lognormvariate(0, 0.45)) - 0.01,
                )
            )
    return tuple(items)


@dataclass(frozen=True)
class Step:
    """A shopper looks at `item` after `pause_seconds`, and may put it into the cart."""

    item: CatalogueItem
    pause_seconds: float
    is_added: bool


class Shop:
    """The behaviour of shoppers: popularity, favourite categories, and what goes with what."""

    def __init__(self) -> None:
        self.items = catalogue()
        random = Random(_CATALOGUE_SEED + 1)
        self._by_category: dict[str, list[CatalogueItem]] = {}
        for item in self.items:
            self._by_category.setdefault(item.category, []).append(item)
        self.categories = tuple(self._by_category)
        # Catalogue order is random within a category, so it can be the order of popularity.
        self._popularity = list(accumulate(1 / (rank + 2) for rank in range(ITEMS_PER_CATEGORY)))
        self._category_weights = list(accumulate(1 / (rank + 3) for rank in range(12)))
        self._next = {item.item_id: self._companions(item, random) for item in self.items}

    def favourite(self, random: Random) -> str:
        """A shopper's favourite category."""
        return random.choices(self.categories, cum_weights=self._category_weights)[0]

    def popular(self, category: str, random: Random) -> CatalogueItem:
        """An item of a category, popular ones more often."""
        return random.choices(self._by_category[category], cum_weights=self._popularity)[0]

    def following(self, item: CatalogueItem, favourite: str, random: Random) -> CatalogueItem:
        """What a shopper looks at after `item`."""
        chance = random.random()
        if chance < 0.6:
            return random.choices(self._next[item.item_id], cum_weights=(0.6, 0.9, 1.0))[0]
        if chance < 0.8:
            return self.popular(item.category, random)
        if chance < 0.93:
            return self.popular(favourite, random)
        return self.popular(random.choice(self.categories), random)

    def journey(self, favourite: str, random: Random) -> Iterator[Step]:
        """One session: never empty, five steps on average."""
        item = self.popular(favourite, random)
        pause_seconds = 0.0
        for _ in range(1 + min(int(random.expovariate(1 / 4.5)), 40)):
            yield Step(item, pause_seconds, random.random() < 0.16)
            item = self.following(item, favourite, random)
            pause_seconds = random.lognormvariate(3.2, 0.8)

    def _companions(self, item: CatalogueItem, random: Random) -> Sequence[CatalogueItem]:
        """Two items of the same category and one of another that go with `item`."""
        same = [other for other in self._by_category[item.category] if other is not item]
        others = [other for other in self.items if other.category != item.category]
        return (*random.sample(same, 2), random.choice(others))

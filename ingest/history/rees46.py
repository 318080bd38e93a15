"""REES46 shops, as published on Kaggle (multi-category store, cosmetics shop, electronics store).

`event_time` (`2019-10-01 00:00:00 UTC`), `event_type` (`view`, `cart`, `remove_from_cart`,
`purchase`), `product_id`, `category_id`, `category_code`, `brand`, `price`, `user_id`,
`user_session`: https://www.kaggle.com/datasets/mkechinov/ecommerce-behavior-data-from-multi-category-store
and https://www.kaggle.com/datasets/mkechinov/ecommerce-events-history-in-cosmetics-shop.
"""

from ingest.history.formats import Format, Options, table_reader
from ingest.history.mapping import From, TableMapping
from ingest.history.times import TimeFormat

_NEEDED = frozenset({"event_time", "event_type", "product_id", "user_id"})


def _mappings(options: Options) -> dict[str, TableMapping]:
    fields = {
        "occurred_at": From(("event_time",)),
        "event_name": From(("event_type",)),
        "session_id": From(("user_session",)),
        "visitor_id": From(("user_id", "user_session")),
        "user_id": From(("user_id",)),
    }
    items = {
        "item_id": From(("product_id",)),
        "item_category": From(("category_code", "category_id")),
        "price": From(("price",)),
    }
    names = {"view": "view_item", "cart": "add_to_cart"}
    time = TimeFormat(timezone=options.timezone)
    return {"events": TableMapping(fields, items, names, time)}


REES46 = Format(
    name="rees46",
    expects="`event_time`, `event_type`, `product_id`, `user_id` (and `user_session`, `price`, …)",
    role_of=lambda names: "events" if set(names) >= _NEEDED else None,
    events=frozenset({"events"}),
    read=table_reader(_mappings),
)

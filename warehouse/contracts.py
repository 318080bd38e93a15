"""Arrow schemas at the borders between the parts, and the words that they share.

The event schema is the contract; the collector's model, the dbt source and the documentation are
tested equal to it.
"""

import pyarrow as pa

EVENT_SCHEMA_VERSION = 1

# Google Analytics 4 e-commerce vocabulary.
EVENT_NAMES = (
    "page_view",
    "view_item_list",
    "select_item",
    "view_item",
    "view_search_results",
    "add_to_cart",
    "remove_from_cart",
    "begin_checkout",
    "purchase",
)
# Events that mean nothing without at least one item.
ITEM_EVENT_NAMES = (
    "select_item",
    "view_item",
    "add_to_cart",
    "remove_from_cart",
    "purchase",
)
# Events that are one step of a session for the model, in training and in serving.
STEP_EVENT_NAMES = ("view_item", "add_to_cart", "purchase")

_UTC = pa.timestamp("us", tz="UTC")

# Why nothing is learned from a session that is kept, see the dbt model `int_left_out_sessions`.
# Kinds of devices, as the macro `device_of` tells them by user agents.
DEVICES = ("mobile", "desktop", "tablet", "unknown")
EXCLUSIONS = ("bot_agent", "too_many_events", "too_fast")

EVENT_ITEM = pa.struct(
    [
        pa.field("item_id", pa.string()),
        pa.field("item_name", pa.string()),
        pa.field("item_category", pa.string()),
        pa.field("price", pa.float64()),
        pa.field("quantity", pa.int32()),
        pa.field("index", pa.int32()),
    ]
)

RAW_EVENT_SCHEMA = pa.schema(
    [
        pa.field("event_id", pa.string(), nullable=False),
        pa.field("event_name", pa.string(), nullable=False),
        pa.field("occurred_at", _UTC, nullable=False),
        pa.field("received_at", _UTC, nullable=False),
        pa.field("visitor_id", pa.string()),
        pa.field("user_id", pa.string()),
        pa.field("session_id", pa.string()),
        pa.field("items", pa.list_(EVENT_ITEM)),
        pa.field("item_list_id", pa.string()),
        pa.field("recommendation_id", pa.string()),
        pa.field("value", pa.float64()),
        pa.field("currency", pa.string()),
        pa.field("page_url", pa.string()),
        pa.field("referrer", pa.string()),
        pa.field("user_agent", pa.string()),
        pa.field("ip_prefix", pa.string()),
        pa.field("consent", pa.string()),
        pa.field("source", pa.string()),
        pa.field("schema_version", pa.int16(), nullable=False),
        pa.field("extra", pa.string()),
    ]
)

REJECTED_SCHEMA = pa.schema(
    [
        pa.field("received_at", _UTC, nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("message", pa.string(), nullable=False),
        pa.field("body", pa.binary(), nullable=False),
        # What its request said beside the body; older objects lack these.
        pa.field("user_agent", pa.string()),
        pa.field("ip_prefix", pa.string()),
        pa.field("page_url", pa.string()),
        # Of a body that was refused as a whole: the path (and query) it was sent to, and how the
        # kept bytes are packed. Null where `body` is one event.
        pa.field("target", pa.string()),
        pa.field("encoding", pa.string()),
    ]
)

# Marts, as exported for training and serving. One row of `training_steps` is one step of a
# session: repeats of an item are collapsed, `step` counts from 0 in time order, `outcome` is the
# most that the session does with the item from there on (viewed, put into the cart, bought).
MART_SCHEMAS = {
    "training_steps": pa.schema(
        [
            pa.field("session_id", pa.string()),
            pa.field("step", pa.int32()),
            pa.field("item_id", pa.string()),
            pa.field("event_name", pa.string()),
            pa.field("occurred_at", _UTC),
            pa.field("outcome", pa.string()),
        ]
    ),
    "items": pa.schema(
        [
            pa.field("item_id", pa.string()),
            pa.field("title", pa.string()),
            pa.field("category", pa.string()),
            pa.field("price", pa.float64()),
            pa.field("n_views", pa.int64()),
            pa.field("n_carts", pa.int64()),
            pa.field("n_purchases", pa.int64()),
            pa.field("first_seen_at", _UTC),
            pa.field("last_seen_at", _UTC),
        ]
    ),
    "popularity": pa.schema(
        [
            pa.field("item_id", pa.string()),
            pa.field("rank", pa.int64()),
            pa.field("score", pa.float64()),
            pa.field("n_events", pa.int64()),
        ]
    ),
    "sessions": pa.schema(
        [
            pa.field("session_id", pa.string()),
            pa.field("visitor_id", pa.string()),
            pa.field("user_id", pa.string()),
            pa.field("started_at", _UTC),
            pa.field("ended_at", _UTC),
            pa.field("n_events", pa.int64()),
            pa.field("n_items", pa.int64()),
            pa.field("has_purchase", pa.bool_()),
            pa.field("device", pa.string()),
            pa.field("excluded_because", pa.string()),
        ]
    ),
}

# Columns that snapshots of before may lack; they are read as null.
MART_COLUMNS_ADDED = {"training_steps": ("outcome",), "sessions": ("device", "excluded_because")}

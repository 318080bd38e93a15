"""Google Analytics 4 as its tag for browsers (gtag.js) sends it: `/g/collect`, protocol version 2.

What a server-side tagging proxy passes on, or a tag whose `transport_url` points here. The format
has no reference of Google's. Items (`pr1=id…~nm…`, a tilde in a value doubled) and event parameters
(`ep.`, `epn.`) are read as Google's own parser of such hits does: GA4_PRODUCT_FIELDS in its
repository of e-commerce schema tools (Apache-2.0, 2021). The other parameters, and lines of a body
that stand for an event each over those of the query, are as
https://github.com/d8a-tech/d8a, docs/docs/articles/tracking-protocols/ga4-gtag.md, and
https://www.thyngster.com/app-web-google-analytics-measurement-protocol-version-2/ found them.
"""

import re
from typing import Any

from ingest.contract import SentEvent
from ingest.events import Decoded, check_count, check_size, decoded_each
from ingest.lenient import sent_event
from ingest.protocols.ga4 import our_name
from ingest.protocols.values import as_items, event_id_from, pairs_of, take, taken_fields
from ingest.rules import Context

SOURCE = "ga4_web"

# Where an event has our fields; the first that has a value counts.
FIELDS = {
    "event_id": ("ep.event_id",),
    "visitor_id": ("cid", "uid"),
    "user_id": ("uid",),
    "session_id": ("sid",),
    "item_list_id": ("ep.item_list_id",),
    "recommendation_id": ("ep.recommendation_id",),
    "value": ("epn.value", "ep.value"),
    "currency": ("cu", "ep.currency"),
    "page_url": ("dl", "ep.page_location"),
    "referrer": ("dr", "ep.page_referrer"),
    "consent": ("gcs",),
}
# The two letters before each value of an item.
ITEM_FIELDS = {
    "id": "item_id",
    "nm": "item_name",
    "br": "item_brand",
    "ca": "item_category",
    "c2": "item_category2",
    "c3": "item_category3",
    "c4": "item_category4",
    "c5": "item_category5",
    "va": "item_variant",
    "pr": "price",
    "qt": "quantity",
    "cp": "coupon",
    "ln": "item_list_name",
    "li": "item_list_id",
    "lp": "index",
    "ds": "discount",
    "af": "affiliation",
    "pi": "promotion_id",
    "pn": "promotion_name",
    "cn": "creative_name",
    "cs": "creative_slot",
    "lo": "location_id",
}
_ITEM = re.compile(r"pr(\d{1,3})", re.ASCII)
_ESCAPED = re.compile(r"(?<!~)~(?!~)")
_KINDS = ("ep", "epn", "up", "upn")
_NAME = "en"
# The page that was loaded, and the how-manieth request of it this is: together they tell a request
# from every other one, and are the same when it is sent again.
_PLACE = ("_p", "_s")


def decode(query: bytes, body: bytes, context: Context) -> Decoded:
    """The event of a query string, or those of a body's lines over what the query says of all.

    Raises InvalidBody.
    """
    check_size(query + body, context.limits)
    lines = [line.strip() for line in body.splitlines() if line.strip()]
    raws = [_over(query, line) for line in lines] if lines else [query] if query else []
    check_count(len(raws), context.limits)
    return decoded_each(raws, context, lambda index, raw: (_read(index, raw), context))


def _over(query: bytes, line: bytes) -> bytes:
    """A line as a query of its own, with what it does not say itself from the request's."""
    named = {part.partition(b"=")[0] for part in line.split(b"&")}
    shared = [part for part in query.split(b"&") if part and part.partition(b"=")[0] not in named]
    return b"&".join([*shared, line])


def _read(index: int, raw: bytes) -> SentEvent:
    parameters = dict(pairs_of(raw))
    event_name = our_name(parameters.get(_NAME), _NAME)
    items = _items(parameters)
    fields = _nested(parameters)
    del fields[_NAME]
    event_id = event_id_from(SOURCE, take(fields, *FIELDS["event_id"]))
    if event_id is None and all(parameters.get(name) for name in _PLACE):
        event_id = event_id_from(SOURCE, f"{index} {raw.decode('latin-1')}")
    known = taken_fields(fields, FIELDS) | {
        "event_id": event_id,
        "event_name": event_name,
        "items": as_items(items, {}) or None,
    }
    return sent_event(known | {"extra": fields})


def _items(parameters: dict[str, str]) -> list[dict[str, str]]:
    """The items `pr1`, `pr2`, … in their order, taken out of `parameters`."""
    places = {int(match[1]): name for name in parameters if (match := _ITEM.fullmatch(name))}
    return [_item(parameters.pop(places[place])) for place in sorted(places)]


def _item(text: str) -> dict[str, str]:
    """The fields of one item; those that are not known keep their two letters as a name."""
    item: dict[str, str] = {}
    for part in _ESCAPED.split(text):
        code, value = part[:2], part[2:].replace("~~", "~")
        if value:
            item[ITEM_FIELDS.get(code, code)] = value
    return item


def _nested(parameters: dict[str, str]) -> dict[str, Any]:
    """Parameters of an event (`ep.`, `epn.`) and of its visitor (`up.`, `upn.`) as objects."""
    fields: dict[str, Any] = {}
    for name, value in parameters.items():
        kind, dot, rest = name.partition(".")
        if dot and rest and kind in _KINDS:
            fields.setdefault(kind, {})[rest] = value
        elif name not in _KINDS:
            fields[name] = value
    return fields

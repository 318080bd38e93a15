"""Google Analytics 360 (Universal Analytics), its export to BigQuery: `ga_sessions_YYYYMMDD`.

A line is a session: `fullVisitorId`, `visitId`, `visitStartTime` (seconds), `hits`; a row here is
one of its hits. `hits.eCommerceAction.action_type` says what happened to `hits.product`, save for
those with `isImpression`, which were seen in a list; prices are in millionths:
https://support.google.com/analytics/answer/3437719 and
https://scosco.github.io/learn-bigquery/google-analytics/eec.html. Hits that we have no name for
(refunds, interactions) are left out, counted by kind.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl

from ingest.history.files import Tally, records
from ingest.history.formats import Format, Source
from ingest.history.frame import from_events
from ingest.protocols.values import as_amount, as_count, as_text

_NEEDED = frozenset({"fullVisitorId", "visitId", "hits"})
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLIONTHS = 1_000_000
_ACTIONS = {
    "1": "select_item",
    "2": "view_item",
    "3": "add_to_cart",
    "4": "remove_from_cart",
    "5": "begin_checkout",
    "6": "purchase",
}
_LEFT_OUT = {"7": "a refund", "8": "checkout options"}
_NOTHING = (None, "", "(not set)")


def _read(source: Source, tally: Tally) -> Iterator[pl.DataFrame]:
    for file in source.of("sessions"):
        lines = Tally()
        for sessions in records(file, lines):
            events: list[dict[str, Any]] = []
            for session in sessions:
                events += _events(session, tally)
            if events:
                yield from_events(events)
        tally.n_rows += lines.skipped.total()
        tally.skipped.update(lines.skipped)


def _events(session: dict[str, Any], tally: Tally) -> Iterator[dict[str, Any]]:
    hits = session.get("hits") or []
    tally.n_rows += len(hits) or 1
    if not hits:
        tally.skip("a session without hits")
    began = as_count(session.get("visitStartTime")) or as_count(session.get("visitId"))
    visitor_id = as_text(session.get("fullVisitorId"))
    who = {
        "visitor_id": visitor_id,
        "user_id": as_text(session.get("userId")),
        "session_id": f"{visitor_id}.{as_text(session.get('visitId'))}",
    }
    for hit in hits:
        if not isinstance(began, int):
            tally.skip("a row without a time")
            continue
        action = str(as_text((hit.get("eCommerceAction") or {}).get("action_type")) or "0")
        if action in _LEFT_OUT:
            tally.skip(f"no event of ours stands for {_LEFT_OUT[action]}")
            continue
        event = _event(hit, action)
        if event is None:
            tally.skip(f"no event of ours stands for a hit of type {hit.get('type')}")
            continue
        after = timedelta(seconds=began, milliseconds=as_count(hit.get("time")) or 0)
        yield who | {"occurred_at": (_EPOCH + after).isoformat()} | event


def _event(hit: dict[str, Any], action: str) -> dict[str, Any] | None:
    products = hit.get("product") or []
    seen = [product for product in products if product.get("isImpression") in (True, "true")]
    meant = [product for product in products if product not in seen]
    if action in _ACTIONS:
        event_name, used = _ACTIONS[action], meant
    elif seen and hit.get("type") != "PAGE":
        event_name, used = "view_item_list", seen
    elif hit.get("type") in ("PAGE", "APPVIEW", "SCREENVIEW"):
        event_name, used = ("view_item_list", seen) if seen else ("page_view", [])
    else:
        return None
    lists = {product.get("productListName") for product in used} - set(_NOTHING)
    transaction = hit.get("transaction") or {}
    page = hit.get("page") or {}
    order_id = as_text(transaction.get("transactionId"))
    return {
        "event_name": event_name,
        "items": [_item(product) for product in used] or None,
        "item_list_id": lists.pop() if len(lists) == 1 else None,
        "value": _money(transaction.get("transactionRevenue")),
        "currency": as_text(transaction.get("currencyCode")),
        "page_url": _url(page),
        "referrer": as_text(hit.get("referer")),
        "extra": {"transaction_id": order_id} if order_id else None,
    }


def _item(product: dict[str, Any]) -> dict[str, Any]:
    category = as_text(product.get("v2ProductCategory"))
    # Shops of Google's own sample leave the template's `${…}` in.
    is_known = category not in _NOTHING and "${" not in str(category)
    item = {
        "item_id": as_text(product.get("productSKU")),
        "item_name": as_text(product.get("v2ProductName")),
        "item_category": category if is_known else None,
        "price": _money(product.get("productPrice")),
        "quantity": as_count(product.get("productQuantity")),
        "index": as_count(product.get("productListPosition")),
    }
    return {key: value for key, value in item.items() if value not in _NOTHING}


def _money(millionths: Any) -> Any:
    amount = as_amount(millionths)
    return amount / _MILLIONTHS if isinstance(amount, int | float) else amount


def _url(page: dict[str, Any]) -> str | None:
    path = as_text(page.get("pagePath"))
    host = as_text(page.get("hostname"))
    return f"https://{host}{path}" if host and path else path


GA360 = Format(
    name="ga360",
    expects="`fullVisitorId`, `visitId` and `hits`, a session a row",
    role_of=lambda names: "sessions" if set(names) >= _NEEDED else None,
    events=frozenset({"sessions"}),
    read=_read,
)

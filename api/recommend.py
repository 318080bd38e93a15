"""GET /recommend: the request as it is spelled in the query string. A bare ASGI endpoint."""

import math
from dataclasses import replace
from urllib.parse import parse_qsl

import msgspec
from starlette.types import Receive, Scope

from api.access import caller
from api.batching import Batcher
from api.errors import Refused, shown
from api.front import Reply
from api.recommender import Recommender, RecommendReply, RecommendRequest
from warehouse.settings import ServingSettings

PATH = "/recommend"
MAX_ID_LENGTH = 256
MAX_LISTED = 1_000

_encode = msgspec.json.Encoder().encode


class RecommendEndpoint:
    """The endpoint of GET /recommend."""

    methods = ("GET",)

    def __init__(self, recommender: Recommender, settings: ServingSettings) -> None:
        self._batcher: Batcher[RecommendRequest, RecommendReply] = Batcher(
            recommender.recommend_each
        )
        self._settings = settings

    async def answer(self, scope: Scope, receive: Receive) -> Reply:
        request = parse(scope["query_string"], self._settings)
        if caller.get().is_public:
            # A visitor's id may be a user's name, and be guessed; a session's cannot.
            request = replace(request, is_own_session=True)
        return Reply(200, _encode(await self._batcher.ask(request)))


def parse(query: bytes, settings: ServingSettings) -> RecommendRequest:
    """The request in a query string. Raises Refused (422)."""
    values = _values(query)
    request = RecommendRequest(
        session=_text(values, "session"),
        k=_k(values, settings),
        item=_text(values, "item"),
        items=_listed(values, "items") if "items" in values else None,
        exclude=_listed(values, "exclude"),
        category=_text(values, "category"),
        placement=_text(values, "placement"),
        price_min=_price(values, "price_min"),
        price_max=_price(values, "price_max"),
    )
    if request.session is None and request.item is None and request.items is None:
        raise Refused(
            422,
            "missing_session",
            "recommend for whom? none of `session`, `item` and `items` is given",
            field="session",
            remedy="add `?session=<session_id>` as the events carry it, or `?items=<item_id>,…`",
        )
    return request


def _values(query: bytes) -> dict[str, list[str]]:
    """Every value of each parameter, in order."""
    try:
        pairs = parse_qsl(
            query.decode("latin-1"), keep_blank_values=True, max_num_fields=MAX_LISTED
        )
    except ValueError:
        raise Refused(
            422,
            "too_many_parameters",
            f"a query string may have this many parameters: `{MAX_LISTED}`",
            field="query",
        ) from None
    values: dict[str, list[str]] = {}
    for name, value in pairs:
        values.setdefault(name, []).append(value)
    return values


def _text(values: dict[str, list[str]], name: str) -> str | None:
    """The last value of a parameter, None where it is absent or empty."""
    value = values.get(name, [""])[-1]
    _check_length(name, value)
    return value or None


def _listed(values: dict[str, list[str]], name: str) -> list[str]:
    """Ids of a parameter that is a list: separated by commas, repeated, or both."""
    ids = [item_id for value in values.get(name, ()) for item_id in value.split(",") if item_id]
    if len(ids) > MAX_LISTED:
        raise Refused(
            422,
            "too_many_items",
            f"`{name}` may list {MAX_LISTED} items, it lists: `{len(ids)}`",
            field=name,
        )
    for item_id in ids:
        _check_length(name, item_id)
    return ids


def _check_length(name: str, value: str) -> None:
    if len(value) > MAX_ID_LENGTH:
        raise Refused(
            422,
            "too_long",
            f"`{name}` may have {MAX_ID_LENGTH} characters, it has {len(value)}: `{shown(value)}`",
            field=name,
        )


def _price(values: dict[str, list[str]], name: str) -> float | None:
    text = _text(values, name)
    if text is None:
        return None
    try:
        price = float(text)
    except ValueError:
        price = math.nan
    if not 0 <= price < math.inf:
        raise Refused(
            422,
            "invalid_price",
            f"`{name}` must be a price, 0 or more: `{shown(text)}`",
            field=name,
            remedy=f"send {name}=19.90, in the currency of the catalogue, or leave it out",
        )
    return price


def _k(values: dict[str, list[str]], settings: ServingSettings) -> int:
    text = values.get("k", [str(min(settings.default_k, settings.max_k))])[-1]
    is_number = text.isascii() and text.isdigit() and len(text) < 10
    if not is_number or not 1 <= int(text) <= settings.max_k:
        raise Refused(
            422,
            "invalid_k",
            f"`k` must be a whole number from 1 to {settings.max_k}: `{shown(text)}`",
            field="k",
            remedy=f"send k=1 to k={settings.max_k}, or leave it out for {settings.default_k}",
        )
    return int(text)

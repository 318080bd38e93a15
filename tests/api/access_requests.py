"""Requests of every route, and what their refusals have in common."""

from base64 import b64encode
from typing import Any

from httpx import Response

from tests.api.tiny_shop import view
from warehouse.settings import Settings
from warehouse.settings.access import AccessSettings

SHOP = "https://shop.example"
MESSAGE = {"type": "track", "event": "Product Viewed", "messageId": "m-1", "anonymousId": "v-1",
           "properties": {"product_id": "mug"}}  # fmt: skip
GA4 = {"client_id": "c-1", "events": [{"name": "page_view"}]}


def with_access(settings: Settings, **values: Any) -> Settings:
    return settings.model_copy(update={"access": AccessSettings(**values)})


def error_of(reply: Response) -> dict[str, str]:
    error: dict[str, str] = reply.json()["error"]
    assert error["remedy"]
    assert error["field"]
    return error


def basic(user: str) -> dict[str, str]:
    return {"Authorization": "Basic " + b64encode(f"{user}:".encode()).decode()}


EVENT_REQUESTS: list[tuple[str, str, Any]] = [
    ("POST", "/events", view("mug")),
    ("POST", "/v1/track", MESSAGE),
    ("POST", "/v1/t", MESSAGE),
    ("POST", "/v1/batch", {"batch": [MESSAGE]}),
    ("POST", "/v1/m", {"series": []}),
    ("POST", "/mp/collect", GA4),
    ("POST", "/debug/mp/collect", GA4),
    ("GET", "/pixel.gif?event_name=page_view&session_id=s-1", None),
]
READ_REQUESTS = [
    ("GET", "/recommend?session=s-1", None),
    ("GET", "/status", None),
    ("GET", "/metrics", None),
    ("GET", "/items", None),
    ("GET", "/items/item-01", None),
    ("GET", "/categories", None),
    ("GET", "/no/such/path", None),
    ("DELETE", "/visitors/v-1", None),
]

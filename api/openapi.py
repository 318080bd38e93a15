"""The OpenAPI document: FastAPI's, with the hot paths and the one error shape put in.

The schemas of the hot paths come from the very structs that are decoded and encoded there.
"""

import json
from typing import Any

import msgspec
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from api import openapi_access, openapi_protocols, recommend
from api.collector import EventsReply, NothingAccepted
from api.errors import ErrorReply
from api.openapi_parts import REF, answer, error, parameter, retry
from api.recommender import RecommendReply
from ingest.contract import SentEvent
from ingest.protocols.routes import EVENTS_PATH
from warehouse.contracts import EVENT_NAMES
from warehouse.settings import Settings

_STRUCTS = (
    SentEvent,
    EventsReply,
    NothingAccepted,
    RecommendReply,
    ErrorReply,
    *openapi_protocols.STRUCTS,
)

_VIEW = {
    "event_id": "3f2504e0-4f89-41d3-9a0c-0305e82c3301",
    "event_name": "view_item",
    "occurred_at": "2026-01-31T12:00:00Z",
    "session_id": "s-1",
    "items": [{"item_id": "mug-blue", "item_name": "Blue mug", "price": 12.5}],
    "currency": "USD",
}
_PURCHASE = {
    **_VIEW,
    "event_id": "9b2d7f10-6a4b-4a39-8f0e-2c8d1f6f5b11",
    "event_name": "purchase",
    "value": 12.5,
}
_LINES = "".join(f"{json.dumps(event)}\n" for event in (_VIEW, _PURCHASE))
_RECOMMENDED = {
    "recommendation_id": "5e6d7a52-1f0e-4a53-9d8f-0b7f7d1c2a10",
    "session": "s-1",
    "placement": None,
    "model": "reranked",
    "model_version": "20260131T030000Z",
    "variant": "champion",
    "fallback": None,
    "items": [
        {
            "item_id": "mug-red",
            "title": "Red mug",
            "category": "Mugs",
            "price": 12.5,
            "score": 4.2,
            "rank": 1,
            "source": "gru4rec",
            "reason": "shoppers who viewed Blue mug next looked at this",
        }
    ],
}


def install(app: FastAPI, settings: Settings) -> None:
    """Make `app.openapi` give the whole document."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _document(app, settings)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way


def _document(app: FastAPI, settings: Settings) -> dict[str, Any]:
    document = get_openapi(
        title=app.title, version=app.version, description=app.description, routes=app.routes
    )
    _, structs = msgspec.json.schema_components(_STRUCTS, ref_template=REF)
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    schemas.update(structs)
    schemas["SentEvent"]["properties"]["event_name"] = {"enum": list(EVENT_NAMES)}
    schemas["SentEvent"]["required"] = ["event_name"]
    # Fields that we do not know are accepted too, and kept in `extra`.
    schemas["SentEvent"].pop("additionalProperties", None)
    schemas["EventItem"].pop("additionalProperties", None)
    for path in document["paths"].values():
        for operation in path.values():
            if "422" in operation["responses"]:
                operation["responses"]["422"] = error("A parameter is wrong; the error names it.")
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    document["paths"] = {
        EVENTS_PATH: {"post": _events(settings)},
        **openapi_protocols.paths(settings),
        recommend.PATH: {"get": _recommend(settings)},
        **document["paths"],
    }
    event_paths = (EVENTS_PATH, *openapi_protocols.paths(settings))
    openapi_access.describe(document, event_paths)
    return document


def _events(settings: Settings) -> dict[str, Any]:
    limits = settings.ingest
    event = {"$ref": REF.format(name="SentEvent")}
    body = {
        "schema": {
            "oneOf": [
                event,
                {"type": "array", "items": event, "maxItems": limits.max_batch_events},
            ]
        },
        "examples": {
            "one": {"summary": "One event", "value": _VIEW},
            "several": {"summary": "Several events", "value": [_VIEW, _PURCHASE]},
        },
    }
    return {
        "tags": ["events"],
        "operationId": "post_events",
        "summary": "Send one event or several",
        "description": "Acknowledged with 202 once the accepted events are on disk. Right and "
        "wrong events may share a request: `errors` says which were rejected and why. Send an "
        "`event_id`: a repeated event then counts once.",
        "requestBody": {
            "required": True,
            "content": {
                "application/json": body,
                "text/plain": {"schema": body["schema"]},
                "application/x-ndjson": {
                    "schema": {"type": "string", "description": "An event a line."},
                    "example": _LINES,
                },
            },
        },
        "responses": {
            "202": answer(
                "The accepted events are durable.",
                "EventsReply",
                {"accepted": 1, "rejected": 0, "errors": []},
            ),
            "400": error("The body is not JSON, or not gzip as it says."),
            "405": error("Not a POST."),
            "413": error(
                f"More than {limits.max_body_bytes} bytes or {limits.max_batch_events} events."
            ),
            "415": error("None of these media types, or compressed otherwise than by gzip."),
            "422": _nothing_accepted(),
            "503": retry("The outbox is full or broken; nothing of the request was kept."),
        },
    }


def _nothing_accepted() -> dict[str, Any]:
    """Where no event could be told apart there is none to say anything of."""
    shapes = [{"$ref": REF.format(name=name)} for name in ("NothingAccepted", "ErrorReply")]
    content = {"application/json": {"schema": {"anyOf": shapes}}}
    return {"description": "No event was accepted.", "content": content}


def _recommend(settings: Settings) -> dict[str, Any]:
    serving = settings.serving
    price = {"type": "number", "minimum": 0}
    return {
        "tags": ["recommendations"],
        "operationId": "get_recommend",
        "summary": "Recommend items for a session",
        "description": "Ranks by the session's steps so far. An unknown session or item is not an "
        "error: `fallback` then says why popular items are replied. At least one of `session`, "
        "`item` and `items` is needed.",
        "parameters": [
            parameter("session", "The `session_id` of the events (or their `visitor_id`).", "s-1"),
            parameter(
                "k",
                "How many items.",
                None,
                {
                    "type": "integer",
                    "minimum": 1,
                    "maximum": serving.max_k,
                    "default": min(serving.default_k, serving.max_k),
                },
            ),
            parameter("item", "The item of the page that asks, the latest step."),
            parameter(
                "items",
                "Items seen, oldest first, by commas; stand for the session's recorded steps. "
                f"The latest {settings.ingest.session_max_steps} count.",
            ),
            parameter("exclude", "Items not to recommend, by commas."),
            parameter("category", "Only items of this category."),
            parameter("price_min", "Only items of this price or more.", schema=price),
            parameter("price_max", "Only items of this price or less.", schema=price),
            parameter("placement", "Where on the shop's page it is shown; repeated in the reply."),
        ],
        "responses": {
            "200": answer("Items, best first.", "RecommendReply", _RECOMMENDED),
            "405": error("Not a GET."),
            "422": error("A parameter is wrong or missing; the error names it."),
            "503": retry("Neither a model nor a mart exists yet."),
        },
    }

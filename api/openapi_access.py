"""What the OpenAPI document says of keys and rates: schemes, and the refusals of each route."""

from collections.abc import Iterable
from typing import Any

from api.openapi_parts import error, retry
from api.scopes import scope_of
from ingest.protocols.routes import PIXEL_PATH

_SCHEMES: dict[str, dict[str, str]] = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "A secret or a write key."},
    "basic": {
        "type": "http",
        "scheme": "basic",
        "description": "A key as user name, no password: Segment's libraries send it so.",
    },
    "write_key_header": {"type": "apiKey", "in": "header", "name": "X-Write-Key"},
    "api_key_header": {"type": "apiKey", "in": "header", "name": "X-Api-Key"},
    "key_parameter": {
        "type": "apiKey",
        "in": "query",
        "name": "key",
        "description": "A write key; a secret key is refused here.",
    },
    "api_secret_parameter": {
        "type": "apiKey",
        "in": "query",
        "name": "api_secret",
        "description": "As GA4's Measurement Protocol sends it.",
    },
}
_UNKNOWN = "The key is missing, unknown, expired, revoked or rotated; the error says which."
_FORBIDDEN = "The key lacks the scope `{scope}`, or the page's origin is not allowed."
_TOO_MANY = "More events than the key or the address may send."


def describe(document: dict[str, Any], event_paths: Iterable[str]) -> None:
    """Add the schemes, and to each operation that may ask for a key what it may answer."""
    document.setdefault("components", {})["securitySchemes"] = _SCHEMES
    event_paths = set(event_paths)
    for path, operations in document["paths"].items():
        scope = scope_of(path, path in event_paths)
        if scope is None:
            continue
        for operation in operations.values():
            operation["security"] = [{}, *({name: [scope]} for name in _SCHEMES)]
            refusals = _refusals(scope, is_image=path == PIXEL_PATH)
            operation["responses"] = dict(sorted({**refusals, **operation["responses"]}.items()))


def _refusals(scope: str, *, is_image: bool) -> dict[str, Any]:
    refusals = {
        "401": error(_UNKNOWN),
        "403": error(_FORBIDDEN.format(scope=scope)),
        "429": retry(_TOO_MANY),
    }
    refusals["429"]["headers"] |= {
        name: {"description": "draft-ietf-httpapi-ratelimit-headers.", "schema": {"type": "string"}}
        for name in ("RateLimit", "RateLimit-Policy")
    }
    refusals["503"] = retry("The file of keys cannot be read; nothing was kept.")
    if is_image:
        for refusal in refusals.values():
            refusal["content"] = {"image/gif": {"schema": {"type": "string", "format": "binary"}}}
    return refusals

"""Which scope of a key each path asks for."""

from functools import lru_cache

from api.keys import ADMIN, EVENTS_WRITE, ITEMS_READ, RECOMMEND_READ, STATUS_READ

# Paths that ask for no key: pages and scripts for everybody, and what health checks look at.
OPEN_PATHS = frozenset(
    (
        "/", "/docs", "/openapi.json", "/favicon.ico", "/healthz", "/readyz",
        "/shallop.js", "/shallop.mjs", "/shallop-carousel.js", "/shallop.d.ts",
    )
)  # fmt: skip
# The second is asked by Segment's library for browsers before it has a key to send.
OPEN_FOLDERS = ("/static/", "/v1/projects/")

_SCOPES = {
    "/recommend": RECOMMEND_READ,
    "/items": ITEMS_READ,
    "/categories": ITEMS_READ,
    "/status": STATUS_READ,
    "/metrics": STATUS_READ,
}


@lru_cache(maxsize=1024)
def scope_of(path: str, is_event_path: bool) -> str | None:
    """The scope that a path asks for, None where it is open; what is unknown is for `admin`."""
    if path in OPEN_PATHS or path.startswith(OPEN_FOLDERS):
        return None
    if path in _SCOPES:
        return _SCOPES[path]
    if path.startswith("/items/"):
        return ITEMS_READ
    return EVENTS_WRITE if is_event_path else ADMIN

"""Pages for people: the demonstration shop at `/`, its items, and the API's documentation.

Everything is served from here, nothing from the internet; the content policy says so too.
"""

from html import escape
from importlib import resources
from pathlib import Path
from string import Template
from typing import Annotated

import fastapi_offline
from fastapi import APIRouter, FastAPI, Query
from fastapi.responses import FileResponse, HTMLResponse
from fastapi.staticfiles import StaticFiles

from api import scripts
from api.catalogue import CategoryCount, ItemPage, ShopItem
from api.errors import Refused, shown
from api.openapi_parts import error
from api.parts import PartsDep

STATIC = Path(__file__).with_name("static")
# Swagger UI, as the wheel brings it; we use its files alone.
SWAGGER = Path(str(resources.files(fastapi_offline) / "static"))

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'{styles}; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-cache",
}
PAGE_HEADERS = _HEADERS | {"Content-Security-Policy": _POLICY.format(styles="")}
# Swagger UI writes style attributes.
_DOCS_HEADERS = _HEADERS | {"Content-Security-Policy": _POLICY.format(styles=" 'unsafe-inline'")}

router = APIRouter()


def install(app: FastAPI) -> None:
    """Add the pages and the files that they need."""
    app.include_router(router)
    app.include_router(scripts.router)
    app.mount("/static/swagger", StaticFiles(directory=SWAGGER), name="swagger")
    app.mount("/static", StaticFiles(directory=STATIC), name="static")


@router.get("/", include_in_schema=False)
async def shop_page(parts: PartsDep) -> HTMLResponse:
    serving = parts.settings.serving
    page = Template((STATIC / "shop.html").read_text()).substitute(
        shop_name=escape(serving.shop_name), currency=escape(serving.currency)
    )
    return HTMLResponse(page, headers=PAGE_HEADERS)


@router.get("/docs", include_in_schema=False)
async def docs_page() -> FileResponse:
    return FileResponse(STATIC / "docs.html", headers=_DOCS_HEADERS)


@router.get("/favicon.ico", include_in_schema=False)
async def favicon() -> FileResponse:
    return FileResponse(STATIC / "icon.svg", media_type="image/svg+xml")


@router.get("/items", tags=["catalogue"], summary="The shop's items")
def items(
    parts: PartsDep,
    limit: Annotated[int, Query(ge=1, le=200, description="Most items in the reply.")] = 24,
    offset: Annotated[int, Query(ge=0, le=10**9, description="Items to skip.")] = 0,
    q: Annotated[str, Query(max_length=256, description="Part of a title or id.")] = "",
    category: Annotated[str, Query(max_length=256, description="Only this category.")] = "",
) -> ItemPage:
    """The shop's items, most popular first; none before the first refresh."""
    catalogue = parts.catalogue.current
    if catalogue is None:
        return ItemPage(items=[], total=0, limit=limit, offset=offset)
    return catalogue.page(q, category, limit, offset)


@router.get(
    "/items/{item_id:path}",
    tags=["catalogue"],
    summary="One item",
    responses={404: error("No item has this id.")},
)
def item(parts: PartsDep, item_id: str) -> ShopItem:
    """One item by its id."""
    catalogue = parts.catalogue.current
    found = catalogue.find(item_id) if catalogue else None
    if found is None:
        raise Refused(
            404, "unknown_item", f"no item in the latest marts has this id: `{shown(item_id)}`",
            field="item_id", remedy="see /items for those there are",
        )  # fmt: skip
    return found


@router.get("/categories", tags=["catalogue"], summary="The shop's categories")
def categories(parts: PartsDep) -> list[CategoryCount]:
    """The shop's categories, that with most items first."""
    catalogue = parts.catalogue.current
    return catalogue.categories() if catalogue else []

"""Pages about the models kept: a list, and each one's report."""

from fastapi import APIRouter
from fastapi.responses import HTMLResponse, Response

from api.errors import Refused
from api.parts import Parts, PartsDep
from models.bundle import REPORT
from models.manifest import NAME, BundleCorrupt
from models.registry import BundleInfo, Registry, UnknownModel
from models.report.listing import Listed, render_listing
from warehouse.store import StoreUnavailable, open_store

router = APIRouter()

_MOST = 50
# Nothing runs in these pages and nothing is loaded; their style stands in them.
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-cache",
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    ),
}


@router.get("/models", include_in_schema=False)
def models_page(parts: PartsDep) -> HTMLResponse:
    """Every model kept, newest first."""
    registry = _registry(parts)
    try:
        versions = registry.versions()
        listed = [_listed(registry, info) for info in versions[:_MOST]]
    except (BundleCorrupt, StoreUnavailable) as error:
        raise _unavailable(error) from error
    page = render_listing(listed, len(versions) - len(listed))
    return HTMLResponse(page, headers=_HEADERS)


@router.get("/models/{version}/report", include_in_schema=False)
def model_report(parts: PartsDep, version: str, name: str = NAME) -> Response:
    """The report of one model, as its bundle has it."""
    try:
        report = _registry(parts).report(name, version)
    except UnknownModel as error:
        raise Refused(
            404, "unknown_model", str(error), field="version", remedy="see /models for those kept"
        ) from error
    except (BundleCorrupt, StoreUnavailable) as error:
        raise _unavailable(error) from error
    return Response(report, media_type="text/html; charset=utf-8", headers=_HEADERS)


def _registry(parts: Parts) -> Registry:
    return Registry(open_store(parts.settings))


def _listed(registry: Registry, info: BundleInfo) -> Listed:
    checks = registry.checks(info.name, info.version)
    return Listed(
        info,
        failed=[str(check["name"]) for check in checks if not check["passed"]],
        has_report=REPORT in registry.manifest(info.name, info.version)["files"],
        summary=registry.metrics(info.name, info.version).get("summary", {}),
    )


def _unavailable(error: Exception) -> Refused:
    return Refused(
        503, "models_unavailable", f"the models cannot be read now: {error}",
        remedy="try again; /status says whether the store is reached",
    )  # fmt: skip

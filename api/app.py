"""The one app: collector, recommendations, status and pages.

`shallop serve`, or `uvicorn --factory api.app:create_app --http api.connection:EventsConnection`,
with as many workers as wanted. It starts, and acknowledges events, with the object store down and
before any model exists; /readyz and /status say so.
"""

import gc
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send

from api import errors, models, openapi, pages, protocols, recommend, segment_settings, status
from api.access import AccessControl
from api.collector import Collector
from api.cors import Cors
from api.front import Endpoint, Front
from api.metrics import Metrics
from api.parts import Parts, running
from api.recommend import RecommendEndpoint
from api.recommender import Recommender
from api.single_events import STATE, SingleEvents
from ingest.compiled import compiled
from ingest.protocols.routes import EVENTS_PATH
from warehouse import log
from warehouse.settings import Settings, get_settings

# How long a thread may keep Python's lock from another, in seconds (Python: 5 ms). The outbox's
# writer asks for it after each step of a commit, while requests are answered without a pause.
_SWITCH_SECONDS = 0.0005


class ShallopApp(FastAPI):
    """FastAPI with our front outside of its middleware, and CORS outside of both.

    FastAPI's own `add_middleware` would put them inside its error handling: an error's reply would
    lack the CORS headers, and each hot request would cross layers that do nothing for it.
    """

    def __init__(self, settings: Settings) -> None:
        super().__init__(
            title="Shallop",
            version=version("shallop"),
            description="In-session product recommendations: send events, ask what comes next.",
            docs_url=None,
            redoc_url=None,
            lifespan=_lifespan,
        )
        self.settings = settings
        self.metrics = Metrics()
        self.access = AccessControl(settings, self.metrics)
        self.endpoints: dict[str, Endpoint] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Straight to our front for hot paths: FastAPI's way to it costs as much as an event."""
        if self.middleware_stack and scope["type"] == "http" and scope["path"] in self.endpoints:
            scope["app"] = self
            await self.middleware_stack(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)

    def build_middleware_stack(self) -> ASGIApp:
        inner = super().build_middleware_stack()
        self.front = Front(inner, self.endpoints, self.access, self.metrics)
        return Cors(self.front, self.access.may_read)


def create_app(settings: Settings | None = None) -> FastAPI:
    """The app with these settings, or with those of the environment."""
    app = ShallopApp(settings or get_settings())
    app.include_router(status.router)
    app.include_router(segment_settings.router)
    pages.install(app)
    app.include_router(models.router)
    errors.install(app)
    openapi.install(app, app.settings)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[dict[str, object]]:
    assert isinstance(app, ShallopApp)
    log.configure(app.settings.log_level)
    sys.setswitchinterval(_SWITCH_SECONDS)
    compiled()  # now: it takes seconds once, and no request should wait for it
    async with app.metrics.settling(), running(app.settings, app.metrics, app.access) as parts:
        app.state.parts = parts
        events = Collector(parts.outbox, app.settings.ingest, app.metrics, app.access.charge)
        app.endpoints.update(_hot_paths(parts, events))
        # What is loaded stays: walking a few hundred thousand objects again in each full
        # collection would stop all requests for a tenth of a second and more.
        gc.collect()
        gc.freeze()
        yield {STATE: SingleEvents(app.front, events)}


def _hot_paths(parts: Parts, events: Collector) -> dict[str, Endpoint]:
    settings = parts.settings
    recommender = Recommender(
        parts.champion, parts.catalogue, parts.outbox, settings, parts.metrics
    )
    return {
        EVENTS_PATH: events,
        **protocols.endpoints(events),
        recommend.PATH: RecommendEndpoint(recommender, settings.serving),
    }

"""The app's long-lived parts, and their start and end within one process."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated

from fastapi import Depends, Request

from api.access import AccessControl
from api.catalogue import CatalogueHolder
from api.champion import ChampionHolder
from api.erasures import ErasureHolder
from api.metrics import Metrics
from ingest.flusher import Flusher
from ingest.outbox import Outbox
from ingest.outbox_file import OutboxBroken
from models.registry import Registry
from warehouse.erasure import read_key
from warehouse.settings import Settings
from warehouse.store import open_store

logger = logging.getLogger(__name__)

# How long a start waits for the first model, so that a restart does not answer 503 meanwhile.
_FIRST_LOOK_SECONDS = 3.0


@dataclass(frozen=True)
class Parts:
    """What the routes work with."""

    settings: Settings
    metrics: Metrics
    access: AccessControl
    outbox: Outbox
    flusher: Flusher
    champion: ChampionHolder
    catalogue: CatalogueHolder
    erasures: ErasureHolder
    started_at: datetime


def _of_request(request: Request) -> Parts:
    parts: Parts = request.app.state.parts
    return parts


PartsDep = Annotated[Parts, Depends(_of_request)]


@asynccontextmanager
async def running(
    settings: Settings, metrics: Metrics, access: AccessControl
) -> AsyncIterator[Parts]:
    """The parts at work; left, what waits in the outbox is shipped where the store is up.

    Raises OutboxBroken where the outbox cannot be opened: without it no event could be kept.
    """
    store = open_store(settings)
    outbox = Outbox(
        settings.outbox_path, settings.ingest, read_key(settings), metrics.events_left_out.inc
    )
    champion = ChampionHolder(Registry(store), settings.model_cache_path, metrics)
    parts = Parts(
        settings=settings,
        metrics=metrics,
        access=access,
        outbox=outbox,
        flusher=Flusher(outbox, store, settings.ingest),
        champion=champion,
        catalogue=CatalogueHolder(store),
        erasures=ErasureHolder(store, outbox, champion),
        started_at=datetime.now(UTC),
    )
    parts.flusher.start()
    looks = [
        _Poll(part.refresh, settings) for part in (parts.catalogue, parts.champion, parts.erasures)
    ]
    try:
        await _first_looks(looks)
        access.say_who_may_enter()
        logger.info("app_started store=%s outbox=%s", settings.store_uri, settings.outbox_path)
        yield parts
    finally:
        for look in looks:
            await look.stop()
        await asyncio.to_thread(parts.flusher.stop)
        try:
            logger.info("app_stopped waiting=%d", outbox.depth())
        except OutboxBroken as error:
            logger.error("app_stopped error=%r", str(error))
        await asyncio.to_thread(outbox.close)


class _Poll:
    """Calls a blocking function in a thread, again and again, `champion_poll_seconds` apart."""

    def __init__(self, function: Callable[[], None], settings: Settings) -> None:
        self.looked = asyncio.Event()
        self._function = function
        self._seconds = settings.serving.champion_poll_seconds
        self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        while True:
            try:
                await asyncio.to_thread(self._function)
            except Exception:
                # A defect in one look must not end all later ones.
                logger.exception("poll_failed function=%s", self._function.__qualname__)
            self.looked.set()
            await asyncio.sleep(self._seconds)

    async def stop(self) -> None:
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task


async def _first_looks(looks: list[_Poll]) -> None:
    waits = asyncio.gather(*(look.looked.wait() for look in looks))
    with suppress(TimeoutError):
        await asyncio.wait_for(waits, _FIRST_LOOK_SECONDS)

"""Sends events to the collector over HTTP and accounts for every one of them.

Batches are repeated with the same event ids until the collector answers for them, so an event may
arrive twice but is never lost, and is counted once.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

import httpx
import msgspec

logger = logging.getLogger(__name__)

BATCH_EVENTS = 500
BATCH_BYTES = 500_000  # half of what the collector takes by default
N_CONNECTIONS = 4
PATIENCE_SECONDS = 60.0

_MAX_ERRORS = 100
_FIRST_PAUSE_SECONDS = 0.2
_MAX_PAUSE_SECONDS = 5.0
_TRY_AGAIN = frozenset({429, 500, 502, 503, 504})
_TIMEOUT = httpx.Timeout(30.0, connect=5.0)


class CollectorUnreachable(RuntimeError):
    """The collector does not take our events, and trying again does not help."""


@dataclass
class Accounting:
    """What became of the events sent: `accepted`, `rejected` and `erased` add up to `sent`.

    `retried` counts events that had to be sent more than once, `errors` says why events were
    rejected (the first hundred).
    """

    sent: int = 0
    accepted: int = 0
    rejected: int = 0
    erased: int = 0
    retried: int = 0
    seconds: float = 0.0
    errors: list[str] = field(default_factory=list)


def send(
    events: Iterable[bytes],
    url: str,
    *,
    progress: Callable[[int], None] | None = None,
    patience_seconds: float = PATIENCE_SECONDS,
) -> Accounting:
    """Send events, each one JSON object, to the collector at `url`; they are read as they are sent.

    `progress` is told how many were answered for, batch by batch. Raises CollectorUnreachable after
    `patience_seconds` without an answer.
    """
    return asyncio.run(_send_all(events, url, progress or (lambda n: None), patience_seconds))


class Sender:
    """One client of one collector."""

    def __init__(
        self, client: httpx.AsyncClient, url: str, patience_seconds: float = PATIENCE_SECONDS
    ) -> None:
        self.accounting = Accounting()
        self._client = client
        self._url = f"{url.rstrip('/')}/events"
        self._patience_seconds = patience_seconds

    async def send(self, batch: list[bytes]) -> None:
        """Send a batch until it is answered for. Raises CollectorUnreachable."""
        self.accounting.sent += len(batch)
        await self._send(batch)

    async def _send(self, batch: list[bytes]) -> None:
        body = b"[" + b",".join(batch) + b"]"
        reply = await self._answer(body, len(batch))
        if reply.status_code == 413 and len(batch) > 1:
            await self._send(batch[: len(batch) // 2])
            await self._send(batch[len(batch) // 2 :])
        elif reply.status_code == 202:
            self._count(reply)
        elif reply.status_code in (413, 422):
            self._count_refused(reply, len(batch))
        else:
            raise CollectorUnreachable(
                f"the collector at {self._url} answered {reply.status_code}, is this the app's "
                f"address? `{reply.text[:300]}`"
            )

    async def _answer(self, body: bytes, n_events: int) -> httpx.Response:
        """The collector's reply, however often it takes within our patience."""
        deadline = monotonic() + self._patience_seconds
        pause_seconds = _FIRST_PAUSE_SECONDS
        while True:
            wait_seconds = pause_seconds
            try:
                reply = await self._client.post(
                    self._url, content=body, headers={"Content-Type": "application/json"}
                )
            except httpx.TransportError as error:
                problem = repr(error)
            else:
                if reply.status_code not in _TRY_AGAIN:
                    return reply
                problem = f"{reply.status_code} {reply.text[:300]}"
                wait_seconds = _retry_after(reply) or pause_seconds
            if monotonic() + wait_seconds > deadline:
                raise CollectorUnreachable(
                    f"no success within {self._patience_seconds:g} s, is the app up at "
                    f"{self._url}? `{problem}`"
                )
            logger.info("send=again wait_seconds=%.1f problem=%s", wait_seconds, problem)
            self.accounting.retried += n_events
            await asyncio.sleep(wait_seconds)
            pause_seconds = min(2 * pause_seconds, _MAX_PAUSE_SECONDS)

    def _count(self, reply: httpx.Response) -> None:
        answer = reply.json()
        self.accounting.accepted += answer["accepted"]
        self.accounting.rejected += answer["rejected"]
        self.accounting.erased += answer.get("erased", 0)
        self._note(f"{error['reason']}: {error['message']}" for error in answer["errors"])

    def _count_refused(self, reply: httpx.Response, n_events: int) -> None:
        self.accounting.rejected += n_events
        self._note([f"{reply.status_code}: {reply.text[:1000]}"])

    def _note(self, errors: Iterable[str]) -> None:
        room = _MAX_ERRORS - len(self.accounting.errors)
        self.accounting.errors += list(errors)[:room]


def encode(event: Any) -> bytes:
    """One event as JSON."""
    return msgspec.json.encode(event)


def new_client(n_connections: int = N_CONNECTIONS) -> httpx.AsyncClient:
    """An HTTP client that keeps its connections, and takes no proxy from the environment."""
    limits = httpx.Limits(max_connections=n_connections, max_keepalive_connections=n_connections)
    return httpx.AsyncClient(timeout=_TIMEOUT, limits=limits, trust_env=False)


async def _send_all(
    events: Iterable[bytes], url: str, progress: Callable[[int], None], patience_seconds: float
) -> Accounting:
    started_at = monotonic()
    batches = _batches(events)
    async with new_client() as client:
        sender = Sender(client, url, patience_seconds)

        async def work() -> None:
            for batch in batches:  # shared: each batch goes to whoever is free
                await sender.send(batch)
                progress(len(batch))

        await _all_or_first_error([work() for _ in range(N_CONNECTIONS)])
    sender.accounting.seconds = monotonic() - started_at
    return sender.accounting


async def _all_or_first_error(work: Iterable[Awaitable[None]]) -> None:
    tasks = [asyncio.ensure_future(one) for one in work]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _batches(events: Iterable[bytes]) -> Iterator[list[bytes]]:
    batch: list[bytes] = []
    size = 0
    for event in events:
        if batch and (len(batch) == BATCH_EVENTS or size + len(event) > BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(event)
        size += len(event) + 1
    if batch:
        yield batch


def _retry_after(reply: httpx.Response) -> float | None:
    """Seconds that the collector asks us to wait, where it says so."""
    try:
        return max(0.0, float(reply.headers["Retry-After"]))
    except (KeyError, ValueError):
        return None

"""Sends events to the collector over HTTP and accounts for every one of them.

Batches are repeated with the same event ids until the collector answers for them, so an event may
arrive twice but is never lost, and is counted once.
"""

import asyncio
import gzip
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass, field
from time import monotonic
from typing import Any
from urllib.parse import urlsplit

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
# Hosts of this machine, to which compressing costs more than it saves.
_NEAR = frozenset({"localhost", "127.0.0.1", "::1"})
_TIMEOUT = httpx.Timeout(30.0, connect=5.0)


class CollectorUnreachable(RuntimeError):
    """The collector does not take our events, and trying again does not help."""


@dataclass
class Accounting:
    """What became of the events sent: `accepted`, `rejected` and `erased` add up to `sent`.

    `retried` counts events that had to be sent more than once, `errors` says why events were
    rejected (the first hundred) and `reasons` counts them by their short code; `refused` are those
    of the rejected that the collector has not kept.
    """

    sent: int = 0
    accepted: int = 0
    rejected: int = 0
    erased: int = 0
    retried: int = 0
    seconds: float = 0.0
    errors: list[str] = field(default_factory=list)
    reasons: Counter[str] = field(default_factory=Counter)
    refused: int = 0

    def add(self, other: "Accounting") -> None:
        """Count another's events as well."""
        self.sent += other.sent
        self.accepted += other.accepted
        self.rejected += other.rejected
        self.erased += other.erased
        self.retried += other.retried
        self.refused += other.refused
        self.reasons += other.reasons
        self.note(other.errors)

    def note(self, errors: Iterable[str]) -> None:
        """Keep why events were rejected, while there is room."""
        self.errors += list(errors)[: _MAX_ERRORS - len(self.errors)]


def send(
    events: Iterable[bytes],
    url: str,
    *,
    key: str = "",
    progress: Callable[[int], None] | None = None,
    patience_seconds: float = PATIENCE_SECONDS,
) -> Accounting:
    """Send events, each one JSON object, to the collector at `url`; they are read as they are sent.

    The `key`, where there is one, goes with each request; `progress` is told how many were
    answered for, batch by batch. Raises CollectorUnreachable after `patience_seconds` without an
    answer.
    """
    report = progress or (lambda n: None)
    return asyncio.run(_send_all(events, url, key, report, patience_seconds))


class Sender:
    """One client of one collector."""

    def __init__(
        self, client: httpx.AsyncClient, url: str, patience_seconds: float = PATIENCE_SECONDS
    ) -> None:
        self.accounting = Accounting()
        self._client = client
        self._url = f"{url.rstrip('/')}/events"
        self._is_far = urlsplit(url).hostname not in _NEAR
        self._patience_seconds = patience_seconds

    async def send(self, batch: list[bytes]) -> Accounting:
        """Send a batch until it is answered for: what became of it. Raises CollectorUnreachable."""
        outcome = Accounting(sent=len(batch))
        await self._send(batch, outcome)
        self.accounting.add(outcome)
        return outcome

    async def _send(self, batch: list[bytes], outcome: Accounting) -> None:
        body = b"[" + b",".join(batch) + b"]"
        reply = await self._answer(body, len(batch), outcome)
        if reply.status_code == 413 and len(batch) > 1:
            await self._send(batch[: len(batch) // 2], outcome)
            await self._send(batch[len(batch) // 2 :], outcome)
        elif reply.status_code == 202:
            _count(reply, outcome)
        elif reply.status_code in (413, 422):
            _count_refused(reply, len(batch), outcome)
        elif reply.status_code in (401, 403):
            raise CollectorUnreachable(
                f"the collector at {self._url} asks for another key, give one with the scope "
                f"`events:write` as SHALLOP_KEY; it answered {reply.status_code}: "
                f"`{reply.text[:300]}`"
            )
        else:
            raise CollectorUnreachable(
                f"the collector at {self._url} answered {reply.status_code}, is this the app's "
                f"address? `{reply.text[:300]}`"
            )

    async def _answer(self, body: bytes, n_events: int, outcome: Accounting) -> httpx.Response:
        """The collector's reply, however often it takes within our patience."""
        headers = {"Content-Type": "application/json"}
        if self._is_far:
            body = gzip.compress(body, compresslevel=3)
            headers["Content-Encoding"] = "gzip"
        deadline = monotonic() + self._patience_seconds
        pause_seconds = _FIRST_PAUSE_SECONDS
        while True:
            wait_seconds = pause_seconds
            try:
                reply = await self._client.post(self._url, content=body, headers=headers)
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
            outcome.retried += n_events
            await asyncio.sleep(wait_seconds)
            pause_seconds = min(2 * pause_seconds, _MAX_PAUSE_SECONDS)


def _count(reply: httpx.Response, outcome: Accounting) -> None:
    answer = reply.json()
    outcome.accepted += answer["accepted"]
    outcome.rejected += answer["rejected"]
    outcome.erased += answer.get("erased", 0)
    outcome.reasons.update(error["reason"] for error in answer["errors"])
    outcome.note(f"{error['reason']}: {error['message']}" for error in answer["errors"])


def _count_refused(reply: httpx.Response, n_events: int, outcome: Accounting) -> None:
    """A whole request refused: 422 has kept each event with its reason, 413 nothing."""
    outcome.rejected += n_events
    outcome.note([f"{reply.status_code}: {reply.text[:1000]}"])
    if reply.status_code == 413:
        outcome.refused += n_events
        outcome.reasons["too_large"] += n_events
        return
    errors = reply.json().get("errors", [])
    outcome.reasons.update(error["reason"] for error in errors)


def encode(event: Any) -> bytes:
    """One event as JSON."""
    return msgspec.json.encode(event)


def new_client(
    n_connections: int = N_CONNECTIONS, *, key: str = "", user_agent: str | None = None
) -> httpx.AsyncClient:
    """An HTTP client that keeps its connections, and takes no proxy from the environment."""
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    if user_agent is not None:
        headers["User-Agent"] = user_agent
    limits = httpx.Limits(max_connections=n_connections, max_keepalive_connections=n_connections)
    return httpx.AsyncClient(timeout=_TIMEOUT, limits=limits, trust_env=False, headers=headers)


async def _send_all(
    events: Iterable[bytes],
    url: str,
    key: str,
    progress: Callable[[int], None],
    patience_seconds: float,
) -> Accounting:
    started_at = monotonic()
    batches = batches_of(events)
    async with new_client(key=key) as client:
        sender = Sender(client, url, patience_seconds)

        async def work() -> None:
            for batch in batches:  # shared: each batch goes to whoever is free
                await sender.send(batch)
                progress(len(batch))

        await all_or_first_error([work() for _ in range(N_CONNECTIONS)])
    sender.accounting.seconds = monotonic() - started_at
    return sender.accounting


async def all_or_first_error(work: Iterable[Awaitable[None]]) -> None:
    """Await all of them; the first error ends the others."""
    tasks = [asyncio.ensure_future(one) for one in work]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def batches_of(events: Iterable[bytes]) -> Iterator[list[bytes]]:
    """Events as requests, each of at most BATCH_EVENTS and BATCH_BYTES."""
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

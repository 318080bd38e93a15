"""What Prometheus reads at /metrics.

A scrape reaches one worker process and is told of all: several workers count in files that they
share (`sharing`, by the client library's multiprocess mode), one counts in its memory. What each
request adds is gathered and counted some times a second: one by one it took 3 µs of a request, and
8 in shared files.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import UTC, datetime
from tempfile import TemporaryDirectory
from typing import Literal

import numpy as np
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

CONTENT_TYPE = CONTENT_TYPE_LATEST

_SHARED = "PROMETHEUS_MULTIPROC_DIR"  # the client library reads it when it is loaded
_METHODS = frozenset(("DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"))
_BUCKETS = (
    0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.02, 0.03, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10,
)  # fmt: skip
# How old what other workers tell of may be, in seconds.
_SETTLE_SECONDS = 0.25


class ManyHistogram(Histogram):
    """A histogram that also takes many at once."""

    def observe_all(self, amounts: Sequence[float]) -> None:
        """`observe` of each of them."""
        self._sum.inc(sum(amounts))
        places = np.searchsorted(self._upper_bounds, amounts)
        for place, n in enumerate(np.bincount(places).tolist()):
            if n:
                self._buckets[place].inc(n)


class Metrics:
    """One process's counters and gauges, in a registry of their own.

    Requests are counted by the thread of the event loop alone.
    """

    def __init__(self) -> None:
        registry = self.registry = CollectorRegistry()
        self._accepted: dict[str, int] = {}
        self._answered: dict[tuple[str, str, int], list[float]] = {}
        self.events_accepted = Counter(
            "shallop_events_accepted", "Events made durable and acknowledged, by protocol.",
            ["source"], registry=registry,
        )  # fmt: skip
        self.events_rejected = Counter(
            "shallop_events_rejected", "Events refused, by protocol and reason.",
            ["source", "reason"], registry=registry,
        )  # fmt: skip
        self.events_erased = Counter(
            "shallop_events_erased", "Events of erased persons, sent again and not kept.",
            ["source"], registry=registry,
        )  # fmt: skip
        self.events_left_out = Counter(
            "shallop_events_left_out", "Events kept, that live sessions could not take in.",
            registry=registry,
        )  # fmt: skip
        self.bodies_not_kept = Counter(
            "shallop_bodies_not_kept", "Bodies refused whole, beyond what is kept of such an hour.",
            ["source"], registry=registry,
        )  # fmt: skip
        self.requests = Counter(
            "shallop_requests", "Requests answered.", ["path", "method", "status"],
            registry=registry,
        )  # fmt: skip
        self.request_seconds = ManyHistogram(
            "shallop_request_seconds", "Time from a request's head to the end of its reply.",
            ["path"], registry=registry, buckets=_BUCKETS,
        )  # fmt: skip
        self.requests_refused = Counter(
            "shallop_requests_refused", "Requests refused for their key, origin or rate.",
            ["reason"], registry=registry,
        )  # fmt: skip
        self.open = self._gauge("shallop_open", "1 while requests need no key.")
        self.recommendations = Counter(
            "shallop_recommendations", "Recommendation replies, by source and reason of fallback.",
            ["source", "fallback"], registry=registry,
        )  # fmt: skip
        self.champion_swaps = Counter(
            "shallop_champion_swaps", "Champion models put into service.", registry=registry
        )
        self.champion_errors = Counter(
            "shallop_champion_errors", "Failed looks for a champion, by reason.", ["reason"],
            registry=registry,
        )  # fmt: skip
        self.candidate_refused = self._gauge(
            "shallop_candidate_refused", "1 while the gate refused the last candidate."
        )
        self.outbox_depth = self._gauge(
            "shallop_outbox_depth", "Events that wait for the object store."
        )
        self.outbox_oldest = self._gauge(
            "shallop_outbox_oldest_seconds", "Age of the event that waits longest."
        )
        self.flushed_at = self._gauge(
            "shallop_last_flush_timestamp_seconds", "When the outbox was last shipped, Unix time.",
            "max",
        )  # fmt: skip
        self.model_loaded = self._gauge("shallop_model_loaded", "1 while a champion model serves.")
        self.model_age = self._gauge(
            "shallop_model_age_seconds", "Time since the serving model was made; NaN without one."
        )

    def _gauge(
        self, name: str, meaning: str, of_workers: Literal["mostrecent", "max"] = "mostrecent"
    ) -> Gauge:
        return Gauge(name, meaning, registry=self.registry, multiprocess_mode=of_workers)

    def count_accepted(self, source: str, n_events: int) -> None:
        """Count events made durable."""
        self._accepted[source] = self._accepted.get(source, 0) + n_events

    def observe_request(self, path: str, method: str, status: int, seconds: float) -> None:
        """Count one answered request; `path` is a route, never what a client made up."""
        key = path, method if method in _METHODS else "other", status
        answered = self._answered.get(key)
        if answered is None:
            answered = self._answered[key] = []
        answered.append(seconds)

    def settle(self) -> None:
        """Let what was counted be seen."""
        accepted, self._accepted = self._accepted, {}
        for source, n_events in accepted.items():
            self.events_accepted.labels(source).inc(n_events)
        answered, self._answered = self._answered, {}
        for key, seconds in answered.items():
            self.requests.labels(*key).inc(len(seconds))
            self.request_seconds.labels(key[0]).observe_all(seconds)

    @asynccontextmanager
    async def settling(self) -> AsyncIterator[None]:
        """What is counted meanwhile is soon seen, by other workers too."""
        task = asyncio.create_task(self._settle_on_and_on())
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
            self.settle()

    async def _settle_on_and_on(self) -> None:
        while True:
            await asyncio.sleep(_SETTLE_SECONDS)
            self.settle()

    def set_model_age(self, created_at: datetime | None) -> None:
        self.model_loaded.set(created_at is not None)
        self.model_age.set(age_seconds(created_at) if created_at else float("nan"))

    def text(self) -> bytes:
        """Everything in Prometheus' text format, of all workers where several share it."""
        self.settle()
        if _SHARED not in os.environ:
            return generate_latest(self.registry)
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return generate_latest(registry)


@contextmanager
def sharing() -> Iterator[None]:
    """What processes that are begun meanwhile count is read together."""
    with TemporaryDirectory(prefix="shallop-metrics-") as folder:
        os.environ[_SHARED] = folder
        try:
            yield
        finally:
            del os.environ[_SHARED]


def age_seconds(moment: datetime) -> float:
    """Seconds since `moment`, never negative."""
    return max(0.0, (datetime.now(UTC) - moment).total_seconds())

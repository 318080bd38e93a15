"""What Prometheus reads at /metrics.

Each worker process counts for itself and a scrape reaches one of them; with several workers the
counters are a sample, the outbox's gauges (read from its file) are whole.
"""

from datetime import UTC, datetime

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

CONTENT_TYPE = CONTENT_TYPE_LATEST

_METHODS = frozenset(("DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"))
_BUCKETS = (
    0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.02, 0.03, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10,
)  # fmt: skip


class Metrics:
    """One process's counters, in a registry of their own."""

    def __init__(self) -> None:
        registry = self.registry = CollectorRegistry()
        self._of_route: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}
        self._accepted_of: dict[str, Counter] = {}
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
        self.bodies_not_kept = Counter(
            "shallop_bodies_not_kept", "Bodies refused whole, beyond what is kept of such an hour.",
            ["source"], registry=registry,
        )  # fmt: skip
        self.requests = Counter(
            "shallop_requests", "Requests answered.", ["path", "method", "status"],
            registry=registry,
        )  # fmt: skip
        self.request_seconds = Histogram(
            "shallop_request_seconds", "Time from a request's head to the end of its reply.",
            ["path"], registry=registry, buckets=_BUCKETS,
        )  # fmt: skip
        self.requests_refused = Counter(
            "shallop_requests_refused", "Requests refused for their key, origin or rate.",
            ["reason"], registry=registry,
        )  # fmt: skip
        self.open = Gauge("shallop_open", "1 while requests need no key.", registry=registry)
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
        self.candidate_refused = Gauge(
            "shallop_candidate_refused", "1 while the gate refused the last candidate.",
            registry=registry,
        )  # fmt: skip
        self.outbox_depth = Gauge(
            "shallop_outbox_depth", "Events that wait for the object store.", registry=registry
        )
        self.outbox_oldest = Gauge(
            "shallop_outbox_oldest_seconds", "Age of the event that waits longest.",
            registry=registry,
        )  # fmt: skip
        self.flushed_at = Gauge(
            "shallop_last_flush_timestamp_seconds", "When the outbox was last shipped, Unix time.",
            registry=registry,
        )  # fmt: skip
        self.model_loaded = Gauge(
            "shallop_model_loaded", "1 while a champion model serves.", registry=registry
        )
        self.model_age = Gauge(
            "shallop_model_age_seconds", "Time since the serving model was made; NaN without one.",
            registry=registry,
        )  # fmt: skip

    def count_accepted(self, source: str, n_events: int) -> None:
        """Count events made durable."""
        found = self._accepted_of.get(source)
        if found is None:
            found = self._accepted_of[source] = self.events_accepted.labels(source)
        found.inc(n_events)

    def observe_request(self, path: str, method: str, status: int, seconds: float) -> None:
        """Count one answered request; `path` is a route, never what a client made up."""
        key = path, method if method in _METHODS else "other", status
        found = self._of_route.get(key)
        if found is None:  # looking labels up costs more than counting
            found = self.requests.labels(*key), self.request_seconds.labels(path)
            self._of_route[key] = found
        found[0].inc()
        found[1].observe(seconds)

    def set_model_age(self, created_at: datetime | None) -> None:
        self.model_loaded.set(created_at is not None)
        self.model_age.set(age_seconds(created_at) if created_at else float("nan"))

    def text(self) -> bytes:
        return generate_latest(self.registry)


def age_seconds(moment: datetime) -> float:
    """Seconds since `moment`, never negative."""
    return max(0.0, (datetime.now(UTC) - moment).total_seconds())

"""Counts that are settled together are those that would have been counted one by one."""

import asyncio
import random

from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.exposition import generate_latest

from api.metrics import ManyHistogram, Metrics


def test_many_observations_are_as_many_single_ones() -> None:
    bounds = (1 / 1024, 1 / 64, 1 / 2)
    # All exact in binary: a sum does not depend on how it is taken.
    amounts = [*bounds, 0.0, 7.0, *(random.Random(1).randrange(900) / 1024 for _ in range(200))]
    together, singly = CollectorRegistry(), CollectorRegistry()
    ManyHistogram("h", "help", registry=together, buckets=bounds).observe_all(amounts)
    one_by_one = Histogram("h", "help", registry=singly, buckets=bounds)
    for amount in amounts:
        one_by_one.observe(amount)
    assert samples(together) == samples(singly)


def test_what_was_counted_is_seen_without_being_asked_for() -> None:
    metrics = Metrics()

    async def count_and_wait() -> None:
        async with metrics.settling():
            metrics.observe_request("/events", "POST", 202, 0.01)
            async with asyncio.timeout(10):
                while "shallop_requests_total" not in samples(metrics.registry):
                    await asyncio.sleep(0.01)
            metrics.count_accepted("json", 3)

    asyncio.run(count_and_wait())
    assert 'shallop_events_accepted_total{source="json"} 3.0' in samples(metrics.registry)


def samples(registry: CollectorRegistry) -> str:
    """What a scrape says, but for when the counting began."""
    lines = generate_latest(registry).decode().splitlines()
    return "\n".join(line for line in lines if "_created" not in line and not line.startswith("#"))

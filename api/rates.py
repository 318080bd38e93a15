"""Rates: token buckets of keys and of addresses, counted in events.

A request takes one token when it comes and one for each further event when its body was read. It is
let in while there is a whole token, its further events while there is no debt; so between any two
moments at most `burst + rate * seconds` events pass, and one request's more. Buckets are of one
worker process: N workers let up to N times as much through.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import ip_address, ip_network
from math import ceil
from time import monotonic

import msgspec

from api.errors import Refused

ADDRESS = "address"
KEY = "key"

_REMEDIES = {
    ADDRESS: "wait as Retry-After says; servers send a secret key, which has no such limit, and "
    "behind a proxy SHALLOP_ACCESS__TRUSTED_PROXIES tells addresses apart "
    "(SHALLOP_ACCESS__ADDRESS_EVENTS_PER_SECOND)",
    KEY: "wait as Retry-After says, or give the key a higher rate: `shallop keys create --rate`",
}


@dataclass(slots=True)
class Bucket:
    """`tokens` at the moment `at`, in seconds of the clock; negative while in debt."""

    rate: float
    burst: float
    tokens: float
    at: float

    def take(self, n: float, needed: float, now: float) -> float:
        """Take `n` tokens where at least `needed` are there; else seconds until they will be."""
        if now > self.at:
            self.tokens = min(self.burst, self.tokens + (now - self.at) * self.rate)
            self.at = now
        if self.tokens < needed:
            return (needed - self.tokens) / self.rate
        self.tokens -= n
        return 0.0


class Limit(msgspec.Struct, frozen=True):
    """A bucket that a request takes from, and what the client is told of it."""

    policy: str
    bucket: Bucket


class Buckets:
    """Buckets by name; beyond `max_buckets` the one that was used longest ago is forgotten."""

    def __init__(self, max_buckets: int) -> None:
        self._max_buckets = max_buckets
        self._buckets: OrderedDict[str, Bucket] = OrderedDict()

    def __len__(self) -> int:
        return len(self._buckets)

    def get(self, name: str, rate: float, burst: float, now: float) -> Bucket:
        """The bucket of that name, full where it is new or its terms have changed."""
        bucket = self._buckets.get(name)
        if bucket is None or (bucket.rate, bucket.burst) != (rate, burst):
            bucket = self._buckets[name] = Bucket(rate, burst, burst, now)
            if len(self._buckets) > self._max_buckets:
                self._buckets.popitem(last=False)
        self._buckets.move_to_end(name)
        return bucket


def enter(limits: Sequence[Limit], clock: Callable[[], float] = monotonic) -> None:
    """Let one request in. Raises Refused (429)."""
    _take(limits, 1.0, 1.0, clock())


def charge(limits: Sequence[Limit], n_further: int, clock: Callable[[], float] = monotonic) -> None:
    """Let a request's further events in. Raises Refused (429)."""
    if n_further > 0:
        _take(limits, float(n_further), 0.0, clock())


def _take(limits: Sequence[Limit], n: float, needed: float, now: float) -> None:
    for limit in limits:
        seconds = limit.bucket.take(n, needed, now)
        if seconds:
            raise _refused(limit, seconds)


def _refused(limit: Limit, seconds: float) -> Refused:
    """The fields are those of draft-ietf-httpapi-ratelimit-headers-11."""
    bucket = limit.bucket
    wait = ceil(seconds)
    window = max(1, ceil(bucket.burst / bucket.rate))
    return Refused(
        429,
        "rate_limited",
        f"this {limit.policy} may send {bucket.burst:g} events at once and then so many a second: "
        f"`{bucket.rate:g}`",
        field=limit.policy,
        remedy=_REMEDIES[limit.policy],
        headers={
            "Retry-After": str(wait),
            "RateLimit-Policy": f'"{limit.policy}";q={int(bucket.burst)};w={window}',
            "RateLimit": f'"{limit.policy}";r=0;t={wait}',
        },
    )


@lru_cache(maxsize=4096)
def network_of(address: str) -> str:
    """Whom an address stands for: IPv6 by its /64, which is the least that anybody is given."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return address[:64]
    if parsed.version == 4:
        return address
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ip_network((parsed.packed[:8] + bytes(8), 64)))

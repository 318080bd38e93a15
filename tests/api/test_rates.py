"""Token buckets: how much may pass, whatever comes when."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api import rates
from api.errors import Refused
from api.rates import Bucket, Buckets, Limit, network_of

REQUESTS = st.lists(
    st.tuples(st.floats(0, 20, allow_nan=False), st.integers(1, 50)), min_size=1, max_size=60
)


@given(
    requests=REQUESTS, rate=st.floats(0.05, 50), burst=st.integers(1, 100), start=st.floats(0, 1e6)
)
def test_no_span_of_time_lets_more_through(
    requests: list[tuple[float, int]], rate: float, burst: int, start: float
) -> None:
    """Between any two moments: at most the burst, the rate's, and one request's further events."""
    bucket = Bucket(rate, burst, burst, start)
    limit = Limit(rates.KEY, bucket)
    now = start
    passed: list[tuple[float, int]] = []
    for pause, n_events in requests:
        now += pause
        try:
            rates.enter([limit], lambda: now)  # noqa: B023  # called at once
            rates.charge([limit], n_events - 1, lambda: now)  # noqa: B023
        except Refused:
            continue
        passed.append((now, n_events))
    largest = max(n_events for _, n_events in requests)
    for first in range(len(passed)):
        for last in range(first, len(passed)):
            n_passed = sum(n for _, n in passed[first : last + 1])
            seconds = passed[last][0] - passed[first][0]
            assert n_passed <= burst + rate * seconds + (largest - 1) + 1e-6 * (start + 1)


@given(pauses=st.lists(st.floats(0, 5, allow_nan=False), max_size=60), burst=st.integers(1, 20))
def test_who_waits_as_told_is_let_in(pauses: list[float], burst: int) -> None:
    bucket = Bucket(2.0, burst, burst, 0.0)
    now = 0.0
    for pause in pauses:
        now += pause
        seconds = bucket.take(1, 1.0, now)
        if seconds:
            now += seconds + 1e-9
            assert bucket.take(1, 1.0, now) == 0.0


def test_single_events_pass_exactly() -> None:
    bucket = Bucket(10.0, 5, 5, 0.0)
    limit = Limit(rates.ADDRESS, bucket)

    def n_passed(now: float, n_sent: int) -> int:
        n = 0
        for _ in range(n_sent):
            try:
                rates.enter([limit], lambda: now)
            except Refused:
                continue
            n += 1
        return n

    assert [n_passed(at, 100) for at in (0.0, 0.1, 1.0, 60.0)] == [5, 1, 5, 5]


def test_a_batch_above_the_burst_passes_once_and_is_paid_for() -> None:
    bucket = Bucket(10.0, 5, 5, 0.0)
    limit = Limit(rates.KEY, bucket)
    rates.enter([limit], lambda: 0.0)
    rates.charge([limit], 99, lambda: 0.0)
    with pytest.raises(Refused) as refused:
        rates.enter([limit], lambda: 1.0)
    assert refused.value.status == 429
    assert refused.value.headers == {
        "Retry-After": "9",
        "RateLimit-Policy": '"key";q=5;w=1',
        "RateLimit": '"key";r=0;t=9',
    }
    assert refused.value.detail.field == "key"
    assert refused.value.detail.remedy
    rates.enter([limit], lambda: 9.7)


def test_requests_of_one_moment_do_not_share_what_is_left() -> None:
    """Each took its one token; the further events of the second find the first's debt."""
    limit = Limit(rates.KEY, Bucket(1.0, 10, 10, 0.0))
    for _ in range(2):
        rates.enter([limit], lambda: 0.0)
    rates.charge([limit], 999, lambda: 0.0)
    with pytest.raises(Refused):
        rates.charge([limit], 999, lambda: 0.0)


def test_a_clock_that_goes_back_gives_nothing() -> None:
    bucket = Bucket(1.0, 1, 1, 100.0)
    assert bucket.take(1, 1.0, 100.0) == 0.0
    assert bucket.take(1, 1.0, 50.0) == pytest.approx(1.0)
    assert bucket.take(1, 1.0, 101.0) == 0.0


def test_many_addresses_take_bounded_memory_and_the_latest_are_remembered() -> None:
    buckets = Buckets(100)
    for number in range(10_000):
        buckets.get("always", 1.0, 10, 0.0).take(1, 1.0, 0.0)
        buckets.get(str(number), 1.0, 10, 0.0)
    assert len(buckets) == 100
    assert buckets.get("always", 1.0, 10, 0.0).tokens < 10


def test_new_terms_are_a_new_bucket() -> None:
    buckets = Buckets(10)
    buckets.get("a", 1.0, 1, 0.0).take(1, 1.0, 0.0)
    assert buckets.get("a", 2.0, 5, 0.0).tokens == 5


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3::9", "2001:db8:1:2::/64"),
        ("testclient", "testclient"),
        ("x" * 5000, "x" * 64),
    ],
)
def test_whom_an_address_stands_for(address: str, network: str) -> None:
    assert network_of(address) == network

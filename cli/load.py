"""A load generator for `shallop bench`: HTTP/1.1 over keep-alive connections, one at a time each.

Closed loop: a connection sends its next request when the last is answered. It shares the machine
with the server that it measures, so its figures are comparisons within one run.
"""

import asyncio
import time
from dataclasses import dataclass, field

import numpy as np


@dataclass
class Load:
    """What one load found: requests answered, how, and how long each took."""

    n_requests: int = 0
    n_failed: int = 0
    seconds: float = 0.0
    latencies_ms: list[float] = field(default_factory=list)

    @property
    def requests_per_second(self) -> float:
        return self.n_requests / self.seconds

    def percentile_ms(self, q: float) -> float:
        """The q-th percentile of the latencies, q in 0..100."""
        return float(np.percentile(self.latencies_ms, q))


def request_bytes(method: str, path: str, host: str, body: bytes = b"") -> bytes:
    """One HTTP/1.1 request, ready to send; with a `body`, as JSON."""
    head = f"{method} {path} HTTP/1.1\r\nHost: {host}\r\n"
    if body:
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    return head.encode() + b"\r\n" + body


def run_load(
    host: str, port: int, requests: list[bytes], *, connections: int, seconds: float
) -> Load:
    """Send `requests` round and round over `connections` for `seconds`."""
    return asyncio.run(_run(host, port, requests, connections, seconds))


async def _run(
    host: str, port: int, requests: list[bytes], connections: int, seconds: float
) -> Load:
    load = Load()
    started_at = time.perf_counter()
    deadline = started_at + seconds
    lanes = (
        _lane(host, port, requests[lane::connections] or requests, deadline, load)
        for lane in range(connections)
    )
    await asyncio.gather(*lanes)
    load.seconds = time.perf_counter() - started_at
    return load


async def _lane(host: str, port: int, requests: list[bytes], deadline: float, load: Load) -> None:
    reader, writer = await asyncio.open_connection(host, port)
    try:
        turn = 0
        while (sent_at := time.perf_counter()) < deadline:
            writer.write(requests[turn % len(requests)])
            turn += 1
            head = await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(_content_length(head))
            load.latencies_ms.append((time.perf_counter() - sent_at) * 1e3)
            load.n_requests += 1
            load.n_failed += head[9:10] != b"2"
    finally:
        writer.close()


def _content_length(head: bytes) -> int:
    lowered = head.lower()
    start = lowered.index(b"content-length:") + len(b"content-length:")
    return int(lowered[start : lowered.index(b"\r\n", start)])

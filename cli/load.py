"""A load generator for `shallop bench`: HTTP/1.1 over keep-alive connections, one at a time each.

Closed loop: a connection sends its next request when the last is answered, and no request is sent
twice. Plain sockets, one thread in a process of its own: it shares the machine with the server that
it measures, so it must cost little, and its figures are comparisons within one run.
"""

import multiprocessing
import selectors
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import count

import numpy as np
import numpy.typing as npt


class ServerGone(RuntimeError):
    """The server closed a connection in the middle of a load."""


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

    def add(self, other: "Load") -> None:
        """Take in another load of the same kind, as if it had been one."""
        self.n_requests += other.n_requests
        self.n_failed += other.n_failed
        self.seconds += other.seconds
        self.latencies_ms += other.latencies_ms

    def percentile_ms(self, q: float) -> float:
        """The q-th percentile of the latencies, q in 0..100."""
        return float(np.percentile(self.latencies_ms, q))


# Between two connections: of those that come at once one worker of a server may take all.
_CONNECT_SECONDS = 0.005
_PLACE = b"%012x"
_N_DIGITS = 12
_DIGITS = np.frombuffer(b"0123456789abcdef", dtype=np.uint8)
_SHIFTS = np.arange(4 * (_N_DIGITS - 1), -1, -4)


@dataclass(frozen=True)
class Template:
    """A request of fixed length with places (`%012x`) for the numbers that make it unique.

    Each of `per_event` places takes the event's number divided by the place's divisor; a request
    has `n_events`. The numbers of a batch are written by numpy: one by one they would cost the
    machine that is measured a tenth of what the server costs it.
    """

    text: bytes
    n_events: int = 0
    divisors: tuple[int, ...] = ()

    def fill(self, turn: int) -> bytes:
        if not self.n_events:
            return self.text
        if self.n_events == 1:
            return self.text % tuple(turn // divisor for divisor in self.divisors)
        events = np.arange(turn * self.n_events, (turn + 1) * self.n_events)
        numbers = events[:, None] // np.array(self.divisors)
        digits = (numbers.reshape(-1, 1) >> _SHIFTS) & 15
        plain, places = self._places
        filled = plain.copy()
        filled[places] = _DIGITS[digits]
        return filled.tobytes()

    @cached_property
    def _places(self) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
        """The request with zeros in its places, and where each digit of each place is."""
        parts = self.text.split(_PLACE)
        plain = (b"0" * _N_DIGITS).join(parts)
        before = np.cumsum([len(part) for part in parts[:-1]])
        starts = before + _N_DIGITS * np.arange(len(parts) - 1)
        return np.frombuffer(plain, dtype=np.uint8), starts[:, None] + np.arange(_N_DIGITS)


def request_bytes(method: str, path: str, host: str, body: bytes = b"") -> bytes:
    """One HTTP/1.1 request, ready to send; with a `body`, as JSON."""
    head = f"{method} {path} HTTP/1.1\r\nHost: {host}\r\n"
    if body:
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    return head.encode() + b"\r\n" + body


def run_load(
    host: str, port: int, requests: list[Template], *, connections: int, seconds: float
) -> Load:
    """Send `requests` round and round over `connections` for `seconds`. Raises ServerGone."""
    # Forked before any thread of ours could hold a lock would be luck: spawned.
    with multiprocessing.get_context("spawn").Pool(1) as process:
        return process.apply(_run, (host, port, requests, connections, seconds))


class _Lane:
    """One connection and the request that it waits for."""

    def __init__(self, address: tuple[str, int], requests: Iterator[bytes]) -> None:
        self.socket = socket.create_connection(address)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.requests = requests
        self.sent_at = 0.0
        self.reply = b""

    def send(self) -> None:
        request = next(self.requests)
        self.sent_at = time.perf_counter()
        self.socket.sendall(request)

    def receive(self, load: Load) -> bool:
        """Read what came; whether the reply is whole."""
        received = self.socket.recv(65_536)
        if not received:
            raise ServerGone(f"the server closed the connection after: `{self.reply[:200]!r}`")
        self.reply += received
        end = _end_of_reply(self.reply)
        if end < 0 or len(self.reply) < end:
            return False
        load.latencies_ms.append((time.perf_counter() - self.sent_at) * 1e3)
        load.n_requests += 1
        load.n_failed += self.reply[9:10] != b"2"
        self.reply = b""
        return True


def _run(host: str, port: int, requests: list[Template], connections: int, seconds: float) -> Load:
    load = Load()
    turns = count()
    filled = (requests[turn % len(requests)].fill(turn) for turn in turns)
    with selectors.EpollSelector() as selector:
        lanes = []
        for _ in range(connections):
            lanes.append(_Lane((host, port), filled))
            time.sleep(_CONNECT_SECONDS)
        started_at = time.perf_counter()
        deadline = started_at + seconds
        for lane in lanes:
            selector.register(lane.socket, selectors.EVENT_READ, lane)
            lane.send()
        n_busy = len(lanes)
        while n_busy:
            for key, _ in selector.select():
                lane = key.data
                if lane.receive(load):
                    if lane.sent_at < deadline:
                        lane.send()
                    else:
                        n_busy -= 1
                        selector.unregister(lane.socket)
                        lane.socket.close()
    load.seconds = time.perf_counter() - started_at
    return load


def _end_of_reply(reply: bytes) -> int:
    """Length of a whole reply, -1 while its head is not here."""
    head_end = reply.find(b"\r\n\r\n")
    if head_end < 0:
        return -1
    lowered = reply[:head_end].lower()
    start = lowered.find(b"content-length:")
    if start < 0:
        return head_end + 4
    return head_end + 4 + int(lowered[start + 15 :].split(b"\r\n", 1)[0])

"""The other side of `shallop bench loss`: clients, and a ledger of what was acknowledged to them.

The ledger lives outside the collector's processes. A batch without an answer is sent again with the
same event ids, as real clients do, perhaps to another worker.
"""

import threading
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from random import Random
from uuid import UUID

import httpx
import msgspec

_PAUSE_SECONDS = 0.02


@dataclass
class Verdict:
    """Acknowledged ids that are missing, ids that are there more than once, ids never sent."""

    lost: list[str]
    duplicated: list[str]
    invented: list[str]

    @property
    def is_clean(self) -> bool:
        return not (self.lost or self.duplicated or self.invented)


@dataclass
class Ledger:
    """Every event id sent, and every one acknowledged; safe from any thread."""

    sent: set[str] = field(default_factory=set)
    acknowledged: set[str] = field(default_factory=set)
    n_again: int = 0
    n_refused: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def note_sent(self, ids: Iterable[str]) -> None:
        with self._lock:
            self.sent.update(ids)

    def note_acknowledged(self, ids: Iterable[str]) -> None:
        with self._lock:
            self.acknowledged.update(ids)

    def note_again(self, is_refused: bool) -> None:
        with self._lock:
            self.n_again += 1
            self.n_refused += is_refused

    def judge(self, found: Counter[str]) -> Verdict:
        """Compare with the ids found, each with how often."""
        return Verdict(
            lost=sorted(self.acknowledged - found.keys()),
            duplicated=sorted(one for one, n in found.items() if n > 1),
            invented=sorted(found.keys() - self.sent),
        )


class Clients:
    """Threads that send batches to the collector's workers until told to end."""

    def __init__(self, ledger: Ledger, urls: list[str], n_clients: int, seed: int) -> None:
        self.ledger = ledger
        self.urls = urls
        self._stopping = threading.Event()
        self._threads = [
            threading.Thread(target=self._send, args=(Random(seed * 1000 + n),))
            for n in range(n_clients)
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End after the batches under way, acknowledged or given up."""
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def _send(self, random: Random) -> None:
        limits = httpx.Limits(max_keepalive_connections=len(self.urls))
        with httpx.Client(timeout=5.0, trust_env=False, limits=limits) as client:
            while not self._stopping.is_set():
                ids = [str(UUID(int=random.getrandbits(128))) for _ in range(random.randint(1, 20))]
                self.ledger.note_sent(ids)
                body = msgspec.json.encode([_event(one, random) for one in ids])
                while not self._stopping.is_set():
                    if self._is_acknowledged(client, random.choice(self.urls), body):
                        self.ledger.note_acknowledged(ids)
                        break

    def _is_acknowledged(self, client: httpx.Client, url: str, body: bytes) -> bool:
        try:
            status = client.post(f"{url}/events", content=body).status_code
        except httpx.TransportError:
            status = 0
        if status == 202:
            return True
        if status not in (0, 503):
            raise RuntimeError(f"the collector refused good events with status: `{status}`")
        self.ledger.note_again(is_refused=status == 503)
        time.sleep(_PAUSE_SECONDS)
        return False


def _event(event_id: str, random: Random) -> dict[str, object]:
    return {
        "event_id": event_id,
        "event_name": "view_item",
        "occurred_at": datetime.now(UTC).isoformat(),
        "session_id": f"session-{random.randrange(500)}",
        "items": [{"item_id": f"item-{random.randrange(100)}"}],
        "page_url": "https://shop.example/p/" + "x" * random.randrange(200),
    }

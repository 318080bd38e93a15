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
from typing import NamedTuple
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


class SentView(NamedTuple):
    """What the marts know of a view, in the order that they sort by."""

    occurred_at: str
    event_id: str
    session_id: str
    item_id: str


@dataclass
class Ledger:
    """Every event id sent with its session and item, and every one acknowledged.

    Safe from any thread.
    """

    sent: dict[str, SentView] = field(default_factory=dict)
    acknowledged: set[str] = field(default_factory=set)
    n_again: int = 0
    n_refused: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def note_sent(self, views: Iterable[SentView]) -> None:
        with self._lock:
            self.sent.update((view.event_id, view) for view in views)

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
            invented=sorted(found.keys() - self.sent.keys()),
        )

    def steps(self, event_ids: Iterable[str]) -> Counter[tuple[str, str]]:
        """Session and item of each step that these views make by the rule of `training_steps`.

        In the order of their time, then of their id; an item seen again at once is the same step.
        """
        views = sorted(self.sent[event_id] for event_id in event_ids)
        last: dict[str, str] = {}
        steps: Counter[tuple[str, str]] = Counter()
        for view in views:
            if last.get(view.session_id) != view.item_id:
                steps[view.session_id, view.item_id] += 1
            last[view.session_id] = view.item_id
        return steps


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
                views = [_view(random) for _ in range(random.randint(1, 20))]
                ids = [view.event_id for view in views]
                self.ledger.note_sent(views)
                body = msgspec.json.encode([_event(view, random) for view in views])
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


def _view(random: Random) -> SentView:
    return SentView(
        datetime.now(UTC).isoformat(timespec="microseconds"),
        str(UUID(int=random.getrandbits(128))),
        f"session-{random.randrange(500)}",
        f"item-{random.randrange(100)}",
    )


def _event(view: SentView, random: Random) -> dict[str, object]:
    return {
        "event_id": view.event_id,
        "event_name": "view_item",
        "occurred_at": view.occurred_at,
        "session_id": view.session_id,
        "items": [{"item_id": view.item_id}],
        "page_url": "https://shop.example/p/" + "x" * random.randrange(200),
    }

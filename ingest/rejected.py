"""Rejected events, and bodies, in raw: read, and taken again after a fix.

One is known by `<collector>-<sequence number>`, read off its object's name. Read again any number
of times it stays one event, received when it was first: without an `event_id` of its own it gets
one that follows from that name. What was replayed is noted in the store, an object a run.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from itertools import count
from uuid import UUID, uuid4, uuid5

import msgspec

from ingest.events import Decoded, InvalidBody, Origin, Rejection
from ingest.protocols.routes import read_again as read_request
from ingest.rules import Context
from warehouse.layout import RAW_REJECTED, RAW_REPLAYED, replayed_key
from warehouse.parquet import read_parquet
from warehouse.raw_rows import RawRows
from warehouse.settings import IngestSettings
from warehouse.store import ObjectStore

_NAMESPACE = UUID("6d1a4c0e-5b0f-4c0b-9f4e-6f2b5d3a7c11")
_NAME = re.compile(
    r"/date=(?P<day>[\d-]+)/.*/(?P<collector>[^/-]+)-(?P<first>\d+)-(?P<last>\d+)\.parquet$"
)

_decode_ids = msgspec.json.Decoder(list[str]).decode
_encode = msgspec.json.Encoder().encode


class UnknownRejected(LookupError):
    """No rejected event has this id."""


@dataclass(frozen=True)
class RejectedEvent:
    """One rejected event, or body, and its original bytes; `received_at` is UTC."""

    id: str
    received_at: datetime
    source: str
    reason: str
    message: str
    body: bytes
    origin: Origin


@dataclass(frozen=True)
class Filter:
    """Which rejected events; an empty field takes all."""

    reason: str = ""
    source: str = ""
    day: date | None = None

    def takes(self, event: RejectedEvent) -> bool:
        return self.reason in ("", event.reason) and self.source in ("", event.source)


def rejected_events(store: ObjectStore, wanted: Filter) -> Iterator[RejectedEvent]:
    """Rejected events in the order they were received by a collector. Raises StoreUnavailable."""
    folder = f"{RAW_REJECTED}/date={wanted.day}" if wanted.day else RAW_REJECTED
    for info in store.list(folder):
        match = _NAME.search(info.key)
        if match is None:
            continue
        table = read_parquet(store.get(info.key))
        rows = RawRows.of(table, int(match["first"]), int(match["last"]))
        for seq, row in zip(rows.numbers.tolist(), table.to_pylist(), strict=True):
            origin = Origin(**{name: row.pop(name, None) for name in Origin.__struct_fields__})
            event = RejectedEvent(id=f"{match['collector']}-{seq}", **row, origin=origin)
            if wanted.takes(event):
                yield event


def find(store: ObjectStore, event_id: str) -> RejectedEvent:
    """The rejected event of that id. Raises UnknownRejected."""
    for event in rejected_events(store, Filter()):
        if event.id == event_id:
            return event
    raise UnknownRejected(
        f"no rejected event has this id, see `shallop rejected list --ids`: `{event_id}`"
    )


def read_again(event: RejectedEvent, limits: IngestSettings) -> Decoded | Rejection:
    """What would become of it now, received when and from where it was; or why it would be
    rejected again.

    Asked before anything is written, so that a replay does not itself add to what is rejected: only
    a body of which some events are right adds those that are not.
    """
    context = Context(
        limits=limits,
        received_at=event.received_at,
        ip_prefix=event.origin.ip_prefix,
        user_agent=event.origin.user_agent,
        source=event.source,
        mint=_minting(event.id),
    )
    try:
        decoded = read_request(event.body, context, event.origin)
    except InvalidBody as error:
        return Rejection(0, error.field, error.message, error.reason)
    return decoded if decoded.events else decoded.rejected[0][0]


def _minting(event_id: str) -> Callable[[], str]:
    """Gives the same ids to events without one each time that a rejected event is read."""
    numbers = count()

    def mint() -> str:
        number = next(numbers)
        return str(uuid5(_NAMESPACE, f"{event_id}/{number}" if number else event_id))

    return mint


def replayed_ids(store: ObjectStore) -> set[str]:
    """Ids of all that was replayed already. Raises StoreUnavailable."""
    found: set[str] = set()
    for info in store.list(RAW_REPLAYED):
        found.update(_decode_ids(store.get(info.key)))
    return found


def note_replayed(store: ObjectStore, ids: list[str]) -> None:
    """Write down that these were replayed and are durable. Raises StoreUnavailable."""
    store.put_if_absent(replayed_key(datetime.now(UTC), uuid4().hex), _encode(ids))

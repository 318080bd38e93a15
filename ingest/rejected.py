"""Rejected events in raw: read, and sent again after a fix.

An event is known by `<collector>-<sequence number>`, read off its object's name. Replayed any
number of times it stays one event: without an `event_id` of its own it gets one that follows from
that name, and without a time the one it was received at.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from io import BytesIO
from uuid import UUID, uuid5

import msgspec
import pyarrow.parquet as pq

from ingest.events import InvalidBody, Rejection, decode_events
from warehouse.layout import RAW_REJECTED
from warehouse.raw_rows import RawRows
from warehouse.settings import IngestSettings
from warehouse.store import ObjectStore

# Rejected by POST /events: their bytes are one event as that takes it. Those of other protocols
# are listed and shown, not yet replayed.
REPLAYABLE_SOURCES = frozenset({"json", "ndjson"})

_NAMESPACE = UUID("6d1a4c0e-5b0f-4c0b-9f4e-6f2b5d3a7c11")
_NAME = re.compile(
    r"/date=(?P<day>[\d-]+)/.*/(?P<collector>[^/-]+)-(?P<first>\d+)-(?P<last>\d+)\.parquet$"
)

_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


class UnknownRejected(LookupError):
    """No rejected event has this id."""


@dataclass(frozen=True)
class RejectedEvent:
    """One rejected event and its original bytes; `received_at` is UTC."""

    id: str
    received_at: datetime
    source: str
    reason: str
    message: str
    body: bytes


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
        table = pq.read_table(BytesIO(store.get(info.key)))
        rows = RawRows.of(table, int(match["first"]), int(match["last"]))
        for seq, row in zip(rows.numbers.tolist(), table.to_pylist(), strict=True):
            event = RejectedEvent(id=f"{match['collector']}-{seq}", **row)
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


def repaired(event: RejectedEvent, limits: IngestSettings) -> bytes | Rejection:
    """The event as it can be sent, or why it would be rejected again.

    Asked before it is sent, so that a replay does not itself add to what is rejected.
    """
    try:
        body = _with_identity(event)
        decoded = decode_events(
            body,
            limits=limits,
            received_at=datetime.now(UTC),
            ip=None,
            user_agent=None,
            source=event.source,
        )
    except InvalidBody as error:
        return Rejection(0, error.field, error.message, error.reason)
    return decoded.rejected[0][0] if decoded.rejected else body


def _with_identity(event: RejectedEvent) -> bytes:
    """The original bytes; with an id and a time, where they have none."""
    try:
        fields = _decode(event.body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return event.body
    if not isinstance(fields, dict) or (fields.get("event_id") and fields.get("occurred_at")):
        return event.body
    if not fields.get("event_id"):
        fields["event_id"] = str(uuid5(_NAMESPACE, event.id))
    if fields.get("occurred_at") is None:
        fields["occurred_at"] = event.received_at.isoformat()
    return _encode(fields)

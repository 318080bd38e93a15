"""History into raw without HTTP: Parquet objects, each written once, however often it is repeated.

An import is known by its digest (what is in the files, and how they are read). Its first run notes
the time in the store, under the import's name; that time is `received_at` of all its rows, so all
of it lies in one hour of raw, however many years it spans. Objects are named by the import and the
range of accepted rows that they hold: a run that was killed, or is repeated anywhere, makes the
same names and the same rows, and what is there is compared, not written again. Live sessions are
not touched.
"""

from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from hashlib import sha256
from time import monotonic
from typing import Any

import msgspec
import pyarrow as pa

from ingest.flusher import RawConflict
from ingest.history.history import History, Survey
from ingest.history.judge import Judge, Judged
from ingest.history.report import Report
from ingest.protocols.routes import REPLAY_SOURCE
from warehouse.compaction import RawObject
from warehouse.contracts import REJECTED_SCHEMA
from warehouse.erasure import Tombstones
from warehouse.layout import RAW_EVENTS, RAW_REJECTED, import_key, raw_key
from warehouse.parquet import read_parquet
from warehouse.person import Mask
from warehouse.raw_erasure import hidden_events, hidden_rejected
from warehouse.raw_rows import RawRows, WrongRowCount
from warehouse.settings import IngestSettings
from warehouse.store import ObjectStore

NOBODY = Tombstones(b"", ())
OBJECT_ROWS = 100_000
OBJECT_BYTES = 128_000_000  # of Arrow, before compression

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(dict[str, Any]).decode


def write(
    history: History,
    survey: Survey,
    store: ObjectStore,
    limits: IngestSettings,
    progress: Callable[[int], None] = lambda n: None,
    tombstones: Tombstones = NOBODY,
) -> Report:
    """Bring all events of a history into raw, but for those of erased persons.

    `progress` is told how many were judged. Raises StoreUnavailable, RawConflict.
    """
    started_at = monotonic()
    report = Report.of(history, survey, store.uri(RAW_EVENTS))
    import_id = _import_id(history, limits)
    received_at = _received_at(store, import_id, history)
    judge = Judge(limits, received_at)
    events = _Objects(
        store, RAW_EVENTS, import_id, received_at, partial(hidden_events, tombstones=tombstones)
    )
    rejected = _Objects(
        store, RAW_REJECTED, import_id, received_at, partial(hidden_rejected, tombstones=tombstones)
    )
    for frame in history.events(survey):
        judged = judge.judged(frame)
        for refused in judged.refused:
            report.note(refused.reason, refused.message)
        events.add(judged.accepted)
        rejected.add(_rejected_table(judged, received_at))
        progress(frame.height)
    events.finish()
    rejected.finish()
    report.accepted = events.n_written
    report.rejected = rejected.reasons
    report.erased = events.n_erased + rejected.n_erased
    report.already_there = events.n_there + rejected.n_there
    report.seconds = monotonic() - started_at
    return report


def rehearse(
    history: History,
    survey: Survey,
    limits: IngestSettings,
    progress: Callable[[int], None] = lambda n: None,
) -> Report:
    """What `write` would make of a history, with nothing written."""
    started_at = monotonic()
    report = Report.of(history, survey, "nowhere")
    judge = Judge(limits, datetime.now(UTC))
    for frame in history.events(survey):
        judged = judge.judged(frame)
        report.accepted += judged.accepted.num_rows
        for refused in judged.refused:
            report.note(refused.reason, refused.message)
            report.rejected[refused.reason] += 1
        progress(frame.height)
    report.seconds = monotonic() - started_at
    return report


class _Objects:
    """One stream of an import, cut into objects of raw."""

    def __init__(
        self,
        store: ObjectStore,
        prefix: str,
        import_id: str,
        received_at: datetime,
        hidden: Callable[[pa.Table], Mask],
    ) -> None:
        """`hidden` says which rows are of erased persons: they keep their numbers and no more."""
        self.n_written = 0
        self.n_there = 0
        self.n_erased = 0
        self._hidden = hidden
        self.reasons: Counter[str] = Counter()  # of rejected rows that were written
        self._store = store
        self._name = (prefix, received_at, import_id)
        folder = raw_key(*self._name, 0, 0).rpartition("/")[0]
        found = (RawObject.of(info) for info in store.list(folder))
        self._there = [one for one in found if one is not None and one.collector == import_id]
        self._tables: list[pa.Table] = []
        self._n_rows = 0
        self._n_before = 0

    def add(self, table: pa.Table) -> None:
        """Take rows in; they are written when they are many."""
        if table.num_rows:
            self._tables.append(table)
            self._n_rows += table.num_rows
        if self._n_rows >= OBJECT_ROWS or sum(one.nbytes for one in self._tables) >= OBJECT_BYTES:
            self.finish()

    def finish(self) -> None:
        """Write what was taken in."""
        if not self._tables:
            return
        first, last = self._n_before + 1, self._n_before + self._n_rows
        table = pa.concat_tables(self._tables).combine_chunks()
        made = RawRows.of(table, first, last).without(self._hidden(table))
        self.n_erased += len(made.erased)
        if self._land(first, last, made):
            self.n_written += len(made.numbers)
            self.reasons.update(
                made.table["reason"].to_pylist() if "reason" in table.schema.names else ()
            )
        else:
            self.n_there += len(made.numbers)
        self._n_before, self._n_rows, self._tables = last, 0, []

    def _land(self, first: int, last: int, made: RawRows) -> bool:
        """Whether the rows were written; else they were there. Raises RawConflict."""
        holders = [one for one in self._there if one.first <= first and last <= one.last]
        if any(one.n_rows > last - first + 1 for one in holders):
            return False  # merged by compaction, which conserves every row
        key = raw_key(*self._name, first, last)
        if not holders and self._store.put_if_absent(key, made.parquet()):
            return True
        if not self._holds(key, first, last, made):
            raise RawConflict(
                "the store has other rows than this import makes under one name, compare them and "
                f"remove the wrong object: `{key}`"
            )
        return False

    def _holds(self, key: str, first: int, last: int, made: RawRows) -> bool:
        """Whether the object in the store has the rows that we made."""
        table = read_parquet(self._store.get(key))
        try:
            return RawRows.of(table, first, last).is_same(made)
        except WrongRowCount:
            return False


def _import_id(history: History, limits: IngestSettings) -> str:
    """Name of an import: hexadecimal, as the ids of collectors are."""
    judged_by = (limits.max_event_items, limits.max_future_seconds, limits.max_body_bytes)
    return sha256(f"{history.digest()} {judged_by}".encode()).hexdigest()[:32]


def _received_at(store: ObjectStore, import_id: str, history: History) -> datetime:
    """When this import was first begun, noted in the store by whoever begins it."""
    key = import_key(import_id)
    noted = {
        "received_at": datetime.now(UTC).isoformat(),
        "format": history.format.name,
        "files": [file.name for file in history.files],
    }
    store.put_if_absent(key, _encode(noted))
    return datetime.fromisoformat(_decode(store.get(key))["received_at"])


def _rejected_table(judged: Judged, received_at: datetime) -> pa.Table:
    rows = [
        {"received_at": received_at, "source": REPLAY_SOURCE, "reason": one.reason,
         "message": one.message, "body": one.body}
        for one in judged.refused
    ]  # fmt: skip
    return pa.Table.from_pylist(rows, schema=REJECTED_SCHEMA)

"""Rejected events taken again: into the outbox as they were received, once, and accounted for."""

from collections import Counter
from collections.abc import Iterable
from contextlib import suppress

from ingest.appending import OutboxFull
from ingest.events import Rejection
from ingest.outbox import Outbox
from ingest.outbox_file import OutboxBroken
from ingest.rejected import RejectedEvent, note_replayed, read_again, replayed_ids
from warehouse.settings import IngestSettings
from warehouse.store import ObjectStore, StoreUnavailable

_NOTE_EVERY = 1_000


class Replay:
    """One run of a replay, and its account.

    `n_before`, `n_replayed` and `still_rejected` (by reason) add up to `n_found`. A body that was
    refused as a whole may hold several events: `n_accepted` of all are now accepted, `n_rejected`
    were rejected each by itself.
    """

    def __init__(self, store: ObjectStore, outbox: Outbox, limits: IngestSettings) -> None:
        self.n_found = 0
        self.n_before = 0
        self.n_replayed = 0
        self.n_accepted = 0
        self.n_rejected = 0
        self.still_rejected: Counter[str] = Counter()
        self._store = store
        self._outbox = outbox
        self._limits = limits
        self._unnoted: list[str] = []

    def run(self, found: Iterable[RejectedEvent]) -> str | None:
        """Replay what is `found`; None, or why it ended early.

        An event is noted as replayed after it is durable: one whose note was lost is taken again
        under the same id.
        """
        try:
            before = replayed_ids(self._store)
            for event in found:
                self.n_found += 1
                if event.id in before:
                    self.n_before += 1
                else:
                    self._replay(event)
            self._note()
        except (OutboxFull, OutboxBroken, StoreUnavailable) as error:
            with suppress(StoreUnavailable):
                self._note()
            return str(error)
        return None

    def _replay(self, event: RejectedEvent) -> None:
        outcome = read_again(event, self._limits)
        if isinstance(outcome, Rejection):
            self.still_rejected[outcome.reason] += 1
            return
        self._outbox.append_now(outcome)
        self.n_replayed += 1
        self.n_accepted += len(outcome.events)
        self.n_rejected += len(outcome.rejected)
        self._unnoted.append(event.id)
        if len(self._unnoted) >= _NOTE_EVERY:
            self._note()

    def _note(self) -> None:
        if self._unnoted:
            note_replayed(self._store, self._unnoted)
            self._unnoted = []

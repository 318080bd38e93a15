"""Erasures as the app follows them: tombstones made elsewhere, and the mark on the model it serves.

An erasure on this box writes its tombstones into the outbox itself; those of other boxes that share
the store, or of before the outbox was made anew, come from the records in the store.
"""

import logging
from datetime import datetime

from api.champion import ChampionHolder
from ingest.erasing import remember
from ingest.outbox import Outbox
from ingest.outbox_file import OutboxBroken
from models.erasures import erasures_of
from warehouse import layout
from warehouse.erasure import key_id
from warehouse.erasure_record import RecordDamaged, read
from warehouse.store import ObjectInfo, ObjectNotFound, ObjectStore, StoreUnavailable

logger = logging.getLogger(__name__)


class ErasureHolder:
    """Follows the store; `refresh` alone changes it, from one thread."""

    def __init__(self, store: ObjectStore, outbox: Outbox, champion: ChampionHolder) -> None:
        self.last_error: str | None = None
        self.n_of_model = 0
        self._store = store
        self._outbox = outbox
        self._champion = champion
        self._seen: dict[str, datetime] = {}

    def refresh(self) -> None:
        """Look for new records, and how many erasures the serving model outlived. Blocks."""
        try:
            problems = [
                problem
                for info in self._store.list(layout.ERASURES)
                if self._seen.get(info.key) != info.modified_at and (problem := self._take(info))
            ]
            serving = self._champion.current
            if serving is not None:
                pointer = serving.pointer
                self.n_of_model = len(erasures_of(self._store, pointer.name, pointer.version))
        except StoreUnavailable:  # the other looks say so
            return
        self._say("; ".join(problems) or None)

    def _take(self, info: ObjectInfo) -> str | None:
        """Take a record's tombstones over, or say why not."""
        try:
            erasure_id = info.key.removeprefix(f"{layout.ERASURES}/").removesuffix(".json")
            record = read(self._store, erasure_id)
            own = self._outbox.erased.key
            if own is None or key_id(own) != record.key_id:
                return (
                    "an erasure was made under another key than this home's, its events cannot be "
                    f"told from others here; set SHALLOP_PRIVACY__KEY to one for all: `{record.id}`"
                )
            stones = [stone for kind in record.tombstones.values() for stone in kind]
            if remember(self._outbox.file, stones):
                logger.info("erasure=taken_over id=%s", record.id)
        except (ObjectNotFound, OutboxBroken, RecordDamaged) as error:
            return str(error)
        self._seen[info.key] = info.modified_at
        return None

    def _say(self, problem: str | None) -> None:
        if problem and problem != self.last_error:
            logger.error("erasures=failed error=%s", problem)
        self.last_error = problem

"""The outbox: where accepted events are durable before the collector acknowledges them.

One file per box (`ingest.outbox_file`), opened by every worker process. In each process one thread
writes: requests that arrive together share one transaction. Live sessions are read from the outbox
itself, and folded into a table after the acknowledgement (`ingest.sessions`). A transaction is few
statements, however many events: Python's lock changes hands at each.
"""

import logging
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from ingest import sessions
from ingest.appending import Appender
from ingest.checkpoints import Checkpoints
from ingest.erasing import ErasedIds
from ingest.events import Decoded
from ingest.group_commit import Done, GroupCommit
from ingest.moments import from_microseconds
from ingest.outbox_file import EVENTS, OutboxBroken, OutboxFile
from ingest.session_tail import SessionTail
from warehouse.settings import IngestSettings

logger = logging.getLogger(__name__)


class Outbox:
    """The collector's durable queue and session state. Methods are safe from any thread."""

    def __init__(
        self,
        path: Path,
        settings: IngestSettings,
        erase_key: bytes | None = None,
        count_left_out: Callable[[int], None] = lambda n_events: None,
    ) -> None:
        """Open the file at `path`, making it where missing. Raises OutboxBroken.

        `erase_key` reads the tombstones of erased ids; None: that of the file beside the outbox.
        `count_left_out` is told of events that live sessions could not take in.
        """
        self.path = path
        self.settings = settings
        self.file = OutboxFile(path)
        self.erased = ErasedIds(self.file, erase_key)
        self.collector_id = self.file.collector_id
        self._count_left_out = count_left_out
        self._tail = SessionTail(self.file, settings)
        self._appender = Appender(self.file, settings, self.erased)
        self._checkpoints = Checkpoints(self.file)
        self._commits = GroupCommit(self._commit, self._fold, self._closed)

    async def append(self, decoded: Decoded) -> None:
        """Return once the events are on disk. Raises OutboxFull, OutboxBroken."""
        await self._commits.add(decoded)

    def begin_append(self, decoded: Decoded, done: Done) -> None:
        """`append` for callers within an event loop that do not wait: it calls `done` in its turn,
        with None once the events are on disk, else with the error. Raises OutboxBroken.
        """
        self._commits.begin(decoded, done)

    def append_now(self, decoded: Decoded) -> None:
        """`append` for callers without an event loop."""
        self._commits.add_now(decoded)

    def session_steps(self, key: str, *, by_visitor: bool = True) -> list[str]:
        """Item ids of a live session, oldest first, repeats collapsed; empty when unknown.

        `key` is a `session_id`; else, unless not `by_visitor`, a `visitor_id`, whose latest session
        ends after `session_gap_seconds` without an event.
        """
        return self._tail.items(key, by_visitor=by_visitor)

    def fold(self) -> bool:
        """Take some of the events not folded yet into the sessions; False where none is.

        Events that cannot be folded are left out of the sessions, logged and counted: raw must
        get them all the same. Raises OutboxBroken.
        """
        for n_events in (sessions.FOLD_EVENTS, 1):  # then only the row that is wrong is lost
            try:
                return sessions.fold(self.file, self.settings, n_events)
            except (MemoryError, OutboxBroken):
                raise
            except Exception:  # as wide as what a fault of ours may raise
                logger.exception("sessions=fold_failed n_events=%d", n_events)
        n_left_out = sessions.leave_out(self.file)
        self._count_left_out(n_left_out)
        logger.error("sessions=left_out n_events=%d", n_left_out)
        return True

    def fold_waiting(self) -> None:
        """Fold what waits now; what comes meanwhile is for the next time. Raises OutboxBroken.

        Else this would go on for as long as events come, a few with each turn: twenty times the
        work.
        """
        n_in, n_folded = self.file.row("select n_in, n_folded from stream where name = ?", EVENTS)
        while n_folded < n_in and self.fold():
            (n_folded,) = self.file.row("select n_folded from stream where name = ?", EVENTS)

    def depth(self) -> int:
        """Events that wait to be shipped."""
        return int(self.file.row("select n_in - n_out from stream where name = ?", EVENTS)[0])

    def oldest_received_at(self) -> datetime | None:
        """When the event that waits longest was received."""
        found = self.file.row(
            "select received_at from batch where stream = ? order by first_seq limit 1", EVENTS
        )
        return from_microseconds(found[0]) if found else None

    def counts(self) -> dict[str, Any]:
        """Events accepted and shipped, and rejected by reason, since the file was made."""
        accepted, shipped = self.file.row("select n_in, n_out from stream where name = ?", EVENTS)
        rejected = self.file.rows("select reason, n from rejection order by reason")
        return {"accepted": accepted, "rejected": dict(rejected), "shipped": shipped}

    def close(self) -> None:
        """Write what was submitted, then let go of the file; later appends raise OutboxBroken."""
        if self._commits.close():
            self._checkpoints.close()
            self.file.close()

    def _commit(self, group: list[Decoded]) -> list[Exception | None]:
        """Make a group durable; for each request None, or why it is not."""
        try:
            outcomes = self._appender.append(group)
            self._checkpoints.wrote(self._appender.n_bytes)
            return outcomes
        except OutboxBroken as error:
            logger.error("outbox=broken n_requests=%d error=%s", len(group), error)
            return [error] * len(group)
        except Exception as error:  # the writer must outlive any group, or all would wait for ever
            logger.exception("outbox=failed n_requests=%d", len(group))
            failed = OutboxBroken(f"writing the outbox failed: `{error!r}`")
            return [failed] * len(group)

    def _closed(self) -> OutboxBroken:
        return OutboxBroken(f"the outbox is closed: `{self.path}`")

    def _fold(self) -> None:
        """Keep what is left to fold, and so what a reader has to read, within bounds."""
        if self._appender.n_unfolded < sessions.FOLD_EVENTS:
            return
        try:
            with self.file.alone("fold") as is_alone:  # else each worker would do the same work
                while is_alone and self._still_unfolded() >= sessions.FOLD_EVENTS:
                    self.fold()
        except Exception:  # the events are durable: the next group tries again
            logger.exception("sessions=not_folded n_events=%d", self._appender.n_unfolded)

    def _still_unfolded(self) -> int:
        self._appender.n_unfolded = sessions.n_unfolded(self.file)
        return self._appender.n_unfolded

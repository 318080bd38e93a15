"""History over HTTP, as a shop would send it: batched, repeated until answered for, resumable."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from time import monotonic

from ingest.history.frame import bodies
from ingest.history.history import History, Survey
from ingest.history.progress import Progress
from ingest.history.report import Report
from ingest.sender import (
    BATCH_EVENTS,
    N_CONNECTIONS,
    PATIENCE_SECONDS,
    Accounting,
    Sender,
    all_or_first_error,
    batches_of,
    new_client,
)


def deliver(
    history: History,
    survey: Survey,
    url: str,
    state: Progress,
    *,
    key: str = "",
    events_per_second: float = 0.0,
    progress: Callable[[int], None] = lambda n: None,
    patience_seconds: float = PATIENCE_SECONDS,
) -> Report:
    """Send the events of a history that are not answered for yet to the collector at `url`.

    `events_per_second` 0 is as fast as it goes; `progress` is told how many were answered for.
    Raises CollectorUnreachable after `patience_seconds` without an answer; how far it came is kept.
    """
    report = Report.of(history, survey, url)
    report.already_there = state.state.n_events
    started_at = monotonic()
    run = _Run(report, state, events_per_second, progress)
    run.batches = _batches(history, survey, state.state.n_events, events_per_second)
    progress(state.state.n_events)
    try:
        asyncio.run(run.send_all(url, key, patience_seconds))
    finally:
        state.save()
    report.seconds = monotonic() - started_at
    return report


class _Run:
    """Several connections share the batches; what is answered for is noted in order."""

    def __init__(
        self,
        report: Report,
        state: Progress,
        events_per_second: float,
        progress: Callable[[int], None],
    ) -> None:
        self.batches: Iterator[list[bytes]] = iter(())
        self._report = report
        self._state = state
        self._rate = events_per_second
        self._progress = progress
        self._n_taken = self._n_events_taken = self._n_settled = 0
        self._outcomes: dict[int, Accounting] = {}

    async def send_all(self, url: str, key: str, patience_seconds: float) -> None:
        # Who sends history is not the browser that its events are from.
        headers = {"User-Agent": ""} | ({"Authorization": f"Bearer {key}"} if key else {})
        taking = asyncio.Lock()
        started_at = monotonic()
        async with new_client(headers=headers) as client:
            sender = Sender(client, url, patience_seconds)

            async def work() -> None:
                while True:
                    async with taking:
                        number, n_before = self._n_taken, self._n_events_taken
                        # Read in a thread: the connections go on meanwhile.
                        batch = await asyncio.to_thread(next, self.batches, None)
                        if batch is None:
                            return
                        self._n_taken += 1
                        self._n_events_taken += len(batch)
                    if self._rate:
                        due_at = started_at + n_before / self._rate
                        await asyncio.sleep(max(0.0, due_at - monotonic()))
                    self._settle(number, await sender.send(batch))

            await all_or_first_error([work() for _ in range(N_CONNECTIONS)])

    def _settle(self, number: int, outcome: Accounting) -> None:
        self._count(outcome)
        self._progress(outcome.sent)
        self._outcomes[number] = outcome
        while (settled := self._outcomes.pop(self._n_settled, None)) is not None:
            self._n_settled += 1
            self._state.advance(settled.sent, settled.accepted, settled.reasons)

    def _count(self, outcome: Accounting) -> None:
        kept = Counter(outcome.reasons)
        if outcome.refused:
            kept["too_large"] -= outcome.refused
        report = self._report
        report.accepted += outcome.accepted
        report.rejected += kept
        report.undelivered += outcome.refused
        report.retried += outcome.retried
        for error in outcome.errors:
            reason, _, message = error.partition(": ")
            report.note(reason, message)


def _batches(
    history: History, survey: Survey, n_done: int, events_per_second: float
) -> Iterator[list[bytes]]:
    """Requests of the events after the first `n_done`; small ones where few may go a second."""
    for batch in batches_of(_bodies(history, survey, n_done)):
        if 0 < events_per_second < BATCH_EVENTS:
            size = max(1, int(events_per_second))
            yield from (batch[i : i + size] for i in range(0, len(batch), size))
        else:
            yield batch


def _bodies(history: History, survey: Survey, n_done: int) -> Iterator[bytes]:
    if n_done >= survey.n_events:
        return
    for frame in history.events(survey):
        if n_done >= frame.height:
            n_done -= frame.height
            continue
        yield from bodies(frame.slice(n_done))
        n_done = 0

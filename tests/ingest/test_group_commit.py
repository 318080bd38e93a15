"""Who waits for a group, and who folds what it left."""

import asyncio

import pytest

from ingest import sessions
from ingest.group_commit import Outcome
from ingest.outbox import Outbox
from tests.ingest.test_outbox import Decode, Make
from warehouse.settings import IngestSettings


def test_what_befalls_one_keeps_no_other_waiting(
    outbox: Outbox, decoded: Decode, sent: Make, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[Outcome] = []

    def fail(outcome: Outcome) -> None:
        raise ZeroDivisionError

    async def append_three() -> None:
        outbox.begin_append(decoded([sent()]), fail)
        outbox.begin_append(decoded([sent()]), told.append)
        async with asyncio.timeout(10):
            await outbox.append(decoded([sent()]))

    asyncio.run(append_three())
    assert told == [None]
    assert outbox.depth() == 3
    assert "outbox=not_told" in caplog.text


def test_one_worker_folds_at_a_time(
    outbox: Outbox, decoded: Decode, sent: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "FOLD_EVENTS", 3)
    other = Outbox(outbox.path, IngestSettings())
    with other.file.alone("fold") as is_alone:
        assert is_alone
        for _ in range(5):
            outbox.append_now(decoded([sent()]))
        assert sessions.n_unfolded(outbox.file) == 5
    outbox.append_now(decoded([sent()]))
    outbox.close()  # its writer has folded by then
    assert sessions.n_unfolded(other.file) < 3
    other.close()

"""Acknowledged means durable, whoever appends and however it ends."""

import asyncio
import logging
import random
import sqlite3
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from secrets import token_hex
from typing import Any

import msgspec
import pytest

from ingest import sessions, shipments
from ingest.appending import OutboxFull
from ingest.columns import MIN_TOGETHER
from ingest.events import Decoded
from ingest.outbox import Outbox, OutboxBroken
from warehouse.settings import IngestSettings, Settings

Make = Callable[..., dict[str, Any]]
Decode = Callable[..., Decoded]
Start = Callable[..., subprocess.Popen[str]]


def test_a_new_outbox_is_empty_and_keeps_its_id(settings: Settings) -> None:
    outbox = Outbox(settings.outbox_path, settings.ingest)
    assert outbox.depth() == 0
    assert outbox.oldest_received_at() is None
    assert outbox.counts() == {"accepted": 0, "rejected": {}, "shipped": 0}
    outbox.close()
    again = Outbox(settings.outbox_path, settings.ingest)
    assert again.collector_id == outbox.collector_id
    again.close()
    other = Outbox(settings.home / "other.sqlite", settings.ingest)
    assert other.collector_id != outbox.collector_id
    other.close()


def test_what_was_appended_is_there_after_reopening(
    settings: Settings, outbox: Outbox, decoded: Decode, sent: Make
) -> None:
    received_at = datetime(2026, 3, 1, 12, tzinfo=UTC)
    event = sent(occurred_at=...)
    outbox.append_now(decoded([event, sent(event_name="no"), event], received_at))
    outbox.append_now(decoded([sent(items=[])], received_at + timedelta(seconds=1)))
    outbox.close()
    again = Outbox(settings.outbox_path, settings.ingest)
    assert again.depth() == 2
    assert again.oldest_received_at() == received_at
    assert again.counts() == {
        "accepted": 2,
        "rejected": {"missing_items": 1, "unknown_event_name": 1},
        "shipped": 0,
    }
    assert again.session_steps("session-1") == []  # received too long ago to be live
    again.close()


def test_appends_of_one_turn_of_the_loop_share_a_commit(
    outbox: Outbox, decoded: Decode, sent: Make
) -> None:
    requests = [decoded(sent(session_id=f"s{number}")) for number in range(200)]

    async def append_all() -> None:
        await asyncio.gather(*(outbox.append(request) for request in requests))

    asyncio.run(append_all())
    assert outbox.depth() == 200
    n_rows = outbox.file.row("select count(*) from batch")[0]
    assert n_rows <= 2, "two only where an hour ended between them"
    assert len(_shipped_ids(outbox)) == 200


def test_appends_of_many_threads_are_all_kept_once(
    outbox: Outbox, decoded: Decode, sent: Make
) -> None:
    requests = [decoded([sent(), sent()]) for _ in range(100)]
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(outbox.append_now, requests))
    expected = {event.event_id for request in requests for event in request.events}
    ids = _shipped_ids(outbox)
    assert len(ids) == len(expected) == 200
    assert set(ids) == expected


def test_a_request_given_up_does_not_harm_the_others(
    outbox: Outbox, decoded: Decode, sent: Make
) -> None:
    async def append_and_give_up() -> None:
        tasks = [asyncio.create_task(outbox.append(decoded(sent()))) for _ in range(20)]
        await asyncio.sleep(0)
        for task in tasks[::2]:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert results[1::2] == [None] * 10

    asyncio.run(append_and_give_up())


def test_a_full_outbox_refuses_and_keeps_what_it_has(
    settings: Settings, decoded: Decode, sent: Make
) -> None:
    outbox = Outbox(settings.outbox_path, IngestSettings(outbox_limit_events=5))
    outbox.append_now(decoded([sent(), sent(), sent(event_name="no")]))
    with pytest.raises(OutboxFull, match="`3`") as caught:
        outbox.append_now(decoded([sent()] * 3))
    assert (caught.value.depth, caught.value.limit) == (3, 5)
    outbox.append_now(decoded([sent(), sent()]))
    assert outbox.depth() == 4
    with pytest.raises(OutboxFull):
        asyncio.run(outbox.append(decoded(sent())))
    outbox.close()


def test_a_full_disk_acknowledges_nothing_and_is_survived(
    outbox: Outbox, decoded: Decode, sent: Make, caplog: pytest.LogCaptureFixture
) -> None:
    outbox.append_now(decoded(sent()))
    connection = outbox.file._idle[-1]  # the one that will be used next
    used = connection.execute("pragma page_count").fetchone()[0]
    connection.execute(f"pragma max_page_count = {used + 2}")
    with caplog.at_level(logging.CRITICAL), pytest.raises(OutboxBroken, match="is its disk full"):
        outbox.append_now(decoded([sent(page_url=token_hex(4000)) for _ in range(20)]))
    assert outbox.depth() == 1
    outbox.append_now(decoded(sent()))
    assert outbox.depth() == 2


def test_a_removed_file_is_noticed(outbox: Outbox, decoded: Decode, sent: Make) -> None:
    outbox.append_now(decoded(sent()))
    outbox.path.unlink()
    with pytest.raises(OutboxBroken, match="removed or replaced"):
        outbox.append_now(decoded(sent()))


def test_a_closed_outbox_has_written_all_and_takes_no_more(
    settings: Settings, decoded: Decode, sent: Make
) -> None:
    outbox = Outbox(settings.outbox_path, settings.ingest)

    async def append_and_close() -> None:
        tasks = [asyncio.create_task(outbox.append(decoded(sent()))) for _ in range(50)]
        await asyncio.sleep(0)
        outbox.close()
        await asyncio.gather(*tasks)

    asyncio.run(append_and_close())
    outbox.close()
    with pytest.raises(OutboxBroken, match="closed"):
        outbox.append_now(decoded(sent()))
    again = Outbox(settings.outbox_path, settings.ingest)
    assert again.depth() == 50
    again.close()


@pytest.mark.parametrize("content", [b"no database at all, but long enough to be taken for one"])
def test_a_file_that_is_no_outbox_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "outbox.sqlite"
    path.write_bytes(content)
    with pytest.raises(OutboxBroken, match=r"outbox\.sqlite"):
        Outbox(path, IngestSettings())


def test_a_file_of_another_version_is_refused(outbox: Outbox) -> None:
    outbox.close()
    with sqlite3.connect(outbox.path) as connection:
        connection.execute("pragma user_version = 99")
    connection.close()
    with pytest.raises(OutboxBroken, match="`99`"):
        Outbox(outbox.path, IngestSettings())


def test_a_file_of_version_1_is_taken_over_with_its_events(
    outbox: Outbox, decoded: Decode, sent: Make
) -> None:
    outbox.append_now(decoded([sent(), sent()]))
    outbox.close()
    with sqlite3.connect(outbox.path) as connection:
        connection.execute("alter table stream drop column n_folded")
        connection.execute("alter table session add column last_at integer")
        connection.execute("alter table batch drop column n_bytes")
        connection.execute("drop table erasure")
        connection.execute("drop table tombstone")
        connection.execute("pragma user_version = 1")
    connection.close()
    again = Outbox(outbox.path, IngestSettings())
    assert again.depth() == 2
    again.append_now(decoded(sent(session_id="new")))
    assert again.session_steps("new") == ["oak-lamp"]
    assert len(_shipped_ids(again)) == 3
    again.close()


def test_a_file_of_version_3_is_taken_over_with_its_lines(
    outbox: Outbox, decoded: Decode, sent: Make
) -> None:
    request = decoded([sent(page_url="u" * 2000) for _ in range(3)])
    outbox.append_now(request)
    outbox.close()
    lines = msgspec.json.Encoder().encode_lines(request.events)
    with sqlite3.connect(outbox.path) as connection:
        connection.execute("update batch set lines = ?", (lines,))
        connection.execute("alter table batch drop column n_bytes")
        connection.execute("pragma user_version = 3")
    connection.close()
    again = Outbox(outbox.path, IngestSettings())
    assert again.session_steps("session-1") == ["oak-lamp"]
    again.append_now(decoded([sent() for _ in range(MIN_TOGETHER)]))
    assert _shipped_ids(again)[:3] == [event.event_id for event in request.events]
    again.close()


@pytest.mark.parametrize("times", [1, MIN_TOGETHER])
def test_a_group_that_has_not_all_room_keeps_what_has(
    settings: Settings, decoded: Decode, sent: Make, times: int
) -> None:
    outbox = Outbox(settings.outbox_path, IngestSettings(outbox_limit_events=3 * times))
    requests = [decoded([sent() for _ in range(n * times)]) for n in (2, 2, 1)]

    async def append_all() -> list[BaseException | None]:
        appends = (outbox.append(request) for request in requests)
        return await asyncio.gather(*appends, return_exceptions=True)

    first, second, third = asyncio.run(append_all())
    assert (first, type(second), third) == (None, OutboxFull, None)
    assert outbox.depth() == len(_shipped_ids(outbox)) == 3 * times
    outbox.close()


def test_ranges_never_cross_an_hour_and_cover_all(
    settings: Settings, decoded: Decode, sent: Make
) -> None:
    outbox = Outbox(settings.outbox_path, IngestSettings(flush_max_rows=4))
    late = datetime(2026, 3, 1, 12, 59, 59, 999_999, tzinfo=UTC)
    requests = [
        decoded([sent(occurred_at=...)] * n_events, late + timedelta(microseconds=after))
        for n_events, after in ((3, 0), (6, 1), (2, 0), (1, 2))
    ]

    async def append_all() -> None:
        await asyncio.gather(*(outbox.append(request) for request in requests))

    asyncio.run(append_all())
    ranges = _ship_all(outbox, max_rows=4)
    assert ranges[0].first_seq == 1
    assert ranges[-1].last_seq == 12
    assert all(one.last_seq + 1 == two.first_seq for one, two in pairwise(ranges))
    assert all(shipment.n_rows <= 4 for shipment in ranges)
    hours = [shipment.received_at.hour for shipment in ranges]
    assert set(hours) == {12, 13}
    n_late = sum(s.n_rows for s in ranges if s.received_at.hour == 12)
    assert n_late == 5
    outbox.close()


def test_ranges_are_bounded_in_bytes(
    outbox: Outbox, decoded: Decode, sent: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shipments, "MAX_BYTES", 20_000)
    for _ in range(5):
        outbox.append_now(decoded(sent(page_url="u" * 8000)))
    assert [shipment.n_rows for shipment in _ship_all(outbox)] == [2, 2, 1]


def test_a_range_begun_is_the_next_one_until_it_is_finished(
    outbox: Outbox, decoded: Decode, sent: Make
) -> None:
    outbox.append_now(decoded([sent(), sent()]))
    begun = _begin(outbox, 100)
    outbox.append_now(decoded(sent()))
    assert begun is not None
    assert shipments.begin(outbox.file, "events", 100) == begun
    shipments.finish(outbox.file, begun)
    shipments.finish(outbox.file, begun)
    assert outbox.counts()["shipped"] == 2
    following = _begin(outbox, 100)
    assert following is not None
    assert (following.first_seq, following.last_seq) == (3, 3)


def test_nothing_acknowledged_is_lost_when_writers_are_killed(
    settings: Settings, start_process: Start
) -> None:
    writers = [start_process("write_forever.py", settings, f"w{n}", 4) for n in range(2)]
    acknowledged = [_read_lines(writer, 150) for writer in writers]
    for writer, lines in zip(writers, acknowledged, strict=True):
        writer.kill()
        lines += writer.communicate()[0].splitlines()
    outbox = Outbox(settings.outbox_path, settings.ingest)
    expected = {line.split()[0] for lines in acknowledged for line in lines}
    assert len(expected) >= 300
    counted = outbox.counts()["accepted"]
    last_items: dict[str, list[str]] = {}
    for lines in acknowledged:
        for line in lines:
            _, session_id, item_id = line.split()
            last_items.setdefault(session_id, []).append(item_id)
    for session_id, items in last_items.items():
        assert set(items[-40:]) <= set(outbox.session_steps(session_id))
    ids = _shipped_ids(outbox)
    assert len(ids) == len(set(ids)) == counted
    assert expected <= set(ids)
    outbox.close()


def _read_lines(process: subprocess.Popen[str], n_lines: int) -> list[str]:
    assert process.stdout
    return [process.stdout.readline().strip() for _ in range(n_lines)]


def _begin(outbox: Outbox, max_rows: int) -> shipments.Shipment | None:
    while sessions.fold(outbox.file, outbox.settings):
        pass
    return shipments.begin(outbox.file, "events", max_rows)


def _ship_all(outbox: Outbox, max_rows: int = 1000) -> list[shipments.Shipment]:
    ranges = []
    while shipment := _begin(outbox, max_rows):
        ranges.append(shipment)
        shipments.finish(outbox.file, shipment)
    return ranges


def test_much_that_is_written_is_moved_out_of_the_wal_beside_who_writes(
    outbox: Outbox, decoded: Decode, sent: Make
) -> None:
    chance = random.Random(4)
    wal = outbox.path.with_name(f"{outbox.path.name}-wal")
    n_written, largest = 0, 0
    while n_written < 60_000_000:  # no commit makes a checkpoint by itself before 64 MB
        events = [sent(page_url=chance.randbytes(3_000).hex()) for _ in range(100)]
        outbox.append_now(decoded(events))
        n_written += 600_000
        largest = max(largest, wal.stat().st_size)
    assert largest < n_written / 2
    assert outbox.path.stat().st_size > n_written / 2
    assert outbox.depth() == n_written // 6_000


def _shipped_ids(outbox: Outbox) -> list[str]:
    ids = []
    while shipment := _begin(outbox, 1000):
        ids += shipments.rows_of(outbox.file, shipment)["event_id"].to_pylist()
        shipments.finish(outbox.file, shipment)
    return ids

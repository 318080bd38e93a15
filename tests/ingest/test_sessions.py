"""Live sessions: what was looked at, in order, at once and in every process."""

import logging
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from ingest import sessions
from ingest.columns import MIN_TOGETHER
from ingest.events import Decoded
from ingest.flusher import Flusher
from ingest.outbox import Outbox
from warehouse.settings import IngestSettings, Settings
from warehouse.store import open_store

Make = Callable[..., dict[str, Any]]
Decode = Callable[..., Decoded]


@pytest.fixture
def view(outbox: Outbox, decoded: Decode, sent: Make) -> Callable[..., None]:
    """Appends a view of an item, `minutes` from now on the client's clock, `received` on ours."""
    now = datetime.now(UTC)

    def append(item_id: str, minutes: float = 0, received: float = 0, **changes: Any) -> None:
        event = sent(
            items=[{"item_id": item_id}],
            occurred_at=(now + timedelta(minutes=minutes)).isoformat(),
            **changes,
        )
        outbox.append_now(decoded(event, now + timedelta(minutes=received)))

    return append


def test_steps_are_in_order_of_the_clients_clock_with_repeats_collapsed(
    outbox: Outbox, view: Callable[..., None]
) -> None:
    for item_id, minutes in (("a", 1), ("c", 3), ("c", 4), ("b", 2), ("a", 5)):
        view(item_id, minutes)
    assert outbox.session_steps("session-1") == ["a", "b", "c", "a"]
    assert outbox.session_steps("unknown") == []


def test_only_steps_count_and_all_items_of_one(outbox: Outbox, decoded: Decode, sent: Make) -> None:
    for name, items in (
        ("view_item_list", ["x", "y"]),
        ("view_item", ["a"]),
        ("select_item", ["z"]),
        ("add_to_cart", ["a"]),
        ("remove_from_cart", ["z"]),
        ("purchase", ["a", "b", "c"]),
    ):
        outbox.append_now(
            decoded(sent(event_name=name, items=[{"item_id": item_id} for item_id in items]))
        )
    assert outbox.session_steps("session-1") == ["a", "b", "c"]


def test_a_repeated_event_is_one_step(outbox: Outbox, decoded: Decode, sent: Make) -> None:
    first, second = sent(items=[{"item_id": "a"}]), sent(items=[{"item_id": "b"}])
    outbox.append_now(decoded([first, second]))
    outbox.append_now(decoded([first, second]))
    outbox.append_now(decoded([first, second, first]))
    assert outbox.session_steps("session-1") == ["a", "b"]


def test_a_repeated_event_that_names_no_time_is_one_step_at_its_first(
    outbox: Outbox, decoded: Decode, sent: Make
) -> None:
    now = datetime.now(UTC)
    views = [sent(items=[{"item_id": item_id}], occurred_at=...) for item_id in "ab"]
    for seconds, event in enumerate([*views, views[0]]):
        outbox.append_now(decoded(event, now + timedelta(seconds=seconds)))
    assert outbox.session_steps("session-1") == ["a", "b"]
    while sessions.fold(outbox.file, outbox.settings):
        pass
    outbox.append_now(decoded(views[0], now + timedelta(seconds=9)))
    assert outbox.session_steps("session-1") == ["a", "b"]


def test_the_latest_steps_are_kept(settings: Settings, decoded: Decode, sent: Make) -> None:
    outbox = Outbox(settings.outbox_path, IngestSettings(session_max_steps=3))
    for number in range(10):
        outbox.append_now(decoded(sent(items=[{"item_id": str(number)}])))
    assert outbox.session_steps("session-1") == ["7", "8", "9"]
    outbox.close()


def test_a_visitor_finds_the_latest_session(outbox: Outbox, view: Callable[..., None]) -> None:
    view("a", session_id="s1", received=-2)
    view("b", session_id="s2", received=-1)
    assert outbox.session_steps("visitor-1") == ["b"]
    view("c", 1, session_id="s1")
    assert outbox.session_steps("visitor-1") == ["a", "c"]


def test_without_session_ids_a_gap_begins_a_new_session(
    outbox: Outbox, view: Callable[..., None]
) -> None:
    view("a", -100, session_id=...)
    view("b", -75, session_id=...)
    assert outbox.session_steps("visitor-1") == ["a", "b"]
    view("page", -50, session_id=..., event_name="page_view")  # bridges the gap
    view("c", -25, session_id=...)
    assert outbox.session_steps("visitor-1") == ["a", "b", "c"]
    view("d", 6, session_id=...)
    assert outbox.session_steps("visitor-1") == ["d"]
    view("e", -100, session_id=...)  # late, of the session before
    assert outbox.session_steps("visitor-1") == ["d"]


def test_a_visitor_and_a_session_of_one_name_are_two(
    outbox: Outbox, view: Callable[..., None]
) -> None:
    view("a", session_id="same", visitor_id="other")
    view("b", session_id=..., visitor_id="same")
    assert outbox.session_steps("same") == ["a"]


def test_an_idle_visitor_has_no_live_session_and_an_idle_session_is_forgotten(
    outbox: Outbox, view: Callable[..., None], settings: Settings
) -> None:
    view("a", session_id="s1", received=-31)
    assert outbox.session_steps("visitor-1") == []
    assert outbox.session_steps("s1") == ["a"]
    view("b", session_id="s2", received=-24 * 60 - 1)
    assert outbox.session_steps("s2") == []
    while sessions.fold(outbox.file, settings.ingest):
        pass
    after_row = 0
    while after_row := sessions.purge(outbox.file, after_row, settings.ingest):
        pass
    assert outbox.file.rows("select key from session") == [("s:s1",)]


def test_another_process_sees_the_click_at_once(
    outbox: Outbox, view: Callable[..., None], settings: Settings
) -> None:
    other = Outbox(settings.outbox_path, settings.ingest)
    assert other.session_steps("session-1") == []
    view("a")
    assert other.session_steps("session-1") == ["a"]
    other.close()


def test_what_is_read_does_not_depend_on_what_is_folded(
    outbox: Outbox, view: Callable[..., None], settings: Settings
) -> None:
    other = Outbox(settings.outbox_path, settings.ingest)
    for number in range(3):
        view(f"named-{number}", number)
        view(f"page-{number}", number, session_id=..., visitor_id="alone", event_name="page_view")
        view(f"alone-{number}", number, session_id=..., visitor_id="alone")
        expected = {
            name: [f"{prefix}-{n}" for n in range(number + 1)]
            for name, prefix in (("session-1", "named"), ("visitor-1", "named"), ("alone", "alone"))
        }
        for reader in (outbox, other):
            assert {name: reader.session_steps(name) for name in expected} == expected
        assert sessions.fold(outbox.file, settings.ingest)
        assert not sessions.fold(outbox.file, settings.ingest)
        for reader in (outbox, other, Outbox(settings.outbox_path, settings.ingest)):
            assert {name: reader.session_steps(name) for name in expected} == expected
            if reader not in (outbox, other):
                reader.close()
    other.close()


def test_batches_and_single_events_of_a_session_are_read_and_folded_alike(
    outbox: Outbox, decoded: Decode, sent: Make, settings: Settings
) -> None:
    other = Outbox(settings.outbox_path, settings.ingest)
    now = datetime.now(UTC)
    expected: list[str] = []

    def view(second: int, **ids: Any) -> dict[str, Any]:
        expected.append(f'{second}"\\')
        occurred_at = (now + timedelta(seconds=second)).isoformat()
        return sent(items=[{"item_id": expected[-1]}], occurred_at=occurred_at, **ids)

    for start in (0, 100, 200):
        for seconds in (range(start, start + MIN_TOGETHER), [start + 50], [start + 51]):
            ids = {"session_id": ..., "visitor_id": "alone"} if start == 100 else {}
            outbox.append_now(decoded([view(second, **ids) for second in seconds]))
            name = "alone" if start == 100 else "session-1"
            wanted = [one for one in expected if (100 <= int(one[:-2]) < 200) == (start == 100)]
            for reader in (outbox, other):
                assert reader.session_steps(name) == wanted[-50:]
                if name == "session-1":
                    assert reader.session_steps("visitor-1") == wanted[-50:]
    assert sessions.fold(outbox.file, settings.ingest)
    again = Outbox(settings.outbox_path, settings.ingest)
    for reader in (outbox, other, again):
        assert reader.session_steps("alone") == expected[34:68]
        assert reader.session_steps("session-1") == [*expected[:34], *expected[68:]][-50:]
    other.close()
    again.close()


def test_a_page_view_alone_makes_no_session(
    outbox: Outbox, view: Callable[..., None], settings: Settings
) -> None:
    view("a", event_name="page_view")
    assert outbox.session_steps("session-1") == outbox.session_steps("visitor-1") == []
    sessions.fold(outbox.file, settings.ingest)
    assert outbox.file.rows("select key from session") == []


def test_a_row_that_grows_keeps_its_latest_steps(
    settings: Settings, decoded: Decode, sent: Make
) -> None:
    outbox = Outbox(settings.outbox_path, IngestSettings(session_max_steps=3))
    for number in range(60):
        outbox.append_now(decoded(sent(items=[{"item_id": f"{number:0>256}"}])))
        sessions.fold(outbox.file, outbox.settings)
    assert [int(item_id) for item_id in outbox.session_steps("session-1")] == [57, 58, 59]
    (length,) = outbox.file.row("select length(steps) from session")
    assert length < 3_000
    outbox.close()


def test_events_without_a_step_are_folded_into_a_session_that_has_some(
    outbox: Outbox, view: Callable[..., None], decoded: Decode, sent: Make
) -> None:
    view("a")
    assert sessions.fold(outbox.file, outbox.settings)
    outbox.append_now(decoded(sent(event_name="remove_from_cart", items=[{"item_id": "a"}])))
    assert sessions.fold(outbox.file, outbox.settings)
    assert outbox.session_steps("session-1") == ["a"]
    view("b", 1)
    assert sessions.fold(outbox.file, outbox.settings)
    assert outbox.session_steps("session-1") == ["a", "b"]


def test_folding_what_waits_ends_while_events_come(
    outbox: Outbox, decoded: Decode, sent: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    fold, n_folds = sessions.fold, 0

    def fold_while_one_comes(*arguments: Any) -> bool:
        nonlocal n_folds
        n_folds += 1
        assert n_folds < 10, "it follows what comes"
        folded = fold(*arguments)
        outbox.append_now(decoded(sent()))
        return folded

    monkeypatch.setattr(sessions, "fold", fold_while_one_comes)
    outbox.append_now(decoded([sent() for _ in range(3)]))
    outbox.fold_waiting()
    assert (n_folds, sessions.n_unfolded(outbox.file)) == (1, 1)
    outbox.fold_waiting()
    assert (n_folds, sessions.n_unfolded(outbox.file)) == (2, 1)


def test_events_that_no_session_can_take_hold_up_nothing(
    settings: Settings, decoded: Decode, sent: Make, caplog: pytest.LogCaptureFixture
) -> None:
    n_left_out: list[int] = []
    outbox = Outbox(settings.outbox_path, settings.ingest, count_left_out=n_left_out.append)
    with outbox.file.transaction() as connection:
        connection.execute(
            "create trigger refuse before insert on session when new.key = 's:wrong' "
            "begin select raise(abort, 'refused by the test'); end"
        )
    for session_id, item_id in [("right", "a"), ("wrong", "b"), ("right", "c")]:
        event = sent(session_id=session_id, items=[{"item_id": item_id}])
        outbox.append_now(decoded([event, event | {"event_id": str(uuid4())}]))
    store = open_store(settings)
    with caplog.at_level(logging.WARNING):
        assert Flusher(outbox, store, settings.ingest).flush_once() == 6
    assert n_left_out == [2]
    assert "sessions=left_out n_events=2" in caplog.text
    assert "refused by the test" in caplog.text
    assert outbox.depth() == sessions.n_unfolded(outbox.file) == 0
    assert outbox.session_steps("right") == ["a", "c"]
    assert outbox.session_steps("wrong") == []
    outbox.close()


def test_enough_events_are_folded_without_a_flusher(
    outbox: Outbox, decoded: Decode, sent: Make
) -> None:
    for _ in range(5):
        outbox.append_now(decoded([sent() for _ in range(500)]))
    outbox.close()
    again = Outbox(outbox.path, outbox.settings)
    assert sessions.n_unfolded(again.file) < sessions.FOLD_EVENTS
    again.close()


def test_two_processes_add_to_one_session(
    settings: Settings, start_process: Callable[..., subprocess.Popen[str]]
) -> None:
    writers = [start_process("write_forever.py", settings, "same", 1) for _ in range(2)]
    for writer in writers:
        assert writer.stdout
        for _ in range(40):
            writer.stdout.readline()
        writer.kill()
        writer.wait()
    outbox = Outbox(settings.outbox_path, settings.ingest)
    while sessions.fold(outbox.file, settings.ingest):
        pass
    (steps,) = outbox.file.row("select steps from session where key = 's:same-0'")
    assert len(steps.splitlines()) == outbox.counts()["accepted"]
    outbox.close()

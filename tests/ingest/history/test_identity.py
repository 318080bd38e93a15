"""Ids: the same for the same rows wherever they lie, one each for rows that say the same."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID, uuid5

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ingest.history.identity import Repeats, namespace_of, uuids_of

Read = Callable[..., Any]
GOLDEN = [
    "4ad28a4b-3124-552b-a8b1-a04fde8d6af5",
    "03b70589-c356-5300-9cb3-f97acfcbc590",
    "42ce048e-2bb8-53f5-a34d-0ec663049569",
    "d2f3e759-2692-5de1-8837-78d6f7290f1f",
]
HEAD = "event_time,event_type,item_id,user_id,price,note"


def write(path: Path, rows: list[str]) -> Path:
    path.write_text("\n".join([HEAD, *rows]) + "\n")
    return path


def test_ids_never_change(read: Read, tmp_path: Path) -> None:
    """What is in a warehouse has these: another id would count every event of a replay twice."""
    rows = ["2026-01-01 10:00:00.5,view,a,u1,9.5,é", "2026-01-01,cart,007,u2,,", "x,view,b,u,1e-7,"]
    whole = read(write(tmp_path / "events.csv", [*rows, rows[0]]))
    assert whole.ids == GOLDEN
    assert all(UUID(one).version == 5 for one in whole.ids)


@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_split_renamed_and_reordered_files_have_the_same_ids(
    read: Read, tmp_path: Path, data: st.DataObject
) -> None:
    row = st.tuples(st.integers(1, 3), st.sampled_from(["view", "cart"]), st.integers(0, 3)).map(
        lambda of: f"2026-01-0{of[0]},{of[1]},i{of[2]},u,,"
    )
    rows = data.draw(st.lists(row, min_size=1, max_size=30))
    whole = read(write(tmp_path / "whole.csv", rows))
    assert len(set(whole.ids)) == len(rows)
    shuffled = data.draw(st.permutations(rows))
    cut = data.draw(st.integers(0, len(rows)))
    parts = [write(tmp_path / "z.csv", shuffled[:cut]), write(tmp_path / "a.csv", shuffled[cut:])]
    again = read(*parts)
    assert sorted(again.ids) == sorted(whole.ids)

    def by_id(of: Any) -> dict[str, Any]:
        return {event["event_id"]: event for event in of.events}

    assert by_id(again) == by_id(whole)


def test_rows_that_say_the_same_stay_as_many_events(
    read: Read, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ingest.history.files.BATCH_ROWS", 20)
    rows = ["2026-01-01,view,a,u,,"] * 70 + ["2026-01-01,view,b,u,,"]
    (tmp_path / "events.jsonl").write_text(
        "".join('{"event_time":"2026-01-01","event_type":"view","item_id":"a","user_id":"u"}\n'
                for _ in range(70))
        + '{"event_time":"2026-01-01","event_type":"view","item_id":"b","user_id":"u"}\n'
    )  # fmt: skip
    whole = read(write(tmp_path / "events.csv", rows))
    assert len(set(whole.ids)) == 71
    assert read(tmp_path / "events.jsonl").ids == whole.ids


def test_an_event_with_an_id_keeps_it(read: Read, tmp_path: Path) -> None:
    mine = "7b0b4f0e-3f2c-4a57-9a57-0f3d0c1d2e3f"
    (tmp_path / "own.jsonl").write_text(
        f'{{"event_id":"{mine}","event_name":"page_view","session_id":"s","occurred_at":1767225600000}}\n'
        '{"event_name":"page_view","session_id":"s","occurred_at":"2026-01-01T00:00:00Z"}\n'
        '{"event_name":"page_view","session_id":7,"occurred_at":"2026-01-01T00:00:00Z"}\n'
    )
    whole = read(tmp_path / "own.jsonl")
    assert whole.ids[0] == mine
    assert len(set(whole.ids)) == 3
    assert whole.events[0]["occurred_at"] == "2026-01-01T00:00:00Z"
    assert whole.events[2]["session_id"] == 7, "what is wrong is for the collector to say"


@settings(deadline=None)
@given(st.lists(st.integers(0, 2**64 - 1), max_size=200), st.integers(1, 5))
def test_repeats_are_those_that_come_more_than_once(values: list[int], n_batches: int) -> None:
    values = values + values[: len(values) // 3]
    repeats = Repeats()
    for batch in np.array_split(np.array(values, dtype=np.uint64), n_batches):
        repeats.add(batch)
    expected = sorted(value for value, n in Counter(values).items() if n > 1)
    assert repeats.found().tolist() == expected


@settings(deadline=None)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1, max_size=5))
def test_ids_are_those_of_the_standard(texts: list[str]) -> None:
    namespace = namespace_of("shallop")
    assert uuids_of(namespace, texts) == [str(uuid5(UUID(bytes=namespace), text)) for text in texts]

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from models.dataset import NotEnoughData, Sessions, Steps
from models.split import latest_days, temporal_split
from warehouse.contracts import MART_SCHEMAS
from warehouse.snapshot import SchemaMismatch

START = datetime(2026, 1, 1, tzinfo=UTC)


def mart(*rows: tuple[str, int, str]) -> pa.Table:
    """Rows of (session, seconds after START, item); `step` counts rows."""
    return pa.Table.from_pylist(
        [
            {"session_id": session, "step": step, "item_id": item, "event_name": "view_item",
             "occurred_at": START + timedelta(seconds=seconds)}
            for step, (session, seconds, item) in enumerate(rows)
        ],
        schema=MART_SCHEMAS["training_steps"],
    )  # fmt: skip


def test_target_rows_are_all_but_first_steps():
    sessions = Sessions.from_lists([[1, 2], [], [3], [4, 5, 6]], 7)
    assert sessions.target_rows().tolist() == [1, 4, 5]


@pytest.mark.parametrize(
    ("n_predictions", "n_sessions"), [(0, 1), (1, 1), (2, 2), (3, 3), (5, 4), (6, 5), (99, 5)]
)
def test_latest_predictions_are_of_whole_sessions_at_least_one(n_predictions, n_sessions):
    sessions = Sessions.from_lists([[1, 2], [0, 1, 2], [3, 4], [4, 5], [5, 6]], 7)
    found = sessions.latest_predictions(n_predictions)
    assert len(found) == n_sessions
    assert found.item_idx.tolist() == sessions.latest(n_sessions).item_idx.tolist()


def written(sessions: Sessions, catalogue) -> list[str]:
    return [
        "".join(catalogue.item_ids[i] for i in sessions.item_idx[begin:end])
        for begin, end in zip(sessions.offsets[:-1], sessions.offsets[1:], strict=True)
    ]


def read(table: pa.Table) -> list[str]:
    steps = Steps.from_mart(table)
    catalogue = steps.catalogue()
    return written(steps.sessions(catalogue), catalogue)


def test_sessions_stand_by_first_step_and_steps_by_time():
    table = mart(("late", 50, "c"), ("early", 9, "b"), ("early", 1, "a"), ("late", 60, "a"))
    assert read(table) == ["ab", "ca"]


def test_ties_fall_by_session_id_then_step_whatever_the_row_order():
    table = mart(("z", 5, "a"), ("z", 5, "b"), ("y", 5, "c"), ("y", 7, "a"))
    assert read(table) == ["ca", "ab"]
    assert read(table.take([3, 1, 0, 2])) == ["ca", "ab"]


def test_item_idx_counts_from_zero_in_order_of_first_appearance():
    steps = Steps.from_mart(mart(("s", 1, "b"), ("s", 2, "a"), ("s", 3, "b")))
    assert steps.catalogue().item_ids == ("b", "a")
    assert steps.sessions(steps.catalogue()).item_idx.tolist() == [0, 1, 0]


def test_filters_run_until_nothing_changes_and_collapse_repeats_each_time():
    # x occurs once; without it the second session repeats a, collapses to one step and goes,
    # which leaves b with a single step, and so its session too short.
    table = mart(
        ("1", 1, "a"), ("1", 2, "c"),
        ("2", 11, "a"), ("2", 12, "x"), ("2", 13, "a"),
        ("3", 21, "b"), ("3", 22, "c"),
        ("4", 31, "c"), ("4", 32, "a"), ("4", 33, "a"), ("4", 34, "c"),
    )  # fmt: skip
    steps = Steps.from_mart(table).filtered(min_item_support=2, min_session_steps=2)
    catalogue = steps.catalogue()
    assert written(steps.sessions(catalogue), catalogue) == ["ac", "cac"]


def test_training_has_no_step_at_or_after_the_cut():
    rows = [(f"s{n}", 100 * n + step, item) for n in range(10) for step, item in enumerate("abc")]
    rows.append(("s0", 100 * 9, "b"))  # an old session that is still going at the cut
    rows.append(("s0", 100 * 9 + 50, "a"))
    split = temporal_split(Steps.from_mart(mart(*rows)), 0.1, min_item_support=1)
    assert split.cut_at == START + timedelta(seconds=900)
    assert len(split.train) == 9
    assert len(split.holdout) == 1
    assert split.train.n_steps == 27
    assert split.train_until < split.cut_at <= split.holdout_from


def test_sessions_that_begin_with_the_cut_are_all_held_out():
    rows = [(f"s{n}", 10 if n > 4 else n, item) for n in range(10) for item in "ab"]
    split = temporal_split(Steps.from_mart(mart(*rows)), 0.1, min_item_support=1)
    assert (len(split.train), len(split.holdout)) == (5, 5)


def test_unseen_holdout_items_are_counted_and_left_out():
    rows = [(f"s{n}", 100 * n + step, item) for n in range(9) for step, item in enumerate("abc")]
    rows += [("t", 1000 + step, item) for step, item in enumerate("aXaYbb")]
    split = temporal_split(Steps.from_mart(mart(*rows)), 0.1, min_item_support=1)
    assert split.n_unseen == 2
    assert written(split.holdout, split.catalogue) == ["ab"]


def test_window_keeps_the_sessions_begun_in_the_latest_days():
    day = 86_400
    table = mart(("old", 0, "a"), ("old", 5, "b"), ("new", day, "a"), ("new", 2 * day, "b"))
    assert len(latest_days(Steps.from_mart(table), 1)) == 2
    assert len(latest_days(Steps.from_mart(table), 2)) == 4


@pytest.mark.parametrize("rows", [[], [("s", 1, "a")], [("s", 1, "a"), ("s", 2, "b")]])
def test_a_split_of_too_little_is_refused(rows):
    with pytest.raises(NotEnoughData):
        temporal_split(Steps.from_mart(mart(*rows)), 0.1)


def test_a_split_that_filters_leave_empty_says_what_to_do():
    rows = [(f"s{n}", 100 * n + step, item) for n in range(9) for step, item in enumerate("ab")]
    with pytest.raises(NotEnoughData, match="SHALLOP_TRAINING__MIN_ITEM_SUPPORT"):
        temporal_split(Steps.from_mart(mart(*rows)), 0.1, min_item_support=50)


def test_a_mart_with_other_columns_is_refused():
    with pytest.raises(SchemaMismatch, match="it has: \\['session_id'\\]"):
        Steps.from_mart(pa.table({"session_id": ["a"]}))


def test_split_file_orders_by_time_and_takes_any_id_type(tmp_path: Path):
    path = tmp_path / "train.parquet"
    table = pa.table({"SessionId": [2, 1, 1, 2], "ItemId": [7, 8, 9, 7], "Time": [10, 5, 4, 11]})
    pq.write_table(table, path)
    steps = Steps.from_split_file(path)
    assert steps.catalogue().item_ids == ("7", "8", "9")
    assert steps.sessions(steps.catalogue()).item_idx.tolist() == [2, 1, 0, 0]
    assert steps.time_us.max() == 11_000


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (pa.table({"SessionId": [1], "Time": [1]}), "it lacks: \\['ItemId'\\]"),
        (pa.table({"SessionId": [1], "ItemId": ["a"], "Time": ["1"]}), "integer milliseconds"),
        (pa.table({"SessionId": [1], "ItemId": [None], "Time": [1]}), "may not be null"),
    ],
)
def test_split_file_with_other_contents_is_refused(tmp_path: Path, table: pa.Table, message: str):
    path = tmp_path / "train.parquet"
    pq.write_table(table, path)
    with pytest.raises(SchemaMismatch, match=message):
        Steps.from_split_file(path)


def test_split_file_that_is_missing_or_no_parquet_is_refused(tmp_path: Path):
    path = tmp_path / "train.parquet"
    with pytest.raises(FileNotFoundError, match=str(path)):
        Steps.from_split_file(path)
    path.write_text("SessionId,ItemId,Time")
    with pytest.raises(SchemaMismatch, match="not a Parquet file"):
        Steps.from_split_file(path)


def test_the_real_splits_have_the_sizes_of_their_description(shop_data: Path):
    folder = shop_data / "splits" / "ga_merch_store"
    steps = Steps.from_split_file(folder / "train.parquet")
    catalogue = steps.catalogue()
    sessions = steps.sessions(catalogue)
    assert (sessions.n_steps, len(sessions), len(catalogue)) == (82_330, 16_669, 362)
    assert sessions.n_predictions == 82_330 - 16_669
    assert np.array_equal(sessions.support(), np.bincount(sessions.item_idx))
    # The file is already filtered: the protocol finds nothing left to do.
    assert len(steps.filtered(min_item_support=5, min_session_steps=2)) == len(steps)

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.dataset import Sessions
from models.schedule import epoch_schedule

lists_of_sessions = st.lists(st.integers(1, 6), min_size=0, max_size=25)


def numbered(lengths: list[int]) -> Sessions:
    """Sessions in which no item occurs twice anywhere."""
    counter = iter(range(sum(lengths)))
    return Sessions.from_lists([[next(counter) for _ in range(n)] for n in lengths], sum(lengths))


def simulated(sessions: Sessions, n_lanes: int) -> list[list[tuple[int, int, bool] | None]]:
    """Session-parallel batches one step at a time: (input, target, is first) by lane."""
    waiting = [
        sessions.item_idx[sessions.offsets[s] : sessions.offsets[s + 1]].tolist()
        for s in range(len(sessions))
        if sessions.lengths[s] > 1
    ]
    lanes: list[list[int]] = [[] for _ in range(min(n_lanes, len(waiting)))]
    first = [True] * len(lanes)
    steps = []
    while True:
        for lane in range(len(lanes)):
            if len(lanes[lane]) < 2 and waiting:
                lanes[lane], first[lane] = waiting.pop(0), True
        if all(len(lane) < 2 for lane in lanes):
            return steps
        step: list[tuple[int, int, bool] | None] = []
        for lane, items in enumerate(lanes):
            step.append((items[0], items[1], first[lane]) if len(items) > 1 else None)
            lanes[lane], first[lane] = items[1:], False
        steps.append(step)


@given(lengths=lists_of_sessions, n_lanes=st.integers(1, 7))
def test_equals_a_simulation_step_by_step(lengths: list[int], n_lanes: int):
    sessions = numbered(lengths)
    schedule = epoch_schedule(sessions, n_lanes)
    found = [
        [
            (int(i), int(t), bool(s)) if i >= 0 else None
            for i, t, s in zip(*rows, strict=True)
        ]
        for rows in zip(schedule.inputs, schedule.targets, schedule.starts, strict=True)
    ]  # fmt: skip
    assert found == simulated(sessions, n_lanes)


@given(lengths=lists_of_sessions, n_lanes=st.integers(1, 40))
def test_every_pair_once_also_with_fewer_sessions_than_lanes(lengths: list[int], n_lanes: int):
    sessions = numbered(lengths)
    schedule = epoch_schedule(sessions, n_lanes)
    live = schedule.inputs >= 0
    pairs = Counter(zip(schedule.inputs[live].tolist(), schedule.targets[live].tolist(),
                        strict=True))  # fmt: skip
    expected = [
        (item, item + 1)
        for start, end in zip(sessions.offsets[:-1], sessions.offsets[1:], strict=True)
        for item in range(int(start), int(end) - 1)
    ]
    assert pairs == Counter(expected)
    assert live.sum() == sum(lengths) - len(lengths)
    assert np.array_equal(live, schedule.targets >= 0)
    assert schedule.starts.sum() == sum(length > 1 for length in lengths)


def test_lanes_that_end_together_take_sessions_in_lane_order():
    schedule = epoch_schedule(numbered([2, 2, 3, 2]), 2)
    assert schedule.inputs.tolist() == [[0, 2], [4, 7], [5, -1]]
    assert schedule.targets.tolist() == [[1, 3], [5, 8], [6, -1]]
    assert schedule.starts.tolist() == [[True, True], [True, True], [False, False]]


@pytest.mark.parametrize("lengths", [[], [1, 1]])
def test_no_pairs_give_no_steps(lengths: list[int]):
    assert len(epoch_schedule(numbered(lengths), 4)) == 0

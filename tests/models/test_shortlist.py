import numpy as np
import pytest
import torch

from models.dataset import Sessions
from models.fusion import Fusion
from models.item_statistics import ItemStatistics
from models.item_tables import Item
from models.prefixes import prefixes
from models.rivals import RIVALS
from models.shortlist import FEATURES, N_STEPS, PART, Shortlist
from tests.models.conftest import N_HALVES, onward_sessions

ITEMS = [
    Item("a", None, "boats", 10.0), Item("b", None, "oars", 20.0), Item("c", None, "boats", None),
    Item("d", None, None, 40.0), Item("e", None, "oars", 0.0),
]  # fmt: skip


@pytest.fixture(scope="module")
def train() -> Sessions:
    return Sessions.from_lists([[0, 1], [2, 1, 0], [3, 4, 1]], 5)


def shortlist(steps: list[list[int]], train: Sessions, length: int = 4) -> Shortlist:
    """Of scores that fall with `item_idx`."""
    total = torch.tensor([[5.0, 4.0, 3.0, 2.0, -torch.inf]]).repeat(len(steps), 1)
    padded = torch.tensor([[*one, *[-1] * (N_STEPS - len(one))] for one in steps])
    return Shortlist.of(total, {}, padded, ItemStatistics.of(train, ITEMS), length)


def test_the_current_item_is_left_out_and_the_others_stay_in_order(train: Sessions):
    found = shortlist([[0], [2], [4]], train, length=3)
    assert found.items.tolist() == [[1, 2, 3], [0, 1, 3], [0, 1, 2]]
    assert found.scores.tolist() == [[4, 3, 2], [5, 4, 2], [5, 4, 3]]
    # Of a catalogue that is no longer, all others are listed.
    assert shortlist([[1]], train, length=100).items.tolist() == [[0, 2, 3, 4]]


def test_features_by_hand(train: Sessions):
    found = shortlist([[1, 0, 2, 0]], train)  # the latest first; items listed: 0, 2, 3, 4

    def feature(name: str) -> list[float]:
        return found.features([name])[0, :, 0].tolist()

    assert feature("fused place") == [0, 1, 2, 3]
    assert feature("behind the first") == [0, 2, 3, np.inf]
    assert feature("steps since seen") == [1, 2, 20, 20]
    assert feature("times seen") == [2, 1, 0, 0]
    assert feature("steps of the session") == [4] * 4
    assert feature("distinct share") == [0.75] * 4
    assert feature("popularity") == pytest.approx(np.log([3, 2, 2, 2]))
    assert feature("popularity of current") == pytest.approx([np.log(4)] * 4)
    assert feature("same category") == [0, 0, 0, 1]  # oars
    assert feature("category share") == [0.75, 0.75, 0, 0.25]
    assert feature("price distance") == pytest.approx([np.log(2), -1, np.log(2), -1])
    assert feature("price")[1] == -1000


def test_popularity_fades_with_later_sessions(train: Sessions):
    long = Sessions.from_lists([[0, 1]] * 60 + [[2, 3]] * 60, 4)
    statistics = ItemStatistics.of(long)
    assert statistics.popularity[0] == statistics.popularity[2] == pytest.approx(np.log(61))
    assert statistics.lately[2] > statistics.lately[0] + 3
    assert statistics.recently[2] > statistics.recently[0] + 3
    assert set(statistics.category) == {-1}


def test_features_of_a_batch_are_those_of_each_request():
    sessions = Sessions.from_lists(onward_sessions(80), N_HALVES)
    fusion = Fusion(
        {name: RIVALS[name](sessions) for name in ("vmis-knn", "sequential-rules", "item-knn")},
        {"vmis-knn": 0.5, "sequential-rules": 0.3, "item-knn": 0.2},
    )
    items = [Item(str(n), None, str(n % 3), 1.0 + n) for n in range(N_HALVES)]
    statistics = ItemStatistics.of(sessions, items)
    names = [*(PART + name for name in fusion.asked), *FEATURES]
    asked = sessions.latest(10)
    states, steps = fusion.states(asked), prefixes(asked, N_STEPS)

    def features(rows: slice) -> tuple[np.ndarray, np.ndarray]:
        of_parts = fusion.of_parts(states[rows])
        total = fusion.total(of_parts)
        found = Shortlist.of(total, of_parts, steps[rows], statistics, 20)
        return found.items, found.features(names)

    items_of_all, of_all = features(slice(None))
    assert of_all.shape == (asked.n_predictions, 20, len(names))
    assert np.isfinite(of_all).all()
    for row in range(0, asked.n_predictions, 7):
        items_of_one, of_one = features(slice(row, row + 1))
        order = np.argsort(items_of_one[0]), np.argsort(items_of_all[row])
        np.testing.assert_array_equal(items_of_one[0][order[0]], items_of_all[row][order[1]])
        kept = [n for n, name in enumerate(names) if name != "fused place"]  # ties may change
        np.testing.assert_allclose(
            of_one[0][order[0]][:, kept], of_all[row][order[1]][:, kept], rtol=1e-5, atol=1e-5
        )


def test_parts_say_of_each_item_what_they_add_to_the_scores():
    sessions = Sessions.from_lists(onward_sessions(80), N_HALVES)
    fusion = Fusion(
        {name: RIVALS[name](sessions) for name in ("vmis-knn", "session-popularity")},
        {"vmis-knn": 0.5, "session-popularity": 0.5},
    )
    asked = sessions.latest(5)
    states, steps = fusion.states(asked), prefixes(asked, N_STEPS)
    of_parts = fusion.of_parts(states)
    found = Shortlist.of(fusion.total(of_parts), of_parts, steps, ItemStatistics.of(sessions), 20)
    added = found.features([PART + "vmis-knn", PART + "session-popularity"]).sum(2)
    np.testing.assert_allclose(added, found.scores, rtol=1e-5, atol=1e-5)
    with pytest.raises(KeyError, match="oracle"):
        found.features(["oracle"])

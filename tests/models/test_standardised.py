"""Sparse scores standardised without being written out equal the dense form."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.dataset import Sessions
from models.fusion import Fusion
from models.item_rules import SequentialRules
from models.session_knn import SessionKNN
from models.sparse import SparseScores
from models.standardised import SparseStandardised, standardised, standardised_scores

N = 7


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.dictionaries(st.integers(0, N - 1), st.floats(0.001, 1e4)), max_size=4),
    st.integers(-1, N - 1),
    st.floats(0.05, 1),
)
def test_sparse_equals_dense(rows: list[dict[int, float]], masked: int, weight: float):
    pairs = [(row, item, rows[row][item]) for row in range(len(rows)) for item in sorted(rows[row])]
    row, item, score = (np.array([pair[n] for pair in pairs]) for n in range(3))
    scores = SparseScores.of(
        row.astype(np.int64), item.astype(np.int64), score.astype(np.float64),
        np.full(len(rows), masked), N,
    )  # fmt: skip
    expected = standardised(scores.dense()) * weight
    sparse = SparseStandardised.of(scores, weight)
    total = torch.zeros(len(rows), N)
    sparse.add_to(total)
    assert torch.allclose(total, expected, atol=1e-5)
    others = np.array([one for one in range(N) if one != masked])
    for number in range(len(rows)):
        assert sparse.at(number, others) == pytest.approx(expected[number, others], abs=1e-5)
        doubled = sparse.times(2.0).at(number, others)
        assert doubled == pytest.approx(2 * expected[number, others], abs=1e-5)


@pytest.mark.parametrize("level", [0.0, 0.1, -37.3, 1e3])
def test_single_precision_is_standardised_as_double_is(level: float):
    scores = torch.randn(3, 5_000, generator=torch.Generator().manual_seed(1)) * 2 + level
    scores[1] = level  # no differences
    found = standardised(scores)
    assert found.dtype == torch.float32
    assert found[1].tolist() == [0.0] * 5_000
    assert torch.allclose(found, standardised(scores.double()), atol=1e-3)


def test_single_precision_with_items_left_out_or_no_numbers():
    scores = torch.tensor([[1.0, -torch.inf, 3.0], [1.0, torch.nan, 3.0]])
    assert standardised(scores)[0].tolist() == [-1.0, -torch.inf, 1.0]
    assert standardised(scores).isnan().tolist()[1][1]


def test_the_current_item_has_no_say_and_no_place():
    rules = SequentialRules(Sessions.from_lists([[0, 1, 0, 2]], 3))
    scores = rules.sparse_scores(torch.tensor([0, 2]))
    assert scores.masked.tolist() == [0, 2]
    assert list(zip(scores.row.tolist(), scores.item.tolist(), strict=True)) == [(0, 1), (0, 2)]
    expected = [-np.inf, 1.0, 1 / 3 + 1.0, 0.0, 0.0, -np.inf]
    found = rules.scores(torch.tensor([0, 2])).flatten().tolist()
    assert found == pytest.approx(expected)


def test_a_fusion_of_sparse_parts_equals_that_of_dense_ones(ring: Sessions):
    parts = {"knn": SessionKNN(ring), "rules": SequentialRules(ring)}
    fusion = Fusion(parts, {"knn": 0.7, "rules": 0.3})
    states = fusion.states(ring)[:200]
    dense = sum(
        weight * standardised(part.scores(part.states(ring)[:200])).double()
        for part, weight in zip(parts.values(), (0.7, 0.3), strict=True)
    )
    found = fusion.scores(states)
    assert torch.allclose(found.double(), dense, atol=1e-5)
    assert torch.equal(torch.isinf(found), torch.isinf(dense))


def test_both_ways_of_adding_votes_up_are_one(ring: Sessions, monkeypatch: pytest.MonkeyPatch):
    knn = SessionKNN(ring)
    states = knn.states(ring)[:50]
    whole = knn.scores(states)
    monkeypatch.setattr("models.session_knn._SCORES_AT_ONCE", 0)
    assert torch.equal(knn.scores(states), whole)
    one = standardised_scores(knn, states[:1])
    assert one.n_rows == 1

import numpy as np
import pytest
import torch

from models.dataset import Sessions
from models.intervals import figure_per_prediction, interval, intervals


def test_figures_per_prediction_by_hand():
    ranks = torch.tensor([1, 2, 4, 5])
    assert figure_per_prediction(ranks, "recall@4").tolist() == [1, 1, 1, 0]
    assert figure_per_prediction(ranks, "mrr@4").tolist() == [1, 0.5, 0.25, 0]
    for senseless in ("ndcg@4", "recall@", "recall@0", "mrr"):
        with pytest.raises(ValueError, match=f"not: `{senseless}`"):
            figure_per_prediction(ranks, senseless)


def test_width_is_that_of_the_mean_of_sessions():
    # 400 sessions of one prediction, half of them hits: a standard error of 0.025.
    hits = np.tile([0.0, 1.0], 200)
    found = interval(hits, Sessions.from_lists([[0, 1]] * 400, 2))
    assert found.low == pytest.approx(0.5 - 1.96 * 0.025, abs=0.01)
    assert found.high == pytest.approx(0.5 + 1.96 * 0.025, abs=0.01)


def test_predictions_of_one_session_are_drawn_together():
    # The same 400 predictions in 40 sessions of ten that hit or miss as one: wider by about 3.
    hits = np.repeat(np.tile([0.0, 1.0], 20), 10)
    together = interval(hits, Sessions.from_lists([[0, 1] * 5 + [0]] * 40, 2))
    assert together.high - together.low > 0.25


def test_sessions_without_a_prediction_change_nothing_and_the_seed_decides():
    hits = np.tile([0.0, 1.0, 1.0], 20)
    plain = Sessions.from_lists([[0, 1]] * 60, 2)
    padded = Sessions.from_lists([[0], *([[0, 1]] * 60), [], [1]], 2)
    assert interval(hits, plain) == interval(hits, padded)
    uneven = np.random.default_rng(1).random(60)
    assert interval(uneven, plain, seed=1) == interval(uneven, plain, seed=1)
    assert interval(uneven, plain, seed=1) != interval(uneven, plain, seed=2)
    ranks = torch.where(torch.from_numpy(hits) > 0, 1, 30)
    assert intervals(ranks, plain, ["recall@20"]) == {"recall@20": interval(hits, plain)}


@pytest.mark.parametrize("lists", [[], [[0]], [[0, 1, 0]]])
def test_figures_of_other_sessions_are_refused(lists):
    with pytest.raises(ValueError, match=r"figure for each of the \d predictions.*given: 1"):
        interval(np.ones(1), Sessions.from_lists(lists, 2))

import json
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pytest
import torch

from models.appraisal import HeldOut, appraise
from models.context import Column, Context
from models.dataset import Sessions, Steps
from models.evaluation import rank_targets
from models.evaluation_file import appraise_split
from models.intervals import figure_per_prediction, interval
from models.item_knn import ItemKNN
from models.popularity import Popularity
from models.predictions import predict
from models.split import temporal_split
from tests.models.conftest import items_mart, ring_sessions, steps_mart


@pytest.fixture(scope="module")
def steps() -> pa.Table:
    """Sessions of the ring; a tenth of the steps are bought."""
    table = steps_mart(ring_sessions(300))
    outcome = ["purchase" if row % 10 == 0 else "view_item" for row in range(len(table))]
    return table.set_column(5, "outcome", pa.array(outcome))


@pytest.fixture(scope="module")
def evaluation(steps: pa.Table) -> dict:
    split = temporal_split(Steps.from_mart(steps), 0.2)
    rankers = {"item-knn": ItemKNN(split.train), "popularity": Popularity(split.train)}
    return appraise_split(rankers, split, steps, items_mart())


def test_it_is_json_with_every_figure_inside_its_interval(evaluation: dict):
    again = json.loads(json.dumps(evaluation))
    for one in again["models"].values():
        for kind in ("next", "served", "rest", "bought"):
            for found in one[kind].values():
                assert found["low"] <= found["value"] <= found["high"]
        for slices in one["slices"].values():
            assert sum(part["n"] for part in slices) == again["n_predictions"]


def test_figures_and_intervals_are_those_of_the_single_functions(steps: pa.Table, evaluation: dict):
    split = temporal_split(Steps.from_mart(steps), 0.2)
    ranks = rank_targets(ItemKNN(split.train), split.holdout).served
    gains = figure_per_prediction(ranks, "mrr@20")
    expected = interval(gains, split.holdout)
    found = evaluation["models"]["item-knn"]["served"]["mrr@20"]
    assert found["value"] == pytest.approx(gains.mean())
    assert (found["low"], found["high"]) == pytest.approx((expected.low, expected.high))


def test_the_difference_has_the_interval_of_paired_draws(steps: pa.Table, evaluation: dict):
    split = temporal_split(Steps.from_mart(steps), 0.2)
    ours, theirs = (
        figure_per_prediction(rank_targets(ranker, split.holdout).served, "recall@20")
        for ranker in (ItemKNN(split.train), Popularity(split.train))
    )
    expected = interval(ours - theirs, split.holdout)
    found = evaluation["differences"]["popularity"]["recall@20"]
    assert found["value"] == pytest.approx((ours - theirs).mean())
    assert (found["low"], found["high"]) == pytest.approx((expected.low, expected.high))


def test_slices_and_purchases_are_means_of_their_own_predictions():
    # Two sessions: hits at rank 1 on item 1, misses on item 2, which alone is bought.
    sessions = Sessions.from_lists([[0, 1, 2], [0, 1, 2]], 30)
    table = torch.zeros(4, 30)
    table[[0, 2], 1] = 1.0
    table[[1, 3], 5] = 1.0

    class Fixed:
        n_items = 30

        def states(self, sessions: Sessions) -> torch.Tensor:
            return torch.arange(sessions.n_predictions)

        def scores(self, states: torch.Tensor) -> torch.Tensor:
            return table[states]

    column = Column(np.array([0, 2, 0, 2]), ["hit", "never met", "missed"])
    context = Context({"by hand": column}, {}, np.array([False, True, False, True]))
    held_out = HeldOut(sessions, sessions, context, None, n_unseen=4)
    found = appraise({"fixed": predict(Fixed(), sessions)}, held_out)["models"]["fixed"]
    hit, missed = found["slices"]["by hand"]
    assert (hit["label"], hit["n"], hit["recall@20"]["value"]) == ("hit", 2, 1.0)
    assert (missed["label"], missed["mrr@20"]["value"]) == ("missed", 0.0)
    assert found["bought"]["recall@20"]["value"] == 0.0
    assert found["served"]["recall@20"]["value"] == 0.5
    # Four steps on items that training does not know are misses too.
    assert found["with_unseen"]["recall@20"] == 0.25
    assert found["lists"]["intra_list_diversity"] is None


def test_examples_are_of_the_hold_out_and_the_same_again(
    steps: pa.Table, evaluation: dict, real_split: Callable
):
    assert len(evaluation["examples"]) == 8
    for one in evaluation["examples"]:
        assert one["next"] not in one["seen"][-1:]
        assert one["rank"] == 1 or one["recommended"][0] != one["next"]
        if one["rank"] <= 6:
            assert one["recommended"][one["rank"] - 1] == one["next"]
    split = temporal_split(Steps.from_mart(steps), 0.2)
    again = appraise_split({"item-knn": ItemKNN(split.train)}, split, steps, items_mart())
    assert again["examples"] == evaluation["examples"]


def test_nothing_to_predict_is_refused():
    sessions = Sessions.from_lists([[0]], 3)
    held_out = HeldOut(sessions, sessions, Context({}, {}))
    with pytest.raises(ValueError, match="figure for each of the 0 predictions"):
        appraise({"popularity": predict(Popularity(sessions), sessions)}, held_out)

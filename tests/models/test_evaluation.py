import math

import numpy as np
import pytest
import torch

from models.dataset import Sessions
from models.evaluation import evaluate, mrr_at_k, rank_targets, recall_at_k
from models.gru4rec import GRU4Rec, GRU4RecConfig
from models.item_knn import ItemKNN
from models.popularity import Popularity
from tests.models.score_table import ScoreTable

NAN = math.nan


def test_ranks_with_ties_by_hand():
    # Current item 0, target 1.
    sessions = Sessions.from_lists([[0, 1]] * 5, 4)
    ranks = rank_targets(
        ScoreTable([
            [9, 5, 1, 0],   # only the current item is ahead
            [0, 5, 5, 5],   # three tie at the top
            [5, 5, 5, 5],   # a constant tells nothing
            [0, 9, 1, 1],   # clear
            [5, 5, 9, 0],   # ties with the current item, one ahead
        ]),
        sessions,
    )  # fmt: skip
    assert ranks.conservative.tolist() == [2, 3, 4, 1, 3]
    assert ranks.standard.tolist() == [2, 1, 1, 1, 2]
    assert ranks.median.tolist() == [2, 2, 2.5, 1, 2.5]
    assert ranks.served.tolist() == [1, 3, 3, 1, 2]


def test_scores_that_are_no_numbers_count_against_the_model():
    sessions = Sessions.from_lists([[0, 1]] * 3, 4)
    ranks = rank_targets(ScoreTable([[0, NAN, 0, 0], [0, 1, NAN, 0], [NAN] * 4]), sessions)
    assert ranks.conservative.tolist() == [4, 2, 4]
    assert ranks.standard.tolist() == [4, 2, 4]


def test_a_constant_model_recalls_nothing():
    sessions = Sessions.from_lists([[0, 1, 2]] * 3, 40)
    figures = evaluate(ScoreTable([[1.0] * 40] * 6), sessions)
    assert figures["recall@20"] == 0
    assert figures["mrr@20"] == 0
    assert figures["standard_recall@20"] == 1


def test_figures_are_means_over_predictions_not_sessions():
    # One session of one miss, one of three hits at rank 1.
    sessions = Sessions.from_lists([[0, 1], [0, 1, 0, 1]], 30)
    hit1 = [1.0 if item == 1 else 0.0 for item in range(30)]
    hit0 = [1.0 if item == 0 else 0.0 for item in range(30)]
    figures = evaluate(ScoreTable([hit0, hit1, hit0, hit1]), sessions)
    assert figures["n_predictions"] == 4
    assert figures["recall@1"] == figures["recall@20"] == figures["mrr@20"] == 0.75


def test_recall_and_mrr_cut_off_inclusively():
    ranks = torch.tensor([1, 4, 5, 6])
    assert recall_at_k(ranks, 5) == 0.75
    assert recall_at_k(ranks, 4) == 0.5
    assert mrr_at_k(ranks, 5) == pytest.approx((1 + 1 / 4 + 1 / 5) / 4)


@pytest.mark.parametrize("measure", [recall_at_k, mrr_at_k])
def test_measures_refuse_nothing_and_senseless_cutoffs(measure):
    with pytest.raises(ValueError, match="nothing to evaluate"):
        measure(torch.tensor([]), 5)
    with pytest.raises(ValueError, match="cut-off must be at least 1: 0"):
        measure(torch.tensor([1]), 0)


def test_nothing_to_predict_is_refused():
    with pytest.raises(ValueError, match="nothing to evaluate"):
        evaluate(ScoreTable([[1.0, 2.0]]), Sessions.from_lists([[0], [1]], 2))


def test_chunks_do_not_change_ranks(monkeypatch: pytest.MonkeyPatch, ring: Sessions):
    config = GRU4RecConfig(layers=(8,))
    model = GRU4Rec.initial(config, ring.n_items, np.random.default_rng(1))
    whole = rank_targets(model, ring)
    monkeypatch.setattr("models.evaluation._SCORES_AT_ONCE", 100)
    parts = rank_targets(model, ring)
    assert torch.equal(whole.conservative, parts.conservative)
    assert torch.equal(whole.served, parts.served)


def test_popularity_ranks_by_steps_in_training():
    model = Popularity(Sessions.from_lists([[0, 1, 0], [2, 0, 1]], 4))
    sessions = Sessions.from_lists([[3, 0], [3, 2, 1]], 4)
    assert rank_targets(model, sessions).conservative.tolist() == [1, 3, 2]


def test_item_knn_is_the_cosine_of_shared_sessions():
    # 0 with 1 in two sessions, with 2 in one; item 0 is in three sessions, 1 in two, 2 in two.
    train = Sessions.from_lists([[0, 1, 0, 1], [1, 0], [2, 0], [2, 3]], 5)
    scores = ItemKNN(train).scores(torch.tensor([0, 3, 4]))
    assert scores[0].tolist() == pytest.approx([-math.inf, 2 / 6**0.5, 1 / 6**0.5, 0, 0])
    assert scores[1].tolist() == pytest.approx([0, 0, 1 / 2**0.5, -math.inf, 0])
    assert scores[2].tolist() == [0, 0, 0, 0, -math.inf]
    nearest = ItemKNN(train, n_neighbours=1).scores(torch.tensor([0]))
    assert nearest[0].tolist() == pytest.approx([-math.inf, 2 / 6**0.5, 0, 0, 0])


def test_item_knn_of_single_steps_knows_no_neighbours():
    scores = ItemKNN(Sessions.from_lists([[0], [1]], 2)).scores(torch.tensor([1]))
    assert scores.tolist() == [[0, -math.inf]]


def test_popularity_and_item_knn_on_real_events(shop_data):
    """Popularity is exact in the published comparison; item-kNN lies within its item rules."""
    from models.offline import evaluate_files

    folder = shop_data / "splits" / "ga_merch_store"
    files = folder / "train.parquet", folder / "test.parquet"
    popularity = evaluate_files(*files, model="popularity")
    assert round(popularity["recall@20"], 4) == 0.2714
    assert round(popularity["mrr@20"], 4) == 0.0574
    assert popularity["n_predictions"] == 8_431 - 2_031
    assert evaluate_files(*files, model="item-knn")["recall@20"] == pytest.approx(0.52, abs=0.02)

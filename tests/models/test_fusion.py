import math

import numpy as np
import pytest
import torch

from models.dataset import Sessions
from models.evaluation import evaluate, rank_targets
from models.fusion import Fusion, choose_weights
from models.gru4rec import GRU4Rec
from models.item_rules import Markov
from models.session_knn import SessionKNN
from models.standardised import standardised
from tests.models.score_table import ScoreTable


def test_scores_are_standardised_by_hand():
    given = torch.tensor([[1.0, 2.0, 3.0], [5.0, 5.0, 5.0], [-math.inf, 1.0, 3.0]])
    up = 1.5**0.5
    found = standardised(given).tolist()
    assert found[0] == pytest.approx([-up, 0, up])
    assert found[1] == [0, 0, 0]
    assert found[2] == [-math.inf, -1, 1]
    shifted = standardised(torch.tensor([[1e6, 2e6 + 1e6, 5e6]]))
    assert torch.allclose(shifted, standardised(torch.tensor([[0.0, 2.0, 4.0]])), atol=1e-6)


def test_fusion_is_the_weighted_sum_by_hand():
    sessions = Sessions.from_lists([[0, 1]], 3)
    parts = {"a": ScoreTable([[1.0, 2.0, 3.0]]), "b": ScoreTable([[-math.inf, 3.0, 1.0]])}
    fusion = Fusion(parts, {"a": 0.25, "b": 0.75})
    up = 1.5**0.5
    scores = fusion.scores(fusion.states(sessions))[0].tolist()
    assert scores == pytest.approx([-math.inf, 0.75, 0.25 * up - 0.75])


def test_parts_of_very_different_states_pass_through(ring: Sessions, small):
    parts = {
        "gru4rec": GRU4Rec.initial(small, ring.n_items, np.random.default_rng(1)),
        "markov": Markov(ring),
        "knn": SessionKNN(ring),
    }
    for name, part in parts.items():
        alone = Fusion(parts, {one: float(one == name) for one in parts})
        found, expected = rank_targets(alone, ring), rank_targets(part, ring)
        same = (found.served == expected.served).float().mean()
        assert same > 0.98  # standardising rounds a few near ties together
    figures = evaluate(Fusion(parts, {"gru4rec": 0.2, "markov": 0.4, "knn": 0.4}), ring)
    assert figures["recall@1"] == pytest.approx(
        evaluate(parts["markov"], ring)["recall@1"], abs=0.01
    )


def test_weights_go_to_the_part_that_knows():
    rng = np.random.default_rng(5)
    sessions = Sessions.from_lists([[0, int(item)] for item in rng.integers(1, 40, 50)], 40)
    target = sessions.item_idx[1::2]
    knows = np.zeros((50, 40), dtype=np.float32)
    knows[np.arange(50), target] = 1
    parts = {
        "noise": ScoreTable(rng.random((50, 40)).astype(np.float32).tolist()),
        "knows": ScoreTable(knows.tolist()),
    }
    weights = choose_weights(parts, sessions)
    assert list(weights) == ["noise", "knows"]
    assert sum(weights.values()) == pytest.approx(1)
    assert evaluate(Fusion(parts, weights), sessions)["recall@1"] == 1
    assert choose_weights(parts, sessions) == weights
    # Among equals the first part keeps what it can.
    same = {"first": parts["knows"], "second": parts["knows"]}
    assert choose_weights(same, sessions) == {"first": 1, "second": 0}


def test_chosen_weights_are_no_worse_than_any_part_alone(ring: Sessions, small):
    gru = GRU4Rec.initial(small, ring.n_items, np.random.default_rng(1))
    parts = {"gru4rec": gru, "knn": SessionKNN(ring), "markov": Markov(ring)}
    held_out = Sessions.from_lists([[n % 30, (n + 1) % 30, (n + 2) % 30] for n in range(30)], 30)
    fused = evaluate(Fusion(parts, choose_weights(parts, held_out)), held_out)
    for part in parts.values():
        alone = evaluate(part, held_out)
        assert fused["served_mrr@20"] * fused["served_recall@20"] >= (
            alone["served_mrr@20"] * alone["served_recall@20"] - 1e-6
        )


def test_senseless_weights_and_nothing_to_choose_by_are_refused():
    parts = {"a": ScoreTable([[1.0, 2.0]])}
    with pytest.raises(ValueError, match=r"weights given: \{'b': 1.0\}"):
        Fusion(parts, {"b": 1.0})
    with pytest.raises(ValueError, match=r"must not be 0, weights given: \{'a': 0.0\}"):
        Fusion(parts, {"a": 0.0})
    with pytest.raises(ValueError, match="nothing to evaluate"):
        choose_weights(parts, Sessions.from_lists([], 2))

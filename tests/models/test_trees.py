from typing import Any

import lightgbm
import numpy as np
import pytest

from models.trees import Trees, from_lightgbm


def grown(n_leaves: int = 8, **parameters: Any) -> tuple[lightgbm.Booster, np.ndarray]:
    rng = np.random.default_rng(1)
    rows = rng.normal(size=(4000, 5)).astype(np.float32)
    rows[:, 4] = rng.integers(0, 3, len(rows))
    rows[:, 2:4] = 7.0  # which nothing can be learned from
    target = rows[:, 0] * rows[:, 1] + (rows[:, 4] == 1)
    settings = {
        "num_leaves": n_leaves, "verbosity": -1, "num_threads": 1, "use_missing": False,
        **parameters,
    }  # fmt: skip
    return lightgbm.train(settings, lightgbm.Dataset(rows, target), 40), rows


def test_trees_give_what_the_library_gives():
    booster, rows = grown()
    trees = from_lightgbm(booster.dump_model(), 40)
    assert len(trees) == 40
    np.testing.assert_allclose(trees(rows), booster.predict(rows), atol=1e-5)
    np.testing.assert_allclose(
        trees.first(7)(rows), booster.predict(rows, num_iteration=7), atol=1e-5
    )
    assert trees.low <= trees(rows).min() < trees(rows).max() <= trees.high


def test_rows_at_the_threshold_go_where_the_library_sends_them():
    booster, _ = grown()
    trees = from_lightgbm(booster.dump_model(), 40)
    edges = np.sort(trees.threshold[trees.threshold < 1e30])
    for side in (edges, np.nextafter(edges, np.float32(np.inf))):
        at_edge = np.repeat(side[:, None], 5, 1)
        np.testing.assert_allclose(trees(at_edge), booster.predict(at_edge), atol=1e-5)


def test_unused_features_may_be_left_out():
    booster, rows = grown()
    trees = from_lightgbm(booster.dump_model(), 40)
    assert trees.used == [0, 1, 4]
    kept = trees.renumbered(trees.used)
    np.testing.assert_array_equal(kept(rows[:, trees.used]), trees(rows))


def test_no_tree_and_a_tree_without_a_node_are_trees():
    rows = np.ones((3, 2), dtype=np.float32)
    assert Trees.empty(0)(rows).tolist() == [0, 0, 0]
    assert (Trees.empty(0).low, Trees.empty(0).high) == (0, 0)
    leaf = {"tree_info": [{"tree_structure": {"leaf_value": 0.5}}]}
    assert from_lightgbm(leaf, 1)(rows).tolist() == [0.5, 0.5, 0.5]
    assert from_lightgbm(leaf, 1).used == []


def test_trees_that_cannot_be_held_are_refused():
    with pytest.raises(ValueError, match="may have 8 leaves, it has: 9"):
        from_lightgbm(grown(9)[0].dump_model(), 40)
    booster, _ = grown(use_missing=True, zero_as_missing=True)
    with pytest.raises(ValueError, match="missing values `Zero`"):
        from_lightgbm(booster.dump_model(), 40)

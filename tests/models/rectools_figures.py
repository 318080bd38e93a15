"""Writes `rectools.json`: invented sessions and lists, and what RecTools makes of them.

RecTools (Apache-2.0) cannot be installed beside our pins (it asks for attrs below 24), so it runs
in an environment of its own:

    python -m venv /tmp/rectools && /tmp/rectools/bin/pip install rectools==0.19.0
    /tmp/rectools/bin/python tests/models/rectools_figures.py
"""

import json
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
from rectools import Columns
from rectools.metrics import (
    MRR,
    NDCG,
    AvgRecPopularity,
    CatalogCoverage,
    IntraListDiversity,
    MeanInvUserFreq,
    PairwiseHammingDistanceCalculator,
    Precision,
    Recall,
    calc_metrics,
)

N_ITEMS, K, CUTOFFS = 60, 20, (1, 5, 10, 20)


def invented(rng: np.random.Generator, n_sessions: int) -> list[list[int]]:
    """Sessions of 2 to 9 steps without repeats at once, some items far more popular."""
    chance = 1 / np.arange(1, N_ITEMS + 1)
    sessions = []
    for _ in range(n_sessions):
        steps = [int(rng.choice(N_ITEMS, p=chance / chance.sum()))]
        length = int(rng.integers(2, 10))
        while len(steps) < length:
            step = int(rng.choice(N_ITEMS, p=chance / chance.sum()))
            if step != steps[-1]:
                steps.append(step)
        sessions.append(steps)
    return sessions


def pairs(lists: list[list[int]]) -> pd.DataFrame:
    rows = [(user, item) for user, items in enumerate(lists) for item in items]
    return pd.DataFrame(rows, columns=[Columns.User, Columns.Item])


def main() -> None:
    rng = np.random.default_rng(20261121)
    train, test = invented(rng, 80), invented(rng, 30)
    category = rng.integers(0, 5, N_ITEMS).tolist()
    current = [session[at] for session in test for at in range(len(session) - 1)]
    following = [[session[at + 1]] for session in test for at in range(len(session) - 1)]
    later = [sorted(set(session[at + 1 :])) for session in test for at in range(len(session) - 1)]
    lists = [
        rng.permutation([item for item in range(N_ITEMS) if item != one])[:K].tolist()
        for one in current
    ]
    recommended = pairs(lists)
    recommended[Columns.Rank] = recommended.groupby(Columns.User).cumcount() + 1
    features = pd.DataFrame({"category": [str(one) for one in category]}, index=range(N_ITEMS))
    features = pd.get_dummies(features["category"]).astype(int)
    ranked = {
        f"{name}@{k}": metric
        for k in CUTOFFS
        for name, metric in {
            "recall": Recall(k), "precision": Precision(k), "mrr": MRR(k),
            "ndcg": NDCG(k, divide_by_achievable=True),
        }.items()
    }  # fmt: skip
    whole = {
        "novelty_bits": MeanInvUserFreq(K),
        "coverage": CatalogCoverage(K, normalize=True),
        "popularity": AvgRecPopularity(K),
        "hamming": IntraListDiversity(K, PairwiseHammingDistanceCalculator(features)),
    }
    figures = {}
    for name, truth, metrics in (
        ("next", following, ranked), ("rest", later, ranked), ("lists", later, whole),
    ):  # fmt: skip
        found = calc_metrics(
            metrics, recommended, interactions=pairs(truth), prev_interactions=pairs(train),
            catalog=range(N_ITEMS),
        )  # fmt: skip
        figures[name] = {metric: float(value) for metric, value in found.items()}
    # Two items differ in two of the categories' columns or in none.
    figures["lists"]["intra_list_diversity"] = figures["lists"].pop("hamming") / 2
    kept = {
        "made_by": f"rectools {version('rectools')}", "n_items": N_ITEMS, "train": train,
        "test": test, "category": category, "lists": lists, "figures": figures,
    }  # fmt: skip
    path = Path(__file__).with_name("rectools.json")
    path.write_text(json.dumps(kept) + "\n")


if __name__ == "__main__":
    main()

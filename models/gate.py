"""Whether a candidate may serve: it must be sound, reproducible and better than popularity."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from models.bundle import BundleCorrupt, Check, read_bundle
from models.scorer import SessionScorer

__all__ = ["Check", "judge"]

_MEASURES = ("recall@20", "mrr@20")


def judge(metrics: dict[str, Any], folder: Path) -> list[Check]:
    """Every check of the candidate bundle in `folder`; it may serve if all passed.

    `metrics` is the content of its metrics.json. A bundle that cannot be loaded fails, it does not
    raise.
    """
    checks = [*_quality(metrics), _enough_predictions(metrics), _no_leakage(metrics)]
    try:
        content = read_bundle(folder)
    except BundleCorrupt as error:
        return [*checks, Check("bundle_loads", False, str(error))]
    checks.append(Check("bundle_loads", True, "every file has the sha256 of the manifest"))
    n_items, n_trained = len(content.items), metrics["training"]["n_items"]
    checks.append(
        Check(
            "items_match_training",
            n_items == n_trained == content.model.n_items,
            f"items.parquet has {n_items} items, training had {n_trained}, the weights have "
            f"{content.model.n_items}",
            {"n_items": n_items, "n_trained": n_trained},
        )
    )
    bad = [name for name, w in content.model.weights.items() if not torch.isfinite(w).all()]
    checks.append(
        Check(
            "finite_weights",
            not bad,
            f"not a number in: {', '.join(bad)}" if bad else "every weight is a finite number",
            {"n_bad_tensors": len(bad)},
        )
    )
    checks.append(_reproduces(folder, len(content.golden)))
    return checks


def _quality(metrics: dict[str, Any]) -> Iterator[Check]:
    model, popularity = metrics["models"]["gru4rec"], metrics["models"]["popularity"]
    for measure in _MEASURES:
        ours, theirs = model[measure], popularity[measure]
        passed = math.isfinite(ours) and ours > theirs
        yield Check(
            f"beats_popularity_{measure.replace('@', '_at_')}", passed,
            f"{measure} is {ours:.4f}, popularity has {theirs:.4f}",
            {"gru4rec": ours, "popularity": theirs},
        )  # fmt: skip


def _enough_predictions(metrics: dict[str, Any]) -> Check:
    found, needed = metrics["holdout"]["n_predictions"], metrics["holdout"]["min_predictions"]
    return Check(
        "enough_predictions", found >= needed,
        f"judged by {found} predictions, at least {needed} are needed",
        {"n_predictions": found, "min_predictions": needed},
    )  # fmt: skip


def _no_leakage(metrics: dict[str, Any]) -> Check:
    until, since = metrics["holdout"]["train_until"], metrics["holdout"]["holdout_from"]
    return Check(
        "no_leakage", until < since,
        f"the last step trained on was at {until}, the first one judged by at {since}",
        {"train_until": until, "holdout_from": since},
    )  # fmt: skip


def _reproduces(folder: Path, n_golden: int) -> Check:
    try:
        SessionScorer.load(folder, threads=torch.get_num_threads())
    except BundleCorrupt as error:
        return Check("golden_sessions", False, str(error), {"n_golden": n_golden})
    passed = n_golden > 0
    message = f"{n_golden} golden sessions come out of the written bundle as they went in"
    return Check("golden_sessions", passed, message, {"n_golden": n_golden})

"""A judged model's `evaluation.json`: its appraisal on the hold-out, with sessions to look at."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from models.appraisal import HeldOut, appraise
from models.arrays import Ints
from models.context import context_of, first_seen
from models.dataset import Sessions, Steps
from models.evaluation import Ranker
from models.predictions import Predictions, predict
from models.split import Split

_N_EXAMPLES = 8
_EXAMPLE_STEPS = 6
_EXAMPLE_ITEMS = 6


def appraise_split(
    rankers: Mapping[str, Ranker],
    split: Split,
    steps: pa.Table,
    items: pa.Table,
    *,
    sessions: pa.Table | None = None,
    seed: int = 42,
) -> dict[str, Any]:
    """Figures of rankers trained on `split.train`, by its hold-out; the first one is the model.

    `steps`, `items` and, for the devices, `sessions` are the marts; `split` was made of the first.
    """
    item_ids = split.catalogue.item_ids
    known = {
        row["item_id"]: row for row in items.select(["item_id", "category", "price"]).to_pylist()
    }
    categories = [known.get(item_id, {}).get("category") for item_id in item_ids]
    prices = [known.get(item_id, {}).get("price") for item_id in item_ids]
    context = context_of(
        split.train, split.holdout, split.holdout_steps,
        first_seen(Steps.from_mart(steps), split.catalogue), table=steps, sessions=sessions,
        categories=categories, prices=prices,
    )  # fmt: skip
    held_out = HeldOut(split.train, split.holdout, context, _codes(categories), split.n_unseen)
    predictions = {name: predict(ranker, split.holdout) for name, ranker in rankers.items()}
    main = next(iter(predictions.values()))
    return {
        **appraise(predictions, held_out, seed=seed),
        "examples": _examples(main, split.holdout, item_ids, seed),
    }


def _codes(categories: list[str | None]) -> Ints | None:
    """A number for each category; None where no item has one."""
    if not any(categories):
        return None
    _, codes = np.unique([one or "" for one in categories], return_inverse=True)
    return codes.astype(np.int64)


def _examples(
    predictions: Predictions, sessions: Sessions, item_ids: tuple[str, ...], seed: int
) -> list[dict[str, Any]]:
    """The last prediction of some sessions, drawn with no eye to how well they went.

    Sessions of three steps or more go first: of two there is little to see.
    """
    rng = np.random.default_rng(seed)
    drawn = rng.permutation(np.flatnonzero(sessions.lengths > 1))
    drawn = drawn[np.argsort(sessions.lengths[drawn] < 3, kind="stable")][:_N_EXAMPLES]
    last = np.cumsum(np.maximum(sessions.lengths - 1, 0)) - 1
    examples = []
    for session in drawn:
        begin, end = sessions.offsets[session], sessions.offsets[session + 1]
        steps = sessions.item_idx[begin:end]
        row = int(last[session])
        listed = predictions.lists[row][:_EXAMPLE_ITEMS]
        examples.append(
            {
                "seen": [item_ids[one] for one in steps[:-1][-_EXAMPLE_STEPS:]],
                "n_before": max(0, len(steps) - 1 - _EXAMPLE_STEPS),
                "next": item_ids[steps[-1]],
                "rank": int(predictions.ranks.served[row]),
                "recommended": [item_ids[one] for one in listed if one >= 0],
            }
        )
    return examples

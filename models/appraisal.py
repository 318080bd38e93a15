"""All that is worth knowing about rankers on held-out sessions, with how far chance may move it.

`next` ranks the whole catalogue, `served` leaves the current item out, as the carousel does; parts
of the predictions, differences and lists are as served. Written as `evaluation.json` beside a
bundle's figures and read by its report. Every interval is of the same draws of sessions
(`models.intervals`), so that the difference of two models has one too.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from models import beyond
from models.arrays import Floats, Ints
from models.context import Column, Context
from models.dataset import Sessions
from models.intervals import N_RESAMPLES, Resampling, bounds
from models.measures import next_gains, rest_gains
from models.predictions import Predictions

Figures = dict[str, dict[str, Any]]

MAIN_MEASURES = ("recall@20", "mrr@20", "ndcg@20")
_SHARES = (0.5, 0.8)


@dataclass(frozen=True, eq=False)
class HeldOut:
    """What rankers are appraised by; `categories` has a code for each item, or is None."""

    train: Sessions
    sessions: Sessions
    context: Context
    categories: Ints | None = None
    n_unseen: int = 0


def appraise(
    predictions: Mapping[str, Predictions], held_out: HeldOut, *, seed: int = 42
) -> dict[str, Any]:
    """Figures of every ranker, ready for JSON; the first one named is compared with the others.

    Raises ValueError where there is nothing to predict.
    """
    resampling = Resampling(held_out.sessions, seed=seed)
    main, *others = predictions
    draws: dict[str, dict[str, Floats]] = {}
    models = {}
    for name, one in predictions.items():
        models[name], draws[name] = _appraised(one, held_out, resampling)
    return {
        "main": main,
        "seed": seed,
        "n_resamples": N_RESAMPLES,
        "n_sessions": int((held_out.sessions.lengths > 1).sum()),
        "n_predictions": held_out.sessions.n_predictions,
        "n_unseen": held_out.n_unseen,
        "models": models,
        "differences": {
            other: _differences(models[main], models[other], draws[main], draws[other])
            for other in others
        },
        "absent": held_out.context.absent,
    }


def _appraised(
    one: Predictions, held_out: HeldOut, resampling: Resampling
) -> tuple[dict[str, Any], dict[str, Floats]]:
    """Figures of one ranker, and the draws of its next-item measures as served."""
    is_bought = held_out.context.is_bought
    gains = {
        "next": next_gains(one.ranks.conservative),
        "served": next_gains(one.ranks.served),
        "rest": rest_gains(one),
    }
    figures, _ = _means(gains["next"], None, resampling)
    served, draws = _means(gains["served"], None, resampling)
    rest, _ = _means(gains["rest"], None, resampling)
    bought = None
    if is_bought is not None and is_bought.any():
        bought, _ = _means(gains["served"], is_bought.astype(np.float64), resampling)
    n_known = len(one)
    appraised = {
        "next": figures,
        "served": served,
        "rest": rest,
        "bought": bought,
        "n_bought": None if is_bought is None else int(is_bought.sum()),
        # An item that training does not know cannot be recommended: a miss, where all count.
        "with_unseen": {
            measure: served[measure]["value"] * n_known / (n_known + held_out.n_unseen)
            for measure in MAIN_MEASURES
        },
        "lists": _of_lists(one.lists, held_out),
        "bias_curve": beyond.bias_curve(
            beyond.recommended_counts(one.lists, held_out.train.n_items)
        ),
        "slices": {
            name: _slices(column, gains["served"], resampling)
            for name, column in held_out.context.columns.items()
        },
    }
    return appraised, draws


def _means(
    gains: Mapping[str, Floats], weight: Floats | None, resampling: Resampling
) -> tuple[Figures, dict[str, Floats]]:
    """Mean and interval of each measure, and its means in the draws."""
    means = resampling.means(list(gains.values()), [weight] * len(gains))
    figures, draws = {}, {}
    for place, (measure, gain) in enumerate(gains.items()):
        figures[measure] = _figure(float(np.average(gain, weights=weight)), means[:, place])
        draws[measure] = means[:, place]
    return figures, draws


def _differences(
    ours: Mapping[str, Any], theirs: Mapping[str, Any], our_draws: Mapping[str, Floats],
    their_draws: Mapping[str, Floats],
) -> Figures:  # fmt: skip
    return {
        measure: _figure(
            ours["served"][measure]["value"] - theirs["served"][measure]["value"],
            our_draws[measure] - their_draws[measure],
        )
        for measure in MAIN_MEASURES
    }


def _figure(value: float, draws: Floats) -> dict[str, Any]:
    found = bounds(draws)
    return {"value": value, "low": found.low, "high": found.high}


def _slices(
    column: Column, gains: Mapping[str, Floats], resampling: Resampling
) -> list[dict[str, Any]]:
    """The main figures of each label that occurs, in the order of the labels."""
    found = np.bincount(column.codes, minlength=len(column.labels))
    labels = [code for code in range(len(column.labels)) if found[code]]
    masks = {code: (column.codes == code).astype(np.float64) for code in labels}
    columns = [gains[measure] for _ in labels for measure in MAIN_MEASURES]
    weights: Sequence[Floats] = [masks[code] for code in labels for _ in MAIN_MEASURES]
    means = resampling.means(columns, weights)
    slices = []
    for place, code in enumerate(labels):
        figures: dict[str, Any] = {"label": column.labels[code], "n": int(found[code])}
        for number, measure in enumerate(MAIN_MEASURES):
            value = float(np.average(gains[measure], weights=masks[code]))
            draws = means[:, place * len(MAIN_MEASURES) + number]
            figures[measure] = _figure(value, draws)
        slices.append(figures)
    return slices


def _of_lists(lists: Ints, held_out: HeldOut) -> dict[str, float | None]:
    """Reach, popularity and variety of the recommended lists."""
    train = held_out.train
    counts = beyond.recommended_counts(lists, train.n_items)
    last = np.cumsum(np.maximum(held_out.sessions.lengths - 1, 0))
    last = np.unique(last[last > 0]) - 1
    categories = held_out.categories
    return {
        "coverage": beyond.coverage(counts),
        "gini": beyond.gini(counts),
        **{f"items_making_{share:.0%}": beyond.items_making(counts, share) for share in _SHARES},
        "popularity_lift": beyond.popularity_lift(lists, held_out.sessions, train.support()),
        "novelty_bits": beyond.novelty(lists, train),
        "intra_list_diversity": (
            None if categories is None else beyond.intra_list_diversity(lists, categories)
        ),
        # Lists of one session resemble each other for good reason: the last one of each counts.
        "personalisation": beyond.personalisation(lists[last], train.n_items),
    }

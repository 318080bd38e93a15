"""Two models on the same predictions: figures, and what their difference may be by chance.

The current item is not recommended by anybody here, as it is not when serving: rivals that never
recommend it would otherwise have an advantage over those that may. P predictions.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from models.dataset import Sessions
from models.evaluation import ranks_in
from models.intervals import figure_per_prediction, interval
from models.scorer import SessionScorer, scores_after, without_repeats

MEASURES = ("recall@20", "mrr@20")
_SCORES_AT_ONCE = 2_000_000

Difference = dict[str, dict[str, float]]


def bounds(ranks: Tensor, sessions: Sessions, seed: int) -> dict[str, tuple[float, float]]:
    """95 % interval of each of MEASURES by a bootstrap over sessions; `ranks` is (P,)."""
    found = {}
    for measure in MEASURES:
        one = interval(figure_per_prediction(ranks, measure), sessions, seed=seed)
        found[measure] = (one.low, one.high)
    return found


def difference(ours: Tensor, theirs: Tensor, sessions: Sessions, seed: int) -> Difference:
    """By measure our figure, theirs, ours less theirs and its 95 % interval (paired bootstrap).

    Ranks are (P,), session by session.
    """
    found = {}
    for measure in MEASURES:
        us, them = (figure_per_prediction(ranks, measure) for ranks in (ours, theirs))
        chance = interval(us - them, sessions, seed=seed)
        found[measure] = {
            "ours": float(us.mean()), "theirs": float(them.mean()),
            "difference": float((us - them).mean()), "low": chance.low, "high": chance.high,
        }  # fmt: skip
    return found


def ranks_as_served(scorer: SessionScorer, sessions: Sessions, item_ids: Sequence[str]) -> Tensor:
    """Rank of each target in what `scorer` serves, (P,), whatever items it knows.

    `sessions` number items as `item_ids` does. A target that the scorer cannot recommend ranks
    behind its whole catalogue; a session of unknown items gets its popular items.
    """
    theirs = [scorer.index.get(item_id, -1) for item_id in item_ids]
    prefixes, current, target = _predictions(sessions)
    ranks = torch.full((len(target),), scorer.n_items + 1, dtype=torch.int64)
    known = [without_repeats([theirs[item] for item in one if theirs[item] >= 0])
             for one in prefixes]  # fmt: skip
    scored = [n for n, one in enumerate(known) if one and theirs[target[n]] >= 0]
    n_rows = max(1, _SCORES_AT_ONCE // scorer.n_items)
    for start in range(0, len(scored), n_rows):
        rows = scored[start : start + n_rows]
        scores, _ = scores_after(scorer.ranker, [known[n] for n in rows])
        wanted = torch.tensor([theirs[target[n]] for n in rows])
        now = torch.tensor([theirs[current[n]] for n in rows])
        whole, _, served = ranks_in(scores, now.clamp(min=0), wanted)
        ranks[rows] = torch.where(now >= 0, served, whole)
    popular = scorer.popular_ids
    place = {item_id: rank for rank, item_id in enumerate(popular, start=1)}
    for n, one in enumerate(known):
        rank = place.get(item_ids[target[n]])
        if not one and rank is not None:
            ranks[n] = rank - (place.get(item_ids[current[n]], rank) < rank)
    return ranks


def _predictions(sessions: Sessions) -> tuple[list[list[int]], list[int], list[int]]:
    """Steps before each target, the latest of them, and the target."""
    prefixes: list[list[int]] = []
    targets: list[int] = []
    for start, end in zip(sessions.offsets[:-1], sessions.offsets[1:], strict=True):
        steps: list[int] = sessions.item_idx[start:end].tolist()
        for at in range(1, len(steps)):
            prefixes.append(steps[:at])
            targets.append(steps[at])
    return prefixes, [one[-1] for one in prefixes], targets


def against_champion(
    ours: Tensor, champion: SessionScorer, unseen: Sessions, item_ids: Sequence[str], seed: int
) -> dict[str, Any]:
    """How the champion does on hold-out sessions that it never saw, the latest of all.

    `ours` are the candidate's ranks on the whole hold-out, which `unseen` ends.
    """
    n_predictions = unseen.n_predictions
    found: dict[str, Any] = {"version": champion.version, "n_predictions": n_predictions}
    if not n_predictions:
        return {**found, "differences": {}}
    theirs = ranks_as_served(champion, unseen, item_ids)
    return {
        **found,
        "differences": difference(ours[-n_predictions:], theirs, unseen, seed),
    }

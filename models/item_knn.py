"""Baseline: items that occur in the same sessions as the current one.

Cosine of the sessions that two items occur in: n_both / sqrt(n_a n_b). The current item itself
cannot come next where repeats are collapsed, so it is never recommended.
"""

import numpy as np
import numpy.typing as npt

from models.dataset import Sessions
from models.item_rules import ItemRules, RuleIndex

_MAX_SESSION_ITEMS = 50  # of a longer session only the first so many distinct items are paired


class ItemKNN(ItemRules):
    """Ranks items by their similarity to the session's latest one.

    Keeps the `n_neighbours` most similar items of each; all others score 0.
    """

    def __init__(self, train: Sessions, n_neighbours: int = 500) -> None:
        first, second, similarity = _similarities(train)
        order = np.lexsort((second, -similarity, first))
        first, second, similarity = first[order], second[order], similarity[order]
        starts = np.searchsorted(first, np.arange(train.n_items))
        kept = np.arange(len(first)) - starts[first] < n_neighbours
        super().__init__(RuleIndex.of(first[kept], second[kept], similarity[kept], train.n_items))


def _similarities(
    train: Sessions,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Both orders of every pair of items that share a session, with their cosine."""
    n_items = train.n_items
    session = np.repeat(np.arange(len(train)), train.lengths)
    # Distinct items of each session, in order of first appearance.
    _, first_rows = np.unique(session * n_items + train.item_idx, return_index=True)
    first_rows.sort()
    item, session = train.item_idx[first_rows].astype(np.int64), session[first_rows]
    place = np.arange(len(session)) - np.searchsorted(session, session)
    item, session = item[place < _MAX_SESSION_ITEMS], session[place < _MAX_SESSION_ITEMS]
    n_sessions = np.bincount(item, minlength=n_items)
    keys: list[npt.NDArray[np.int64]] = []
    for distance in range(1, min(_MAX_SESSION_ITEMS, len(item))):
        is_pair = session[distance:] == session[:-distance]
        if not is_pair.any():
            break
        one, other = item[:-distance][is_pair], item[distance:][is_pair]
        keys.append(one * n_items + other)
        keys.append(other * n_items + one)
    pairs, n_both = np.unique(
        np.concatenate(keys) if keys else np.empty(0, np.int64), return_counts=True
    )
    first, second = pairs // n_items, pairs % n_items
    cosine = n_both / np.sqrt(n_sessions[first] * n_sessions[second])
    return first, second, cosine

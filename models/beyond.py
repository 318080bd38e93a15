"""What lists look like apart from being right: reach, popularity, variety.

All take lists (P, k) of `item_idx`, -1 where a list is short, and look at them in one pass of
counting; nothing is P x P or P x N.
"""

import numpy as np

from models.arrays import Floats, Ints
from models.dataset import Sessions
from models.prefixes import prefixes

_CURVE_POINTS = 60
_PROFILE_STEPS = 20  # latest steps of a session that tell its taste


def recommended_counts(lists: Ints, n_items: int) -> Ints:
    """How often each item is recommended, (n_items,)."""
    return np.bincount(lists[lists >= 0], minlength=n_items)


def coverage(counts: Ints) -> float:
    """Share of the catalogue recommended at least once (Ge et al., RecSys 2010), in [0, 1]."""
    return float((counts > 0).mean())


def gini(counts: Ints) -> float:
    """Gini coefficient of recommendations over the catalogue: 0 all alike, to 1 one item only.

    Items never recommended count (Fleder & Hosanagar 2009).
    """
    total, n_items = counts.sum(), len(counts)
    if not total:
        return 0.0
    place = np.arange(1, n_items + 1)
    return float(((2 * place - n_items - 1) * np.sort(counts)).sum() / (n_items * total))


def bias_curve(counts: Ints) -> list[tuple[float, float]]:
    """Points (share of items, share of recommendations they make), the most recommended first.

    The Lorenz curve seen from the top; the diagonal is a ranker without favourites.
    """
    falling = np.sort(counts)[::-1]
    made = np.concatenate([[0.0], np.cumsum(falling) / max(1, falling.sum())])
    # Close points where the curve bends, at its beginning.
    share = np.linspace(0, 1, _CURVE_POINTS) ** 2
    place = np.unique(np.round(share * len(counts)).astype(np.int64))
    return [(float(one / len(counts)), float(made[one])) for one in place]


def items_making(counts: Ints, share: float) -> float:
    """Smallest share of the catalogue that makes `share` of all recommendations, in [0, 1]."""
    falling = np.sort(counts)[::-1]
    made = np.cumsum(falling) / max(1, falling.sum())
    return float((np.searchsorted(made, share - 1e-12) + 1) / len(counts))


def popularity_lift(lists: Ints, sessions: Sessions, support: Ints) -> float:
    """How much more popular lists are than what their shopper looks at: 0 as much, 1 twice as much.

    Mean support of the list less that of the session's own steps before it, divided by the latter;
    both averaged over predictions first (change in group average popularity, Abdollahpouri et al.,
    arXiv:1907.13286, each session being its own group's member). `support` is steps in training.
    """
    profiles = mean_support(prefixes(sessions, _PROFILE_STEPS).numpy(), support)
    listed = mean_support(lists, support)
    own = float(profiles.mean())
    return (float(listed.mean()) - own) / own if own else 0.0


def mean_support(lists: Ints, support: Ints) -> Floats:
    """Mean training support of each list's items, 0 for an empty one, (P,)."""
    is_item = lists >= 0
    total = np.where(is_item, support[np.where(is_item, lists, 0)], 0).sum(1)
    out: Floats = total / np.maximum(is_item.sum(1), 1)
    return out


def novelty(lists: Ints, train: Sessions) -> float:
    """Mean surprise of a recommended item in bits: -log2(share of training sessions with it).

    Mean inverse user frequency (Vargas & Castells, RecSys 2011), a session standing for a user;
    averaged over each list, then over lists.
    """
    session = np.repeat(np.arange(len(train)), train.lengths)
    distinct = np.unique(session * train.n_items + train.item_idx) % max(1, train.n_items)
    n_sessions = np.maximum(np.bincount(distinct, minlength=train.n_items), 1)
    bits = -np.log2(n_sessions / max(1, len(train)))
    return float(_mean_of_lists(bits, lists))


def intra_list_diversity(lists: Ints, category: Ints) -> float:
    """Mean share of the pairs of a list that differ in category (Ziegler et al., WWW 2005).

    `category` is (n_items,), a code each; lists of fewer than two items are left out.
    """
    n_rows, k = lists.shape
    is_item = lists >= 0
    row = np.repeat(np.arange(n_rows), k).reshape(lists.shape)[is_item]
    key = row * (int(category.max(initial=0)) + 1) + category[lists[is_item]]
    _, first, alike = np.unique(key, return_index=True, return_counts=True)
    n_listed = is_item.sum(1)
    same = np.bincount(row[first], alike * (alike - 1) / 2, n_rows)
    pairs = n_listed * (n_listed - 1) / 2
    has_pair = pairs > 0
    if not has_pair.any():
        return 0.0
    return float((1 - same[has_pair] / pairs[has_pair]).mean())


def personalisation(lists: Ints, n_items: int) -> float:
    """1 less the mean cosine of two lists as sets: 0 everybody gets the same, 1 nothing shared.

    The mean over all pairs of lists, from counts by item: the sum of cosines over ordered pairs is
    that of squared item totals of lists scaled to length 1, less one a list for itself. Empty lists
    are left out; of fewer than two lists it is 0.
    """
    is_item = lists >= 0
    n_listed = is_item.sum(1)
    n_lists = int((n_listed > 0).sum())
    if n_lists < 2:
        return 0.0
    scale = np.repeat(1 / np.sqrt(np.maximum(n_listed, 1)), lists.shape[1]).reshape(lists.shape)
    totals = np.bincount(lists[is_item], scale[is_item], n_items)
    return float(1 - ((totals**2).sum() - n_lists) / (n_lists * (n_lists - 1)))


def _mean_of_lists(value: Floats, lists: Ints) -> float:
    """Mean over lists of the mean `value` (n_items,) of their items; empty lists left out."""
    is_item = lists >= 0
    n_listed = is_item.sum(1)
    if not n_listed.any():
        return 0.0
    total = np.where(is_item, value[np.where(is_item, lists, 0)], 0.0).sum(1)
    return float((total[n_listed > 0] / n_listed[n_listed > 0]).mean())

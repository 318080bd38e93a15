"""The best items of a fusion for some predictions, and what a re-ranker looks at in them.

The one place where features are worked out: for learning, for evaluation and for serving. A feature
is a name and a function of a shortlist, and only those asked for are computed.

R predictions, C items of a shortlist, S latest steps of a session, N items of the catalogue.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from models.arrays import Ints, Singles
from models.item_statistics import UNKNOWN_CATEGORY, UNKNOWN_PRICE, ItemStatistics
from models.standardised import Standardised

N_STEPS = 20  # of a session that are looked at
PART = "part:"  # and the name of a part: what it adds to the fused score
_UNKNOWN = -1.0  # of what is 0 or more
_NOT_SEEN = float(N_STEPS)


@dataclass(frozen=True, eq=False)
class Shortlist:
    """`items` and their fused `scores` are (R, C), the best first, without the current item.

    `of_parts` is by part what it adds to the scores, (R, C). `steps` are the latest ones before
    each prediction, the current one first, -1 where there are none, (R, S).
    """

    items: Ints
    scores: Singles
    of_parts: Mapping[str, Singles]
    steps: Ints
    statistics: ItemStatistics

    @classmethod
    def of(
        cls, total: Tensor, of_parts: Mapping[str, Standardised], steps: Tensor,
        statistics: ItemStatistics, length: int,
    ) -> "Shortlist":  # fmt: skip
        """The `length` best items by `total`, (R, N), or all where there are fewer."""
        best, places = torch.topk(total, min(length + 1, total.shape[1]))
        # The current item goes to the end of its row, if it is there at all, and falls off.
        order = (places == steps[:, :1]).to(torch.int8).argsort(dim=1, stable=True)[:, :-1]
        items = places.gather(1, order).numpy()
        return cls(
            items, best.gather(1, order).numpy(),
            {name: one.at_each(items) for name, one in of_parts.items()}, steps.numpy(), statistics,
        )  # fmt: skip

    def features(self, names: Sequence[str]) -> Singles:
        """The named features, (R, C, len(names)). Raises KeyError on an unknown one."""
        found = np.empty((*self.items.shape, len(names)), dtype=np.float32)
        for place, name in enumerate(names):
            if name.startswith(PART):
                found[:, :, place] = self.of_parts[name.removeprefix(PART)]
            else:
                found[:, :, place] = FEATURES[name](self)
        return found

    @cached_property
    def is_step(self) -> npt.NDArray[np.bool_]:
        """Whether there is a step, (R, S)."""
        return self.steps >= 0

    @cached_property
    def n_steps(self) -> Singles:
        """How many there are, (R, 1)."""
        counts: Singles = self.is_step.sum(1, keepdims=True).astype(np.float32)
        return counts

    @cached_property
    def seen(self) -> npt.NDArray[np.bool_]:
        """Whether an item is that of a step, (R, C, S)."""
        found: npt.NDArray[np.bool_] = self.items[:, :, None] == self.steps[:, None, :]
        return found

    @cached_property
    def same_category(self) -> npt.NDArray[np.bool_]:
        """Whether an item's category is known and that of a step, (R, C, S)."""
        category = self.statistics.category
        of_steps = np.where(self.is_step, category[self.steps], UNKNOWN_CATEGORY)
        of_items = category[self.items]
        is_known = (of_items != UNKNOWN_CATEGORY)[:, :, None]
        found: npt.NDArray[np.bool_] = (of_items[:, :, None] == of_steps[:, None, :]) & is_known
        return found


def _seen_back(one: Shortlist) -> npt.NDArray[np.generic]:
    return np.where(one.seen.any(2), one.seen.argmax(2), _NOT_SEEN)


def _distinct_share(one: Shortlist) -> npt.NDArray[np.generic]:
    ordered = np.sort(one.steps, 1)
    is_new = (ordered[:, 1:] != ordered[:, :-1]) & (ordered[:, 1:] >= 0)
    n_distinct: Ints = is_new.sum(1) + (ordered[:, 0] >= 0)
    return n_distinct[:, None] / one.n_steps


def _price_distance(one: Shortlist) -> npt.NDArray[np.generic]:
    prices = one.statistics.log_price
    of_items, current = prices[one.items], prices[one.steps[:, :1]]
    is_known = (of_items != UNKNOWN_PRICE) & (current != UNKNOWN_PRICE)
    return np.where(is_known, np.abs(of_items - current), _UNKNOWN)


FEATURES: dict[str, Callable[[Shortlist], npt.NDArray[np.generic]]] = {
    "fused score": lambda one: one.scores,
    "fused place": lambda one: np.arange(one.items.shape[1]),
    "behind the first": lambda one: one.scores[:, :1] - one.scores,
    "popularity": lambda one: one.statistics.popularity[one.items],
    "popularity lately": lambda one: one.statistics.lately[one.items],
    "popularity recently": lambda one: one.statistics.recently[one.items],
    "steps since seen": _seen_back,
    "times seen": lambda one: one.seen.sum(2),
    "steps of the session": lambda one: one.n_steps,
    "distinct share": _distinct_share,
    "popularity of current": lambda one: one.statistics.popularity[one.steps[:, :1]],
    "same category": lambda one: one.same_category[:, :, 0],
    "category share": lambda one: one.same_category.sum(2) / one.n_steps,
    "price": lambda one: one.statistics.log_price[one.items],
    "price distance": _price_distance,
}

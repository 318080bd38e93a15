"""Rules between two items: what followed, or shared a session with, the current one.

Association and sequential rules of Kamehkhosh et al. (TempRec 2017) as in Ludewig & Jannach,
arXiv:1803.09587; sequential rules of one step are a first-order Markov chain. The current item
cannot come next where repeats are collapsed, so it is never recommended.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from torch import Tensor

from models.arrays import Floats, Ints
from models.dataset import Sessions
from models.prefixes import current_items
from models.ragged import Ragged
from models.sparse import SparseRanker, SparseScores

_MAX_STEPS = 200  # between two items of a session that are associated


@dataclass(frozen=True, eq=False)
class RuleIndex:
    """`rules` has the items that each item leads to, sorted; `weights` what each rule weighs."""

    rules: Ragged
    weights: npt.NDArray[np.float32]

    @classmethod
    def of(cls, first: Ints, second: Ints, weight: Floats, n_items: int) -> "RuleIndex":
        """Weights of equal pairs of `first` and `second` are added up."""
        pairs, pair = np.unique(first * n_items + second, return_inverse=True)
        weights = np.bincount(pair, weight, minlength=len(pairs)).astype(np.float32)
        return cls(Ragged.grouped(pairs // n_items, pairs % n_items, n_items).compact(), weights)


class ItemRules(SparseRanker):
    """Ranks items by the weight of a rule from the session's latest item to them."""

    def __init__(self, index: RuleIndex) -> None:
        self.index = index

    @property
    def n_items(self) -> int:
        return len(self.index.rules)

    def states(self, sessions: Sessions) -> Tensor:
        """The current item, (n_predictions,), int64."""
        return current_items(sessions)

    def sparse_scores(self, states: Tensor) -> SparseScores:
        """Weights of the rules that there are; the current item is masked."""
        items = states.numpy()
        places, row = self.index.rules.entries(items)
        to = self.index.rules.values[places].astype(np.int64)
        weights = self.index.weights[places].astype(np.float64)
        return SparseScores.of(row, to, weights, items, self.n_items)


class AssociationRules(ItemRules):
    """Counts how often two items share a session, whichever came first."""

    def __init__(self, train: Sessions) -> None:
        later, earlier, _ = _pairs(train, _MAX_STEPS)
        first, second = np.concatenate([later, earlier]), np.concatenate([earlier, later])
        super().__init__(RuleIndex.of(first, second, np.ones(len(first)), train.n_items))


class SequentialRules(ItemRules):
    """Counts how often an item followed, an item `d` steps later as 1 / d, up to `n_steps`."""

    def __init__(self, train: Sessions, n_steps: int = 15) -> None:
        later, earlier, distance = _pairs(train, n_steps)
        super().__init__(RuleIndex.of(earlier, later, 1.0 / distance, train.n_items))


class Markov(SequentialRules):
    """Counts which item came right after."""

    def __init__(self, train: Sessions) -> None:
        super().__init__(train, n_steps=1)


def _pairs(train: Sessions, n_steps: int) -> tuple[Ints, Ints, Ints]:
    """Each item with those of its session up to `n_steps` before it, and how many steps that is."""
    session = np.repeat(np.arange(len(train)), train.lengths)
    items = train.item_idx.astype(np.int64)
    later, earlier, steps = [items[:0]], [items[:0]], [items[:0]]
    for distance in range(1, min(n_steps, int(train.lengths.max(initial=0)) - 1) + 1):
        places = np.flatnonzero(session[distance:] == session[:-distance])
        later.append(items[places + distance])
        earlier.append(items[places])
        steps.append(np.full(len(places), distance))
    return np.concatenate(later), np.concatenate(earlier), np.concatenate(steps)

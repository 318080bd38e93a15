"""What a ranker says before every step of some sessions, kept once for every measure.

One pass over the predictions: per prediction the rank of the next item, the list that a shopper
would have been shown, and where the other items of the rest of the session stand in it. The whole
score table (P, N) is never held; kept are 8 x (`k` + 3) bytes a prediction and 16 a pair of a
prediction and an item that comes later.

P predictions, N items, R pairs of a prediction and an item that comes later in its session.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from models.arrays import Ints
from models.dataset import Sessions
from models.evaluation import Ranker, Ranks, pairs, ranks_in

LIST_LENGTH = 20
_SCORES_AT_ONCE = 2_000_000  # bounds memory: 8 MB of float32


@dataclass(frozen=True, eq=False)
class Predictions:
    """The kept part of a pass.

    `lists` (P, k) has the best items first, the current one left out as when serving, -1 where a
    ranker has no more to recommend. Pair i says that item `later_item[i]` comes later in the
    session of prediction `later_row[i]` and stands at `later_rank[i]` of the list, k + 1 beyond it,
    ties counted against the model. Pairs are sorted by row and name each item once.
    """

    ranks: Ranks
    lists: Ints
    later_row: Ints
    later_item: Ints
    later_rank: Ints

    def __len__(self) -> int:
        return len(self.lists)


@torch.no_grad()
def predict(ranker: Ranker, sessions: Sessions, k: int = LIST_LENGTH) -> Predictions:
    """One pass of `ranker` over the predictions of `sessions`, with lists of `k` items."""
    k = min(k, ranker.n_items)
    states = ranker.states(sessions)
    current, target = (side.to(states.device) for side in pairs(sessions))
    later_row, later_item = later_items(sessions)
    n_rows = max(1, _SCORES_AT_ONCE // ranker.n_items)
    ranks, lists, later_rank = [], [], []
    for start in range(0, len(target), n_rows):
        rows = slice(start, start + n_rows)
        scores = ranker.scores(states[rows])
        ranks.append(ranks_in(scores, current[rows], target[rows]))
        best, values = _best(scores, current[rows], k)
        lists.append(best.cpu())
        begin, end = np.searchsorted(later_row, (start, start + len(best)))
        row = torch.from_numpy(later_row[begin:end] - start).to(scores.device)
        item = torch.from_numpy(later_item[begin:end]).to(scores.device)
        later_rank.append(_places(scores, values, row, item, current[rows], k).cpu())
    kept = [torch.cat(column).cpu() for column in zip(*ranks, strict=True)]
    nothing = torch.empty(0, dtype=torch.int64)
    return Predictions(
        Ranks(*(kept or [nothing] * 3)),
        torch.cat([*lists, torch.empty(0, k, dtype=torch.int64)]).numpy(),
        later_row,
        later_item,
        torch.cat([*later_rank, nothing]).numpy(),
    )


def later_items(sessions: Sessions) -> tuple[Ints, Ints]:
    """Every prediction's row with each item that comes later in its session, once: (R,) each."""
    items = sessions.item_idx.astype(np.int64)
    lengths = sessions.lengths[sessions.lengths > 0]
    session = np.repeat(np.arange(len(lengths)), lengths)
    step = np.arange(len(items))
    begin = (np.cumsum(lengths) - lengths)[session]
    # An item is news to the predictions from its occurrence before (or the session's start) on.
    order = np.lexsort((step, items, session))
    before = np.full(len(items), -1)
    is_again = (np.diff(session[order]) == 0) & (np.diff(items[order]) == 0)
    before[order[1:][is_again]] = order[:-1][is_again]
    since = np.maximum(before, begin)
    count = step - since
    owner = np.repeat(step, count)
    at = since[owner] + np.arange(len(owner)) - np.repeat(np.cumsum(count) - count, count)
    row = at - session[owner]  # each session has one step more than predictions
    by_row = np.lexsort((owner, row))
    return row[by_row], items[owner[by_row]]


def _best(scores: Tensor, current: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Items of the lists (B, k), and the k + 1 highest scores without the current item's."""
    shown = scores.scatter(1, current[:, None], -torch.inf)
    values, items = torch.topk(shown, min(k + 1, shown.shape[1]))
    items = torch.where(values == -torch.inf, -1, items)
    return items[:, :k], values


def _places(
    scores: Tensor, values: Tensor, row: Tensor, item: Tensor, current: Tensor, k: int
) -> Tensor:
    """Conservative rank of `item` among the listed `values` of its row, k + 1 beyond them."""
    own = scores[row, item]
    # "Not below" rather than "at least", so that NaN counts against the model. An item that the
    # list leaves out (the current one, or one of -inf) is below no score at all.
    is_out = (item == current[row]) | (own == -torch.inf)
    ahead = (~(values[row] < own[:, None])).sum(1)
    return torch.where(is_out, k + 1, ahead.clamp_(min=1))

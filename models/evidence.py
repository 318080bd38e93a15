"""What the gate judges a candidate by, beside its bundle and its figures."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
from torch import Tensor

from models.ranking import Query
from models.reranker import Reranker
from models.scorer import SessionScorer
from models.split import Split

_MAX_SESSIONS = 200  # looked at by checks of behaviour: seconds, and means to two digits
_MAX_STEPS = 10
_BATCH = 64


@dataclass(frozen=True, eq=False)
class Evidence:
    """The split that the candidate was judged on, and what it should know.

    `ranks` are those of the judged model on the hold-out as served, (P,); `item_ids` what the
    written model was trained on, by `item_idx`; `shop_item_ids` what the shop has now; `steps` is
    the mart `training_steps`; `reranker` is what training made, None where the fusion serves alone.
    """

    split: Split
    ranks: Tensor
    item_ids: Sequence[str]
    shop_item_ids: frozenset[str]
    steps: pa.Table
    reranker: Reranker | None = None

    @cached_property
    def holdout(self) -> list[list[str]]:
        """Every hold-out session as items ids, the oldest first."""
        sessions, names = self.split.holdout, self.split.catalogue.item_ids
        ends = zip(sessions.offsets[:-1], sessions.offsets[1:], strict=True)
        return [[names[item] for item in sessions.item_idx[start:end]] for start, end in ends]

    @cached_property
    def train(self) -> list[list[str]]:
        """Every session that the judged model was trained on as item ids."""
        sessions, names = self.split.train, self.split.catalogue.item_ids
        ends = zip(sessions.offsets[:-1], sessions.offsets[1:], strict=True)
        return [[names[item] for item in sessions.item_idx[start:end]] for start, end in ends]

    @cached_property
    def rarest(self) -> list[str]:
        """The items with the fewest steps in training, a tenth of them."""
        support = self.split.train.support()
        n_items = min(_MAX_SESSIONS, -(-len(support) // 10))
        order = np.argsort(support, kind="stable")[:n_items]
        return [self.split.catalogue.item_ids[item] for item in order]

    @cached_property
    def samples(self) -> list[list[str]]:
        """Hold-out sessions, evenly spread over time, their latest steps."""
        stride = max(1, -(-len(self.holdout) // _MAX_SESSIONS))
        return [session[-_MAX_STEPS:] for session in self.holdout[::stride]]


def lists_for(scorer: SessionScorer, sessions: Sequence[Sequence[str]], k: int) -> list[list[str]]:
    """What `scorer` serves after each session, without the current item."""
    lists: list[list[str]] = []
    for start in range(0, len(sessions), _BATCH):
        queries = [Query(one, k, one[-1:]) for one in sessions[start : start + _BATCH]]
        rankings = scorer.recommend_each(queries)
        lists += [[one.item_id for one in ranking.items] for ranking in rankings]
    return lists

"""The one way from sessions to ranked items; evaluation ranks with the same functions.

A score is that of the whole catalogue's ranking, whatever a request filters out: parts are
standardised first, then items are filtered. Loading checks a bundle first (`models.bundle`), then
that its golden sessions come out as offline evaluation had them. Weights are memory-mapped, so
worker processes share them.
"""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from models.arrays import Ints
from models.bundle import BundleContent, Golden, read_bundle
from models.dataset import Sessions
from models.evaluation import Ranker
from models.fusion import Fusion, Weights
from models.fusion_file import GRU4REC
from models.gru4rec import GRU4Rec
from models.item_tables import Item
from models.manifest import BundleCorrupt
from models.prefixes import prefixes
from models.ranking import POPULARITY, Query, Ranked, Ranking
from models.reranker import Reranked
from models.shortlist import N_STEPS
from models.standardised import Standardised

__all__ = ["Item", "Query", "Ranked", "Ranking", "SessionScorer", "golden_sessions"]

FUSION, RERANKED = "fusion", "reranked"
_TOLERANCE = 1e-3  # of golden scores: other CPUs round differently
_MAX_JUMPS = 0.05  # share of them that a tree may tip over because of that
_N_GOLDEN_ITEMS = 10


class SessionScorer:
    """A loaded model bundle, ready to recommend. Safe to share between threads."""

    def __init__(self, content: BundleContent) -> None:
        manifest = content.manifest
        self.name: str = manifest.name
        self.version: str = manifest.version
        self.created_at: datetime = manifest.created_at
        self.snapshot_id: str = manifest.snapshot_id
        self.ranker: Ranker = content.ranker
        self.source: str = _named(self.ranker)
        self.metrics: dict[str, Any] = content.metrics.get("models", {}).get(self.source, {})
        # A model of before says only when it was made, which is not before what it knows.
        until = content.metrics.get("training", {}).get("until")
        self.trained_until: datetime = (
            datetime.fromisoformat(until) if until else manifest.created_at
        )
        self.model: GRU4Rec = content.model
        self.weights: Weights = content.fusion.weights if content.fusion else {GRU4REC: 1.0}
        self._items = content.items
        self.index: dict[str, int] = {
            item.item_id: item_idx for item_idx, item in enumerate(content.items)
        }
        self._fallbacks = content.fallbacks
        self._details = {item.item_id: item for item, _ in content.fallbacks}
        self._details.update((item.item_id, item) for item in content.items)
        by_category: dict[str, list[int]] = {}
        for item_idx, item in enumerate(content.items):
            if item.category is not None:
                by_category.setdefault(item.category, []).append(item_idx)
        self._categories = {name: np.asarray(rows) for name, rows in by_category.items()}
        prices = [np.nan if item.price is None else item.price for item in content.items]
        self._prices = np.asarray(prices, dtype=np.float64)

    @classmethod
    def load(cls, folder: Path, *, threads: int = 1) -> "SessionScorer":
        """The bundle in `folder`, verified; `threads` sets this process's math threads.

        Raises BundleCorrupt, naming the file or check.
        """
        torch.set_num_threads(threads)
        content = read_bundle(folder)
        scorer = cls(content)
        scorer.verify_golden(content.golden, folder)
        return scorer

    @property
    def n_items(self) -> int:
        """Items that the model knows."""
        return len(self._items)

    @property
    def item_ids(self) -> list[str]:
        """Every item that can be recommended, those of the model first."""
        return list({**dict.fromkeys(self.index), **dict.fromkeys(self._details)})

    @property
    def popular_ids(self) -> list[str]:
        """The items that are recommended where the model has none, the most popular first."""
        return [item.item_id for item, _ in self._fallbacks]

    def item(self, item_id: str) -> Item | None:
        """What is known of an item that can be recommended."""
        return self._details.get(item_id)

    def known(self, session_items: Sequence[str]) -> list[int]:
        """The steps of a session that the model knows, by `item_idx`."""
        return [self.index[item_id] for item_id in session_items if item_id in self.index]

    def recommend(
        self,
        session_items: Sequence[str],
        k: int,
        *,
        exclude: Collection[str] = (),
        category: str | None = None,
        price_min: float | None = None,
        price_max: float | None = None,
    ) -> Ranking:
        """The answer to one Query of these values. Raises ValueError if `k` < 1."""
        query = Query(session_items, k, exclude, category, price_min, price_max)
        return self.recommend_each([query])[0]

    def recommend_each(self, queries: Sequence[Query]) -> list[Ranking]:
        """The `k` items most likely next for each query, or fewer where filters leave fewer.

        Unknown steps are skipped. Where the model has too few items left, popular ones follow. The
        queries are scored together: weights of a large catalogue are read once for all.
        """
        known = [self.known(query.session_items) for query in queries]
        scored = [place for place, items in enumerate(known) if items]
        by_model: list[list[Ranked]] = [[] for _ in queries]
        if scored:
            scores, of_parts = self._scores([known[place] for place in scored])
            for row, place in enumerate(scored):
                by_model[place] = self._best(scores[row], of_parts, row, queries[place])
        return [
            self._filled(query, ranked, len(items))
            for query, ranked, items in zip(queries, by_model, known, strict=True)
        ]

    def scores(self, item_idx: Sequence[int]) -> Tensor:
        """Score of every item after a session of known items, at least one: (n_items,).

        An item that must not follow has -inf.
        """
        return self._scores([item_idx])[0][0]

    @torch.inference_mode()
    def _scores(
        self, sessions: Sequence[Sequence[int]]
    ) -> tuple[Tensor, Mapping[str, Standardised]]:
        """Scores of every item after each session, (R, N), and what the parts add to them."""
        return scores_after(self.ranker, [without_repeats(one) for one in sessions])

    def _best(
        self, scores: Tensor, of_parts: Mapping[str, Standardised], row: int, query: Query
    ) -> list[Ranked]:
        among = self._among(query)
        if among is not None:
            scores = scores.index_select(0, torch.from_numpy(among))
        excluded = set(self.known(list(query.exclude)))
        best, places = torch.topk(scores, min(query.k + len(excluded), len(scores)))
        item_idx = places.numpy() if among is None else among[places.numpy()]
        kept = [
            (score, one)
            for score, one in zip(best.tolist(), item_idx.tolist(), strict=True)
            if one not in excluded and score != -np.inf
        ][: query.k]
        sources = self._sources(of_parts, row, [one for _, one in kept])
        return [
            Ranked(self._items[one].item_id, score, source)
            for (score, one), source in zip(kept, sources, strict=True)
        ]

    def _among(self, query: Query) -> Ints | None:
        """The items that category and price leave, None for all."""
        rows = None
        if query.category is not None:
            rows = self._categories.get(query.category, np.zeros(0, dtype=np.int64))
        if query.has_price:
            prices = self._prices if rows is None else self._prices[rows]
            fitting = np.flatnonzero((prices >= query.low) & (prices <= query.high))
            rows = fitting if rows is None else rows[fitting]
        return rows

    def _sources(
        self, of_parts: Mapping[str, Standardised], row: int, item_idx: Sequence[int]
    ) -> list[str]:
        """The part whose share of each item's score is the largest."""
        if not of_parts or not item_idx:
            return [GRU4REC] * len(item_idx)
        items = np.asarray(item_idx, dtype=np.int64)
        shares = np.stack([one.at(row, items) for one in of_parts.values()])
        names = list(of_parts)
        return [names[place] for place in shares.argmax(0)]

    def _filled(self, query: Query, ranked: list[Ranked], n_known: int) -> Ranking:
        """With popular items where the model has too few."""
        taken = {*query.exclude, *(one.item_id for one in ranked)}
        for item, score in self._fallbacks:
            if len(ranked) >= query.k:
                break
            if item.item_id not in taken and query.takes(item):
                ranked.append(Ranked(item.item_id, score, POPULARITY))
        return Ranking(ranked, self.source if n_known else POPULARITY, n_known)

    def verify_golden(self, golden: Sequence[Golden], folder: Path) -> None:
        """Compare with what the bundle's writer got. Raises BundleCorrupt.

        Where trees rank, a score at the edge of a split may tip over on a CPU that rounds
        differently: of all golden scores a few may differ then, not more.
        """
        is_stepped = isinstance(self.ranker, Reranked)
        n_allowed = _MAX_JUMPS * sum(len(one.scores) for one in golden) if is_stepped else 0
        n_off = 0
        for one in golden:
            known = self.known(one.items)
            if not known or any(item_id not in self.index for item_id in one.expected):
                raise BundleCorrupt(f"golden.json has items that the model lacks: {folder}")
            scores = self.scores(known)
            rows = torch.tensor([self.index[item_id] for item_id in one.expected])
            expected = torch.tensor(one.scores, dtype=scores.dtype)
            best = torch.topk(scores, len(rows)).values
            off = [
                ~torch.isclose(found, expected, rtol=_TOLERANCE, atol=_TOLERANCE)
                for found in (scores[rows], best)
            ]
            n_off += int((off[0] | off[1]).sum())
            if n_off > n_allowed:
                raise BundleCorrupt(
                    f"golden session {one.items} does not come out as when {folder} was "
                    f"written, expected scores {one.scores}, got: {scores[rows].tolist()}"
                )


def _named(ranker: Ranker) -> str:
    """What a reply calls it."""
    if isinstance(ranker, Reranked):
        return RERANKED
    return FUSION if isinstance(ranker, Fusion) else GRU4REC


def scores_after(
    ranker: Ranker, sessions: Sequence[Sequence[int]]
) -> tuple[Tensor, Mapping[str, Standardised]]:
    """Scores of every item after whole sessions of one step or more, (R, N).

    And what the parts of a fusion add to them, nothing for other rankers.
    """
    # A ranker says what it knows before each prediction, so each session gets one after its end.
    followed = Sessions.from_lists([[*one, 0] for one in sessions], ranker.n_items)
    last = torch.from_numpy(np.cumsum([len(one) for one in sessions]) - 1)
    fusion = ranker.fusion if isinstance(ranker, Reranked) else ranker
    if not isinstance(fusion, Fusion):
        return ranker.scores(ranker.states(followed)[last]).cpu(), {}
    own = {name: part.states(followed)[last] for name, part in fusion.asked.items()}
    of_parts = fusion.standardised(own)
    total = fusion.total(of_parts)
    if isinstance(ranker, Reranked):
        ranker.reranker.reorder(total, of_parts, prefixes(followed, N_STEPS)[last])
    return total, of_parts


@torch.inference_mode()
def golden_sessions(content: BundleContent, sessions: Sequence[Sequence[int]]) -> list[Golden]:
    """What the ranker recommends by `item_idx`, all sessions at once as in offline evaluation.

    To be reproduced by id and one by one when the bundle is loaded.
    """
    rows, _ = scores_after(content.ranker, [without_repeats(one) for one in sessions])
    golden = []
    for session, scores in zip(sessions, rows, strict=True):
        best, places = torch.topk(scores, min(_N_GOLDEN_ITEMS, int(torch.isfinite(scores).sum())))
        ids = [content.items[one].item_id for one in places.tolist()]
        golden.append(Golden([content.items[one].item_id for one in session], ids, best.tolist()))
    return golden


def without_repeats(item_idx: Sequence[int]) -> list[int]:
    """Steps as training sees them: an item repeated at once is one step."""
    return [*item_idx[:1], *(after for before, after in pairwise(item_idx) if before != after)]

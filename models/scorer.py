"""The one way from a session to ranked items; evaluation ranks with the same network functions.

Loading checks a bundle first (`models.bundle`), then that its golden sessions come out as they did
when it was written. Weights are memory-mapped, so worker processes share them.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from models.bundle import BundleContent, BundleCorrupt, Golden, Item, read_bundle
from models.gru4rec import GRU4Rec

__all__ = ["Item", "Ranked", "Ranking", "SessionScorer"]

GRU4REC, POPULARITY = "gru4rec", "popularity"
_TOLERANCE = 1e-3  # of golden scores: other CPUs round differently


@dataclass(frozen=True)
class Ranked:
    """One recommended item. `score` orders items of the same `source` only."""

    item_id: str
    score: float
    source: str


@dataclass(frozen=True)
class Ranking:
    """Recommended items, the best first.

    `source` is what answered: `popularity` where the model knows none of the session's items.
    `n_known` is how many steps of the session the model knows.
    """

    items: list[Ranked]
    source: str
    n_known: int


class SessionScorer:
    """A loaded model bundle, ready to recommend. Safe to share between threads."""

    def __init__(self, content: BundleContent) -> None:
        manifest = content.manifest
        self.name: str = manifest.name
        self.version: str = manifest.version
        self.created_at: datetime = manifest.created_at
        self.snapshot_id: str = manifest.snapshot_id
        self.metrics: dict[str, Any] = content.metrics.get("models", {}).get(GRU4REC, {})
        self.model: GRU4Rec = content.model
        self._items = content.items
        self._index = {item.item_id: item_idx for item_idx, item in enumerate(content.items)}
        self._fallbacks = content.fallbacks
        self._details = {item.item_id: item for item, _ in content.fallbacks}
        self._details.update((item.item_id, item) for item in content.items)
        by_category: dict[str, list[int]] = {}
        for item_idx, item in enumerate(content.items):
            if item.category is not None:
                by_category.setdefault(item.category, []).append(item_idx)
        self._categories = {name: torch.tensor(rows) for name, rows in by_category.items()}

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

    def item(self, item_id: str) -> Item | None:
        """What is known of an item that can be recommended."""
        return self._details.get(item_id)

    def recommend(
        self,
        session_items: Sequence[str],
        k: int,
        *,
        exclude: Collection[str] = (),
        category: str | None = None,
    ) -> Ranking:
        """The `k` items most likely next, or fewer where the filters leave fewer.

        `session_items` are the session's steps, oldest first; unknown ones are skipped. Items in
        `exclude` or outside `category` are not given. Where the model has too few left, popular
        items follow. Raises ValueError if `k` < 1.
        """
        if k < 1:
            raise ValueError(f"at least one item must be asked for, `k` is: {k}")
        known = [self._index[item_id] for item_id in session_items if item_id in self._index]
        ranked = self._by_model(known, k, exclude, category) if known else []
        if len(ranked) < k:
            taken = {*exclude, *(one.item_id for one in ranked)}
            ranked += self._by_popularity(k - len(ranked), taken, category)
        return Ranking(ranked, GRU4REC if known else POPULARITY, len(known))

    @torch.inference_mode()
    def scores(self, item_idx: Sequence[int], among: Tensor | None = None) -> Tensor:
        """Score of every item, or of those `among`, after a session of known items: (n_items,).

        The session needs at least one step.
        """
        hidden = self.model.zero_hidden(1)
        for current in _without_repeats(item_idx):
            hidden = self.model.advance(torch.tensor([current]), hidden)
        return self.model.scores(hidden[-1], among).squeeze(0)

    def _by_model(
        self, known: Sequence[int], k: int, exclude: Collection[str], category: str | None
    ) -> list[Ranked]:
        among = None
        if category is not None:
            among = self._categories.get(category)
            if among is None:
                return []
        scores = self.scores(known, among)
        excluded = {self._index[item_id] for item_id in exclude if item_id in self._index}
        best, places = torch.topk(scores, min(k + len(excluded), len(scores)))
        item_idx = places if among is None else among.index_select(0, places)
        ranked = [
            Ranked(self._items[one].item_id, score, GRU4REC)
            for score, one in zip(best.tolist(), item_idx.tolist(), strict=True)
            if one not in excluded
        ]
        return ranked[:k]

    def _by_popularity(
        self, n_items: int, taken: Collection[str], category: str | None
    ) -> list[Ranked]:
        ranked: list[Ranked] = []
        for item, score in self._fallbacks:
            if len(ranked) == n_items:
                break
            if item.item_id not in taken and (category is None or item.category == category):
                ranked.append(Ranked(item.item_id, score, POPULARITY))
        return ranked

    def verify_golden(self, golden: Sequence[Golden], folder: Path) -> None:
        """Compare with what the bundle's writer got. Raises BundleCorrupt."""
        for one in golden:
            known = [self._index[item_id] for item_id in one.items if item_id in self._index]
            if not known or any(item_id not in self._index for item_id in one.expected):
                raise BundleCorrupt(f"golden.json has items that the model lacks: {folder}")
            scores = self.scores(known)
            rows = torch.tensor([self._index[item_id] for item_id in one.expected])
            expected = torch.tensor(one.scores, dtype=scores.dtype)
            best = torch.topk(scores, len(rows)).values
            for found in (scores[rows], best):
                if not torch.allclose(found, expected, rtol=_TOLERANCE, atol=_TOLERANCE):
                    raise BundleCorrupt(
                        f"golden session {one.items} does not come out as when {folder} was "
                        f"written, expected scores {one.scores}, got: {found.tolist()}"
                    )


def golden_sessions(scorer: SessionScorer, sessions: Sequence[Sequence[str]]) -> list[Golden]:
    """What `scorer` recommends now, to be reproduced when its bundle is loaded."""
    golden = []
    for session in sessions:
        ranked = scorer.recommend(session, min(10, scorer.n_items)).items
        golden.append(
            Golden(list(session), [one.item_id for one in ranked], [one.score for one in ranked])
        )
    return golden


def _without_repeats(item_idx: Sequence[int]) -> list[int]:
    """Steps as training sees them: an item repeated at once is one step."""
    return [*item_idx[:1], *(after for before, after in pairwise(item_idx) if before != after)]

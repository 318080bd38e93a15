"""Several rankers as one: a weighted sum of their scores, each brought to the same scale first.

Scores of a network, of neighbours' votes and of rules have nothing in common but their order and
shape, so each is standardised over the catalogue, prediction by prediction, before it is weighted
(`models.standardised`).
Weights come from sessions that the parts were not trained on (`choose_weights`), never from those
that the fusion is judged by.

R predictions at a time, N items.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from models.dataset import Sessions
from models.evaluation import Ranker, mrr_at_k, pairs, ranks_in, recall_at_k
from models.standardised import Standardised, standardised_scores

Parts = Mapping[str, Ranker]
Weights = dict[str, float]

_COARSE, _FINE = 10, 20  # steps of a tenth, then of a twentieth round the best
_SCORES_AT_ONCE = 2_000_000
_MAX_SCORES = 40_000_000  # that weights are chosen by: bounds the time


@dataclass(frozen=True, eq=False)
class Fusion:
    """Ranks items by the weighted sum of its parts' standardised scores.

    Parts of weight 0 are not asked. An item that one of the others never recommends (-inf) is not
    recommended.
    """

    parts: Parts
    weights: Weights

    def __post_init__(self) -> None:
        if set(self.weights) != set(self.parts) or not any(self.weights.values()):
            raise ValueError(
                f"each of the parts {sorted(self.parts)} needs a weight and one of them must not "
                f"be 0, weights given: {self.weights}"
            )

    @cached_property
    def asked(self) -> dict[str, Ranker]:
        """The parts that count, by name."""
        return {name: part for name, part in self.parts.items() if self.weights[name]}

    @property
    def n_items(self) -> int:
        return next(iter(self.parts.values())).n_items

    def states(self, sessions: Sessions) -> Tensor:
        """The parts' states side by side, (n_predictions, columns), float64."""
        columns = [part.states(sessions).cpu() for part in self.asked.values()]
        n_rows = sessions.n_predictions
        return torch.cat([one.reshape(n_rows, -1).to(torch.float64) for one in columns], 1)

    def scores(self, states: Tensor) -> Tensor:
        """Weighted sum of standardised scores, (R, N), float32."""
        return self.total(self.of_parts(states))

    def of_parts(self, states: Tensor) -> dict[str, Standardised]:
        """What each part adds to the scores; `states` are those that `states` gives."""
        own, start = {}, 0
        for name, like in self._likes.items():
            end = start + math.prod(like.shape[1:])
            own[name] = states[:, start:end].to(like.dtype).reshape(-1, *like.shape[1:])
            start = end
        return self.standardised(own)

    def standardised(self, states: Mapping[str, Tensor]) -> dict[str, Standardised]:
        """What each part adds to the scores; `states` has the own states of those `asked`."""
        return {
            name: standardised_scores(part, states[name], self.weights[name])
            for name, part in self.asked.items()
        }

    def total(self, of_parts: Mapping[str, Standardised]) -> Tensor:
        """The scores that `standardised` parts add up to, (R, N), float32."""
        first = next(iter(of_parts.values()))
        total = torch.zeros(first.n_rows, self.n_items)
        for one in of_parts.values():
            one.add_to(total)
        return total

    @cached_property
    def _likes(self) -> dict[str, Tensor]:
        """States of no prediction: type and columns of each part's."""
        nothing = Sessions.from_lists([], self.n_items)
        return {name: part.states(nothing) for name, part in self.asked.items()}


def choose_weights(parts: Parts, sessions: Sessions) -> Weights:
    """The weights, adding up to 1, with which the parts do best on `sessions`.

    `sessions` must be unknown to the parts. Best is the greatest product of recall@20 and mrr@20
    with the current item not recommended; among equals the weights nearest to the first part's
    own ranking. Of very many predictions the latest are used. Raises ValueError without any.
    """
    scored = _Scored(parts, sessions)
    coarse = scored.best(_simplex(len(parts), _COARSE))
    around = [
        weights
        for weights in _simplex(len(parts), _FINE)
        if max(abs(one - other) for one, other in zip(weights, coarse, strict=True)) < 1 / _COARSE
    ]
    return dict(zip(parts, scored.best(around), strict=True))


class _Scored:
    """The parts' standardised scores of some predictions, to be weighted in many ways."""

    def __init__(self, parts: Parts, sessions: Sessions) -> None:
        current, target = pairs(sessions)
        n_items = self._n_items = next(iter(parts.values())).n_items
        latest = slice(-max(1, _MAX_SCORES // n_items), None)
        self._current, self._target = current[latest], target[latest]
        self._n_rows = max(1, _SCORES_AT_ONCE // n_items)
        states = [(part, part.states(sessions)[latest].cpu()) for part in parts.values()]
        self._scores = [
            [standardised_scores(part, own[rows]) for part, own in states] for rows in self._rows()
        ]

    def best(self, candidates: list[tuple[float, ...]]) -> tuple[float, ...]:
        """The candidate of the best figures, the first among equals."""
        return max(candidates, key=self._quality)

    def _quality(self, weights: tuple[float, ...]) -> float:
        ranks = []
        for rows, scores in zip(self._rows(), self._scores, strict=True):
            total = torch.zeros(scores[0].n_rows, self._n_items)
            for weight, one in zip(weights, scores, strict=True):
                if weight:
                    one.times(weight).add_to(total)
            ranks.append(ranks_in(total, self._current[rows], self._target[rows])[2])
        served = torch.cat(ranks) if ranks else self._target[:0]
        return recall_at_k(served, 20) * mrr_at_k(served, 20)

    def _rows(self) -> Iterator[slice]:
        for start in range(0, len(self._target), self._n_rows):
            yield slice(start, start + self._n_rows)


def _simplex(n_parts: int, n_steps: int) -> list[tuple[float, ...]]:
    """All weights in steps of 1 / `n_steps` that add up to 1, those of the first part falling."""

    def shares(n_left: int, left: int) -> Iterator[tuple[int, ...]]:
        if n_left == 1:
            yield (left,)
            return
        for share in range(left, -1, -1):
            for others in shares(n_left - 1, left - share):
                yield (share, *others)

    return [tuple(share / n_steps for share in one) for one in shares(n_parts, n_steps)]

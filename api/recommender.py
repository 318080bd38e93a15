"""From a session to a recommendation: the champion's ranking, or popularity, said in the reply."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal
from uuid import uuid4

import msgspec

from api.catalogue import Catalogue, CatalogueHolder
from api.champion import Champion, ChampionHolder
from api.errors import Refused
from api.metrics import Metrics
from api.seldom import Seldom
from ingest.outbox import Outbox
from ingest.outbox_file import OutboxBroken
from models.ranking import Query, Ranking
from warehouse.settings import Settings

logger = logging.getLogger(__name__)

FallbackReason = Literal[
    "unknown_session",
    "unknown_items",
    "empty_session",
    "no_champion_model",
    "session_unavailable",
]
_MESSAGES: dict[FallbackReason, str] = {
    "unknown_session": "nothing has been seen of this session yet, these are popular items",
    "unknown_items": "the model knows none of this session's items, these are popular items",
    "empty_session": "the session has no items, these are popular items",
    "no_champion_model": "no model is in service yet, these are popular items; "
    "run `shallop refresh`",
    "session_unavailable": "the session could not be read, see /status; "
    "these follow the items of the request alone",
}
POPULARITY = "popularity"
# Why an item is recommended, by the part of the model that speaks most for it; of the latest item.
_REASONS = {
    "gru4rec": "shoppers who viewed {} next looked at this",
    "vmis-knn": "in sessions like this one with {} shoppers looked at this too",
    "sequential-rules": "often looked at soon after {}",
}


class RecommendedItem(msgspec.Struct):
    """One recommendation; `rank` 1 is best, `source` is what ranked it, `reason` is for people."""

    item_id: str
    title: str | None
    category: str | None
    price: float | None
    score: float
    rank: int
    source: str
    reason: str


class Fallback(msgspec.Struct):
    """Why the model's own ranking for the session is not what is replied."""

    reason: FallbackReason
    message: str


class RecommendReply(msgspec.Struct):
    """A recommendation; send `recommendation_id` with the events that it leads to.

    `model` is what ranks in `model_version`: `reranked`, `fusion`, or `gru4rec` alone; `popularity`
    where no model serves, the version is then that of the data.
    """

    recommendation_id: str
    session: str | None
    placement: str | None
    model: str
    model_version: str
    variant: str | None
    fallback: Fallback | None
    items: list[RecommendedItem]


@dataclass(frozen=True)
class RecommendRequest:
    """One request; `items`, where not None, stand for the session's recorded steps.

    With `is_own_session` the session is known by its own id alone, not by its visitor's.
    """

    session: str | None
    k: int
    item: str | None
    items: list[str] | None
    exclude: list[str]
    category: str | None
    placement: str | None
    price_min: float | None = None
    price_max: float | None = None
    is_own_session: bool = False


@dataclass(frozen=True)
class _Seen:
    """A request, its session's items, oldest first, and why there are none."""

    request: RecommendRequest
    steps: list[str]
    trouble: FallbackReason | None


class Recommender:
    """Answers requests from whichever model serves at that moment."""

    def __init__(
        self,
        champion: ChampionHolder,
        catalogue: CatalogueHolder,
        outbox: Outbox,
        settings: Settings,
        metrics: Metrics,
    ) -> None:
        self._champion = champion
        self._catalogue = catalogue
        self._outbox = outbox
        self._exclude = settings.serving.exclude
        self._max_steps = settings.ingest.session_max_steps
        self._metrics = metrics
        self._seldom = Seldom()

    def recommend_each(
        self, requests: Sequence[RecommendRequest]
    ) -> list[RecommendReply | Exception]:
        """The reply to each request, scored together; Refused where nothing can answer."""
        seen = [_Seen(request, *self._steps(request)) for request in requests]
        champion, catalogue = self._champion.current, self._catalogue.current
        excluded = [self._excluded(one.request, one.steps) for one in seen]
        replies: list[RecommendReply | Exception]
        if champion is not None:
            replies = [*_from_champion(champion, seen, excluded)]
        elif catalogue is not None and len(catalogue):
            replies = [
                _from_catalogue(catalogue, one.request, without)
                for one, without in zip(seen, excluded, strict=True)
            ]
        else:
            return [_nothing_to_recommend_from() for _ in requests]
        for reply in replies:
            self._count(reply)
        return replies

    def _count(self, reply: RecommendReply | Exception) -> None:
        if isinstance(reply, RecommendReply):
            source = reply.items[0].source if reply.items else "none"
            reason = reply.fallback.reason if reply.fallback else "none"
            self._metrics.recommendations.labels(source, reason).inc()

    def _steps(self, request: RecommendRequest) -> tuple[list[str], FallbackReason | None]:
        """The session's items, oldest first, and why there are none where there are none."""
        trouble: FallbackReason | None = None
        if request.items is not None:
            steps = request.items[-self._max_steps :]
            trouble = None if steps else "empty_session"
        elif request.session is not None:
            try:
                steps = self._outbox.session_steps(
                    request.session, by_visitor=not request.is_own_session
                )
                trouble = None if steps else "unknown_session"
            except OutboxBroken as error:
                if self._seldom.is_due("session_unavailable"):
                    logger.error("session_unavailable error=%r", str(error))
                steps, trouble = [], "session_unavailable"
        else:
            steps = []
        if request.item is not None and steps[-1:] != [request.item]:
            steps.append(request.item)
            trouble = trouble if trouble == "session_unavailable" else None
        return steps, trouble

    def _excluded(self, request: RecommendRequest, steps: list[str]) -> set[str]:
        excluded = set(request.exclude)
        if self._exclude == "session":
            excluded.update(steps)
        elif self._exclude == "current":
            excluded.update(steps[-1:])
        return excluded


def _nothing_to_recommend_from() -> Refused:
    return Refused(
        503,
        "no_model",
        "there is neither a champion model nor a mart to recommend from",
        remedy="run `shallop refresh` once events have come in",
        headers={"Retry-After": "30"},
    )


def _from_champion(
    champion: Champion, seen: Sequence[_Seen], excluded: Sequence[set[str]]
) -> list[RecommendReply]:
    queries = [
        Query(
            one.steps, one.request.k, without, one.request.category, one.request.price_min,
            one.request.price_max,
        )
        for one, without in zip(seen, excluded, strict=True)
    ]  # fmt: skip
    rankings = champion.scorer.recommend_each(queries)
    return [_reply(champion, one, found) for one, found in zip(seen, rankings, strict=True)]


def _reply(champion: Champion, seen: _Seen, ranking: Ranking) -> RecommendReply:
    scorer, request, trouble = champion.scorer, seen.request, seen.trouble
    if trouble is None and ranking.n_known == 0:
        trouble = "unknown_items"
    return RecommendReply(
        recommendation_id=str(uuid4()),
        session=request.session,
        placement=request.placement,
        model=scorer.source,
        model_version=scorer.version,
        variant="champion",
        fallback=Fallback(trouble, _MESSAGES[trouble]) if trouble else None,
        items=_described(champion, ranking, seen.steps, request.category),
    )


def _described(
    champion: Champion, ranking: Ranking, steps: list[str], category: str | None
) -> list[RecommendedItem]:
    scorer = champion.scorer
    popular = _popular_reason(category)
    last = next((item for item_id in reversed(steps) if (item := scorer.item(item_id))), None)
    because = _REASONS if last is not None else {}
    name = (last.title or last.item_id) if last else ""
    items = []
    for rank, ranked in enumerate(ranking.items, start=1):
        item = scorer.item(ranked.item_id)
        items.append(
            RecommendedItem(
                ranked.item_id,
                item.title if item else None,
                item.category if item else None,
                item.price if item else None,
                ranked.score,
                rank,
                ranked.source,
                because[ranked.source].format(name) if ranked.source in because else popular,
            )
        )
    return items


def _from_catalogue(
    catalogue: Catalogue, request: RecommendRequest, excluded: set[str]
) -> RecommendReply:
    reason = _popular_reason(request.category)
    popular = catalogue.popular(
        request.k, excluded, request.category, request.price_min, request.price_max
    )
    return RecommendReply(
        recommendation_id=str(uuid4()),
        session=request.session,
        placement=request.placement,
        model=POPULARITY,
        model_version=catalogue.snapshot_id,
        variant=None,
        fallback=Fallback("no_champion_model", _MESSAGES["no_champion_model"]),
        items=[
            RecommendedItem(
                item.item_id, item.title, item.category, item.price, score, rank, POPULARITY, reason
            )
            for rank, (item, score) in enumerate(popular, start=1)
        ],
    )


def _popular_reason(category: str | None) -> str:
    return f"popular in {category}" if category else "popular in the shop"

"""What a candidate is made of, and its figures on the hold-out beside those of its rivals."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from torch import Tensor

from models.comparison import against_champion, bounds, difference
from models.dataset import Sessions
from models.evaluation import Ranker, Ranks, figures_of, rank_targets
from models.fusion import Fusion
from models.fusion_file import GRU4REC
from models.item_tables import Item
from models.recipe import Weighting, ranker_of
from models.reranker import Reranked, Reranker
from models.rivals import GATE_RIVALS, RIVALS
from models.scorer import FUSION, RERANKED, SessionScorer
from models.split import Split
from models.training import Trained
from warehouse.settings import TrainingSettings


@dataclass(frozen=True, eq=False)
class Made:
    """What serves, its network with the log of its training, and the sessions it was made from."""

    ranker: Ranker
    trained: Trained
    sessions: Sessions

    @property
    def fusion(self) -> Fusion | None:
        """The fusion in it, None where GRU4Rec ranks alone."""
        if isinstance(self.ranker, Reranked):
            return self.ranker.fusion
        return self.ranker if isinstance(self.ranker, Fusion) else None

    @property
    def reranker(self) -> Reranker | None:
        """What reorders the fusion's best, None where nothing does."""
        return self.ranker.reranker if isinstance(self.ranker, Reranked) else None

    @property
    def stages(self) -> dict[str, Ranker]:
        """What serves, and what it would be with less to it, by name."""
        found: dict[str, Ranker] = {}
        if self.reranker is not None:
            found[RERANKED] = self.ranker
        if self.fusion is not None:
            found[FUSION] = self.fusion
        return {**found, GRU4REC: self.trained.model}


def made_of(
    trained: Trained, sessions: Sessions, weighting: Weighting | None, items: Sequence[Item]
) -> Made:
    """What serves by this weighting, made from `sessions`; `items` are by `item_idx`."""
    if weighting is None:
        return Made(trained.model, trained, sessions)
    return Made(ranker_of(trained.model, sessions, weighting, items), trained, sessions)


def judged(
    split: Split, made: Made, weighting: Weighting | None, training: TrainingSettings,
    champion: SessionScorer | None,
) -> tuple[dict[str, Any], Tensor]:  # fmt: skip
    """Figures of the model and its rivals on the hold-out; and the model's ranks as served."""
    ranks: dict[str, Ranks] = {
        name: rank_targets(ranker, split.holdout) for name, ranker in made.stages.items()
    }
    served = next(iter(ranks))
    for name in GATE_RIVALS:  # one at a time: an index may be large
        ranks[name] = rank_targets(RIVALS[name](split.train), split.holdout)
    ours = ranks[served].served
    # What re-ranks must hold against what it is put upon, too.
    rivals = (*GATE_RIVALS, FUSION) if served == RERANKED else GATE_RIVALS
    reranking = weighting.reranking if weighting else None
    details = {
        "served": served,
        "models": {name: figures_of(found) for name, found in ranks.items()},
        "intervals": {
            name: bounds(found.conservative, split.holdout, training.seed)
            for name, found in ranks.items()
        },
        "differences": {
            name: difference(ours, ranks[name].served, split.holdout, training.seed)
            for name in rivals
        },
        "champion": champion and _against(champion, ours, split, training.seed),
        "fusion": weighting and {
            "weights": weighting.weights,
            "is_chosen": weighting.is_chosen,
            "n_predictions": weighting.n_predictions,
            "until": weighting.until and iso(weighting.until),
        },
        "reranking": reranking and reranking.details,
        "holdout": {
            "cut_at": iso(split.cut_at),
            "train_until": iso(split.train_until),
            "holdout_from": iso(split.holdout_from),
            "n_train_sessions": len(split.train),
            "n_train_steps": split.train.n_steps,
            "n_sessions": len(split.holdout),
            "n_predictions": split.holdout.n_predictions,
            "min_predictions": training.min_holdout_steps,
            "n_unseen": split.n_unseen,
        },
    }  # fmt: skip
    return details, ours


def _against(champion: SessionScorer, ours: Tensor, split: Split, seed: int) -> dict[str, Any]:
    """The champion on what it never saw."""
    unseen = split.holdout_after(champion.trained_until)
    return against_champion(ours, champion, unseen, split.catalogue.item_ids, seed)


def iso(moment: datetime) -> str:
    """ISO time with microseconds always, so that text compares as time does."""
    return moment.isoformat(timespec="microseconds")

"""How what serves is made: GRU4Rec and its companions, weighted by later sessions of training.

The weights are chosen on the latest sessions of the training data, with parts that never saw them,
and kept when the parts are trained again on all of it. What the fusion is judged by later has no
part in this. The same data and seed give the same weights.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from models.dataset import NotEnoughData, Sessions, Steps
from models.fusion import Parts, Weights, choose_weights
from models.fusion_file import GRU4REC
from models.gru4rec import GRU4Rec
from models.rivals import RIVALS
from models.split import Split, temporal_split

VMIS, RULES = "vmis-knn", "sequential-rules"
COMPANIONS = (VMIS, RULES)
VALIDATION_SHARE = 0.1  # of the training sessions, the latest
# Between the weights chosen on three real shops (DECISIONS.md), where there are too few sessions.
DEFAULT_WEIGHTS: Weights = {GRU4REC: 0.7, VMIS: 0.2, RULES: 0.1}


@dataclass(frozen=True)
class Weighting:
    """The weights, and the sessions that they were chosen by.

    `is_chosen` is false where there were too few predictions and the weights are the default.
    `until` is the last step that had a say.
    """

    weights: Weights
    is_chosen: bool
    n_predictions: int
    until: datetime | None


def parts_of(model: GRU4Rec, sessions: Sessions) -> Parts:
    """GRU4Rec and its companions, all made from `sessions`."""
    return {GRU4REC: model, **{name: RIVALS[name](sessions) for name in COMPANIONS}}


def weighted(
    steps: Steps,
    learn: Callable[[Split], GRU4Rec],
    *,
    min_item_support: int = 5,
    min_session_steps: int = 2,
    min_predictions: int = 1,
) -> Weighting:
    """The weights by the latest sessions of `steps`, with parts trained on those before.

    `learn` gives the network that the training part of a split teaches.
    """
    try:
        split = temporal_split(
            steps, VALIDATION_SHARE, min_item_support=min_item_support,
            min_session_steps=min_session_steps,
        )  # fmt: skip
    except NotEnoughData:
        return Weighting(DEFAULT_WEIGHTS, False, 0, None)
    n_predictions = split.holdout.n_predictions
    if n_predictions < min_predictions or not split.train.n_predictions:
        return Weighting(DEFAULT_WEIGHTS, False, n_predictions, None)
    weights = choose_weights(parts_of(learn(split), split.train), split.holdout)
    return Weighting(weights, True, n_predictions, split.holdout_until)

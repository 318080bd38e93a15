"""The split in time that keeps the future out of training."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np

from models.dataset import Catalogue, NotEnoughData, Sessions, Steps, moment_of

_US_PER_DAY = 86_400_000_000


@dataclass(frozen=True, eq=False)
class Split:
    """Sessions before the cut to learn from, later ones to judge by.

    `n_unseen` counts hold-out steps left out because training does not know their item.
    `train_until` is the last step trained on, `holdout_from` and `holdout_until` are the first and
    the last one judged by. `train` and `holdout` are the sessions of the steps beside them.
    """

    catalogue: Catalogue
    train: Sessions
    holdout: Sessions
    cut_at: datetime
    train_until: datetime
    holdout_from: datetime
    holdout_until: datetime
    n_unseen: int
    train_steps: Steps
    holdout_steps: Steps

    def holdout_after(self, moment: datetime) -> Sessions:
        """The hold-out sessions that began after `moment`, the last ones of `holdout`."""
        first, _ = self.holdout_steps.starts()
        began_us = np.sort(self.holdout_steps.time_us[first])
        n_before = int(np.searchsorted(began_us, _microseconds(moment), side="right"))
        return self.holdout.latest(len(self.holdout) - n_before)


def temporal_split(
    steps: Steps,
    holdout_share: float,
    *,
    min_item_support: int = 5,
    min_session_steps: int = 2,
    window_days: int | None = None,
) -> Split:
    """Hold out the latest `holdout_share` of sessions, by the time of their first step.

    No step at or after the cut is trained on, also not the end of a session begun before it.
    Raises NotEnoughData when either side is left without a session.
    """
    if not 0 < holdout_share < 1:
        raise ValueError(f"holdout_share must lie between 0 and 1, it is: {holdout_share}")
    steps = steps if window_days is None else latest_days(steps, window_days)
    steps = steps.collapsed().long_sessions(2)
    first, row_session = steps.starts()
    if len(first) < 2:
        raise NotEnoughData(f"a split needs two sessions of two steps, there are: {len(first)}")
    started_us = steps.time_us[first]
    n_holdout = max(1, round(len(first) * holdout_share))
    cut_us = int(np.sort(started_us)[len(first) - n_holdout])
    is_late = (started_us >= cut_us)[row_session]
    train = steps.keep(~is_late & (steps.time_us < cut_us))
    train = train.filtered(min_item_support, min_session_steps)
    catalogue = train.catalogue()
    holdout, n_unseen = steps.keep(is_late).known_to(catalogue)
    holdout = holdout.collapsed().long_sessions(2)
    if not len(train) or not len(holdout):
        raise NotEnoughData(
            "no sessions left to train on or to judge by; collect more events or lower "
            "SHALLOP_TRAINING__MIN_ITEM_SUPPORT. Steps left for training and for judging: "
            f"{len(train)}, {len(holdout)}"
        )
    return Split(
        catalogue=catalogue,
        train=train.sessions(catalogue),
        holdout=holdout.sessions(catalogue),
        cut_at=moment_of(cut_us),
        train_until=train.until,
        holdout_from=moment_of(int(holdout.time_us.min())),
        holdout_until=holdout.until,
        n_unseen=n_unseen,
        train_steps=train,
        holdout_steps=holdout,
    )


def latest_days(steps: Steps, window_days: int) -> Steps:
    """The sessions that began within `window_days` of the last step."""
    if not len(steps):
        return steps
    first, row_session = steps.starts()
    since = int(steps.time_us.max()) - window_days * _US_PER_DAY
    return steps.keep((steps.time_us[first] >= since)[row_session])


def _microseconds(moment: datetime) -> int:
    return (moment - datetime.fromtimestamp(0, UTC)) // timedelta(microseconds=1)

"""What is known of each item besides its scores: how popular it is and was, category, price.

Fixed when a model is made, and kept in its bundle. The age of a step counts in later sessions, not
in days: that passes slowly at night and fast in a sale. N items.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models.arrays import Singles
from models.dataset import Sessions
from models.item_tables import Item

UNKNOWN_CATEGORY = -1
UNKNOWN_PRICE = -1000.0  # below every logarithm of a price
_HALF_LIVES = (1 / 60, 1 / 12)  # of the training sessions
_LEAST = 0.1  # steps: no popularity is the logarithm of 0


@dataclass(frozen=True, eq=False)
class ItemStatistics:
    """By `item_idx`, (N,) each, float32 but `category`.

    `popularity` is ln(1 + steps); `lately` and `recently` are ln(0.1 + steps), a step counting half
    after every 60th or 12th of the training sessions. `category` numbers equal categories alike,
    int32, -1 where unknown; `log_price` is UNKNOWN_PRICE where unknown or not above 0.
    """

    popularity: Singles
    lately: Singles
    recently: Singles
    category: npt.NDArray[np.int32]
    log_price: Singles

    @classmethod
    def of(cls, train: Sessions, items: Sequence[Item] | None = None) -> "ItemStatistics":
        """Of the items of `train`; `items` are what the shop says of them, by `item_idx`."""
        session = np.repeat(np.arange(len(train)), train.lengths)
        age = (len(train) - 1 - session) / max(1, len(train))
        faded = [
            np.bincount(train.item_idx, 0.5 ** (age / half_life), minlength=train.n_items)
            for half_life in _HALF_LIVES
        ]
        details = items or [Item("")] * train.n_items
        return cls(
            popularity=np.log1p(train.support()).astype(np.float32),
            lately=np.log(_LEAST + faded[0]).astype(np.float32),
            recently=np.log(_LEAST + faded[1]).astype(np.float32),
            category=_codes([item.category for item in details]),
            log_price=_log_prices([item.price for item in details]),
        )


def _codes(categories: Sequence[str | None]) -> npt.NDArray[np.int32]:
    known = sorted({one for one in categories if one})
    place = {name: code for code, name in enumerate(known)}
    codes = [UNKNOWN_CATEGORY if not one else place[one] for one in categories]
    return np.asarray(codes, dtype=np.int32)


def _log_prices(prices: Sequence[float | None]) -> Singles:
    known = np.asarray([one if one and one > 0 else np.nan for one in prices], dtype=np.float64)
    return np.where(np.isnan(known), UNKNOWN_PRICE, np.log(known)).astype(np.float32)

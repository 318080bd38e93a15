"""What is known about each prediction besides its score, to look at parts of them apart.

A column gives each prediction one of a few labels; what the data does not hold is named with the
reason instead of being left out in silence.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from models.arrays import Ints
from models.dataset import Catalogue, Sessions, Steps
from warehouse.contracts import DEVICES

_NEW_DAYS = 7
_MOST_CATEGORIES = 10
_US_PER_DAY = 86_400_000_000
_US_PER_HOUR = 3_600_000_000
_STEPS = ((2, "2"), (3, "3"), (5, "4–5"), (10, "6–10"), (None, "11 and more"))
_PLACES = ((1, "1"), (2, "2"), (4, "3–4"), (9, "5–9"), (None, "10 and more"))
_OUTCOMES = {"view_item": "looked at", "add_to_cart": "put into the cart", "purchase": "bought"}


@dataclass(frozen=True, eq=False)
class Column:
    """A label for each prediction: `labels[codes[i]]`; `codes` is (P,)."""

    codes: Ints
    labels: list[str]


@dataclass(frozen=True, eq=False)
class Context:
    """Columns by name, the reasons for those that are not there, and what the session bought.

    `is_bought` (P,) says whether the session buys the target, at that step or later; None where the
    data does not say.
    """

    columns: dict[str, Column]
    absent: dict[str, str]
    is_bought: npt.NDArray[np.bool_] | None = None


def context_of(
    train: Sessions,
    held_out: Sessions,
    steps: Steps,
    first_seen_us: Ints,
    *,
    table: pa.Table | None = None,
    sessions: pa.Table | None = None,
    categories: Sequence[str | None] | None = None,
    prices: Sequence[float | None] | None = None,
) -> Context:
    """The context of the predictions of `held_out`, made by `steps.sessions(catalogue)`.

    `first_seen_us`, `categories` and `prices` are by `item_idx`; `table` is the mart that `steps`
    was read from, for what its rows say of each step, `sessions` the mart of that name.
    """
    rows = steps.session_rows()
    target = held_out.target_rows()
    item = held_out.item_idx[target].astype(np.int64)
    time_us = steps.time_us[rows][target]
    length = np.repeat(held_out.lengths, np.maximum(held_out.lengths - 1, 0))
    session = np.repeat(np.arange(len(held_out)), np.maximum(held_out.lengths - 1, 0))
    columns = {
        "session length": _banded(length, _STEPS),
        "steps seen before": _banded(target - held_out.offsets[session], _PLACES),
        "popularity of the item": _deciles(train.support(), item),
        "age of the item": _ages(first_seen_us[item], time_us),
        "hour of the day (UTC)": _hours(time_us),
    }
    absent: dict[str, str] = {}
    devices = _devices(table, sessions, steps.row[rows][target])
    if devices is None:
        absent["device"] = "the sessions do not say"
    else:
        columns["device"] = devices
    if categories is not None and any(categories):
        columns["category"] = _categories(categories, item)
        current = held_out.item_idx[target - 1].astype(np.int64)
        columns["category beside the current item's"] = _beside(categories, current, item)
    else:
        absent["category"] = "no item has one"
    known = [price for price in prices or () if price is not None]
    if prices is not None and len(set(known)) > 1:
        columns["price"] = _prices(prices, item)
    else:
        absent["price"] = "no two prices are known"
    is_bought = None
    outcomes = _outcomes(table, steps.row[rows][target])
    if outcomes is None:
        absent["what became of it"] = "the steps do not say what was bought"
    else:
        columns["what became of it"] = outcomes
        is_bought = outcomes.codes == 2
    return Context(columns, absent, is_bought)


def first_seen(steps: Steps, catalogue: Catalogue) -> Ints:
    """Microsecond of the first step of each item of `catalogue`, (n_items,)."""
    first = np.full(len(steps.item_ids), np.iinfo(np.int64).max)
    np.minimum.at(first, steps.item, steps.time_us)
    place = {item_id: code for code, item_id in enumerate(steps.item_ids)}
    return first[[place[item_id] for item_id in catalogue.item_ids]]


def _banded(values: Ints, bands: Sequence[tuple[int | None, str]]) -> Column:
    """Bands by their greatest value, the last one open."""
    greatest = [band for band, _ in bands if band is not None]
    return Column(np.searchsorted(greatest, values).astype(np.int64), [name for _, name in bands])


def _deciles(support: Ints, item: Ints) -> Column:
    """Tenths of the catalogue by training support, the most popular first."""
    order = np.argsort(-support, kind="stable")
    tenth = np.empty(len(support), dtype=np.int64)
    tenth[order] = np.arange(len(support)) * 10 // max(1, len(support))
    labels = ["1st tenth", "2nd tenth", "3rd tenth"]
    return Column(tenth[item], labels + [f"{number}th tenth" for number in range(4, 11)])


def _ages(first_seen_us: Ints, time_us: Ints) -> Column:
    is_new = time_us - first_seen_us < _NEW_DAYS * _US_PER_DAY
    labels = [f"first seen within {_NEW_DAYS} days", "known for longer"]
    return Column(np.where(is_new, 0, 1).astype(np.int64), labels)


def _hours(time_us: Ints) -> Column:
    hour = time_us // _US_PER_HOUR % 24
    return Column(hour // 3, [f"{first:02d}–{first + 3:02d}" for first in range(0, 24, 3)])


def _categories(categories: Sequence[str | None], item: Ints) -> Column:
    """The categories met most often, the others as one, items without any as another."""
    names, code = np.unique([name or "" for name in categories], return_inverse=True)
    met = np.bincount(code[item], minlength=len(names))
    met[names == ""] = -1
    kept = np.argsort(-met, kind="stable")[:_MOST_CATEGORIES]
    kept = kept[met[kept] > 0]
    place = np.full(len(names), len(kept))
    place[kept] = np.arange(len(kept))
    place[names == ""] = len(kept) + 1
    labels = [str(names[one]) for one in kept] + ["other categories", "no category"]
    return Column(place[code[item]].astype(np.int64), labels)


def _beside(categories: Sequence[str | None], current: Ints, item: Ints) -> Column:
    """Substitutes are of the same category as a rule, complements of another."""
    names, code = np.unique([name or "" for name in categories], return_inverse=True)
    is_unknown = (names[code[current]] == "") | (names[code[item]] == "")
    found = np.where(code[current] == code[item], 0, 1)
    return Column(
        np.where(is_unknown, 2, found).astype(np.int64), ["the same", "another", "not known"]
    )


def _prices(prices: Sequence[float | None], item: Ints) -> Column:
    """Fifths of the items that have a price, the cheapest first."""
    price = np.array([np.nan if one is None else one for one in prices])
    edges = np.unique(np.nanquantile(price, (0.2, 0.4, 0.6, 0.8)))
    code = np.where(np.isnan(price), len(edges) + 1, np.searchsorted(edges, price))
    shown = [f"{edge:,.2f}" for edge in edges]
    labels = [f"to {shown[0]}"]
    labels += [f"{low}–{high}" for low, high in pairwise(shown)]
    return Column(code[item].astype(np.int64), [*labels, f"above {shown[-1]}", "no price"])


def _devices(table: pa.Table | None, sessions: pa.Table | None, rows: Ints) -> Column | None:
    """The device of each target's session; None where no session of them has any recorded."""
    if table is None or sessions is None:
        return None
    of_target = table["session_id"].take(pa.array(rows))
    at = pc.index_in(of_target, value_set=sessions["session_id"].combine_chunks())
    names = sessions["device"].take(at)
    if names.null_count == len(names):
        return None
    codes = pc.index_in(names.fill_null(DEVICES[-1]), value_set=pa.array(DEVICES))
    return Column(codes.to_numpy().astype(np.int64), list(DEVICES))


def _outcomes(table: pa.Table | None, rows: Ints) -> Column | None:
    """The most that the session does with each target, from that step on."""
    if table is None or "outcome" not in table.schema.names:
        return None
    names = table["outcome"].take(pa.array(rows)).to_pylist()
    order = list(_OUTCOMES)
    if any(name not in order for name in names):
        return None
    codes = np.array([order.index(name) for name in names], dtype=np.int64)
    return Column(codes, list(_OUTCOMES.values()))

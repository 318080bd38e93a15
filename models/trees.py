"""An ensemble of small regression trees, evaluated from arrays without the library that grew it.

A tree of at most MAX_LEAVES leaves has so few nodes that all of them are compared at once: the
outcomes, one bit a node, are an index into a table of the tree's values. After QuickScorer
(Lucchese et al., SIGIR 2015), whose masks are worked out beforehand here.

R rows, F features, T trees.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from models.arrays import Singles

MAX_LEAVES = 8
_SLOTS = MAX_LEAVES - 1  # nodes
_CODES = 1 << _SLOTS
_UNUSED = np.finfo(np.float32).max
_ROWS_AT_ONCE = 256  # what is worked on stays in the cache


@dataclass(frozen=True, eq=False)
class Trees:
    """`feature` and `threshold` of the nodes are (T, 7), the greatest float32 for unused ones.

    `value` is (T, 128): what a tree gives where bit i says whether node i's feature exceeds its
    threshold. All are float32 but `feature`, which is int16.
    """

    feature: npt.NDArray[np.int16]
    threshold: Singles
    value: Singles

    @classmethod
    def empty(cls, n_trees: int) -> "Trees":
        """Trees that give 0."""
        return cls(
            np.zeros((n_trees, _SLOTS), dtype=np.int16),
            np.full((n_trees, _SLOTS), _UNUSED, dtype=np.float32),
            np.zeros((n_trees, _CODES), dtype=np.float32),
        )

    def __len__(self) -> int:
        return len(self.feature)

    @cached_property
    def low(self) -> float:
        """What the trees cannot fall below."""
        return float(self.value.min(1).sum(dtype=np.float64)) if len(self) else 0.0

    @cached_property
    def high(self) -> float:
        """What the trees cannot exceed."""
        return float(self.value.max(1).sum(dtype=np.float64)) if len(self) else 0.0

    def __call__(self, rows: Singles) -> Singles:
        """Sum of the trees' values for each of `rows`, (R, F) to (R,)."""
        total = np.zeros(len(rows), dtype=np.float32)
        if len(self):
            for start in range(0, len(rows), _ROWS_AT_ONCE):
                part = slice(start, start + _ROWS_AT_ONCE)
                total[part] = self._sums(np.ascontiguousarray(rows[part].T))
        return total

    def _sums(self, columns: Singles) -> npt.NDArray[np.float64]:
        """Of rows given as `columns`, (F, R)."""
        features, thresholds, values, first = self._flat
        exceeds = columns.take(features, axis=0) > thresholds
        bits = exceeds.view(np.uint8).reshape(_SLOTS, len(self), -1)
        code = bits[0].copy()
        for slot in range(1, _SLOTS):
            code |= bits[slot] << slot
        sums: npt.NDArray[np.float64] = values.take(code + first).sum(0, dtype=np.float64)
        return sums

    @cached_property
    def _flat(self) -> tuple[npt.NDArray[np.int16], Singles, Singles, npt.NDArray[np.int64]]:
        """Features and thresholds slot by slot, all values, and the first value of each tree."""
        first = np.arange(len(self))[:, None] * _CODES
        thresholds = np.ascontiguousarray(self.threshold.T).reshape(-1, 1)
        return self.feature.T.ravel(), thresholds, self.value.ravel(), first

    @property
    def used(self) -> list[int]:
        """The features that any node looks at, ascending."""
        return sorted({int(one) for one in self.feature[self.threshold < _UNUSED]})

    def first(self, n_trees: int) -> "Trees":
        """The first `n_trees` of them."""
        return Trees(self.feature[:n_trees], self.threshold[:n_trees], self.value[:n_trees])

    def renumbered(self, kept: list[int]) -> "Trees":
        """The same trees for rows that have only the features `kept`, in their order."""
        place = np.zeros(max(kept, default=0) + 1, dtype=np.int16)
        place[kept] = np.arange(len(kept))
        is_used = self.threshold < _UNUSED
        feature = np.where(is_used, place[np.where(is_used, self.feature, 0)], 0)
        return Trees(feature.astype(np.int16), self.threshold, self.value)


def from_lightgbm(dump: Mapping[str, Any], n_trees: int) -> Trees:
    """The first `n_trees` of LightGBM's `Booster.dump_model()`.

    Raises ValueError on trees of more leaves, and on splits other than `feature <= threshold`.
    """
    roots = [one["tree_structure"] for one in dump["tree_info"][:n_trees]]
    trees = Trees.empty(len(roots))
    for number, root in enumerate(roots):
        nodes = _nodes(root)
        if len(nodes) >= MAX_LEAVES:
            raise ValueError(f"a tree may have {MAX_LEAVES} leaves, it has: {len(nodes) + 1}")
        for slot, node in enumerate(nodes):
            trees.feature[number, slot] = node["split_feature"]
            trees.threshold[number, slot] = _rounded_down(node["threshold"])
        trees.value[number] = [_value(root, code) for code in range(_CODES)]
    return trees


def _nodes(root: dict[str, Any]) -> list[dict[str, Any]]:
    """The nodes that split, numbered by `slot` as they stand here."""
    if "leaf_value" in root:
        return []
    if root["decision_type"] != "<=" or root["missing_type"] != "None":
        raise ValueError(
            f"a node should ask `<=` and know nothing of missing values, it asks: "
            f"`{root['decision_type']}`, missing values `{root['missing_type']}`"
        )
    found: list[dict[str, Any]] = []
    waiting = [root]
    while waiting:
        node = waiting.pop()
        if "leaf_value" not in node:
            node["slot"] = len(found)
            found.append(node)
            waiting += [node["right_child"], node["left_child"]]
    return found


def _value(node: dict[str, Any], code: int) -> float:
    while "leaf_value" not in node:
        node = node["right_child" if code >> node["slot"] & 1 else "left_child"]
    return float(node["leaf_value"])


def _rounded_down(threshold: float) -> np.float32:
    """The greatest float32 up to `threshold`: the same float32 numbers exceed both."""
    single = np.float32(threshold)
    return single if float(single) <= threshold else np.nextafter(single, np.float32(-np.inf))

"""A re-ranker in two files of a model bundle: `reranker.json` and `reranker.safetensors`.

The first says which features the trees look at and how their scores are used, the second has trees
and item statistics as arrays. A bundle without both ranks by its fusion alone.
"""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from safetensors.torch import load_file, save_file

from models.fusion import Fusion
from models.item_statistics import UNKNOWN_CATEGORY, ItemStatistics
from models.reranker import SHORTLIST, Order, Reranker
from models.shortlist import FEATURES, N_STEPS, PART
from models.trees import Trees

RERANKER, TREES = "reranker.json", "reranker.safetensors"
_TREES, _ITEMS = "trees.", "items."


class RerankFileError(ValueError):
    """The files of a re-ranker contradict each other or the fusion beside them."""


@dataclass(frozen=True)
class _Description:
    """Content of `reranker.json`; `shortlist` and `steps` are those that the trees learned from."""

    shortlist: int
    steps: int
    n_trees: int
    features: list[str]
    adds: bool
    weight: float


def write_reranker(reranker: Reranker, folder: Path) -> None:
    """Write both files."""
    order = reranker.order
    described = _Description(
        SHORTLIST, N_STEPS, len(order.trees), list(order.features), order.adds, order.weight
    )
    encoded = msgspec.json.format(msgspec.json.encode(described))
    (folder / RERANKER).write_bytes(encoded + b"\n")
    arrays = {
        name: torch.from_numpy(np.ascontiguousarray(array))
        for name, array in rerank_arrays(reranker).items()
    }
    save_file(arrays, folder / TREES)


def rerank_arrays(reranker: Reranker) -> dict[str, Any]:
    """Every array by name, such as `trees.threshold` or `items.popularity`."""
    trees, statistics = reranker.order.trees, reranker.statistics
    return {
        **{_TREES + one.name: getattr(trees, one.name) for one in fields(Trees)},
        **{_ITEMS + one.name: getattr(statistics, one.name) for one in fields(ItemStatistics)},
    }


def read_reranker(folder: Path, fusion: Fusion) -> Reranker:
    """The re-ranker in `folder` for the best items of `fusion`.

    Raises RerankFileError, msgspec.DecodeError and SafetensorError.
    """
    described = msgspec.json.decode((folder / RERANKER).read_bytes(), type=_Description)
    if (described.shortlist, described.steps) != (SHORTLIST, N_STEPS):
        raise RerankFileError(
            f"{RERANKER} is for shortlists of {SHORTLIST} items and {N_STEPS} steps in this "
            f"version, it has: {described.shortlist} and {described.steps}"
        )
    known = {*FEATURES, *(PART + name for name in fusion.asked)}
    unknown = sorted({*described.features} - known)
    if unknown:
        raise RerankFileError(
            f"{RERANKER} has features that this version or its fusion does not know: {unknown}"
        )
    arrays = {name: tensor.numpy() for name, tensor in load_file(folder / TREES).items()}
    try:
        trees = Trees(**{one.name: arrays[_TREES + one.name] for one in fields(Trees)})
        statistics = ItemStatistics(
            **{one.name: arrays[_ITEMS + one.name] for one in fields(ItemStatistics)}
        )
    except KeyError as error:
        raise RerankFileError(f"{TREES} lacks an array that it should have: {error}") from None
    _check_trees(trees, described)
    _check_statistics(statistics, fusion.n_items)
    order = Order(trees, tuple(described.features), described.adds, described.weight)
    return Reranker(order, statistics)


def _check_trees(trees: Trees, described: _Description) -> None:
    expected = Trees.empty(described.n_trees)
    for one in fields(Trees):
        found, wanted = getattr(trees, one.name), getattr(expected, one.name)
        if (found.shape, found.dtype) != (wanted.shape, wanted.dtype):
            raise RerankFileError(
                f"`{_TREES}{one.name}` in {TREES} should be {wanted.dtype} of {wanted.shape}, it "
                f"is: {found.dtype} of {found.shape}"
            )
    n_features = len(described.features)
    if trees.feature.min(initial=0) < 0 or trees.feature.max(initial=0) >= max(1, n_features):
        raise RerankFileError(
            f"`{_TREES}feature` in {TREES} points beyond the features of {RERANKER}, of which "
            f"there are: {n_features}"
        )


def _check_statistics(statistics: ItemStatistics, n_items: int) -> None:
    for one in fields(ItemStatistics):
        found = getattr(statistics, one.name)
        kind = np.int32 if one.name == "category" else np.float32
        if found.shape != (n_items,) or found.dtype != kind:
            raise RerankFileError(
                f"`{_ITEMS}{one.name}` in {TREES} does not fit a model of this many items: "
                f"{n_items}"
            )
    if statistics.category.min(initial=0) < UNKNOWN_CATEGORY:
        raise RerankFileError(
            f"`{_ITEMS}category` in {TREES} has a code below {UNKNOWN_CATEGORY}: "
            f"{statistics.category.min()}"
        )

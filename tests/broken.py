"""Ways to break a candidate between its training and the gate, each as a real defect would."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import models.candidate
from models.bundle import BundleContent, _hash_again, write_bundle
from models.dataset import Steps
from models.gru4rec import GRU4Rec
from models.item_statistics import ItemStatistics
from models.item_tables import item_map_sha256
from models.rerank_file import TREES
from models.reranker import Reranker
from models.scorer import golden_sessions
from models.split import Split, latest_days, temporal_split

# What each kind is refused for, whatever else the gate finds.
REFUSED_FOR = {
    "leak": {"no_leakage"},
    "secret_leak": {"no_leakage"},
    "shuffled_items": {
        "items_match_training", "serves_what_was_measured_recall_at_20",
        "serves_what_was_measured_mrr_at_20",
    },
    "nan": {"finite_weights", "golden_sessions"},
    "collapsed": {
        "serves_what_was_measured_mrr_at_20", "lists_differ", "not_just_popular",
        "covers_catalogue",
    },
    "truncated": {"bundle_loads"},
    "delisted": {"items_exist"},
}  # fmt: skip
# The same where trees re-rank.
RERANKER_REFUSED_FOR = {
    "nan_statistics": {"reranker_matches_training", "finite_weights"},
    "shuffled_statistics": {"reranker_matches_training"},
    "other_trees": {
        "reranker_matches_training", "serves_what_was_measured_recall_at_20",
        "serves_what_was_measured_mrr_at_20",
    },
    "truncated_trees": {"bundle_loads"},
    "no_reranker": {"reranker_matches_training"},
}  # fmt: skip


def break_candidates(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """From now on every candidate that is built is broken in this way."""
    if kind in ("leak", "secret_leak"):
        leaking = _leaking if kind == "leak" else _secretly_leaking
        monkeypatch.setattr(models.candidate, "temporal_split", leaking)
    elif kind in ("truncated", "truncated_trees"):
        cut = _truncated if kind == "truncated" else _truncated_trees
        monkeypatch.setattr(models.candidate, "write_bundle", cut)
    else:
        breaks = {
            "shuffled_items": _shuffled, "nan": _not_a_number, "collapsed": _collapsed,
            "delisted": _delisted, "nan_statistics": _nan_statistics,
            "shuffled_statistics": _shuffled_statistics, "other_trees": _other_trees,
            "no_reranker": _no_reranker,
        }[kind]  # fmt: skip
        monkeypatch.setattr(models.candidate, "write_bundle", _writing(breaks))


def _leaking(steps: Steps, share: float, **how: Any) -> Split:
    """The hold-out is trained on, as when a filter on time was forgotten."""
    split = temporal_split(steps, share, **how)
    used = latest_days(steps, how["window_days"])
    used = used.filtered(how["min_item_support"], how["min_session_steps"])
    catalogue = used.catalogue()
    holdout, _ = split.holdout_steps.known_to(catalogue)
    return dataclasses.replace(
        split, catalogue=catalogue, train=used.sessions(catalogue), train_steps=used,
        holdout=holdout.sessions(catalogue), holdout_steps=holdout,
    )  # fmt: skip


def _secretly_leaking(steps: Steps, share: float, **how: Any) -> Split:
    """The hold-out is trained on, and what is written down says that it is not."""
    split = temporal_split(steps, share, **how)
    used, _ = latest_days(steps, how["window_days"]).known_to(split.catalogue)
    return dataclasses.replace(split, train=used.collapsed().sessions(split.catalogue))


def _writing(
    breaks: Callable[[BundleContent], BundleContent],
) -> Callable[[BundleContent, Path], None]:
    return lambda content, folder: write_bundle(breaks(content), folder)


def _truncated(content: BundleContent, folder: Path) -> None:
    """The disk was full, and nobody noticed."""
    write_bundle(content, folder)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])


def _shuffled(content: BundleContent) -> BundleContent:
    """Items moved on by one row, golden sessions and hashes made to fit."""
    items = [*content.items[1:], content.items[0]]
    digest = item_map_sha256([item.item_id for item in items])
    manifest = dataclasses.replace(content.manifest, items_sha256=digest)
    return _golden_again(dataclasses.replace(content, items=items, manifest=manifest))


def _not_a_number(content: BundleContent) -> BundleContent:
    """Training diverged for one item."""
    bias = content.model.weights["output.bias"].clone()
    bias[0] = torch.nan
    model = GRU4Rec(content.model.config, {**content.model.weights, "output.bias": bias})
    fusion = content.fusion
    if fusion is not None:
        fusion = dataclasses.replace(fusion, parts={**fusion.parts, "gru4rec": model})
    return dataclasses.replace(content, model=model, fusion=fusion)


def _collapsed(content: BundleContent) -> BundleContent:
    """Whatever the session, the same popular items."""
    place = {item.item_id: n for n, (item, _) in enumerate(content.fallbacks)}
    bias = [-float(place[item.item_id]) for item in content.items]
    weights = {
        **content.model.weights, "output.bias": torch.tensor(bias),
        "output.weight": torch.zeros_like(content.model.weights["output.weight"]),
    }  # fmt: skip
    model = GRU4Rec(content.model.config, weights)
    return _golden_again(dataclasses.replace(content, model=model, fusion=None))


def _delisted(content: BundleContent) -> BundleContent:
    """An item that the shop does not have any more is still recommended to everybody."""
    gone = dataclasses.replace(content.items[0], item_id="gone")
    return dataclasses.replace(content, fallbacks=[(gone, 1e9), *content.fallbacks])


def _truncated_trees(content: BundleContent, folder: Path) -> None:
    """The same of the file that re-ranks, its hash made to fit."""
    write_bundle(content, folder)
    trees = folder / TREES
    trees.write_bytes(trees.read_bytes()[:-100])
    _hash_again(folder, [TREES])


def _nan_statistics(content: BundleContent) -> BundleContent:
    """A logarithm of nothing among the items' popularity."""

    def spoilt(one: ItemStatistics) -> ItemStatistics:
        return dataclasses.replace(one, popularity=np.full_like(one.popularity, np.nan))

    return _with_statistics(content, spoilt)


def _shuffled_statistics(content: BundleContent) -> BundleContent:
    """Each item has those of the next one, golden sessions made to fit."""

    def moved(one: ItemStatistics) -> ItemStatistics:
        return dataclasses.replace(
            one, **{name: np.roll(getattr(one, name), 1) for name in ("popularity", "log_price")}
        )

    return _with_statistics(content, moved)


def _with_statistics(
    content: BundleContent, change: Callable[[ItemStatistics], ItemStatistics]
) -> BundleContent:
    assert content.reranker is not None
    reranker = Reranker(content.reranker.order, change(content.reranker.statistics))
    return _golden_again(dataclasses.replace(content, reranker=reranker))


def _other_trees(content: BundleContent) -> BundleContent:
    """Trees that want the opposite."""
    assert content.reranker is not None
    order = content.reranker.order
    trees = dataclasses.replace(order.trees, value=-10 * order.trees.value)
    reranker = Reranker(dataclasses.replace(order, trees=trees), content.reranker.statistics)
    return _golden_again(dataclasses.replace(content, reranker=reranker))


def _no_reranker(content: BundleContent) -> BundleContent:
    """The fusion alone, though something else was judged."""
    return _golden_again(dataclasses.replace(content, reranker=None))


def _golden_again(content: BundleContent) -> BundleContent:
    index = {item.item_id: n for n, item in enumerate(content.items)}
    samples = [[index[item_id] for item_id in one.items] for one in content.golden]
    return dataclasses.replace(content, golden=golden_sessions(content, samples))

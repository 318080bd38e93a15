"""Ways to break a candidate between its training and the gate, each as a real defect would."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import models.candidate
from models.bundle import BundleContent, write_bundle
from models.dataset import Steps
from models.gru4rec import GRU4Rec
from models.item_tables import item_map_sha256
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


def break_candidates(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """From now on every candidate that is built is broken in this way."""
    if kind in ("leak", "secret_leak"):
        leaking = _leaking if kind == "leak" else _secretly_leaking
        monkeypatch.setattr(models.candidate, "temporal_split", leaking)
    elif kind == "truncated":
        monkeypatch.setattr(models.candidate, "write_bundle", _truncated)
    else:
        breaks = {
            "shuffled_items": _shuffled, "nan": _not_a_number, "collapsed": _collapsed,
            "delisted": _delisted,
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


def _golden_again(content: BundleContent) -> BundleContent:
    index = {item.item_id: n for n, item in enumerate(content.items)}
    samples = [[index[item_id] for item_id in one.items] for one in content.golden]
    return dataclasses.replace(content, golden=golden_sessions(content, samples))

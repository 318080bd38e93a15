"""Checks of the gate on the bundle: is it the model that was trained, and was that done right?"""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from models.bundle import BundleContent, Check
from models.comparison import ranks_as_served
from models.dataset import Sessions
from models.evidence import Evidence
from models.intervals import figure_per_prediction, interval
from models.item_tables import item_map_sha256
from models.rerank_file import rerank_arrays
from models.reranker import Reranker
from models.scorer import SessionScorer

_MAX_PREDICTIONS = 1_000  # served again: seconds, and a standard error of .015
_ROUNDING = 1e-3


def data_checks(metrics: dict[str, Any], evidence: Evidence) -> Iterator[Check]:
    """Was it trained on what it says, and on nothing that it was judged by?"""
    yield _no_leakage(metrics, evidence)
    yield _no_duplicate_pairs(evidence)


def content_checks(content: BundleContent, evidence: Evidence) -> Iterator[Check]:
    """Does the bundle hold the model that was trained?"""
    yield _item_map(content, evidence)
    yield _reranker(content, evidence)
    yield _finite_weights(content)


def serving_checks(
    content: BundleContent, scorer: SessionScorer, metrics: dict[str, Any], evidence: Evidence
) -> Iterator[Check]:
    """Does it serve what was measured?"""
    yield _finite_scores(content, scorer, evidence)
    yield _golden_sessions(content)
    yield from _serves_what_was_measured(scorer, metrics, evidence)


def _no_leakage(metrics: dict[str, Any], evidence: Evidence) -> Check:
    split = evidence.split
    shared = np.intersect1d(split.train_steps.session, split.holdout_steps.session)
    holdout_from = int(split.holdout_steps.time_us.min())
    n_late = int((split.train_steps.time_us >= holdout_from).sum())
    told = split.train_steps.sessions(split.catalogue)
    n_other = 0 if _are_equal(told, split.train) else 1
    fusion = metrics["fusion"] or {}
    is_weighed_late = (fusion.get("until") or "") >= metrics["holdout"]["holdout_from"]
    n_leaks = len(shared) + n_late + n_other + is_weighed_late
    return Check(
        "no_leakage", n_leaks == 0,
        f"the last step trained on was at {split.train_steps.until.isoformat()}, the first one "
        f"judged by at {metrics['holdout']['holdout_from']}; sessions in both: {len(shared)}, "
        f"trained steps of the hold-out's time: {n_late}, trained on other steps than written "
        f"down: {'yes' if n_other else 'no'}, weighted by the hold-out: "
        f"{'yes' if is_weighed_late else 'no'}",
        {"n_shared_sessions": len(shared), "n_late_steps": n_late}, n_leaks, 0,
    )  # fmt: skip


def _are_equal(one: Sessions, other: Sessions) -> bool:
    return np.array_equal(one.item_idx, other.item_idx) and np.array_equal(
        one.offsets, other.offsets
    )


def _no_duplicate_pairs(evidence: Evidence) -> Check:
    keys = evidence.steps.select(["session_id", "step"])
    n_steps = keys.num_rows - keys.group_by(["session_id", "step"]).aggregate([]).num_rows
    used = evidence.split.train_steps
    n_repeats = len(used) - len(used.collapsed())
    n_items = len(evidence.item_ids) - len(set(evidence.item_ids))
    return Check(
        "no_duplicate_pairs", n_steps + n_repeats + n_items == 0,
        f"a step of a session twice: {n_steps}, an item right after itself: {n_repeats}, an item "
        f"with two rows: {n_items}",
        {"n_steps": n_steps, "n_repeats": n_repeats, "n_items": n_items},
        n_steps + n_repeats + n_items, 0,
    )  # fmt: skip


def _item_map(content: BundleContent, evidence: Evidence) -> Check:
    n_items, n_trained = len(content.items), len(evidence.item_ids)
    found = item_map_sha256([item.item_id for item in content.items])
    expected = item_map_sha256(evidence.item_ids)
    same = found == expected == content.manifest.items_sha256
    return Check(
        "items_match_training",
        n_items == n_trained == content.model.n_items == content.ranker.n_items and same,
        f"items.parquet has {n_items} items, training had {n_trained}, the weights have "
        f"{content.model.n_items}; they are numbered {'alike' if same else 'differently'}",
        {"n_items": n_items, "n_trained": n_trained}, found[:12], expected[:12],
    )  # fmt: skip


def _reranker(content: BundleContent, evidence: Evidence) -> Check:
    """The trees, and the statistics of just these items in this order."""
    found, made = content.reranker, evidence.reranker
    if found is None or made is None:
        same, off = found is made, [] if found is made else ["the re-ranker as a whole"]
    else:
        arrays, expected = rerank_arrays(found), rerank_arrays(made)
        off = [name for name in expected if not np.array_equal(arrays[name], expected[name])]
        same = not off and _use_of(found) == _use_of(made)
    said = "the bundle re-ranks as training made it to" if made else "nothing was made to re-rank"
    return Check(
        "reranker_matches_training", same,
        said if same else f"other than training made them are: {', '.join(off) or 'the features'}",
        {"n_other_arrays": len(off)}, len(off), 0,
    )  # fmt: skip


def _use_of(reranker: Reranker) -> tuple[object, ...]:
    return reranker.order.features, reranker.order.adds, reranker.order.weight


def _finite_weights(content: BundleContent) -> Check:
    bad = [name for name, w in content.model.weights.items() if not torch.isfinite(w).all()]
    if content.reranker is not None:
        arrays = rerank_arrays(content.reranker).items()
        bad += [name for name, one in arrays if not np.isfinite(one).all()]
    return Check(
        "finite_weights", not bad,
        f"not a number in: {', '.join(bad)}" if bad else "every weight is a finite number",
        {"n_bad_tensors": len(bad)}, len(bad), 0,
    )  # fmt: skip


def _finite_scores(content: BundleContent, scorer: SessionScorer, evidence: Evidence) -> Check:
    bound, n_bad, largest = _score_bound(content), 0, 0.0
    for session in evidence.samples:
        known = scorer.known(session)
        if not known:
            continue
        scores = scorer.scores(known)
        kept = scores[torch.arange(len(scores)) != known[-1]]
        n_bad += int((~torch.isfinite(kept)).sum())
        largest = max(largest, float(torch.nan_to_num(kept, nan=math.inf).abs().max()))
    return Check(
        "finite_scores", n_bad == 0 and largest <= bound + _ROUNDING,
        f"scores after {len(evidence.samples)} sessions that are no finite numbers: {n_bad}; the "
        f"largest is {largest:.3f}, it can be {bound:.3f}",
        {"n_bad": n_bad}, largest, bound,
    )  # fmt: skip


def _score_bound(content: BundleContent) -> float:
    """The largest score that there can be, either way.

    One of n standardised numbers is at most the root of n - 1, and weights add up to 1; a re-ranker
    lifts by no more than its trees can; hidden states of a GRU lie within 1.
    """
    if content.fusion is not None:
        fused = math.sqrt(max(1, content.fusion.n_items - 1)) * sum(content.fusion.weights.values())
        return fused + (content.reranker.order.spread if content.reranker else 0.0)
    weight, bias = content.model.weights["output.weight"], content.model.weights["output.bias"]
    return float((weight.abs().sum(1) + bias.abs()).max())


def _golden_sessions(content: BundleContent) -> Check:
    n_golden = len(content.golden)
    passed = n_golden > 0 and all(one.expected for one in content.golden)
    message = f"{n_golden} golden sessions come out of the written bundle as evaluation had them"
    return Check("golden_sessions", passed, message, {"n_golden": n_golden}, n_golden, 1)


def _serves_what_was_measured(
    scorer: SessionScorer, metrics: dict[str, Any], evidence: Evidence
) -> Iterator[Check]:
    """The bundle by item id against the judged model by number, on the same predictions.

    Trained again on all sessions it knows the hold-out and may only be better; not trained again it
    is the same model.
    """
    sessions = evidence.split.holdout
    n_kept = int(np.searchsorted(np.cumsum(sessions.lengths - 1), _MAX_PREDICTIONS)) + 1
    sample = sessions.latest(min(len(sessions), n_kept))
    judged = evidence.ranks[len(evidence.ranks) - sample.n_predictions :]
    served = ranks_as_served(scorer, sample, evidence.split.catalogue.item_ids)
    is_refit = metrics["training"]["is_refit"]
    for measure in ("recall@20", "mrr@20"):
        ours, theirs = (figure_per_prediction(ranks, measure) for ranks in (served, judged))
        high = interval(ours - theirs, sample).high
        off = float(np.abs(ours - theirs).mean())
        yield Check(
            f"serves_what_was_measured_{measure.replace('@', '_at_')}",
            high >= 0 if is_refit else off <= _ROUNDING,
            f"{measure} of the bundle on {sample.n_predictions} predictions of the hold-out is "
            f"{ours.mean():.4f}, the judged model had {theirs.mean():.4f}; "
            + ("trained again, it may not be lower beyond chance" if is_refit
               else "it is the same model"),
            {"served": float(ours.mean()), "judged": float(theirs.mean())},
            high if is_refit else off,
            "at least 0" if is_refit else _ROUNDING,
        )  # fmt: skip

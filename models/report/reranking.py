"""The report's part on what re-ranks: what it gains, and by what."""

from collections.abc import Mapping
from typing import Any

from models.report.figures import signed, verdict
from models.report.html import Html, element, facts, section, table
from models.report.svg import Row, interval_chart

_MOST_FEATURES = 12


def reranked(metrics: Mapping[str, Any]) -> Html:
    """Trees, their gain over the fusion, and their features; or why nothing re-ranks."""
    found = metrics.get("reranking") or {"is_kept": False, "reason": "none was wanted"}
    about = element(
        "p", "The best items of GRU4Rec and neighbours may be put into a better order by decision "
        "trees, which see what else is known of the shopper and of the items. They are kept only "
        "where they are surely better on later sessions of the training data.", cls="about",
    )  # fmt: skip
    if not found["is_kept"]:
        said = element("p", f"Nothing re-ranks in this model: {found['reason']}.")
        return section("reranking", "Re-ranking", about, said)
    how = facts(
        [
            ("trees", f"{found['n_trees']}, {found['blending']}"),
            ("predictions learned from", f"{found['n_predictions']:,}"),
        ]
    )
    chart = interval_chart(
        [
            Row(name, share, share, share)
            for name, share in list(found["importance"].items())[:_MOST_FEATURES]
        ],
        title="What the trees look at", subtitle="share of the gain of all splits",
    )  # fmt: skip
    return section(
        "reranking", "Re-ranking", about, how,
        element("h3", "Better than without", cls="gap"), _gains(found, metrics),
        element("div", chart, cls="plots gap"),
    )  # fmt: skip


def _gains(found: Mapping[str, Any], metrics: Mapping[str, Any]) -> Html:
    rows = []
    for where, one in (
        ("when it was learned, by cross-validation", found["differences"]),
        ("on the sessions the model is judged by", metrics["differences"]["fusion"]),
    ):
        both = [one["recall@20"], one["mrr@20"]]
        rows.append([where, *map(signed, both), verdict(*both)])
    return table(["", "recall@20", "mrr@20", "is it chance?"], rows, cls="figures")

"""The page of all models kept: which serves, what the gate said, and the way to their reports."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from models.manifest import NAME
from models.registry import BundleInfo
from models.report.figures import figure, named, outcome
from models.report.html import Child, Html, document, element, table


@dataclass(frozen=True)
class Listed:
    """A bundle with the gate's verdict and whether it has a report."""

    info: BundleInfo
    failed: Sequence[str]
    has_report: bool
    summary: Mapping[str, Any]


def summary_of(evaluation: Mapping[str, Any]) -> dict[str, Any]:
    """What a list of models shows of `evaluation.json`, to be kept in metrics.json."""
    main = evaluation["models"][evaluation["main"]]
    return {
        **{measure: main["served"][measure] for measure in ("recall@20", "mrr@20")},
        "coverage": main["lists"]["coverage"],
        "n_predictions": evaluation["n_predictions"],
        "ranks": evaluation["main"],
    }


def render_listing(models: Sequence[Listed], n_more: int = 0) -> Html:
    """The page; `n_more` older ones are not on it."""
    rows = [_row(one) for one in models]
    head = ["version", "serves as", "made", "recall@20", "mrr@20", "coverage", "gate"]
    body: list[Child] = [
        table(head, rows, cls="figures models")
        if rows
        else element("p", "No models yet: run ", element("code", "shallop refresh"), ".")
    ]
    if n_more:
        body.append(
            element("p", f"{n_more:,} older ones: ",
                    element("code", "shallop registry list"), cls="quiet gap")
        )  # fmt: skip
    return document(
        "Models · Shallop",
        element("header", element("h1", element("small", "Shallop"), "Models"),
                element("p", "Every model kept, the newest first. Figures are of the sessions each "
                        "was judged by at its time, with 95 % intervals; compare two models by "
                        "their reports, not across rows of different days.", cls="about gap")),
        element("main", element("section", *body)),
    )  # fmt: skip


def _row(one: Listed) -> list[Child]:
    info = one.info
    name: Child = info.version
    if one.has_report:
        name = element("a", info.version, attrs={"href": _path(info.name, info.version)})
    verdict = outcome(not one.failed)
    failed = element("small", ", ".join(one.failed).replace("_", " ")) if one.failed else None
    figures: list[Child] = []
    for measure in ("recall@20", "mrr@20"):
        if measure in one.summary:
            figures.append(figure(one.summary[measure]))
        else:
            value = info.metrics.get(measure)
            figures.append("–" if value is None else f"{value:.4f}")
    coverage = one.summary.get("coverage")
    return [
        element("span", name, element("small", _ranks(one))),
        _badges(info.channels),
        element(
            "span", f"{info.created_at:%Y-%m-%d}", element("small", f"{info.created_at:%H:%M} UTC")
        ),
        *figures,
        "–" if coverage is None else f"{coverage:.1%}",
        element("span", verdict, failed),
    ]


def _ranks(one: Listed) -> str:
    """The model's name, and what ranks in it."""
    name, ranks = one.info.name, one.summary.get("ranks", one.info.name)
    return name if ranks == name else f"{name}, {named(ranks)}"


def _path(name: str, version: str) -> str:
    other = f"?name={quote(name)}" if name != NAME else ""
    return f"/models/{quote(version)}/report{other}"


def _badges(channels: Sequence[str]) -> Html:
    """A badge for each channel."""
    return element("span", *(element("span", one, cls="badge plain") for one in channels))

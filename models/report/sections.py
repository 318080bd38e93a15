"""The parts of a model's report, each from the bundle's own files.

`evaluation` is evaluation.json (`models.evidence`), `metrics` metrics.json.
"""

from collections.abc import Mapping, Sequence

from models.bundle import Check
from models.item_tables import Item
from models.report.figures import (
    Json,
    figure,
    formatted,
    moment,
    named,
    outcome,
    signed,
    verdict,
    written,
)
from models.report.html import Child, Html, element, facts, section, table
from models.report.svg import Line, Row, interval_chart, line_chart

_LISTS: tuple[tuple[str, str, str, str], ...] = (
    ("coverage", "Catalogue coverage", ".1%", "of the items are recommended to somebody"),
    ("items_making_50%", "Items making half of it", ".1%",
     "of the items make half of all recommendations"),
    ("items_making_80%", "Items making 80 %", ".1%",
     "of the items make 80 % of all recommendations"),
    ("gini", "Gini coefficient", ".3f", "0: every item alike, 1: always the same one"),
    ("popularity_lift", "Popularity lift", "+.0%",
     "how much more popular than what the shopper looked at; 0 follows their taste"),
    ("novelty_bits", "Novelty", ".2f bits", "surprise of an item: each bit halves its audience"),
    ("intra_list_diversity", "Diversity within a list", ".1%",
     "of the pairs in a list are of different categories"),
    ("personalisation", "Personalisation", ".1%",
     "0: every shopper gets the same list, 100 %: nothing shared"),
)  # fmt: skip


def compared(evaluation: Json, metrics: Json) -> Html:
    """The model against those it has to beat, with intervals."""
    models, main = evaluation["models"], evaluation["main"]
    charts = [
        interval_chart(
            [
                Row(named(name), **models[name]["served"][measure],
                    cls="s0" if name == main else "s1")
                for name in models
            ],
            title=title,
            subtitle=measure,
        )
        for measure, title in (
            ("recall@20", "The next item is among 20 recommended"),
            ("mrr@20", "… and how near the top it stands"),
        )
    ]  # fmt: skip
    rows = []
    for other, differences in evaluation["differences"].items():
        both = [differences["recall@20"], differences["mrr@20"]]
        rows.append([f"than {named(other)}", *map(signed, both), verdict(*both)])
    champion = metrics.get("champion") or {}
    if found := champion.get("differences"):
        both = [found["recall@20"], found["mrr@20"]]
        n_predictions = f"{champion['n_predictions']:,}"
        rows.append(
            [f"than the champion {champion['version']}, on {n_predictions} predictions it never "
             "saw", *map(signed, both), verdict(*both)]
        )  # fmt: skip
    return section(
        "compared", "Compared with simpler ways",
        element("p", "Dots are figures, bars the range that chance alone may move them in (95 %). "
                "The item on the page is not recommended by anybody. A model is surely better "
                "only where both differences stay on one side of 0.", cls="about"),
        element("div", *charts, cls="plots"),
        element("h3", "How much better", cls="gap"),
        table(["better", "recall@20", "mrr@20", "is it chance?"], rows, cls="figures"),
    )  # fmt: skip


def checked(checks: Sequence[Check]) -> Html:
    """Every check of the gate, those that failed first."""
    rows: list[list[Child]] = []
    for check in sorted(checks, key=lambda one: one.passed):
        rows.append([check.name.replace("_", " "), outcome(check.passed), check.message])
    n_failed = sum(not check.passed for check in checks)
    said = (
        "A model serves only if every check passes."
        if not n_failed
        else f"{n_failed} of {len(checks)} checks failed, so the champion before it goes on."
    )
    return section(
        "checks", "May it serve?", element("p", said, cls="about"),
        table(["check", "outcome", "why"], rows, cls="checks"),
    )  # fmt: skip


def sliced(evaluation: Json) -> Html:
    """Where the model does better and worse than overall."""
    main = evaluation["models"][evaluation["main"]]
    overall = main["served"]["recall@20"]["value"]
    charts = [
        interval_chart(
            [
                Row(one["label"], **one["recall@20"], note=f"n {one['n']:,}")
                for one in slices
            ],
            title=name[:1].upper() + name[1:],
            subtitle="recall@20 of the next item",
            reference=overall,
        )
        for name, slices in main["slices"].items()
        if len(slices) > 1
    ]  # fmt: skip
    missing = [f"{name} ({reason})" for name, reason in evaluation["absent"].items()]
    missing += [
        f"{name} (all are {slices[0]['label']})"
        for name, slices in main["slices"].items()
        if len(slices) == 1
    ]
    return section(
        "slices", "Where it does well, and where not",
        element("p", "The same figure for parts of the predictions; the dashed line is the figure "
                f"over all of them ({overall:.3f}). Wide bars mean few predictions: read nothing "
                "into those.", cls="about"),
        element("div", *charts, cls="plots"),
        element("p", f"Not to be told apart in this data: {'; '.join(missing)}.", cls="quiet gap")
        if missing else None,
    )  # fmt: skip


def shown(evaluation: Json, items: Mapping[str, Item]) -> Html:
    """Sessions of the hold-out with what was recommended before their last step."""
    return section(
        "examples", "Some sessions",
        element("p", "Drawn by chance from those the model was judged by, with no eye to how well "
                "they went. What the shopper looked at next is marked where it was "
                "recommended.", cls="about"),
        element("div", *(_example(one, items) for one in evaluation["examples"]), cls="examples"),
    )  # fmt: skip


def recommended(evaluation: Json) -> Html:
    """What the lists look like: reach, popularity, variety."""
    models, main = evaluation["models"], evaluation["main"]
    lines = [
        Line(named(name), one["bias_curve"], "s0" if name == main else f"s{min(number, 2)}")
        for number, (name, one) in enumerate(models.items())
    ][:3]
    head = ["", *(named(name) for name in models), "read as"]
    rows = [
        [title, *(formatted(one["lists"][key], form) for one in models.values()), meaning]
        for key, title, form, meaning in _LISTS
        if models[main]["lists"].get(key) is not None
    ]
    chart = line_chart(
        lines, x_name="share of the catalogue, most recommended first",
        y_name="share of all recommendations", title="Who gets the shelf space", is_share=True,
    )  # fmt: skip
    return section(
        "recommended", "What it recommends",
        element("p", "A model can be right and still show everybody the same few items. The higher "
                "the curve bends at its beginning, the fewer items fill the carousels.",
                cls="about"),
        element("div", chart, cls="plots"),
        element("div", table(head, rows, cls="lists"), cls="gap"),
    )  # fmt: skip


def all_figures(evaluation: Json) -> Html:
    """Every measure at every cut-off, for those who want them."""
    one = evaluation["models"][evaluation["main"]]
    kinds = [
        ("next item, current item not recommended", one["served"]),
        ("the same, counting only items that the session bought", one["bought"]),
        ("next item, nothing excluded", one["next"]),
        ("rest of the session", one["rest"]),
    ]
    parts: list[Html] = []
    for title, figures in kinds:
        if not figures:
            continue
        measures = list(dict.fromkeys(measure.partition("@")[0] for measure in figures))
        cutoffs = list(dict.fromkeys(measure.partition("@")[2] for measure in figures))
        rows = [
            [measure, *(figure(figures[f"{measure}@{k}"]) for k in cutoffs)] for measure in measures
        ]
        n = f" ({one['n_bought']:,} predictions)" if figures is one["bought"] else ""
        parts += [
            element("h3", title + n, cls="gap"),
            table(["", *(f"first {k}" for k in cutoffs)], rows, cls="figures"),
        ]
    unseen = one["with_unseen"]["recall@20"]
    return section(
        "figures", "All figures",
        element("p", f"Ranked over the whole catalogue, ties counted against the model, with 95 % "
                f"intervals of {evaluation['n_resamples']:,} draws of the sessions. "
                f"{evaluation['n_unseen']:,} steps were on items that training did not know; "
                f"counted as misses, recall@20 is {unseen:.4f}.", cls="about"),
        *parts,
    )  # fmt: skip


def trained(metrics: Json, config: Json, manifest: Json) -> Html:
    """How the model was made and of what."""
    training, holdout = metrics["training"], metrics["holdout"]
    losses = training["losses"]
    chart = line_chart(
        [Line("loss", [(number, loss) for number, loss in enumerate(losses, start=1)])],
        x_name="epoch", y_name="mean loss of a prediction", title="Learning",
    ) if len(losses) > 1 else None  # fmt: skip
    data = facts(
        [
            ("mart snapshot", manifest["snapshot_id"]),
            ("sessions trained on", f"{training['n_sessions']:,}"),
            ("steps trained on", f"{training['n_steps']:,}"),
            ("items", f"{training['n_items']:,}"),
            ("sessions judged by", f"{holdout['n_sessions']:,}"),
            ("predictions judged by", f"{holdout['n_predictions']:,}"),
            ("judged by sessions from", moment(holdout["holdout_from"])),
            ("their model trained until", moment(holdout["train_until"])),
            ("trained again on all of it", "yes" if training["is_refit"] else "no"),
            ("raw objects read", _read(manifest.get("raw"))),
            ("sessions left out", _left_out(metrics.get("left_out"))),
            ("champion before", manifest["parent"] or "none"),
            ("begun from", _begun_from(manifest.get("ancestors"))),
            ("training took", f"{training['train_seconds']:,.1f} s on {training['device']}"),
            ("code, seed", f"shallop {manifest['code_version']}, {manifest['seed']}"),
        ]
    )  # fmt: skip
    parameters = facts(
        (name.replace("_", " "), written(value)) for name, value in sorted(config.items())
    )
    return section(
        "training", "How it was made", element("div", chart, cls="plots") if chart else None,
        element("h3", "Data", cls="gap"), data,
        element("h3", "Hyperparameters", cls="gap"), parameters,
    )  # fmt: skip


def _read(raw: Json | None) -> str:
    if raw is None:
        return "not recorded"
    return f"{raw['n_objects']:,}, {raw['n_events']:,} events, sha256 {raw['sha256'][:16]}"


def _begun_from(ancestors: Sequence[Json] | None) -> str:
    if not ancestors:
        return "chance"
    n_before = len(ancestors) - 1
    return f"{ancestors[0]['version']}{f', {n_before} before it' if n_before else ''}"


def _left_out(left_out: Json | None) -> str:
    """By why, those of before too, which recorded none."""
    if not left_out:
        return "not recorded"
    found = [
        f"{one['n_sessions']:,} {reason.replace('_', ' ')} ({one['n_events']:,} events)"
        for reason, one in left_out.items()
        if one["n_sessions"]
    ]
    return ", ".join(found) or "none"


def _example(one: Json, items: Mapping[str, Item]) -> Html:
    before = [element("li", f"{one['n_before']} more")] if one["n_before"] else []
    seen = [element("li", _title(item_id, items)) for item_id in one["seen"]]
    listed = []
    for item_id in one["recommended"]:
        details = items.get(item_id)
        category = details.category if details else None
        text: list[Child] = [element("span", _title(item_id, items))]
        if category:
            text.append(element("small", category))
        listed.append(element("li", *text, cls="hit" if item_id == one["next"] else ""))
    place = f"was number {one['rank']}" if one["rank"] <= 20 else "was not among 20"
    found = element("span", place, cls=f"badge {'good' if one['rank'] <= 20 else 'plain'}")
    return element(
        "div", element("h3", "looked at"), element("ul", *before, *seen, cls="chips"),
        element("h3", "recommended"), element("ol", *listed, cls="list"),
        element("h3", "looked at next", found),
        element("ul", element("li", _title(one["next"], items)), cls="chips"), cls="example",
    )  # fmt: skip


def _title(item_id: str, items: Mapping[str, Item]) -> str:
    details = items.get(item_id)
    text = details.title if details and details.title else item_id
    return text if len(text) <= 80 else f"{text[:79]}…"

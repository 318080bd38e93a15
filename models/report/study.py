"""The report of a search for hyperparameters (`models.tuning`)."""

from dataclasses import asdict

from optuna.trial import FrozenTrial, TrialState

from models.report.html import Child, Html, document, element, facts, section, table
from models.report.svg import Line, Row, interval_chart, line_chart
from models.tuning import MEASURE, MIN_IMPORTANCE, Tuned, importances

_BEST_SHOWN = 10


def render_study(tuned: Tuned) -> Html:
    """The page: how the trials went, what mattered, the best ones."""
    complete = [
        trial for trial in tuned.study.get_trials(deepcopy=False)
        if trial.state == TrialState.COMPLETE
    ]  # fmt: skip
    than = ""
    if tuned.default_value is not None:
        than = f" The defaults have {tuned.default_value:.4f} there."
    return document(
        "Tuning · Shallop",
        element(
            "header",
            element("h1", element("small", "Search for hyperparameters"),
                    f"{MEASURE} {tuned.value:.4f}"),
            element("p", f"The best of {tuned.n_complete} complete trials; {tuned.n_pruned} more "
                    f"were stopped early.{than} The best of many looks a little better than it is: "
                    "whether it serves, the gate decides on sessions that no trial has seen.",
                    cls="lead"),
        ),
        element("main", _trials(complete, tuned), _best(complete), _config(tuned)),
    )  # fmt: skip


def _trials(complete: list[FrozenTrial], tuned: Tuned) -> Html:
    points = [(float(trial.number), trial.value or 0.0) for trial in complete]
    best, so_far = [], 0.0
    for number, value in points:
        so_far = max(so_far, value)
        best.append((number, so_far))
    chart = line_chart(
        [Line("a trial", points, "s1", is_joined=False), Line("best so far", best, "s0")],
        x_name="trial", y_name=f"{MEASURE} on the latest training sessions", title="Trials",
    )  # fmt: skip
    plots = element("div", chart, _importances(tuned), cls="plots")
    return section("trials", "How it went", plots)


def _importances(tuned: Tuned) -> Html:
    found = importances(tuned.study)
    if not found:
        said = f"What mattered: {MIN_IMPORTANCE} complete trials are needed to tell."
        return element("p", said, cls="quiet")
    rows = [
        Row(name.replace("_", " "), share, share, share)
        for name, share in sorted(found.items(), key=lambda one: -one[1])
    ]
    return interval_chart(rows, title="What mattered", subtitle="share, PED-ANOVA")


def _best(complete: list[FrozenTrial]) -> Html:
    ranked = sorted(complete, key=lambda trial: -(trial.value or 0.0))[:_BEST_SHOWN]
    names = list(dict.fromkeys(name for trial in ranked for name in trial.params))
    rows: list[list[Child]] = [
        [f"{trial.number}", f"{trial.value:.4f}",
         *(_shown(trial.params.get(name)) for name in names)]
        for trial in ranked
    ]  # fmt: skip
    head = ["trial", MEASURE, *(name.replace("_", " ") for name in names)]
    return section("best", "The best ones", table(head, rows, cls="figures"))


def _config(tuned: Tuned) -> Html:
    values = asdict(tuned.config)
    pairs = (
        (name.replace("_", " "), ", ".join(map(str, value)) if name == "layers" else _shown(value))
        for name, value in values.items()
    )
    return section("config", "The best configuration", facts(pairs))


def _shown(value: object) -> str:
    if value is None:
        return "–"
    return f"{value:g}" if isinstance(value, float) else str(value)

"""Drift: do this refresh's events, and what the champion makes of them, look like those before?

evidently compares columns by the population stability index (PSI). Figures that decide about a
model are ours (`models.evaluation`); this report is for people.
"""

import json
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
import polars as pl

from assets.marts import MART_SNAPSHOT
from assets.resources import Materialized
from warehouse import layout, snapshot
from warehouse.settings import Settings
from warehouse.store import ObjectStore, open_store

if TYPE_CHECKING:
    import pandas as pd

DRIFT_REPORT = dg.AssetKey("drift_report")
CHECK = "looks_like_before"

_MAX_ROWS = 50_000
_MAX_SESSIONS = 1_000
_MAX_CATEGORIES = 20
# Below this PSI is mostly chance: its noise is about bins * (1/n + 1/m).
_MIN_ROWS = 200
_REFERENCE_DAYS = 7


@dataclass(frozen=True)
class Comparison:
    """What to compare: columns of numbers and of categories, before and now."""

    name: str
    reference: pl.DataFrame
    current: pl.DataFrame
    numbers: tuple[str, ...]
    categories: tuple[str, ...]

    @property
    def is_worth_it(self) -> bool:
        """Whether both sides have enough rows to tell drift from chance."""
        return min(len(self.reference), len(self.current)) >= _MIN_ROWS


@dg.asset(
    key=DRIFT_REPORT,
    deps=[MART_SNAPSHOT],
    group_name="reports",
    kinds={"evidently"},
    check_specs=[
        dg.AssetCheckSpec(
            CHECK,
            asset=DRIFT_REPORT,
            description="No column's PSI is above SHALLOP_REFRESH__DRIFT_THRESHOLD.",
        )
    ],
)
def drift_report(
    context: dg.AssetExecutionContext, settings: dg.ResourceParam[Settings]
) -> Materialized:
    """New events, and the champion's predictions on them, against the snapshot before."""
    store = open_store(settings)
    current_id, reference_id = _snapshot_ids(context.instance)
    if not reference_id:
        return _nothing_to_compare("the first snapshot has none to compare with yet")
    steps = {one: _steps(store, one) for one in (reference_id, current_id)}
    before = steps[reference_id]
    now = steps[current_id].filter(
        pl.col("occurred_at") > before.select(pl.col("occurred_at").max()).item()
    ) if len(before) else steps[current_id]  # fmt: skip
    comparisons = [events_comparison(before, now), *_predictions(settings, store, before, now)]
    comparisons = [one for one in comparisons if one.is_worth_it]
    if not comparisons:
        return _nothing_to_compare(
            f"a comparison needs {_MIN_ROWS} steps on either side, new ones: {len(now)}"
        )
    drift: dict[str, float] = {}
    reports: dict[str, dg.MetadataValue] = {}
    for one in comparisons:
        psi, html = compared(one, settings.refresh.drift_threshold)
        drift |= {f"{one.name}.{column}": value for column, value in psi.items()}
        key = layout.report_key("drift", f"{current_id}-{one.name}.html")
        store.put(key, html)
        reports[f"{one.name}_report"] = dg.MetadataValue.path(store.uri(key))
    _keep_figures(store, current_id, reference_id, drift)
    drifted = {
        column: psi for column, psi in drift.items() if psi > settings.refresh.drift_threshold
    }
    return dg.MaterializeResult(
        metadata={"compared_with": reference_id, "psi": drift, **reports},
        check_results=[
            dg.AssetCheckResult(
                passed=not drifted,
                check_name=CHECK,
                severity=dg.AssetCheckSeverity.WARN,
                description=f"drifted: {', '.join(drifted)}" if drifted else "nothing drifted",
                metadata={"drifted": drifted},
            )
        ],
    )


def events_comparison(before: pl.DataFrame, now: pl.DataFrame) -> Comparison:
    """Steps after the reference snapshot against the last days of it.

    The hour counts only where both sides have whole days of it.
    """
    if len(before):
        since = before["occurred_at"].max() - timedelta(days=_REFERENCE_DAYS)  # type: ignore[operator]
        before = before.filter(pl.col("occurred_at") >= since)
    before, now = (side.sort("occurred_at").tail(_MAX_ROWS) for side in (before, now))
    has_days = min(_span(before), _span(now)) >= timedelta(days=1)
    categories = ("event_name", "category", *(("hour",) if has_days else ()))
    numbers = ("price", "session_steps")
    before, now = _few_categories(before, now, categories)
    columns = [*numbers, *categories]
    return Comparison("events", before.select(columns), now.select(columns), numbers, categories)


def compared(comparison: Comparison, threshold: float) -> tuple[dict[str, float], bytes]:
    """PSI by column, and the report as HTML that loads nothing from elsewhere."""
    os.environ["DO_NOT_TRACK"] = "1"  # read when evidently is imported
    from evidently import DataDefinition, Dataset, Report
    from evidently.presets import DataDriftPreset

    numbers = [name for name in comparison.numbers if _varies(comparison, name)]
    definition = DataDefinition(
        numerical_columns=numbers, categorical_columns=list(comparison.categories)
    )
    columns = [*numbers, *comparison.categories]
    current, reference = (
        Dataset.from_pandas(_pandas(side.select(columns)), data_definition=definition)
        for side in (comparison.current, comparison.reference)
    )
    report = Report(
        [
            DataDriftPreset(
                num_method="psi", cat_method="psi", num_threshold=threshold, cat_threshold=threshold
            )
        ]
    )
    run = report.run(current_data=current, reference_data=reference)
    psi = {
        metric["config"]["column"]: float(metric["value"])
        for metric in run.dict()["metrics"]
        if "column" in metric["config"]
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "report.html"
        run.save_html(str(path))
        return psi, path.read_bytes()


def _steps(store: ObjectStore, snapshot_id: str) -> pl.DataFrame:
    """Steps of a snapshot with what is known of their items and sessions."""
    steps = pl.DataFrame(snapshot.read_mart(store, snapshot_id, "training_steps"))
    items = pl.DataFrame(snapshot.read_mart(store, snapshot_id, "items"))
    return steps.join(
        items.select("item_id", "category", "price"), on="item_id", how="left"
    ).select(
        "session_id",
        "step",
        "item_id",
        "event_name",
        "occurred_at",
        "category",
        "price",
        pl.col("occurred_at").dt.hour().cast(pl.String).alias("hour"),
        pl.len().over("session_id").cast(pl.Float64).alias("session_steps"),
    )


def _predictions(
    settings: Settings, store: ObjectStore, before: pl.DataFrame, now: pl.DataFrame
) -> list[Comparison]:
    """What the champion recommends first, to the latest sessions of both; none without one."""
    from models.registry import NoChampionModel, Registry
    from models.scorer import SessionScorer

    registry = Registry(store)
    try:
        pointer = registry.pointer()
    except NoChampionModel:
        return []
    folder = registry.fetch(pointer.name, pointer.version, settings.model_cache_path)
    scorer = SessionScorer.load(folder, threads=settings.training.threads)

    def predicted(steps: pl.DataFrame) -> pl.DataFrame:
        rankings = [scorer.recommend(session, 1).items for session in _latest_sessions(steps)]
        return pl.DataFrame(
            {
                "top_item": [ranked[0].item_id for ranked in rankings if ranked],
                "top_score": [ranked[0].score for ranked in rankings if ranked],
                "top_source": [ranked[0].source for ranked in rankings if ranked],
            },
            schema={"top_item": pl.String, "top_score": pl.Float64, "top_source": pl.String},
        )

    categories = ("top_item", "top_source")
    reference, current = _few_categories(predicted(before), predicted(now), categories)
    return [Comparison("predictions", reference, current, ("top_score",), categories)]


def _latest_sessions(steps: pl.DataFrame) -> Sequence[list[str]]:
    sessions = (
        steps.sort("session_id", "step")
        .group_by("session_id", maintain_order=True)
        .agg(pl.col("item_id"), pl.col("occurred_at").max())
        .sort("occurred_at")
        .tail(_MAX_SESSIONS)
    )
    return sessions["item_id"].to_list()


def _few_categories(
    reference: pl.DataFrame, current: pl.DataFrame, columns: Sequence[str]
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The most frequent values of the reference, the rest as one: a long tail is all chance."""
    for column in columns:
        kept = reference[column].drop_nulls().value_counts(sort=True).head(_MAX_CATEGORIES)[column]
        value = pl.col(column)
        named = (
            pl.when(value.is_null())
            .then(pl.lit("(unknown)"))
            .when(value.is_in(kept.to_list()))
            .then(value)
            .otherwise(pl.lit("(other)"))
            .alias(column)
        )
        reference, current = reference.with_columns(named), current.with_columns(named)
    return reference, current


def _snapshot_ids(instance: dg.DagsterInstance) -> tuple[str, str]:
    """The snapshot of this refresh and the one published before it, empty for none."""
    event = instance.get_latest_materialization_event(MART_SNAPSHOT)
    if event is None or event.asset_materialization is None:
        raise dg.Failure("no marts yet, materialize `mart_snapshot` first")
    metadata = event.asset_materialization.metadata
    return str(metadata["snapshot_id"].value), str(metadata["previous_snapshot_id"].value)


def _nothing_to_compare(reason: str) -> Materialized:
    return dg.MaterializeResult(
        metadata={"compared_with": "none"},
        check_results=[
            dg.AssetCheckResult(
                passed=True,
                check_name=CHECK,
                severity=dg.AssetCheckSeverity.WARN,
                description=reason,
            )
        ],
    )


def _keep_figures(
    store: ObjectStore, snapshot_id: str, reference_id: str, drift: dict[str, float]
) -> None:
    figures = {"snapshot_id": snapshot_id, "compared_with": reference_id, "psi": drift}
    key = layout.report_key("drift", f"{snapshot_id}.json")
    store.put(key, json.dumps(figures, indent=2).encode())


def _varies(comparison: Comparison, column: str) -> bool:
    """Whether there is anything to compare: values on both sides, and not one and the same."""
    sides = [side[column].drop_nulls() for side in (comparison.reference, comparison.current)]
    return all(len(side) for side in sides) and pl.concat(sides).n_unique() > 1


def _span(steps: pl.DataFrame) -> timedelta:
    if not len(steps):
        return timedelta()
    times = steps["occurred_at"]
    return times.max() - times.min()  # type: ignore[operator,return-value]


def _pandas(frame: pl.DataFrame) -> "pd.DataFrame":
    import pandas as pd

    return pd.DataFrame({name: _values(frame[name]) for name in frame.columns})


def _values(column: pl.Series) -> Any:
    return column.to_numpy() if column.dtype.is_numeric() else column.to_list()

"""Staging, sessions and marts: every dbt model an asset, then the snapshot that others read."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow.compute as pc
from dagster_dbt import DagsterDbtTranslator, DbtCliInvocation, dbt_assets
from dagster_dbt.asset_utils import get_updated_cli_invocation_params_for_context
from packaging.version import Version

from assets.project import (
    PROJECT_DIR,
    dbt_command,
    dbt_process_environment,
    prepare_dbt,
    run_path,
)
from assets.raw import failure_metadata
from assets.resources import WAREHOUSE_POOL, Materialized, RefreshLock
from warehouse import followed_erasures, layout, snapshot
from warehouse.contracts import MART_SCHEMAS
from warehouse.quality import check_mart
from warehouse.settings import Settings
from warehouse.store import ObjectNotFound, ObjectStore, open_store

MART_SNAPSHOT = dg.AssetKey("mart_snapshot")

# The mart whose materialization names the snapshot it was exported to.
_WITNESS = dg.AssetKey("training_steps")
_MOST_ARE_KEPT = "most_sessions_are_learned_from"


class Translator(DagsterDbtTranslator):
    """Asset groups after the folders of the dbt project."""

    def get_group_name(self, dbt_resource_props: Any) -> str | None:
        folders: list[str] = dbt_resource_props["fqn"]
        return folders[1]


def dbt_models(settings: Settings) -> dg.AssetsDefinition:
    """The dbt project's models as assets and its tests as their checks."""

    @dbt_assets(
        manifest=prepare_dbt(settings),
        dagster_dbt_translator=Translator(),
        name="dbt_models",
        pool=WAREHOUSE_POOL,
    )
    def models(
        context: dg.AssetExecutionContext,
        settings: dg.ResourceParam[Settings],
        refresh_lock: dg.ResourceParam[RefreshLock],
    ) -> Iterator[Any]:
        selected = {key.path[-1] for key in context.selected_asset_keys}
        snapshot_id = snapshot.new_snapshot_id() if selected >= set(MART_SCHEMAS) else ""
        yield from _built(context, settings, snapshot_id)

    return models


def _built(
    context: dg.AssetExecutionContext, settings: Settings, snapshot_id: str
) -> Iterator[Any]:
    """Events of one `dbt build`; outputs carry the snapshot they were exported to, if any."""
    store = open_store(settings)
    with not_beside_an_erasure():
        for erasure_id in followed_erasures.follow(settings, store):
            context.log.info(f"staging is without what was erased elsewhere: {erasure_id}")
    if snapshot_id:
        _make_export_folder(store, snapshot_id)
    for event in _invoked(context, settings, snapshot_id).stream():
        if isinstance(event, dg.Output) and snapshot_id:
            yield event.with_metadata({**event.metadata, "snapshot_id": snapshot_id})
        else:
            yield event


def _invoked(
    context: dg.AssetExecutionContext, settings: Settings, snapshot_id: str
) -> DbtCliInvocation:
    # Not through DbtCliResource: it takes its environment from this process, and asks
    # `dbt --version` first, which calls PyPI.
    chosen = get_updated_cli_invocation_params_for_context(
        context=context, manifest={}, dagster_dbt_translator=Translator()
    )
    target = run_path(settings)
    environment = dbt_process_environment(settings, target, snapshot_id)
    if chosen.indirect_selection:
        environment["DBT_INDIRECT_SELECTION"] = chosen.indirect_selection
    return DbtCliInvocation.run(
        args=dbt_command(settings, "build", *chosen.selection_args),
        env=environment,
        manifest=chosen.manifest,
        dagster_dbt_translator=chosen.dagster_dbt_translator,
        project_dir=PROJECT_DIR,
        target_path=target,
        raise_on_error=True,
        context=context,
        adapter=None,
        cli_version=Version(version("dbt-core")),
    )


@dg.asset(
    key=MART_SNAPSHOT,
    deps=[dg.AssetKey(mart) for mart in MART_SCHEMAS],
    group_name="marts",
    kinds={"parquet"},
    check_specs=[
        dg.AssetCheckSpec(
            f"{mart}_keeps_its_contract",
            asset=MART_SNAPSHOT,
            blocking=True,
            description=f"Columns, types, keys and ranges of the exported mart `{mart}`.",
        )
        for mart in MART_SCHEMAS
    ]
    + [
        dg.AssetCheckSpec(
            _MOST_ARE_KEPT,
            asset=MART_SNAPSHOT,
            description="At most half of the sessions are left out as bots' or as too many events.",
        )
    ],
)
def mart_snapshot(
    context: dg.AssetExecutionContext,
    settings: dg.ResourceParam[Settings],
    refresh_lock: dg.ResourceParam[RefreshLock],
) -> Materialized:
    """The exported marts, published as the latest snapshot once all of them pass their checks."""
    store = open_store(settings)
    snapshot_id = _exported_snapshot_id(context.instance)
    with not_beside_an_erasure(lambda: _remove(store, snapshot_id)):
        followed_erasures.check(settings, store)
    described = _described(store, snapshot_id)
    results = [_checked(store, described.snapshot_id, mart) for mart in MART_SCHEMAS]
    previous_id = _latest_snapshot_id(store)
    is_good = all(result.passed for result in results)
    raw = described.raw_objects
    if is_good:
        snapshot.publish(store, described)
    return dg.MaterializeResult(
        metadata={
            "snapshot_id": described.snapshot_id,
            "previous_snapshot_id": previous_id,
            "is_latest": is_good,
            "folder": store.uri(layout.snapshot_key(described.snapshot_id)),
            "n_raw_objects": raw.n_objects if raw else 0,
            "raw_objects_sha256": raw.sha256 if raw else "",
            "left_out": dg.MetadataValue.json(
                {reason: asdict(one) for reason, one in described.left_out.items()}
            ),
            "n_left_out_sessions": described.n_left_out,
            "n_staged_events": _n_staged_events(store, described.snapshot_id),
            **{f"n_{mart}": export.n_rows for mart, export in described.marts.items()},
        },
        check_results=[*results, most_are_kept(described)],
    )


@contextmanager
def not_beside_an_erasure(clean_up: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Fail the run, after `clean_up`, where an erasure of another home was not followed yet."""
    try:
        yield
    except followed_erasures.ErasureNotFollowed as error:
        clean_up()
        raise dg.Failure(str(error), allow_retries=False) from error


def _remove(store: ObjectStore, snapshot_id: str) -> None:
    for info in list(store.list(layout.snapshot_folder(snapshot_id))):
        store.delete(info.key)


def most_are_kept(described: snapshot.Snapshot) -> dg.AssetCheckResult:
    """A shop whose own senders look like bots would lose its sessions; this says so."""
    n_sessions = described.marts["sessions"].n_rows
    return dg.AssetCheckResult(
        passed=2 * described.n_left_out <= n_sessions,
        check_name=_MOST_ARE_KEPT,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={"n_left_out": described.n_left_out, "n_sessions": n_sessions},
    )


def _n_staged_events(store: ObjectStore, snapshot_id: str) -> int:
    """Rows of staging: every one of them belongs to a session."""
    n_events = snapshot.read_mart(store, snapshot_id, "sessions")["n_events"]
    return int(pc.sum(n_events).as_py() or 0)


def _exported_snapshot_id(instance: dg.DagsterInstance) -> str:
    event = instance.get_latest_materialization_event(_WITNESS)
    found = event and event.asset_materialization
    value = found and found.metadata.get("snapshot_id")
    if not value:
        raise dg.Failure(
            "no marts exported yet: materialize all dbt models together, as the job `refresh` does",
            allow_retries=False,
        )
    return str(value.value)


def _latest_snapshot_id(store: ObjectStore) -> str:
    try:
        return snapshot.latest(store).snapshot_id
    except snapshot.NoSnapshot:
        return ""


def _described(store: ObjectStore, snapshot_id: str) -> snapshot.Snapshot:
    try:
        return snapshot.describe(store, snapshot_id)
    except (ObjectNotFound, snapshot.SchemaMismatch) as error:
        raise dg.Failure(
            f"snapshot {snapshot_id} is not whole, run `refresh` again: {error}",
            allow_retries=False,
        ) from error


def _checked(store: ObjectStore, snapshot_id: str, mart: str) -> dg.AssetCheckResult:
    failures = check_mart(snapshot.read_mart(store, snapshot_id, mart), mart)
    return dg.AssetCheckResult(
        passed=not failures,
        check_name=f"{mart}_keeps_its_contract",
        metadata=failure_metadata(failures),
    )


def _make_export_folder(store: ObjectStore, snapshot_id: str) -> None:
    """DuckDB's `copy` makes no folders; a store on S3 has none."""
    folder = store.uri(layout.snapshot_folder(snapshot_id))
    if not folder.startswith("s3://"):
        Path(folder).mkdir(parents=True, exist_ok=True)

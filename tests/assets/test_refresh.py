"""Whole refreshes of one small shop, from no event at all to a refused model."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import dagster as dg
import pytest

from assets.definitions import build_definitions
from assets.instance import HEADLESS, end_orphans, install_dagster_home, open_instance
from assets.project import PROJECT_DIR, prepare_dbt
from assets.refresh import (
    Progress,
    RefreshFailed,
    RefreshResult,
    model_outcome,
    run_refresh,
)
from assets.resources import WAREHOUSE_POOL, RefreshRunning, refresh_lock
from assets.training import candidate_model
from models.registry import Registry
from models.rivals import GATE_RIVALS
from warehouse import snapshot
from warehouse.settings import Settings, TrainingSettings
from warehouse.store import open_store

# evidently and what it brings still use deprecated names.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

QUICK = {"n_epochs": 8, "layers": [24], "n_sample": 32, "batch_size": 16, "dropout_embed": 0.0}
HOPELESS = {**QUICK, "n_epochs": 1, "learning_rate": 1e-9}


@dataclass
class Story:
    """One shop's refreshes, in the order in which they ran, and what the last one told of."""

    settings: Settings
    without_events: str
    good: RefreshResult
    bad: RefreshResult
    progress: list[Progress]


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory, land_sessions: Callable[..., int]) -> Story:
    folder = tmp_path_factory.mktemp("story")
    settings = _settings(folder, QUICK)
    with pytest.raises(RefreshFailed) as without_events:
        run_refresh(settings)
    land_sessions(settings, 250, day=1)
    progress: list[Progress] = []
    good = run_refresh(settings, progress.append)
    land_sessions(settings, 250, day=3, price=90.0)
    bad = run_refresh(_settings(folder, HOPELESS, fusion=False))
    return Story(settings, str(without_events.value), good, bad, progress)


def _settings(folder: Path, config: dict[str, object], *, fusion: bool = True) -> Settings:
    file = folder / f"{abs(hash(json.dumps(config)))}.json"
    file.write_text(json.dumps(config))
    return Settings(
        _env_file=None,
        home=folder / "home",
        training=TrainingSettings(config_file=file, fusion=fusion),
    )


def test_without_raw_events_it_says_so(story: Story) -> None:
    assert "no raw events yet" in story.without_events
    assert "Traceback" not in story.without_events


def test_too_few_events_to_judge_a_model_is_no_failure(story: Story) -> None:
    demanding = story.settings.model_copy(
        update={"training": TrainingSettings(min_holdout_steps=100_000)}
    )
    with dg.DagsterInstance.ephemeral() as instance:
        result = dg.materialize(
            [candidate_model],
            resources={"settings": demanding},
            instance=instance,
            raise_on_error=False,
        )
    outcome, reason = model_outcome(result)
    assert outcome == "not_enough_data"
    assert "not enough data for a model" in reason
    assert "SHALLOP_TRAINING__MIN_HOLDOUT_STEPS" in reason


def test_a_good_model_is_promoted(story: Story) -> None:
    result = story.good
    assert result.outcome == "promoted"
    assert result.serves == next(iter(result.metrics))  # the first of those that are compared
    assert result.counts["raw_events"] == result.counts["staged_events"] == 1250
    assert result.counts["sessions"] == 250
    assert result.counts["training_steps"] == 1250
    assert {one["n_sessions"] for one in result.left_out.values()} == {0}
    assert result.metrics["fusion"]["recall@20"] > result.metrics["popularity"]["recall@20"]
    assert set(result.metrics) == {"fusion", "gru4rec", *GATE_RIVALS}


def test_a_model_names_the_raw_objects_it_was_made_of(story: Story) -> None:
    store = open_store(story.settings)
    manifest = Registry(store).manifest("gru4rec", str(story.good.model_version))
    described = snapshot.load(store, story.good.snapshot_id)
    assert manifest["raw"] == asdict(described.raw_objects)
    assert manifest["raw"]["n_events"] == 1250
    assert manifest["marts"] == {mart: one.sha256 for mart, one in described.marts.items()}


def test_a_model_has_a_report_that_dagster_links_to(story: Story) -> None:
    version = str(story.good.model_version)
    report = Registry(open_store(story.settings)).report("gru4rec", version)
    assert version.encode() in report
    # What became of each item comes all the way from the events.
    assert b"put into the cart" in report or b"all are looked at" in report
    assert b"device (all are unknown)" in report
    with open_instance(story.settings) as instance:
        found = instance.fetch_materializations(dg.AssetKey("candidate_model"), limit=10).records
    urls = [
        one.asset_materialization.metadata["report"].value
        for one in found if one.asset_materialization
    ]  # fmt: skip
    assert f"http://127.0.0.1:8000/models/{version}/report" in urls


def test_progress_names_every_step(story: Story) -> None:
    assert [one.step for one in story.progress if one.state == "done"][:3] == [
        "raw/events", "dbt_models", "mart_snapshot",
    ]  # fmt: skip
    started, done = (
        {one.step for one in story.progress if one.state == state} for state in ("started", "done")
    )
    assert started == done
    assert {"candidate_model", "candidate_model_gate", "champion_model", "drift_report"} < done


def test_a_refused_model_is_kept_but_does_not_serve(story: Story) -> None:
    store = open_store(story.settings)
    assert story.bad.outcome == "refused"
    assert "beats_popularity" in story.bad.reason
    assert "holds_against_champion_recall_at_20" in story.bad.reason
    registry = Registry(store)
    assert registry.pointer().version == story.good.model_version
    assert story.bad.model_version in {info.version for info in registry.versions()}
    checks = registry.checks("gru4rec", str(story.bad.model_version))
    assert any(not check["passed"] for check in checks)
    refusal = registry.refusal()
    assert refusal is not None
    assert (refusal.version, refusal.reason) == (story.bad.model_version, story.bad.reason)
    # the marts are good all the same
    assert snapshot.latest(store).snapshot_id == story.bad.snapshot_id


def test_drift_is_reported_against_the_snapshot_before(story: Story) -> None:
    store = open_store(story.settings)
    kept = json.loads(store.get(f"reports/drift/{story.bad.snapshot_id}.json"))
    assert kept["compared_with"] == story.good.snapshot_id
    assert kept["psi"]["events.price"] > 0.2
    assert "predictions.top_item" in kept["psi"]
    html = store.get(f"reports/drift/{story.bad.snapshot_id}-events.html")
    assert b"<html" in html


def test_runs_are_in_the_instance_of_the_web_ui(story: Story) -> None:
    with open_instance(story.settings) as instance:
        statuses = {run.run_id: run.status for run in instance.get_runs()}
        passed = {
            record.check_name: record.passed
            for run_id in (story.good.run_id, story.bad.run_id)
            for record in _evaluations(instance, run_id)
        }
    assert statuses[story.good.run_id] == dg.DagsterRunStatus.SUCCESS
    assert statuses[story.bad.run_id] == dg.DagsterRunStatus.FAILURE
    assert {"unique_stg_shop__events_event_id", "sessions_keeps_its_contract"} < {
        name for name, is_passed in passed.items() if is_passed
    }


def _evaluations(instance: dg.DagsterInstance, run_id: str) -> list[dg.AssetCheckEvaluation]:
    events = instance.all_logs(run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION)
    return [entry.dagster_event.asset_check_evaluation_data for entry in events]


def test_definitions_load(story: Story) -> None:
    definitions = build_definitions(story.settings)
    dg.Definitions.validate_loadable(definitions)
    graph = definitions.resolve_asset_graph()
    staging = dg.AssetKey("stg_shop__events")
    assert graph.get(staging).parent_keys == {dg.AssetKey(["raw", "events"])}
    assert graph.get(staging).pools == {WAREHOUSE_POOL}
    mart_checks = graph.get_check_keys_for_assets({dg.AssetKey("training_steps")})
    assert "training_has_no_adjacent_repeats" in {key.name for key in mart_checks}


def test_dbt_is_parsed_again_only_when_something_changed(story: Story) -> None:
    manifest = prepare_dbt(story.settings)
    written_at = manifest.stat().st_mtime_ns
    assert prepare_dbt(story.settings).stat().st_mtime_ns == written_at
    (manifest.parent / "fingerprint").write_text("of another project")
    assert prepare_dbt(story.settings).stat().st_mtime_ns > written_at


def test_dbt_writes_nothing_beside_the_project(story: Story) -> None:
    assert {path.name for path in PROJECT_DIR.iterdir()} <= {
        ".sqlfluff", ".sqlfluffignore", "dbt_project.yml", "macros", "models", "profiles.yml",
        "tests",
    }  # fmt: skip


def test_two_refreshes_at_once_are_refused(settings: Settings) -> None:
    with (
        refresh_lock(settings, "first"),
        pytest.raises(RefreshRunning, match="wait until it has ended: run first in process"),
    ):
        run_refresh(settings)


def test_a_killed_run_does_not_hold_the_pool_for_ever(settings: Settings) -> None:
    with open_instance(settings) as instance:
        run = instance.create_run_for_job(
            dg.job(name="refresh")(lambda: None),
            tags={HEADLESS: "true"},
            status=dg.DagsterRunStatus.STARTED,
        )
        storage = instance.event_log_storage
        storage.initialize_concurrency_limit_to_default(WAREHOUSE_POOL)
        claimed = storage.claim_concurrency_slot(WAREHOUSE_POOL, run.run_id, "dbt_models")
        assert claimed.is_claimed
        assert end_orphans(instance, settings) == 1
        found = instance.get_run_by_id(run.run_id)
        assert found is not None
        assert found.status == dg.DagsterRunStatus.FAILURE
        assert storage.claim_concurrency_slot(WAREHOUSE_POOL, "next", "dbt_models").is_claimed


def test_a_dagster_yaml_of_the_operator_stays(settings: Settings) -> None:
    installed = install_dagster_home(settings) / "dagster.yaml"
    ours = installed.read_text()
    installed.write_text(ours + "# outdated\n")
    install_dagster_home(settings)
    assert installed.read_text() == ours
    installed.write_text("telemetry: {enabled: false}\n")
    install_dagster_home(settings)
    assert installed.read_text() == "telemetry: {enabled: false}\n"

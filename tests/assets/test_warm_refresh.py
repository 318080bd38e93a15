"""Refreshes that begin from the champion, through the real Dagster assets."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from models.erasures import BundleErasure, mark
from models.registry import Registry
from tests.api.tiny_shop import publish_marts
from tests.assets.test_broken_candidates import CONFIG, marts, refresh_model
from tests.models.conftest import ring_sessions
from warehouse.settings import Settings, TrainingSettings
from warehouse.store import open_store


def told(result: dg.ExecuteInProcessResult) -> dict[str, Any]:
    """What the refresh's trainings began from, of the candidate's metadata."""
    assert result.success
    [event] = [
        one for one in result.get_asset_materialization_events()
        if one.materialization.asset_key == dg.AssetKey("candidate_model")
    ]  # fmt: skip
    value: Any = event.materialization.metadata["warm_start"].value
    return value


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_each_refresh_begins_from_the_champion_unless_that_knows_what_was_erased(
    tmp_path: Path,
) -> None:
    config = tmp_path / "config.json"
    config.write_text(json.dumps(CONFIG))
    settings = Settings(
        _env_file=None, home=tmp_path / "home",
        training=TrainingSettings(config_file=config, warm_start_epochs=2, fusion=False),
    )  # fmt: skip
    store = open_store(settings)
    registry = Registry(store)
    publish_marts(store, marts(ring_sessions(300)))
    with dg.DagsterInstance.ephemeral() as instance:
        cold = told(refresh_model(settings, instance))
        assert {one["reason"] for one in cold.values()} == {"there is no champion to begin from"}
        first = registry.pointer().version
        publish_marts(store, marts(ring_sessions(320)), "20260102T000000000000Z")
        warm = told(refresh_model(settings, instance))
        assert warm["refit"]["from"] == first
        second = registry.pointer().version
        manifest = registry.manifest("gru4rec", second)
        assert [one["version"] for one in manifest["ancestors"]] == [first]
        # What the first one learned from is erased from: the second one has it from there.
        erasure = BundleErasure("e1", datetime(2026, 2, 1, tzinfo=UTC))
        learned_from = {manifest["ancestors"][0]["snapshot_id"]}
        marked = mark(store, erasure, learned_from, learned_from, None)
        assert sorted(marked) == sorted([f"gru4rec {first}", f"gru4rec {second}"])
        again = told(refresh_model(settings, instance))
        assert again["refit"] == {
            "from": None,
            "reason": f"the champion {second} learned from events that were erased since",
        }
        third = registry.pointer().version
        assert third not in {first, second}
        assert registry.manifest("gru4rec", third)["ancestors"] == []

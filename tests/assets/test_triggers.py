"""When a refresh starts by itself, and the alert when it fails."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
import httpx
import pytest
from pydantic import SecretStr

from assets.raw import RAW_EVENTS, RawRange, inventory, raw_events
from assets.triggers import (
    failure_webhook,
    post_alert,
    refresh_after_events,
    refresh_job,
    refresh_schedule,
)
from warehouse import layout
from warehouse.settings import RefreshSettings, Settings
from warehouse.store import open_store

NOW = datetime.now(UTC)


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as opened:
        yield opened


@pytest.fixture
def eager(settings: Settings) -> Settings:
    """Settings under which ten new events start a refresh."""
    return settings.model_copy(update={"refresh": RefreshSettings(after_events=10)})


def land(settings: Settings, first: int, last: int, *, at: datetime = NOW) -> None:
    """An object of this range; its content is not looked at."""
    key = layout.raw_key(layout.RAW_EVENTS, at, "c0", first, last)
    open_store(settings).put(key, b"never read")


def tick(
    settings: Settings, instance: dg.DagsterInstance, cursor: str | None = None
) -> dg.SensorResult | dg.SkipReason:
    """One evaluation of the sensor."""
    context = dg.build_sensor_context(instance=instance, cursor=cursor)
    result: Any = refresh_after_events(context, settings=settings)
    return result


def test_enough_new_events_start_a_refresh_once(
    eager: Settings, instance: dg.DagsterInstance
) -> None:
    land(eager, 1, 9)
    early = tick(eager, instance)
    assert isinstance(early, dg.SkipReason)
    assert early.skip_message == "9 new raw events, a refresh starts at 10"
    land(eager, 10, 12)
    due = tick(eager, instance)
    assert isinstance(due, dg.SensorResult)
    assert [request.tags for request in due.run_requests or []] == [{"shallop/new_events": "12"}]
    after = tick(eager, instance, due.cursor)
    assert isinstance(after, dg.SkipReason)
    assert "0 new raw events" in str(after.skip_message)
    land(eager, 13, 22)
    assert isinstance(tick(eager, instance, due.cursor), dg.SensorResult)


def test_events_that_another_refresh_has_seen_do_not_count(
    eager: Settings, instance: dg.DagsterInstance
) -> None:
    land(eager, 1, 100)
    instance.report_runless_asset_event(
        dg.AssetMaterialization(
            RAW_EVENTS, metadata={"high_water": dg.MetadataValue.json({"c0": 95})}
        )
    )
    skipped = tick(eager, instance)
    assert isinstance(skipped, dg.SkipReason)
    assert "5 new raw events" in str(skipped.skip_message)


def test_no_second_refresh_while_one_runs(eager: Settings, instance: dg.DagsterInstance) -> None:
    land(eager, 1, 100)
    instance.create_run_for_job(
        dg.job(name="refresh")(lambda: None), status=dg.DagsterRunStatus.STARTED
    )
    skipped = tick(eager, instance)
    assert isinstance(skipped, dg.SkipReason)
    assert skipped.skip_message == "a refresh is running"


def test_other_objects_are_no_ranges() -> None:
    assert RawRange.of("raw/events/date=2026-01-01/hour=00/compacted.parquet") is None
    key = layout.raw_key(layout.RAW_EVENTS, NOW, "collector-a", 7, 1_000_000_000_007)
    assert RawRange.of(key) == RawRange("collector-a", 7, 1_000_000_000_007)


def test_inventory_finds_the_newest_object_of_each_collector(settings: Settings) -> None:
    store = open_store(settings)
    for hours, collector, first in ((0, "a", 1), (1, "a", 11), (1, "a", 21), (1, "b", 1)):
        at = NOW.replace(hour=10) + timedelta(hours=hours)
        store.put(layout.raw_key(layout.RAW_EVENTS, at, collector, first, first + 9), b"12345")
    found = inventory(store)
    assert (found.n_objects, found.n_bytes, found.n_events) == (4, 20, 40)
    assert found.high_water == {"a": 30, "b": 10}
    assert [key.rpartition("/")[2] for key in found.newest] == [
        "a-000000000021-000000000030.parquet",
        "b-000000000001-000000000010.parquet",
    ]


def test_raw_events_out_of_contract_stop_the_refresh(
    settings: Settings, instance: dg.DagsterInstance, land_sessions: Callable[..., int]
) -> None:
    assert land_sessions(settings, 2) == 10
    good = dg.materialize([raw_events], resources={"settings": settings}, instance=instance)
    (materialization,) = good.asset_materializations_for_node("raw__events")
    assert materialization.metadata["n_events"].value == 10
    assert materialization.metadata["high_water"].value == {"c0": 10}
    broken = open_store(settings)
    (found,) = broken.list(layout.RAW_EVENTS)
    data = broken.get(found.key).replace(b"view_item", b"view_iten")
    broken.put(found.key, data)
    bad = dg.materialize(
        [raw_events], resources={"settings": settings}, instance=instance, raise_on_error=False
    )
    (check,) = bad.get_asset_check_evaluations()
    assert not check.passed
    assert "view_iten" in str(check.metadata["failures"].value)
    assert not bad.success


def test_the_schedule_follows_the_settings(settings: Settings) -> None:
    with_cron = settings.model_copy(update={"refresh": RefreshSettings(cron="5 4 * * *")})
    schedule = refresh_schedule(with_cron)
    assert schedule.cron_schedule == "5 4 * * *"
    assert schedule.job_name == refresh_job.name
    assert schedule.default_status == dg.DefaultScheduleStatus.RUNNING


def failed_run(settings: Settings, instance: dg.DagsterInstance) -> Any:
    """Context of the failure sensor for a refresh over an empty store."""
    result = dg.materialize(
        [raw_events], resources={"settings": settings}, instance=instance, raise_on_error=False
    )
    return dg.build_run_status_sensor_context(
        sensor_name="failure_webhook",
        dagster_instance=instance,
        dagster_run=result.dagster_run,
        dagster_event=result.get_run_failure_event(),
        resources={"settings": settings},
    ).for_run_failure()


def test_a_failed_run_is_posted_to_the_webhook(
    settings: Settings, instance: dg.DagsterInstance, webhook: tuple[str, list[dict[str, Any]]]
) -> None:
    url, received = webhook
    alerting = settings.model_copy(
        update={"refresh": RefreshSettings(alert_webhook_url=SecretStr(f"{url}/alert"))}
    )
    context = failed_run(alerting, instance)
    failure_webhook(context)
    (alert,) = received
    assert alert["event"] == "run_failed"
    assert alert["run_id"] == context.dagster_run.run_id
    assert alert["failed_steps"] == ["raw__events"]
    assert alert["error"].startswith("no raw events yet")
    assert alert["url"].endswith(f"/runs/{alert['run_id']}")


def test_without_a_webhook_nobody_hears(
    settings: Settings, instance: dg.DagsterInstance, webhook: tuple[str, list[dict[str, Any]]]
) -> None:
    failure_webhook(failed_run(settings, instance))
    assert webhook[1] == []


def test_an_alert_that_is_not_taken_is_an_error(
    webhook: tuple[str, list[dict[str, Any]]],
) -> None:
    with pytest.raises(httpx.HTTPStatusError, match="503"):
        post_alert(f"{webhook[0]}/down", {"event": "test"})

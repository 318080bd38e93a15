"""`docker compose up` as a user does it: events in, `refresh` from Dagster, recommendations out."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import polars as pl
import pytest

ROOT = Path(__file__).parents[2]
# As it was before the tests' own fixture took `SHALLOP_*` out of it: images may be named there.
ENVIRONMENT = dict(os.environ)
APP = "http://127.0.0.1:18000"
DAGSTER = "http://127.0.0.1:13000"
N_REAL_EVENTS = 60_000
REFRESH_TIMEOUT_SECONDS = 1500

LAUNCH = """
mutation ($selector: JobOrPipelineSelector!) {
  launchRun(executionParams: {selector: $selector, mode: "default", runConfigData: {}}) {
    __typename
    ... on LaunchRunSuccess { run { runId } }
    ... on PythonError { message }
  }
}
"""
STATUS = """
query ($run: ID!) { runOrError(runId: $run) { __typename ... on Run { status } } }
"""
LOCATIONS = """
{ repositoriesOrError { ... on RepositoryConnection { nodes { name location { name } } } } }
"""

pytestmark = pytest.mark.compose


def compose(*arguments: str, timeout_seconds: int = 1800) -> str:
    """Output of `docker compose …` in a project of this test; its failure is the test's."""
    command = ["docker", "compose", "--project-name", "shallop-e2e", "--env-file", ".env.example"]
    ports = {
        "SHALLOP_PORT": "18000",
        "DAGSTER_PORT": "13000",
        "SHALLOP_S3_PORT": "19000",
        "SHALLOP_S3_CONSOLE_PORT": "19001",
    }
    done = subprocess.run(
        [*command, *arguments],
        cwd=ROOT,
        env=ENVIRONMENT | ports,
        capture_output=True,
        text=True,
        timeout=timeout_seconds,
    )
    assert done.returncode == 0, f"{arguments} ended with {done.returncode}\n{done.stderr[-6000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def stack() -> Iterator[None]:
    """All services, healthy; removed with their volumes afterwards."""
    compose("down", "--volumes", "--timeout", "20")
    try:
        compose("up", "--build", "--detach", "--wait", "--wait-timeout", "600")
        yield
    except AssertionError:
        sys.stderr.write(compose("logs", "--tail", "60"))
        raise
    finally:
        compose("down", "--volumes", "--timeout", "20")


def test_events_become_recommendations(stack: None, shop_data: Path, tmp_path: Path) -> None:
    sent = _replay(shop_data, tmp_path)
    assert (sent["accepted"], sent["rejected"]) == (N_REAL_EVENTS, 0)
    _wait(lambda: _status()["collector"]["depth"] == 0, 120, "the outbox to reach the store")

    unready = httpx.get(f"{APP}/recommend", params={"session": "early"})
    assert unready.status_code == 503
    assert "refresh" in unready.text

    assert _refresh() == "SUCCESS"
    has_compiled = "from models.fused import compiled; print(compiled() is not None)"
    assert compose("exec", "--no-TTY", "code", "python3", "-c", has_compiled).strip() == "True"
    _wait(lambda: _status()["model"] is not None, 60, "the app to load the champion")

    item = httpx.get(f"{APP}/items", params={"limit": 1}).json()["items"][0]
    event = {
        "event_name": "view_item",
        "session_id": "e2e",
        "items": [{"item_id": item["item_id"]}],
    }
    assert httpx.post(f"{APP}/events", json=event).status_code == 202
    reply = httpx.get(f"{APP}/recommend", params={"session": "e2e", "k": 5}).json()
    assert reply["fallback"] is None
    parts = {"gru4rec", "vmis-knn", "sequential-rules"}
    assert [found["source"] in parts for found in reply["items"]] == [True] * 5
    assert all(found["title"] for found in reply["items"])

    compose("stop", "--timeout", "60")
    services = [
        json.loads(line) for line in compose("ps", "--all", "--format", "json").split("\n") if line
    ]
    assert len(services) == 6
    # 143: ended by the SIGTERM that `stop` sends.
    assert {s["Service"]: s["ExitCode"] for s in services if s["ExitCode"] not in (0, 143)} == {}
    logs = compose("logs", "--no-color", "app", "code", "dagster", "daemon")
    wrong = [line for line in logs.splitlines() if "Traceback" in line or "level=ERROR" in line]
    assert wrong == []


def _replay(shop_data: Path, folder: Path) -> dict[str, Any]:
    """Send the first real events of the Merchandise Store through the published port."""
    source = shop_data / "ga_merch_store"
    pl.read_parquet(source / "events.parquet").head(N_REAL_EVENTS).write_parquet(
        folder / "events.parquet"
    )
    pl.read_parquet(source / "items.parquet").write_parquet(folder / "items.parquet")
    done = subprocess.run(
        [sys.executable, "-m", "shallop", "replay", str(folder / "events.parquet"),
         "--url", APP, "--json"],
        cwd=ROOT, env=ENVIRONMENT | {"SHALLOP_HOME": str(folder / "home")}, capture_output=True,
        text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _refresh() -> str:
    """Launch the job as the web UI does; its final status."""
    (repository,) = _graphql(LOCATIONS)["repositoriesOrError"]["nodes"]
    selector = {
        "repositoryName": repository["name"],
        "repositoryLocationName": repository["location"]["name"],
        "jobName": "refresh",
    }
    launched = _graphql(LAUNCH, selector=selector)["launchRun"]
    assert launched["__typename"] == "LaunchRunSuccess", launched
    run = launched["run"]["runId"]
    status = "QUEUED"
    deadline = time.monotonic() + REFRESH_TIMEOUT_SECONDS
    while status not in ("SUCCESS", "FAILURE", "CANCELED") and time.monotonic() < deadline:
        time.sleep(2)
        status = _graphql(STATUS, run=run)["runOrError"]["status"]
    return status


def _graphql(query: str, **variables: Any) -> dict[str, Any]:
    reply = httpx.post(
        f"{DAGSTER}/graphql", json={"query": query, "variables": variables}, timeout=60
    ).json()
    assert "errors" not in reply, reply["errors"]
    data: dict[str, Any] = reply["data"]
    return data


def _status() -> dict[str, Any]:
    status: dict[str, Any] = httpx.get(f"{APP}/status", timeout=10).json()
    return status


def _wait(is_done: Any, seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not is_done():
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
        time.sleep(0.5)

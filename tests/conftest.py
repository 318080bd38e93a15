"""Fixtures that every part's tests share: settings in a temporary folder, a real S3 server."""

import os
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from cli.local_s3 import LocalS3
from cli.ports import free_s3_ports
from warehouse.settings import Settings, StorageSettings
from warehouse.store import StoreUnavailable, open_store

ACCESS_KEY = "testadmin"
SECRET_KEY = "testadmin-secret"


def pytest_report_header() -> list[str]:
    from importlib.metadata import version

    names = ("duckdb", "dbt-core", "dagster", "torch", "pyarrow")
    return ["shallop: " + ", ".join(f"{name} {version(name)}" for name in names)]


@pytest.fixture(autouse=True)
def _no_outside_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests do not see the settings of the shell that runs them."""
    for name in os.environ:
        if name.startswith("SHALLOP_"):
            monkeypatch.delenv(name)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Settings whose state and store are folders of this test alone."""
    return Settings(_env_file=None, home=tmp_path / "home")


@pytest.fixture(scope="session")
def shop_data() -> Path:
    """The folder of real shop events, where this machine has it."""
    folder = Path(__file__).parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("no real shop events beside the checkout")
    return folder


@pytest.fixture(scope="session")
def s3_endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a real S3 server (SeaweedFS) that lives as long as the test run."""
    folder = tmp_path_factory.mktemp("s3")
    server = LocalS3(folder, free_s3_ports(), ACCESS_KEY, SECRET_KEY)
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            server.command,
            env={**server.environment, "PATH": os.environ["PATH"]},
            stdout=log,
            stderr=log,
            cwd=folder,
            start_new_session=True,
        )
    try:
        _wait_until_ready(server.endpoint, process)
        yield server.endpoint
    finally:
        # Nothing of it is kept, and after many tests it takes its time to end by itself.
        process.kill()
        process.wait()


@pytest.fixture
def s3_settings(s3_endpoint: str, tmp_path: Path) -> Settings:
    """Settings whose store is a fresh bucket on the S3 server."""
    made = Settings(
        _env_file=None,
        home=tmp_path / "home",
        storage=StorageSettings(
            uri=f"s3://test-{uuid4().hex[:12]}/lake",
            s3_endpoint=s3_endpoint,
            s3_access_key=ACCESS_KEY,
            s3_secret_key=SECRET_KEY,
        ),
    )
    open_store(made).prepare()
    return made


def _wait_until_ready(endpoint: str, server: subprocess.Popen[bytes]) -> None:
    probe = Settings(
        _env_file=None,
        storage=StorageSettings(
            uri="s3://ready", s3_endpoint=endpoint, s3_access_key=ACCESS_KEY,
            s3_secret_key=SECRET_KEY,
        ),
    )  # fmt: skip
    for _ in range(150):
        if server.poll() is not None:
            raise RuntimeError(f"the S3 server ended with status {server.returncode}")
        try:
            urllib.request.urlopen(f"{endpoint}/healthz", timeout=1).close()
            open_store(probe).prepare()
        except (urllib.error.URLError, OSError, StoreUnavailable):
            time.sleep(0.1)
        else:
            return
    raise RuntimeError(f"the S3 server did not become ready: {endpoint}")

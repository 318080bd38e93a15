"""The OpenAPI document against the real app: right and wrong requests made from it by schemathesis.

Not among the checks: that whatever the schema allows is accepted, and whatever it forbids refused.
Other protocols than ours are acknowledged by their clients' rules, and what is wrong is kept.
"""

import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest

from tests.api.server import request, running
from tests.api.tiny_shop import promote, publish_marts
from warehouse.settings import Settings
from warehouse.store import ObjectStore

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "unsupported_method",
    "allow_header_conformance",
)


@pytest.mark.slow
def test_every_reply_fits_the_document(
    settings: Settings,
    store: ObjectStore,
    marts: dict[str, pa.Table],
    bundles: list[Path],
    tmp_path: Path,
) -> None:
    publish_marts(store, marts)
    promote(store, bundles[0])
    with running(settings) as (port, _):
        command = [
            sys.executable, "-m", "schemathesis.cli", "run",
            f"http://127.0.0.1:{port}/openapi.json",
            "--checks", ",".join(CHECKS),
            "--phases", "examples,coverage,fuzzing", "--mode", "all",
            "--max-examples", "10", "--max-time", "60", "--seed", "1",
            "--generation-database", "none", "--continue-on-failure", "--no-color",
        ]  # fmt: skip
        environment = os.environ | {
            "SCHEMATHESIS_HOOKS": "tests.api.schemathesis_hooks",
            "PYTHONPATH": str(Path(__file__).parents[2]),
        }
        ran = subprocess.run(
            command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
        )
        _, document = request(port, "GET", "/openapi.json")
        _, status = request(port, "GET", "/status")
    assert ran.returncode == 0, ran.stdout[-6000:] + ran.stderr[-2000:]
    paths = document["paths"]
    assert isinstance(paths, dict)
    n_operations = sum(len(operations) for operations in paths.values())
    assert f"Tested: {n_operations}" in ran.stdout
    collector = status["collector"]
    assert isinstance(collector, dict)
    assert collector["accepted"] > 0

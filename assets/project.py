"""The dbt project as Dagster runs it: its manifest, its environment, one command at a time.

Everything that dbt writes goes below `<home>/dbt`, so the code may be read-only. Parsing takes
seconds and its result is the same until the project or its settings change: it is kept, under a
fingerprint of both.
"""

import fcntl
import hashlib
import json
import logging
import os
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

from warehouse.contracts import STEP_EVENT_NAMES
from warehouse.duck import seed_extensions
from warehouse.settings import Settings

PROJECT_DIR = Path(__file__).parents[1] / "transforms"

log = logging.getLogger(__name__)


class DbtParseFailed(RuntimeError):
    """dbt cannot read its project."""


def prepare_dbt(settings: Settings) -> Path:
    """Make dbt ready to run and return its manifest; quick when nothing has changed.

    Seeds DuckDB's S3 extension where the store needs it, and parses the project when the manifest
    is missing or stale. Raises DbtParseFailed.
    """
    if settings.store_uri.startswith("s3://"):
        seed_extensions(settings)
    target = parsed_path(settings)
    manifest, kept = target / "manifest.json", target / "fingerprint"
    target.mkdir(parents=True, exist_ok=True)
    with (target / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        fingerprint = _fingerprint(settings)
        if not (manifest.exists() and kept.exists() and kept.read_text() == fingerprint):
            kept.unlink(missing_ok=True)
            _parse(settings, target)
            kept.write_text(fingerprint)
    return manifest


def dbt_command(settings: Settings, command: str, *arguments: str) -> list[str]:
    """A dbt command line with the project's vars."""
    variables = {
        "session_gap_seconds": settings.ingest.session_gap_seconds,
        "step_event_names": list(STEP_EVENT_NAMES),
    }
    return [
        *(sys.executable, "-c", "from dbt.cli.main import cli; cli()", command),
        *("--vars", json.dumps(variables), *arguments),
    ]


def dbt_process_environment(
    settings: Settings, target: Path, snapshot_id: str = ""
) -> dict[str, str]:
    """The environment of a dbt process that writes below `target`.

    With a `snapshot_id` the marts that it builds are exported to that snapshot.
    """
    return {
        **os.environ,
        **settings.dbt_environment(),
        "SHALLOP_SNAPSHOT_ID": snapshot_id,
        "DBT_PROJECT_DIR": str(PROJECT_DIR),
        "DBT_PROFILES_DIR": str(PROJECT_DIR),
        "DBT_TARGET_PATH": str(target),
        "DBT_LOG_PATH": str(target),
        "DBT_LOG_FORMAT": "json",
        "PYTHONUNBUFFERED": "1",
    }


def parsed_path(settings: Settings) -> Path:
    """Folder of the parsed project."""
    return settings.home.absolute() / "dbt" / "parsed"


def run_path(settings: Settings) -> Path:
    """Folder of the artifacts and log of the latest dbt run, one at a time.

    Starts from the parsed project, so that the run need not parse.
    """
    target = settings.home.absolute() / "dbt" / "run"
    target.mkdir(parents=True, exist_ok=True)
    parsed = parsed_path(settings) / "partial_parse.msgpack"
    if parsed.exists():
        shutil.copyfile(parsed, target / parsed.name)
    return target


def _parse(settings: Settings, target: Path) -> None:
    log.info("parsing the dbt project target=%s", target)
    done = subprocess.run(
        dbt_command(settings, "parse", "--quiet", "--log-format", "text", "--no-use-colors"),
        env=dbt_process_environment(settings, target),
        cwd=PROJECT_DIR,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise DbtParseFailed(f"`dbt parse` failed, see {target}/dbt.log: {done.stdout.strip()}")


def _fingerprint(settings: Settings) -> str:
    """Hash of all that the manifest depends on; no secret goes in."""
    digest = hashlib.sha256()
    for name in ("dbt-core", "dbt-duckdb"):
        digest.update(f"{name}={version(name)}\n".encode())
    digest.update(" ".join(dbt_command(settings, "parse")).encode())
    for name, value in sorted(settings.dbt_environment().items()):
        if not name.endswith("_KEY"):
            digest.update(f"{name}={value}\n".encode())
    for path in sorted(PROJECT_DIR.rglob("*")):
        if path.suffix in (".sql", ".yml"):
            digest.update(path.relative_to(PROJECT_DIR).as_posix().encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()

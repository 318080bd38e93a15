"""DuckDB's extensions, from their wheels into the folder that DuckDB loads them from.

The httpfs wheel carries the signed extension, but in another folder layout than DuckDB expects; a
copy in the right place makes `install` and `load` work without a download.
"""

import importlib.util
import os
import shutil
from pathlib import Path
from uuid import uuid4

import duckdb

from warehouse.settings import Settings

EXTENSION = "httpfs"


class ExtensionMissing(RuntimeError):
    """DuckDB's S3 extension is not installed for this version of DuckDB."""


def seed_extensions(settings: Settings) -> Path:
    """Put httpfs where dbt's DuckDB finds it; the path of the extension.

    Does nothing where it is already there. Several processes may do it at once: the file appears
    whole. Raises ExtensionMissing.
    """
    source = _extension_in_wheel()
    target = settings.extension_path / f"v{duckdb.__version__}" / _platform() / source.name
    if target.exists() and target.stat().st_size == source.stat().st_size:
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    _install_through_duckdb(source, target)
    return target


def _install_through_duckdb(source: Path, target: Path) -> None:
    """DuckDB itself checks the signature and writes the `.info` file beside the extension."""
    temporary = target.parent / f".{uuid4().hex}"
    try:
        with duckdb.connect(
            config={
                "extension_directory": str(temporary),
                "autoinstall_known_extensions": "false",
            }
        ) as connection:
            connection.execute(f"install '{_escaped(source)}'")
        installed = next(temporary.rglob(source.name))
        info = installed.with_name(f"{installed.name}.info")
        os.replace(info, target.with_name(info.name))
        os.replace(installed, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _extension_in_wheel() -> Path:
    package = importlib.util.find_spec(f"duckdb_extension_{EXTENSION}")
    if package is not None and package.submodule_search_locations:
        root = Path(package.submodule_search_locations[0])
        path = root / "extensions" / f"v{duckdb.__version__}" / f"{EXTENSION}.duckdb_extension"
        if path.exists():
            return path
    raise ExtensionMissing(
        f"install the wheel of DuckDB's {EXTENSION} extension: "
        f"`pip install duckdb-extension-{EXTENSION}=={duckdb.__version__}`"
    )


def _platform() -> str:
    with duckdb.connect() as connection:
        row = connection.execute("pragma platform").fetchone()
    assert row is not None
    return str(row[0])


def _escaped(path: Path) -> str:
    return str(path).replace("'", "''")

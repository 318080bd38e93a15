"""DuckDB's S3 extension, put in place without a download."""

import threading

import duckdb

from warehouse.duck import seed_extensions
from warehouse.settings import Settings


def test_httpfs_installs_and_loads_by_name_offline(settings: Settings) -> None:
    path = seed_extensions(settings)
    written_at = path.stat().st_mtime_ns
    assert seed_extensions(settings) == path
    assert path.stat().st_mtime_ns == written_at
    config = {
        "extension_directory": str(settings.extension_path),
        "autoinstall_known_extensions": "false",
    }
    with duckdb.connect(config=config) as connection:
        connection.execute("install httpfs")
        connection.execute("load httpfs")
        loaded = connection.execute(
            "select loaded from duckdb_extensions() where extension_name = 'httpfs'"
        ).fetchone()
    assert loaded == (True,)


def test_several_at_once_leave_one_whole_extension(settings: Settings) -> None:
    threads = [threading.Thread(target=seed_extensions, args=[settings]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    path = seed_extensions(settings)
    assert sorted(one.name for one in path.parent.iterdir()) == [path.name, f"{path.name}.info"]

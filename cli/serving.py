"""Commands that run until they are stopped: the app and the embedded Dagster."""

import os
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer
import uvicorn

from cli.console import fail, load_settings

APP = "api.app:create_app"
CONNECTION = "api.connection:EventsConnection"


def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on.")] = None,
    workers: Annotated[int | None, typer.Option(help="Worker processes.")] = None,
) -> None:
    """Serve the app: collector, recommendations, pages. Ctrl-C drains and stops."""
    from api.metrics import sharing

    settings = load_settings()
    n_workers = workers or settings.serving.workers
    with sharing() if n_workers > 1 else nullcontext():
        uvicorn.run(
            APP,
            factory=True,
            http=CONNECTION,
            host=host or settings.serving.host,
            port=port or settings.serving.port,
            workers=n_workers,
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=20,
            # Whose X-Forwarded-For and -Proto are believed: uvicorn takes the last address
            # before them.
            forwarded_allow_ips=",".join(settings.access.trusted_proxies),
        )


def dagster(
    port: Annotated[int, typer.Option(help="Port of the web UI.")] = 3000,
    host: Annotated[str, typer.Option(help="Address of the web UI.")] = "127.0.0.1",
) -> None:
    """Run Dagster here: web UI, schedule and sensors, on the state of `shallop refresh`."""
    from assets.instance import install_dagster_home
    from assets.project import DbtParseFailed, prepare_dbt

    settings = load_settings()
    try:
        prepare_dbt(settings)
    except DbtParseFailed as error:
        fail(str(error))
    environment = {
        "DAGSTER_HOME": str(install_dagster_home(settings)),
        "DAGSTER_DISABLE_TELEMETRY": "1",
    }
    command = Path(sys.executable).with_name("dagster")
    arguments = ["dev", "--module-name", "assets.definitions", "--host", host, "--port", str(port)]
    os.execve(command, [str(command), *arguments], {**os.environ, **environment})

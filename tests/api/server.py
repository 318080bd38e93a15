"""The app under a real uvicorn, in a process of its own."""

import http.client
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from warehouse.settings import Settings

UVICORN = (
    "uvicorn",
    "--factory",
    "api.app:create_app",
)  # logs each request, unlike `shallop serve`


@contextmanager
def running(
    settings: Settings,
    *,
    workers: int = 1,
    flush_interval_seconds: float = 600,
    more: Mapping[str, str] = {},
    program: Sequence[str] = UVICORN,
) -> Iterator[tuple[int, subprocess.Popen[str]]]:
    """A server with these workers; its port and process. Ended, and waited for, on leaving.

    `more` is of its environment.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        sys.executable, "-m", *program,
        "--host", "127.0.0.1", "--port", str(port), "--workers", str(workers),
    ]  # fmt: skip
    environment = {
        **os.environ,
        "SHALLOP_HOME": str(settings.home),
        "SHALLOP_SERVING__CHAMPION_POLL_SECONDS": "0.05",
        "SHALLOP_SERVING__CORS_ORIGINS": json.dumps(settings.serving.cors_origins),
        "SHALLOP_INGEST__FLUSH_INTERVAL_SECONDS": str(flush_interval_seconds),
        "OMP_NUM_THREADS": "1",
        **more,
    }
    root = Path(__file__).parents[2]
    with (settings.home.parent / "server.log").open("w") as log:
        process = subprocess.Popen(
            command, env=environment, cwd=root, stdout=log, stderr=log, text=True
        )
    try:
        wait_until_ready(port, process)
        yield port, process
    finally:
        process.terminate()
        process.wait(timeout=30)


def wait_until_ready(port: int, process: subprocess.Popen[str]) -> None:
    for _ in range(600):
        assert process.poll() is None, "the server ended"
        try:
            if request(port, "GET", "/readyz")[0] == 200:
                return
        except OSError:
            time.sleep(0.05)
    raise AssertionError("the server did not become ready within 30 s")


def request(
    port: int, method: str, path: str, body: object = None, headers: Mapping[str, str] = {}
) -> tuple[int, dict[str, object]]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        data = None if body is None else json.dumps(body).encode()
        own = {"Content-Type": "application/json"} if data else {}
        connection.request(method, path, data, own | dict(headers))
        reply = connection.getresponse()
        return reply.status, json.loads(reply.read())
    finally:
        connection.close()

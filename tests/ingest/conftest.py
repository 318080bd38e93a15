"""What the collector's tests share: events as clients send them, an outbox, processes to kill."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import msgspec
import pytest
import uvicorn

from ingest.events import Decoded, InvalidBody, decode_events
from ingest.outbox import Outbox
from warehouse.settings import IngestSettings, Settings

Sent = dict[str, Any]


class Collector:
    """A collector's HTTP end on loopback that answers as the app does, and misbehaves on demand.

    `troubles` are answered first, one for each request: a status, or `drop` to keep the events and
    then break the connection before the answer.
    """

    def __init__(self, outbox: Outbox, limits: IngestSettings) -> None:
        self.outbox = outbox
        self.limits = limits
        self.troubles: list[int | str] = []
        self.bodies: list[bytes] = []
        self.recommended: list[str] = []
        self.can_recommend = True
        self.requested_at: list[float] = []
        self.headers: list[dict[bytes, bytes]] = []
        self.url = ""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        if scope["path"] == "/recommend" and not self.can_recommend:
            return await _reply(send, 503, b"{}")
        if scope["path"] == "/recommend":
            session = scope["query_string"].decode().split("session=")[1].split("&")[0]
            steps = self.outbox.session_steps(session)
            self.recommended.append(session)
            answer = {"recommendation_id": f"r-{session}", "items": [{"item_id": i} for i in steps]}
            return await _reply(send, 200, msgspec.json.encode(answer))
        self.requested_at.append(time.monotonic())
        self.headers.append(dict(scope["headers"]))
        trouble = self.troubles.pop(0) if self.troubles else None
        if isinstance(trouble, int):
            return await _reply(send, trouble, b"{}")
        status, answer_bytes = self._keep(body)
        if trouble == "drop":
            await send({"type": "http.response.start", "status": 202, "headers": []})
            raise ConnectionResetError
        await _reply(send, status, answer_bytes)

    def _keep(self, body: bytes) -> tuple[int, bytes]:
        try:
            decoded = decode_events(
                body,
                limits=self.limits,
                received_at=datetime.now(UTC),
                ip=None,
                user_agent=None,
                source="test",
            )
        except InvalidBody as error:
            return error.status, msgspec.json.encode({"error": {"message": error.message}})
        self.outbox.append_now(decoded)
        self.bodies.append(body)
        errors = [rejection for rejection, _ in decoded.rejected]
        if not decoded.events:
            return 422, msgspec.json.encode({"error": {"message": errors[0].message}})
        counts = {"accepted": len(decoded.events), "rejected": len(errors), "errors": errors}
        return 202, msgspec.json.encode(counts)

    @property
    def events(self) -> list[Sent]:
        """All events of the requests that were kept, as they were sent."""
        return [event for body in self.bodies for event in msgspec.json.decode(body)]


async def _reply(send: Any, status: int, body: bytes) -> None:
    headers = [(b"retry-after", b"0.3")] if status == 503 else []
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


@pytest.fixture
def collector(outbox: Outbox, limits: IngestSettings) -> Iterator[Collector]:
    """A running collector; its `url` is its address."""
    made = Collector(outbox, limits)
    server = uvicorn.Server(
        uvicorn.Config(made, port=0, log_level="critical", lifespan="off", ws="none")
    )
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        assert thread.is_alive(), "the collector did not start"
        time.sleep(0.01)
    made.url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    yield made
    server.should_exit = True
    thread.join()


@pytest.fixture
def limits() -> IngestSettings:
    return IngestSettings()


@pytest.fixture
def sent() -> Callable[..., Sent]:
    """Makes an event as a client would send it."""

    def make(**changes: Any) -> Sent:
        event = {
            "event_id": str(uuid4()),
            "event_name": "view_item",
            "occurred_at": datetime.now(UTC).isoformat(),
            "session_id": "session-1",
            "visitor_id": "visitor-1",
            "items": [{"item_id": "oak-lamp"}],
        } | changes
        return {key: value for key, value in event.items() if value is not ...}

    return make


@pytest.fixture
def decoded(limits: IngestSettings) -> Callable[..., Decoded]:
    """Decodes events, a list of dicts or bytes, as received now or at `received_at`."""

    def decode(body: object, received_at: datetime | None = None) -> Decoded:
        return decode_events(
            body if isinstance(body, bytes) else msgspec.json.encode(body),
            limits=limits,
            received_at=received_at or datetime.now(UTC),
            ip="203.0.113.77",
            user_agent="Browser/1.0",
            source="test",
        )

    return decode


@pytest.fixture
def outbox(settings: Settings) -> Iterator[Outbox]:
    made = Outbox(settings.outbox_path, settings.ingest)
    yield made
    made.close()


@pytest.fixture
def start_process() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts a script of this folder with given settings; killed at the end if still there."""
    started = []

    def start(script: str, settings: Settings, *arguments: object) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name(script)), *map(str, arguments)],
            env={
                "PATH": os.environ["PATH"],
                "PYTHONPATH": str(Path(__file__).parents[2]),
                **settings.store_environment(),
            },
            cwd=settings.home.parent,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        if process.stdout:
            process.stdout.close()

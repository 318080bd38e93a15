"""The app under a real uvicorn, over real sockets, in a process of its own."""

import signal
import socket
from io import BytesIO
from pathlib import Path
from urllib.request import urlopen

import pyarrow.parquet as pq

from tests.api.server import request, running
from tests.api.tiny_shop import ITEM_IDS, promote, view, wait_for
from warehouse import layout
from warehouse.settings import Settings
from warehouse.store import ObjectStore


def shipped_ids(store: ObjectStore) -> list[str]:
    return sorted(
        event_id
        for found in store.list(layout.RAW_EVENTS)
        for event_id in pq.read_table(BytesIO(store.get(found.key)))["event_id"].to_pylist()
    )


def test_sigterm_drains_what_was_acknowledged(
    settings: Settings, store: ObjectStore, bundles: list[Path]
) -> None:
    promote(store, bundles[0])
    events = [view(item_id) for item_id in ITEM_IDS[:3]]
    with running(settings) as (port, process):
        assert request(port, "POST", "/events", events)[0] == 202
        status, reply = request(port, "GET", "/recommend?session=s-1&k=1")
        assert status == 200
        assert reply["items"][0]["item_id"] == ITEM_IDS[3]  # type: ignore[index]
        assert shipped_ids(store) == []
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) in (0, -signal.SIGTERM)
    assert shipped_ids(store) == sorted(str(event["event_id"]) for event in events)


def test_two_workers_share_sessions_and_lose_nothing(
    settings: Settings, store: ObjectStore, bundles: list[Path]
) -> None:
    promote(store, bundles[0])
    events = [view(ITEM_IDS[number % 5], f"s-{number}") for number in range(40)]
    with running(settings, workers=2) as (port, _):
        for number, event in enumerate(events):
            # A connection each: either worker may take it.
            assert request(port, "POST", "/events", event)[0] == 202
            status, reply = request(port, "GET", f"/recommend?session=s-{number}&k=1")
            if status == 200:  # the second worker may still be loading its model
                assert reply["items"][0]["item_id"] == ITEM_IDS[number % 5 + 1]  # type: ignore[index]
            else:
                assert reply["error"]["code"] == "no_model"  # type: ignore[index]
    assert shipped_ids(store) == sorted(str(event["event_id"]) for event in events)


def test_metrics_are_of_all_workers(settings: Settings) -> None:
    with running(settings, workers=2, program=("shallop", "serve")) as (port, process):
        for number in range(40):  # a connection each: either worker may take it
            assert request(port, "POST", "/events", view("mug", f"s-{number}"))[0] == 202
        # A worker's counts are told to the others some times a second.
        wait_for(lambda: 'shallop_events_accepted_total{source="json"} 40.0' in metrics_of(port))
        for _ in range(10):
            text = metrics_of(port)
            assert 'shallop_events_accepted_total{source="json"} 40.0' in text
            assert "shallop_outbox_depth 40.0" in text
            assert "shallop_open 1.0" in text
        folder = shared_folder(process.pid)
        assert len(list(folder.glob("counter_*.db"))) == 2
    assert not folder.exists()


def metrics_of(port: int) -> str:
    with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=20) as reply:
        return str(reply.read(), "utf-8")


def shared_folder(pid: int) -> Path:
    """Where the processes of a server count."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    variables = Path(f"/proc/{children[-1]}/environ").read_text().split("\0")
    return Path(dict(v.partition("=")[::2] for v in variables)["PROMETHEUS_MULTIPROC_DIR"])


def test_a_body_without_length_is_cut_off_at_the_limit(settings: Settings) -> None:
    with running(settings) as (port, _), socket.create_connection(("127.0.0.1", port)) as client:
        client.settimeout(20)
        client.sendall(
            b"POST /events HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n"
        )
        chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
        for _ in range(17):  # one more than the limit of 1 MiB; the body has no end
            client.sendall(chunk)
        reply = b""
        while b"}}" not in reply:
            reply += client.recv(4096)
        assert reply.startswith(b"HTTP/1.1 413 ")
        assert b"body_too_large" in reply
        assert request(port, "POST", "/events", view("mug"))[0] == 202

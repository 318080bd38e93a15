"""Requests of one event go a short way; nobody can tell it from the long one, but by the clock.

Each request is sent, as bytes, to two apps under real uvicorns that differ in their connections
alone. Were uvicorn to change what `api.connection` builds upon, no request would be taken here.
"""

import json
import shutil
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from http.client import HTTPResponse
from types import MappingProxyType
from typing import Any
from urllib.request import urlopen

import pytest
import uvicorn

from api.access import AccessControl
from api.app import ShallopApp, create_app
from api.collector import Collector
from api.connection import EventsConnection
from api.single_events import SingleEvents
from tests.api.key_maker import secret_key, write_key
from tests.api.server import running
from tests.api.test_collector import raw_rows
from tests.api.test_server import shipped_ids
from tests.api.tiny_shop import view, wait_for
from warehouse import layout
from warehouse.settings import IngestSettings, Settings
from warehouse.store import ObjectStore, open_store

ID = "3f2504e0-4f89-41d3-9a0c-%012d"
SHOP = "https://shop.example"
Headers = Mapping[str, str]
Answer = tuple[int, int, str, list[tuple[str, str]], bytes]


@dataclass
class Served:
    """An app at a port, and its own store."""

    app: ShallopApp
    port: int
    store: ObjectStore


@contextmanager
def served(settings: Settings, http: Any) -> Iterator[Served]:
    """The app under a uvicorn in a thread, with this class for its connections."""
    app = create_app(settings)
    assert isinstance(app, ShallopApp)
    server = uvicorn.Server(
        uvicorn.Config(
            app, port=0, http=http, log_config=None, access_log=False, forwarded_allow_ips="*"
        )
    )
    thread = threading.Thread(target=server.run)
    thread.start()
    wait_for(lambda: time.sleep(0.002) or server.started)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield Served(app, port, open_store(settings))
    finally:
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive()


@dataclass
class Pair:
    """The same app twice: with uvicorn's connections and with ours.

    `taken`: for each request that ours asked the short way for, whether it went that way.
    """

    plain: Served
    ours: Served
    taken: list[bool]

    def same(self, *pieces: bytes, n_replies: int = 1) -> list[Answer]:
        """The replies of both, which are equal, to bytes that are sent piece by piece."""
        long, short = (answers(one.port, pieces, n_replies) for one in (self.plain, self.ours))
        assert short == long
        return short


PairOf = Callable[..., AbstractContextManager[Pair]]


@pytest.fixture
def pair_of(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> PairOf:
    """Makes a pair of these settings, and of the keys that there are."""
    take = SingleEvents.take
    taken: list[bool] = []

    def watched(self: SingleEvents, scope: Any, body: bytes, send: Any) -> bool:
        taken.append(take(self, scope, body, send))
        return taken[-1]

    monkeypatch.setattr(SingleEvents, "take", watched)

    @contextmanager
    def made(**changes: Any) -> Iterator[Pair]:
        homes = [settings.home.parent / name for name in ("plain", "ours")]
        for home in homes:
            home.mkdir()
            if settings.keys_path.exists():
                shutil.copy(settings.keys_path, home / settings.keys_path.name)
        plain, ours = (settings.model_copy(update={"home": home, **changes}) for home in homes)
        with served(plain, "httptools") as one, served(ours, EventsConnection) as other:
            yield Pair(one, other, taken)

    return made


def answers(port: int, pieces: tuple[bytes, ...], n_replies: int) -> list[Answer]:
    """What comes back on one connection, but for what is of the moment."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
        for number, piece in enumerate(pieces):
            if number:
                time.sleep(0.05)
            client.sendall(piece)
        return read_replies(client, n_replies)


def read_replies(client: socket.socket, n_replies: int) -> list[Answer]:
    reader = client.makefile("rb")
    found = []
    for _ in range(n_replies):
        reply = HTTPResponse(_Reader(reader))  # type: ignore[arg-type]
        reply.begin()
        headers = [(name, masked(name, value)) for name, value in reply.getheaders()]
        found.append((reply.version, reply.status, reply.reason, headers, reply.read()))
    return found


def masked(name: str, value: str) -> str:
    """A header's value, but for what is of the moment: the time, and an id that we gave."""
    is_given = name == "x-request-id" and len(value) == 32
    return "" if is_given or name == "date" else value


class _Reader:
    """A socket for HTTPResponse that leaves the next reply to the next one."""

    def __init__(self, file: Any) -> None:
        self.file = file

    def makefile(self, mode: str) -> Any:
        return _Open(self.file)


class _Open:
    def __init__(self, file: Any) -> None:
        self.readline, self.read, self.readinto = file.readline, file.read, file.readinto

    def flush(self) -> None: ...
    def close(self) -> None: ...


def event(number: int, **fields: object) -> dict[str, object]:
    return view("mug", event_id=ID % number, occurred_at="2026-01-01T12:00:00Z", **fields)


def post(
    body: object,
    headers: Headers = MappingProxyType({}),
    *,
    target: str = "/events",
    version: str = "1.1",
) -> bytes:
    """A request's bytes; `body` is sent as JSON unless it is bytes."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = {
        "Host": "shop",
        "Content-Type": "application/json",
        "X-Request-ID": "r-1",
        "Content-Length": str(len(data)),
        **headers,
    }
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items() if value)
    return f"POST {target} HTTP/{version}\r\n{head}\r\n".encode() + data


def rows_of(store: ObjectStore) -> list[dict[str, object]]:
    """What an app kept, but for what is of the moment."""
    own = {"received_at", "event_id"}
    found = raw_rows(store, layout.RAW_EVENTS) + raw_rows(store, layout.RAW_REJECTED)
    rows = [{name: row[name] for name in row.keys() - own} for row in found]
    return sorted(rows, key=repr)


CHUNKED = {"Content-Length": "", "Transfer-Encoding": "chunked"}
# What is sent, the status, and whether it went the short way; None: its head showed that it cannot.
CASES = [
    (post(event(1)), 202, True),
    (post(event(2), {"X-Request-ID": "no id"}), 202, True),
    (post(event(3), {"Content-Type": "text/plain;charset=UTF-8"}), 202, True),
    (post(event(4), {"Content-Type": ""}), 202, True),
    (post(event(5), {"User-Agent": "Firefox", "Accept": "*/*"}), 202, True),
    (post(event(6), {"Origin": SHOP}), 202, True),
    (post(event(7), {"Origin": "https://other.example"}), 403, True),
    (post(event(8), {"Connection": "close"}), 202, True),
    (post(event(9), version="1.0"), 202, True),
    (post(event(10), {"X-Forwarded-For": "203.0.113.9, 10.0.0.1"}), 202, True),
    (post(event(11), {"X-Forwarded-Proto": "https", "X-Forwarded-For": ""}), 202, True),
    (post(event(12), target="/events?a=b"), 202, True),
    (post(event(13), target="/%65vents"), 202, True),
    (post({**event(14), "event_id": None}), 202, True),
    (post([event(15)]), 202, True),
    (post([event(16), event(17)]), 202, False),
    (post(event(18, event_name="wave")), 422, False),
    (post(event(19, items=[])), 422, False),
    (post(b"{"), 400, False),
    (post(b"[]"), 422, False),
    (post(b"[" * 4_000), 400, False),
    (post(b""), 400, False),
    (post(event(20), {"Content-Type": "multipart/form-data"}), 415, False),
    (post(event(21), {"Content-Encoding": "gzip"}), 400, False),
    (post(event(22), {"Content-Encoding": "br"}), 415, False),
    (post(event(23), {"x-request-id": "r-2"}), 202, False),
    (post(event(24, page_url="u" * 5_000)), 202, None),
    (post(b"2\r\n{}\r\n0\r\n\r\n", CHUNKED), 422, None),
    (post(event(25), {"Expect": "100-continue"}), 202, None),
    (post(event(26), target="/events/"), 404, None),
    (post(event(27), target="/mp/collect"), 400, None),
    (b"GET /events HTTP/1.1\r\nHost: x\r\nX-Request-ID: r-1\r\n\r\n", 405, None),
    (b"OPTIONS /events HTTP/1.1\r\nHost: x\r\nOrigin: https://shop.example\r\n"
     b"Access-Control-Request-Method: POST\r\n\r\n", 200, None),
    (b"nonsense\r\n\r\n", 400, None),
]  # fmt: skip


def test_both_ways_answer_and_keep_the_same(settings: Settings, pair_of: PairOf) -> None:
    listed = settings.serving.model_copy(update={"cors_origins": [SHOP]})
    with pair_of(serving=listed) as pair:
        for sent, status, is_short in CASES:
            pair.taken.clear()
            ((_, found, *_),) = pair.same(sent)
            assert found == status, sent
            assert pair.taken == ([] if is_short is None else [is_short]), sent
    rows = rows_of(pair.ours.store)
    assert rows == rows_of(pair.plain.store)
    assert len(rows) == 28


def test_with_keys(settings: Settings, pair_of: PairOf) -> None:
    public, server = (
        write_key(settings, SHOP, rate=1, burst=3),
        secret_key(settings, "events:write"),
    )
    other = secret_key(settings, "status:read")
    cases = [
        ({"Authorization": f"Bearer {server}"}, "", 202),
        ({"X-Write-Key": public, "Origin": SHOP}, "", 202),
        ({"Origin": SHOP}, f"?key={public}", 202),
        ({"X-Api-Key": public, "Origin": "https://other.example"}, "", 403),
        ({}, f"?key={server}", 403),
        ({}, "", 401),
        ({"Authorization": "Bearer shp_sec_00000000_nothing"}, "", 401),
        ({"Authorization": f"Bearer {other}"}, "", 403),
        ({"X-Write-Key": public}, "", 202),
        ({"X-Write-Key": public}, "", 429),
    ]
    with pair_of() as pair:
        for number, (headers, query, status) in enumerate(cases):
            ((_, found, *_),) = pair.same(post(event(number), headers, target=f"/events{query}"))
            assert found == status, (headers, query)
        assert pair.taken == [True] * len(cases)
        assert pair.ours.app.access.refused == pair.plain.app.access.refused
    assert rows_of(pair.ours.store) == rows_of(pair.plain.store)


def test_requests_that_come_together_or_in_pieces(pair_of: PairOf) -> None:
    first, second, wrong = post(event(1)), post(event(2)), post(b"{")
    batch, recommend = post([event(3), event(4)]), b"GET /recommend HTTP/1.1\r\nHost: x\r\n\r\n"
    with pair_of() as pair:
        for sent in (
            first * 50,
            first + second + batch + first,
            batch + first + recommend + wrong + second,
            first + wrong + first + b"nonsense\r\n\r\n",
        ):
            n_replies = sent.count(b" HTTP/1.1") + sent.count(b"nonsense")
            if b"nonsense" in sent:  # the connection may be cut before the last replies
                n_replies = 1
            pair.same(sent, n_replies=n_replies)
        for cut in (5, 30, len(first) - 40, len(first) - 1):
            pair.same(first[:cut], first[cut:])
            pair.same(second + first[:cut], first[cut:] + second, n_replies=3)
        assert pair.taken.count(True) > 60


def test_refusals_that_wait_for_an_event_need_no_deep_stack(
    settings: Settings, pair_of: PairOf
) -> None:
    good = post(event(1), {"X-Write-Key": write_key(settings)})
    with pair_of() as pair:
        replies = pair.same(good + post(event(2)) * 2_000, n_replies=2_001)
        assert [status for _, status, *_ in replies] == [202] + [401] * 2_000


def test_a_full_outbox_is_503_either_way(pair_of: PairOf) -> None:
    with pair_of(ingest=IngestSettings(outbox_limit_events=1)) as pair:
        pair.same(post(event(1)))
        ((_, status, _, headers, _),) = pair.same(post(event(2)))
        assert (status, dict(headers)["retry-after"]) == (503, "5")
        assert pair.taken == [True, True]


def test_a_closed_outbox_is_503_either_way(pair_of: PairOf) -> None:
    with pair_of() as pair:
        for one in (pair.plain, pair.ours):
            one.app.state.parts.outbox.close()
        ((_, status, *_),) = pair.same(post(event(1)))
        assert status == 503


@pytest.mark.parametrize(("of", "name", "status"), [
    (Collector, "plain", 202), (AccessControl, "admit_now", 500), (Collector, "count", 500),
])  # fmt: skip
def test_a_defect_of_ours_is_answered(
    pair_of: PairOf, monkeypatch: pytest.MonkeyPatch, of: type, name: str, status: int
) -> None:
    def fail(*_: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(of, name, fail)
    with pair_of() as pair:
        for _ in range(2):
            ((_, found, *_),) = answers(pair.ours.port, (post(event(1)),), 1)
            assert found == status


def test_an_event_of_a_client_that_left_is_kept(pair_of: PairOf) -> None:
    with pair_of() as pair:
        with socket.create_connection(("127.0.0.1", pair.ours.port)) as client:
            client.sendall(post(event(1)))
        wait_for(lambda: metric(pair.ours.port, 'shallop_requests_total{method="POST"') == 1)
        # One that left in the middle of its request sent nothing, and nobody waits for it.
        with socket.create_connection(("127.0.0.1", pair.ours.port)) as client:
            client.sendall(post(event(2))[:-3])
        pair.same(post(event(3)))
    assert len(raw_rows(pair.ours.store, layout.RAW_EVENTS)) == 2


def test_both_ways_count_the_same(pair_of: PairOf) -> None:
    with pair_of() as pair:
        for sent in (post(event(1)), post([event(2), event(3)]), post(event(4))):
            pair.same(sent)
        for name in ("shallop_requests_total{", "shallop_events_accepted_total{",
                     "shallop_request_seconds_count{"):  # fmt: skip
            assert metric(pair.ours.port, name) == metric(pair.plain.port, name) > 0


def metric(port: int, start: str) -> float:
    """The value of the first line of /metrics that starts so, 0 where none does."""
    with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=20) as reply:
        lines = reply.read().decode().splitlines()
    return next((float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(start)), 0.0)


def test_a_client_that_reads_no_reply_is_waited_for(
    pair_of: PairOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else its replies would fill our memory."""
    made = EventsConnection.connection_made

    def with_small_buffers(self: EventsConnection, transport: Any) -> None:
        made(self, transport)
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4_096)
        transport.set_write_buffer_limits(high=1_000)

    monkeypatch.setattr(EventsConnection, "connection_made", with_small_buffers)
    n_sent = 300
    with pair_of() as pair, socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        client.settimeout(20)
        client.connect(("127.0.0.1", pair.ours.port))
        client.sendall(post(event(1)) * n_sent)
        n_taken = -1
        while len(pair.taken) > n_taken:
            n_taken = len(pair.taken)
            time.sleep(1)
        assert 0 < n_taken < n_sent
        replies = read_replies(client, n_sent)
        assert {status for _, status, *_ in replies} == {202}


def test_a_stop_under_load_acknowledges_or_cuts(settings: Settings, store: ObjectStore) -> None:
    acknowledged: list[str] = []

    def send_on_and_on(worker: int) -> None:
        with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
            reader = client.makefile("rb")
            for number in range(1_000_000):
                try:
                    client.sendall(post(event(worker * 1_000_000 + number)))
                    reply = HTTPResponse(_Reader(reader))  # type: ignore[arg-type]
                    reply.begin()
                except OSError:  # HTTPException of a cut reply is one too
                    return
                assert reply.status == 202
                reply.read()
                acknowledged.append(ID % (worker * 1_000_000 + number))

    with running(settings, workers=2, program=("shallop", "serve")) as (port, process):
        threads = [threading.Thread(target=send_on_and_on, args=(n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        wait_for(lambda: bool(time.sleep(0.01)) or len(acknowledged) > 500)
        process.send_signal(signal.SIGTERM)
        for thread in threads:
            thread.join(30)
        assert process.wait(timeout=30) in (0, -signal.SIGTERM)
    kept = shipped_ids(store)
    assert len(kept) == len(set(kept))
    assert set(acknowledged) <= set(kept)

"""What `shallop bench loss` does to a collector: its processes, and how they are harmed."""

import os
import resource
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from random import Random

import httpx

from cli.local_s3 import LocalS3
from cli.serving import APP, CONNECTION
from warehouse.settings import Settings

_READY_SECONDS = 60.0
_OUTAGE_SECONDS = 1.5
_FULL_SECONDS = 1.5
_FULL_DEADLINE_SECONDS = 20.0
_FLUSHER_WAIT_SECONDS = 3.0
_FREE_BYTES = 32_768  # left to the WAL where the file size is limited


class NotReady(RuntimeError):
    """A server did not come up."""


class Collectors:
    """Worker processes on one outbox, each on a port of its own so that each can be killed."""

    def __init__(self, settings: Settings, environment: dict[str, str], ports: list[int]) -> None:
        self.settings = settings
        self.urls = [f"http://127.0.0.1:{port}" for port in ports]
        self.kills: Counter[str] = Counter()
        self.n_ended = 0  # of their own accord
        self._environment = environment
        self._ports = ports
        self._servers: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        self._servers = [self._started(port) for port in self._ports]
        for index in range(len(self.urls)):
            self.await_ready(index)

    def kill(self, random: Random) -> None:
        """SIGKILL any worker, or every second time the one that is flushing, and start it anew."""
        flushing = self._flushing() if self.kills.total() % 2 else None
        index = random.randrange(len(self._servers)) if flushing is None else flushing
        self.kills["worker" if flushing is None else "flusher"] += 1
        self.await_ready(index)  # else nothing is under way that could be lost
        self._replace(index)

    def await_ready(self, index: int) -> None:
        """Return once a worker takes events, started again where it ended. Raises NotReady.

        A worker that finds the disk full as it starts ends; a supervisor starts it again.
        """

        def is_ready() -> bool:
            if self._servers[index].poll() is not None:
                self.n_ended += 1
                self._servers[index] = self._started(self._ports[index])
            return _answers(f"{self.urls[index]}/readyz")

        try:
            _wait_until(is_ready, f"the collector at {self.urls[index]}")
        except NotReady as error:
            raise NotReady(f"{error}: `{_said(f'{self.urls[index]}/readyz')}`") from None

    def kill_all(self) -> None:
        for server in self._servers:
            server.kill()
        for server in self._servers:
            server.wait()

    def tear_tail(self) -> None:
        """All killed, and the last page of the WAL half written, as after a power cut."""
        self.kill_all()
        self.kills["worker"] += len(self._servers)
        wal = self.settings.outbox_path.with_name(f"{self.settings.outbox_path.name}-wal")
        if wal.exists() and wal.stat().st_size > 4_200:
            with wal.open("r+b") as file:
                file.seek(-4_120, os.SEEK_END)
                torn = file.read(2_000)  # a frame of right salts, without its second half
                file.seek(0, os.SEEK_END)
                file.write(torn)
        self.start()

    def limit_file_size(self, index: int = 0) -> None:
        """Restart one worker with a WAL that cannot grow, for a while."""
        wal = self.settings.outbox_path.with_name(f"{self.settings.outbox_path.name}-wal")
        limit = (wal.stat().st_size if wal.exists() else 0) + _FREE_BYTES
        self._replace(index, limit)
        time.sleep(_FULL_SECONDS)
        self._replace(index)

    def stop(self) -> None:
        """End as an operator would: what waits is shipped first."""
        for server in self._servers:
            server.terminate()
            server.wait(timeout=120)

    def _replace(self, index: int, file_limit: int | None = None) -> None:
        self._servers[index].kill()
        self._servers[index].wait()
        self._servers[index] = self._started(self._ports[index], file_limit)

    def _started(self, port: int, file_limit: int | None = None) -> subprocess.Popen[bytes]:
        def limit() -> None:
            if file_limit is not None:
                resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit, file_limit))

        command = [
            sys.executable, "-m", "uvicorn", "--factory", APP, "--http", CONNECTION,
            "--port", str(port), "--log-level", "critical", "--no-access-log",
        ]  # fmt: skip
        return subprocess.Popen(
            command, env=self._environment, cwd=Path(__file__).parents[1], preexec_fn=limit,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip

    def _flushing(self) -> int | None:
        """Index of the worker that holds the flusher's lock, when one takes it within a while."""
        lock = self.settings.outbox_path.with_suffix(".flush.lock")
        deadline = time.monotonic() + _FLUSHER_WAIT_SECONDS
        pids = [server.pid for server in self._servers]
        while time.monotonic() < deadline:
            inode = lock.stat().st_ino
            for line in Path("/proc/locks").read_text().splitlines():
                words = line.split()
                if "->" not in words and words[5].endswith(f":{inode}") and int(words[4]) in pids:
                    return pids.index(int(words[4]))
        return None


class S3Server:
    """The local S3 server, killed and started again on the same folder."""

    def __init__(self, server: LocalS3) -> None:
        self._server = server
        self._process: subprocess.Popen[bytes] | None = None
        self.n_outages = 0

    def start(self) -> None:
        server = self._server
        server.folder.mkdir(exist_ok=True)
        self._process = subprocess.Popen(
            server.command,
            env={**server.environment, "PATH": os.environ["PATH"]},
            cwd=server.folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        _wait_until(lambda: _answers(f"{server.endpoint}/healthz"), "the S3 server")

    def outage(self) -> None:
        self.n_outages += 1
        self.stop(signal.SIGKILL)
        time.sleep(_OUTAGE_SECONDS)
        self.start()

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        if self._process:
            self._process.send_signal(how)
            self._process.wait(timeout=60)
            self._process = None


@contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[bool]:
    """A small tmpfs at `folder`; False, and nothing mounted, where that is not permitted."""
    folder.mkdir(parents=True, exist_ok=True)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "shallop-bench", str(folder)],
        capture_output=True,
        check=False,
    )
    try:
        yield mounted.returncode == 0
    finally:
        if mounted.returncode == 0:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill_disk(folder: Path, n_refused: Callable[[], int]) -> None:
    """Take all room on the disk of `folder`, and give it back some time after a refusal."""
    ballast = folder / "ballast"
    with suppress(OSError), ballast.open("wb", buffering=0) as file:
        while file.write(bytes(65_536)) == 65_536:
            pass
    deadline, before = time.monotonic() + _FULL_DEADLINE_SECONDS, n_refused()
    while n_refused() == before and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(_FULL_SECONDS)
    ballast.unlink()


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, trust_env=False, timeout=2.0).status_code == 200
    except httpx.HTTPError:
        return False


def _said(url: str) -> str:
    try:
        return httpx.get(url, trust_env=False, timeout=2.0).text
    except httpx.HTTPError as error:
        return repr(error)


def _wait_until(is_ready: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + _READY_SECONDS
    while not is_ready():
        if time.monotonic() > deadline:
            raise NotReady(f"not ready within {_READY_SECONDS:g} s: {what}")
        time.sleep(0.05)

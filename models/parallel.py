"""A training by several processes of this machine, each on a GPU of its own.

`torchrun` starts them (`models.replicas` says how they work together). What they need and what they
found is pickled in a folder that only our user can enter and that is gone afterwards; they end when
the process that asked does.
"""

import fcntl
import logging
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
import torch.distributed as dist

from models.checkpoint import Checkpoint
from models.config import GRU4RecConfig
from models.dataset import NotEnoughData, Sessions
from models.devices import NoSuchDevice, resolve_device
from models.kernels import check_kernels
from models.replicas import Replicas
from models.training import Trained, TrainingDiverged, train
from models.warm_start import Start
from warehouse.log import configure

_JOB, _RESULT, _ALIVE = "job.pickle", "result.pickle", "alive"


class ProcessesFailed(RuntimeError):
    """A process of a training ended without a model; its log says why."""


@dataclass(frozen=True, eq=False)
class _Job:
    sessions: Sessions
    config: GRU4RecConfig
    device: str
    seed: int
    threads: int
    checkpoint: Checkpoint | None
    start: Start | None
    log_level: int


def training_by(n_processes: int) -> Callable[..., Trained]:
    """`train` as it is, or by several processes."""
    return partial(train_in_processes, n_processes) if n_processes > 1 else train


def train_in_processes(
    n_processes: int,
    sessions: Sessions,
    config: GRU4RecConfig,
    *,
    device: str = "auto",
    seed: int = 42,
    threads: int = 1,
    checkpoint: Checkpoint | None = None,
    start: Start | None = None,
    with_kernels: bool = False,
) -> Trained:
    """As `models.training.train`, by `n_processes` that share the lanes of each step.

    Raises what `train` raises, NoSuchDevice where there are fewer GPUs, NoKernels `with_kernels`,
    and ProcessesFailed.
    """
    target, n_devices = resolve_device(device), torch.cuda.device_count()
    if with_kernels:
        check_kernels(target, n_processes)
    if target.type == "cuda" and n_devices < n_processes:
        raise NoSuchDevice(
            f"a training by {n_processes} processes needs as many GPUs, set "
            f"SHALLOP_TRAINING__PROCESSES to what this machine has: `{n_devices}`"
        )
    job = _Job(
        sessions, config, device, seed, threads, checkpoint, start,
        logging.getLogger().getEffectiveLevel(),
    )  # fmt: skip
    with TemporaryDirectory(prefix="shallop-training-") as name, _alive(Path(name)):
        folder = Path(name)
        (folder / _JOB).write_bytes(pickle.dumps(job))
        subprocess.run(
            [sys.executable, "-m", "torch.distributed.run", "--standalone",
             "--nproc-per-node", str(n_processes), "-m", "models.parallel", name],
            cwd=Path(__file__).parents[1], env={**os.environ, "OMP_NUM_THREADS": str(threads)},
            stdin=subprocess.DEVNULL, check=False,
        )  # fmt: skip
        if not (folder / _RESULT).exists():
            raise ProcessesFailed(
                f"a training by {n_processes} processes ended without a model, its log says why; "
                "SHALLOP_TRAINING__PROCESSES=1 trains without others"
            )
        result = pickle.loads((folder / _RESULT).read_bytes())
    if isinstance(result, Exception):
        raise result
    assert isinstance(result, Trained)
    return result


def _replica(folder: Path) -> None:
    """One of the processes, as `torchrun` starts it."""
    _end_with_asker(folder)
    job: _Job = pickle.loads((folder / _JOB).read_bytes())
    rank = int(os.environ["LOCAL_RANK"])
    logging.getLogger().setLevel(logging.WARNING)
    configure(logging.getLevelName(job.log_level if rank == 0 else logging.WARNING))
    device = resolve_device(job.device)
    if device.type == "cuda":
        torch.cuda.set_device(rank)
    replicas = Replicas.joined(device)
    result: Trained | Exception
    try:
        result = train(
            job.sessions, job.config, device=job.device, seed=job.seed, threads=job.threads,
            checkpoint=job.checkpoint, start=job.start, replicas=replicas,
        )  # fmt: skip
    except (NotEnoughData, TrainingDiverged) as error:  # in each of them alike
        result = error
    if rank == 0:
        (folder / _RESULT).with_suffix(".partial").write_bytes(pickle.dumps(result))
        os.replace((folder / _RESULT).with_suffix(".partial"), folder / _RESULT)
    dist.destroy_process_group()


@contextmanager
def _alive(folder: Path) -> Iterator[None]:
    """Holds a lock that the system frees when this process ends, however it does."""
    descriptor = os.open(folder / _ALIVE, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _end_with_asker(folder: Path) -> None:
    descriptor = os.open(folder / _ALIVE, os.O_RDONLY)

    def wait() -> None:
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        os._exit(1)

    threading.Thread(target=wait, name="asker", daemon=True).start()


if __name__ == "__main__":
    _replica(Path(sys.argv[1]))

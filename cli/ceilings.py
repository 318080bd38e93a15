"""What this machine can do at best, and the time that a training step takes at least by it."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

_COPIED_BYTES = 1 << 27
_REPEATS = 7
_LAUNCHES = 32  # that a GPU is timed at, so that starting them and waiting weigh little


@dataclass(frozen=True)
class Work:
    """What a training step must compute and move."""

    flops: float
    moved_bytes: float
    exponentials: float


@dataclass(frozen=True)
class Ceilings:
    """Products of the step's shape, copying of what no cache holds, and exp, in units a second."""

    gemm_flops: float
    copy_bytes: float
    exponentials: float

    def floor_ms(self, work: Work) -> float:
        """Milliseconds for `work` with nothing else done and nothing done twice."""
        seconds = (
            work.flops / self.gemm_flops
            + work.moved_bytes / self.copy_bytes
            + work.exponentials / self.exponentials
        )
        return 1e3 * seconds


def clock(device: torch.device) -> Callable[[], float]:
    """Seconds of work: of one thread's CPU, which other load changes little, else by the clock."""
    if device.type == "cpu":
        return time.thread_time if torch.get_num_threads() == 1 else time.perf_counter

    def seconds() -> float:
        torch.cuda.synchronize(device)
        return time.perf_counter()

    return seconds


def measure(device: torch.device, n_lanes: int, n_units: int, n_columns: int) -> Ceilings:
    """Each by the median of a few runs, on the threads that PyTorch has."""
    lanes, columns = torch.rand(n_lanes, n_units), torch.rand(n_columns, n_units)
    lanes, columns = lanes.to(device), columns.to(device)
    scores = torch.empty(n_lanes, n_columns, device=device)
    source = torch.ones(_COPIED_BYTES // 4, device=device)
    target, powers = torch.empty_like(source), torch.empty_like(scores)
    exponents = torch.rand_like(scores)
    now = clock(device)

    def rate(units: float, run: Callable[[], object]) -> float:
        run()
        if device.type == "cuda":
            units, run = units * _LAUNCHES, _repeated(run)
        seconds = []
        for _ in range(_REPEATS):
            started = now()
            run()
            seconds.append(now() - started)
        return units / sorted(seconds)[_REPEATS // 2]

    flops = 2.0 * n_lanes * n_units * n_columns
    return Ceilings(
        rate(flops, lambda: torch.mm(lanes, columns.T, out=scores)),
        rate(2.0 * _COPIED_BYTES, lambda: target.copy_(source)),
        rate(scores.numel(), lambda: torch.exp(exponents, out=powers)),
    )


def _repeated(run: Callable[[], object]) -> Callable[[], object]:
    """`run` so many times in a row, as one CUDA graph."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(_LAUNCHES):
            run()
    return graph.replay

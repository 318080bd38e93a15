"""A training that is timed: some blocks of steps by phase, what they must do, and its memory."""

import resource
import sys
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch

from cli.ceilings import Ceilings, Work, clock, measure
from models.blocks import BLOCK_STEPS
from models.config import GRU4RecConfig
from models.dataset import Sessions
from models.devices import math_threads, resolve_device
from models.plan import StepPlan
from models.trainer import Trainer

PHASES = ("schedule", "negatives", "plan", "forward", "loss", "backward", "optimiser")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Timed:
    """What was measured. Times are of CPU work on a CPU, of the clock on a GPU.

    `seconds` are those of `n_steps` steps, `by_phase` milliseconds a step; the schedule's are those
    of an epoch shared out to its steps.
    """

    n_steps: int
    n_predictions: int
    seconds: float
    by_phase: dict[str, float]
    columns: float  # distinct items scored in a step, on average
    ceilings: Ceilings
    floor_ms: float
    peak_mb: float
    start_mb: float  # held before the training

    @property
    def step_ms(self) -> float:
        return 1e3 * self.seconds / self.n_steps

    @property
    def steps_per_second(self) -> float:
        return self.n_steps / self.seconds

    @property
    def events_per_second(self) -> float:
        return self.n_predictions / self.seconds


class _Phases:
    """Time by phase; a phase inside another is taken off it."""

    def __init__(self, now: Callable[[], float]) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._now = now
        self._inner: list[float] = [0.0]

    def timed(self, phase: str, run: Callable[..., Result]) -> Callable[..., Result]:
        """`run`, its time counted as `phase`."""

        def counted(*arguments: Any) -> Result:
            self._inner.append(0.0)
            started = self._now()
            result = run(*arguments)
            seconds = self._now() - started
            self.seconds[phase] += seconds - self._inner.pop()
            self._inner[-1] += seconds
            return result

        return counted


def run_steps(
    sessions: Sessions, config: GRU4RecConfig, *, device: str = "cpu", steps: int | None = None,
    threads: int = 1, seed: int = 42, is_fused: bool = True, with_kernels: bool = False,
    is_static: bool | None = None,
) -> Timed:  # fmt: skip
    """Train `steps` steps of the first epoch after a first block, or, without, the whole epoch.

    `is_fused`, `with_kernels` and `is_static` as `Trainer` has them.
    """
    target = resolve_device(device)
    before_mb = _peak_mb(target)
    with math_threads(threads), torch.no_grad():
        now = clock(target)
        started = now()
        trainer = Trainer(
            sessions, config, target, seed, is_fused=is_fused, with_kernels=with_kernels,
            is_static=is_static,
        )  # fmt: skip
        schedule_seconds = now() - started
        phases = _Phases(now)
        if target.type == "cpu":
            _watch(trainer, phases)
        planned = _planned_columns(trainer)
        shape = config.batch_size, config.layers[-1], min(config.n_sample, sessions.n_items)
        ceilings = [measure(target, *shape)]  # first, as it empties the caches
        trainer.run_block()
        phases.seconds.clear()
        within = trainer.step.fused_step.timed() if trainer.step.fused_step else dict
        columns: list[int] = []
        n_before, seconds = trainer.n_seen, 0.0
        while steps is None or len(columns) < steps:
            started, place = now(), (trainer.epoch, trainer.block)
            is_epoch_end = trainer.run_block()
            seconds += now() - started
            columns += planned.pop(place, [])
            if is_epoch_end:
                break
            if len(columns) % (8 * BLOCK_STEPS) == 0:
                ceilings.append(measure(target, *shape))
        ceilings.append(measure(target, *shape))
        trainer.close()
    middle = Ceilings(*np.median([list(vars(one).values()) for one in ceilings], axis=0).tolist())
    for phase, spent in within().items():
        if phase != "forward":  # as which whole steps were counted
            phases.seconds[phase] += spent
            phases.seconds["forward"] -= spent
    n_epoch_steps = sessions.n_predictions / config.batch_size
    by_phase = {phase: 1e3 * phases.seconds[phase] / len(columns) for phase in PHASES}
    by_phase["schedule"] = 1e3 * schedule_seconds / n_epoch_steps
    work = work_of(config, float(np.mean(columns)), sessions.n_items)
    return Timed(
        len(columns), trainer.n_seen - n_before, seconds, by_phase, float(np.mean(columns)),
        middle, middle.floor_ms(work), _peak_mb(target), before_mb,
    )  # fmt: skip


def work_of(config: GRU4RecConfig, n_columns: float, n_items: int) -> Work:
    """What a step with shared embeddings and one layer has to do, repeated items scored once.

    Three products of scores and five of gates (the hidden state has no gradient); the rows of the
    step and the weights of the layer with their optimiser state, read and written once.
    """
    lanes, units = config.batch_size, config.layers[-1]
    state = 3 if config.momentum else 2  # weight, accumulated squares, velocity
    rows = min(n_columns + lanes, n_items) * units
    dense = 6 * units * units
    values = 2 * rows + (2 * state + 1) * (rows + dense)
    per_score = 3 if config.loss == "bpr-max" else 1
    return Work(
        flops=6 * lanes * n_columns * units + 30 * lanes * units**2,
        moved_bytes=4 * values,
        exponentials=per_score * lanes * n_columns,
    )


def _planned_columns(trainer: Trainer) -> dict[tuple[int, int], list[int]]:
    """Notes from now on how many distinct items each step of a block scores.

    By epoch and block: plans may be made long before their turn.
    """
    plans = trainer.plans
    columns: dict[tuple[int, int], list[int]] = {}

    def counted(epoch: int, number: int, device: torch.device) -> list[StepPlan]:
        made = plans(epoch, number, device)
        columns[epoch, number] = [plan.n_scored for plan in made]
        return made

    trainer.plans = counted  # type: ignore[method-assign]
    return columns


def _watch(trainer: Trainer, phases: _Phases) -> None:
    """Put a clock around the parts of a trainer."""
    step = trainer.step
    parts: list[tuple[Any, str, str]] = [
        (trainer.sampler, "draw", "negatives"), (trainer, "plans", "plan"), (step, "loss", "loss"),
        (step.optimizer, "step", "optimiser"), (step.optimizer, "step_rows", "optimiser"),
        *((layer, "backward", "backward") for layer in step.layers),
        (step, "score_gradients", "backward"), (step, "steps", "forward"),
    ]  # fmt: skip
    for owner, name, phase in parts:
        setattr(owner, name, phases.timed(phase, getattr(owner, name)))


def _peak_mb(device: torch.device) -> float:
    """The most that this process held so far, in memory of `device`."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10

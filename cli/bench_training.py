"""`shallop bench training`: steps a second beside their floor and the reference's figures."""

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from cli.console import console, errors, fail, print_wide

if TYPE_CHECKING:
    from cli.training_load import Timed
    from models.config import GRU4RecConfig
    from models.dataset import Sessions

_CATALOGUE = 43_097  # items of Diginetica, which the published step times are of
_SESSIONS = 120_000
_WIDTH = 175

# Settings whose step the authors' trainer was timed at: hyperparameters that differ from our
# defaults, its milliseconds a step and the floor there (one quiet core of 100 GFLOP/s, 13 GB/s).
_PUBLISHED: dict[str, tuple[dict[str, Any], float, float]] = {
    "BPR-max, 512 units, B 128": ({"layers": (512,), "batch_size": 128}, 43.2, 27.0),
    "BPR-max, 192 units, B 128": ({"layers": (192,), "batch_size": 128}, 16.8, 7.4),
    "cross-entropy, 192 units, B 128": (
        {"layers": (192,), "batch_size": 128, "loss": "cross-entropy", "logq": 1.0, "elu": 0.0,
         "momentum": 0.0}, 12.4, 6.8,
    ),
    "BPR-max, 100 units, B 32": ({"layers": (100,), "batch_size": 32}, 5.2, 1.5),
}  # fmt: skip
_ON_SPLITS = {"cross-entropy": "cross-entropy (A)", "bpr-max": "bpr-max (B)"}
_GPU_LANES, _GPU_UNITS = (32, 128, 512, 2048), (100, 192, 512)


@dataclass(frozen=True)
class _Row:
    name: str
    timed: "Timed"
    official_events: float | None = None  # of the authors' trainer, measured elsewhere
    official_floors: float | None = None  # its time in floors of the machine it was timed on
    official_mb: float | None = None


def training(
    splits: Annotated[
        Path | None,
        typer.Option(help="Folder of <set>/train.parquet and reference.json: whole epochs of it."),
    ] = None,
    device: Annotated[
        str,
        typer.Option(help="cpu, or cuda: batches and sizes of a GPU, without and with kernels."),
    ] = "cpu",
    steps: Annotated[
        int, typer.Option(min=64, help="Steps of each row that is not a split.")
    ] = 256,
    threads: Annotated[int, typer.Option(min=1, help="CPU math threads.")] = 1,
    compiled: Annotated[
        bool, typer.Option(help="With the compiled passes, or as without a C++ compiler.")
    ] = True,
) -> None:
    """Training steps a second by phase, beside the least time that this machine could take.

    Times are of the thread's CPU, not of the clock, so that other load disturbs them little.
    """
    from models.devices import NoSuchDevice, resolve_device
    from models.kernels import check_kernels

    try:
        target = resolve_device(device)
        if is_gpu := target.type == "cuda":
            check_kernels(target)
    except NoSuchDevice as error:
        fail(str(error), status=2)
    runs = _split_runs(splits) if splits else _gpu_runs() if is_gpu else _published_runs()
    options = {"device": device, "threads": threads, "is_fused": compiled}
    if splits is None:
        options["steps"] = steps
    rows: list[_Row] = []
    for name, task, official in runs:
        for with_kernels in (False, True) if is_gpu else (False,):
            label = f"{name}, kernels" if with_kernels else name
            with errors.status(label):
                timed = in_a_process(task, {**options, "with_kernels": with_kernels})
            rows.append(_Row(label, timed, *official))
    _show(rows, target.type)


def time_split(file: Path, config: "GRU4RecConfig", options: dict[str, Any]) -> "Timed":
    """An epoch on the sessions of a file."""
    from cli.training_load import run_steps
    from models.dataset import Steps

    read = Steps.from_split_file(file)
    return run_steps(read.sessions(read.catalogue()), config, **options)


def time_invented(config: "GRU4RecConfig", options: dict[str, Any]) -> "Timed":
    """Steps on invented sessions of a catalogue of Diginetica's size."""
    from cli.training_load import run_steps

    n_sessions = max(_SESSIONS, 40 * config.batch_size)
    return run_steps(invented_sessions(_CATALOGUE, n_sessions), config, **options)


def invented_sessions(n_items: int, n_sessions: int, seed: int = 7) -> "Sessions":
    """Sessions of 2 to 20 steps, 4.3 on average; items by a Zipf law (exponent 0.8)."""
    import numpy as np

    from models.dataset import Sessions

    rng = np.random.default_rng(seed)
    lengths = np.minimum(1 + rng.geometric(0.3, n_sessions), 20)
    popularity = np.cumsum(np.arange(1, n_items + 1) ** -0.8)
    drawn = rng.random(int(lengths.sum()), dtype=np.float32) * popularity[-1]
    items = np.minimum(np.searchsorted(popularity, drawn), n_items - 1)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return Sessions(rng.permutation(n_items)[items].astype(np.int32), offsets, n_items)


_Run = tuple[str, Callable[[dict[str, Any]], "Timed"], tuple[float | None, ...]]


@dataclass(frozen=True)
class _Task:
    """A call that another process can be sent."""

    function: Callable[..., "Timed"]
    arguments: tuple[Any, ...]

    def __call__(self, options: dict[str, Any]) -> "Timed":
        return self.function(*self.arguments, options)


def _published_runs() -> Iterator[_Run]:
    from models.config import GRU4RecConfig

    for name, (changes, official_ms, floor_ms) in _PUBLISHED.items():
        config = GRU4RecConfig(**{"elu": 1.0, "momentum": 0.15, "sample_alpha": 0.3, **changes})
        events = 1e3 / official_ms * config.batch_size
        yield name, _Task(time_invented, (config,)), (events, official_ms / floor_ms, None)


def _gpu_runs() -> Iterator[_Run]:
    from models.config import GRU4RecConfig

    for units in _GPU_UNITS:
        for lanes in _GPU_LANES:
            config = GRU4RecConfig(layers=(units,), batch_size=lanes, sample_alpha=0.3)
            yield f"BPR-max, {units} units, B {lanes}", _Task(time_invented, (config,)), ()


def _split_runs(splits: Path) -> Iterator[_Run]:
    from models.config import GRU4RecConfig

    try:
        reference = json.loads((splits / "reference.json").read_bytes())
    except (OSError, ValueError) as error:
        fail(f"no figures of the reference to compare with: {error}", status=2)
    configs = Path(__file__).parents[1] / "models" / "configs"
    for name, figures in reference.items():
        for loss, label in _ON_SPLITS.items():
            official = figures[f"GRU4Rec official PyTorch, {label}"]
            config = GRU4RecConfig.load(configs / f"{loss}.json")
            yield (
                f"{name}, {loss}",
                _Task(time_split, (splits / name / "train.parquet", config)),
                (official["events_per_second_median_epoch"], None, official["peak_rss_mb"]),
            )


def in_a_process(task: Callable[..., "Timed"], *arguments: Any) -> "Timed":
    """Each row has a process of its own, so that its peak of memory is its own."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(task, *arguments).result()


def _show(rows: list[_Row], device: str) -> None:
    from cli.training_load import PHASES

    table = Table(title=f"Training on {device}", title_justify="left")
    for column in ("", "columns", "events/s", "steps/s", "ms/step", "floor ms", "× floor",
                   "official ev/s", "×", "official × floor", "peak MB", "official MB"):  # fmt: skip
        table.add_column(column, justify="left" if not column else "right", no_wrap=True)
    for row in rows:
        timed, official = row.timed, row.official_events
        table.add_row(
            row.name, f"{timed.columns:,.0f}", f"{timed.events_per_second:,.0f}",
            f"{timed.steps_per_second:,.1f}", f"{timed.step_ms:.2f}", f"{timed.floor_ms:.2f}",
            f"{timed.step_ms / timed.floor_ms:.2f}", f"{official:,.0f}" if official else "",
            f"{timed.events_per_second / official:.2f}" if official else "",
            f"{row.official_floors:.2f}" if row.official_floors else "",
            f"{timed.peak_mb:,.0f}", f"{row.official_mb:,.0f}" if row.official_mb else "",
        )  # fmt: skip
    print_wide(table, _WIDTH)
    if device == "cpu":
        phases = Table(title="Milliseconds a step by phase", title_justify="left")
        for column in ("", *PHASES, "sgemm GF/s", "copy GB/s", "exp G/s"):
            phases.add_column(column, justify="left" if not column else "right", no_wrap=True)
        for row in rows:
            by_phase, ceilings = row.timed.by_phase, row.timed.ceilings
            phases.add_row(
                row.name, *(f"{by_phase[phase]:.3f}" for phase in PHASES),
                f"{ceilings.gemm_flops / 1e9:.0f}", f"{ceilings.copy_bytes / 1e9:.1f}",
                f"{ceilings.exponentials / 1e9:.2f}",
            )  # fmt: skip
        print_wide(phases, _WIDTH)
    console.print(
        "The official figures were measured elsewhere, earlier: of splits on one loaded core, of "
        "steps on a quiet one.",
        soft_wrap=True,
    )

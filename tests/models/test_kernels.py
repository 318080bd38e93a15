"""The GPU kernels against PyTorch's operations: on a GPU, else in Triton's interpreter on a CPU."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from models.checkpoint import Checkpoint
from models.dataset import Sessions
from models.dropout import Dropout
from models.gru4rec import GRU4Rec, GRU4RecConfig
from models.kernels import Kernels, NoKernels, check_kernels
from models.losses import bpr_max, cross_entropy
from models.negatives import column_weights
from models.optimizer import Adagrad
from models.parallel import train_in_processes
from models.plan import StepPlan, plan_steps
from models.step import TrainingStep
from models.trainer import Trainer
from models.training import train

pytestmark = [pytest.mark.gpu] if torch.cuda.is_available() else []

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
CPU = torch.device("cpu")
TOLERANCE = {torch.float32: 2e-5, torch.float64: 1e-11}
N_ITEMS = 6000
SCRIPT = Path(__file__).with_name("compile_kernels.py")


@pytest.fixture(autouse=True)
def _triton() -> None:
    pytest.importorskip("triton", reason="no Triton here, `make kernels` installs it")


@pytest.fixture(params=[torch.float32, torch.float64], ids=str)
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    return request.param


def values(dtype: torch.dtype, *shape: int, seed: int = 1, size: float = 2.0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(0, size, shape)).to(DEVICE, dtype)


def assert_close(found: Tensor, expected: Tensor) -> None:
    if DEVICE.type == "cuda" and expected.dtype == torch.float32:
        # A GPU's single-precision exponential is off by more, the greater its argument; what the
        # kernels compute is held in double precision there.
        difference = torch.linalg.vector_norm(found - expected)
        assert difference <= 1e-3 * torch.linalg.vector_norm(expected) + 1e-6
        return
    tolerance = TOLERANCE[expected.dtype]
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)


def plan_of(dtype: torch.dtype, n_columns: int, *, is_weighted: bool, n_rows: int = 4) -> StepPlan:
    """A step of some columns; some are no target's, some drawn as targets alone."""
    target = torch.arange(n_rows, device=DEVICE) % n_columns
    target_count = torch.bincount(target, minlength=n_columns).to(dtype)
    count = target_count + torch.arange(n_columns, device=DEVICE) % 3
    count[0] += 1  # a lone column has a negative
    rows = torch.arange(n_columns, device=DEVICE) * (N_ITEMS // n_columns)
    weight = values(dtype, n_rows, seed=8).abs() if is_weighted else None
    return StepPlan(
        rows, n_columns, count, target_count, target, rows[target], rows, target, False, weight
    )


@pytest.mark.parametrize("size", [0.1, 60.0])
@pytest.mark.parametrize("elu", [0.0, 0.5])
@pytest.mark.parametrize("n_columns", [1, 17, 5000])
def test_bpr_max(dtype: torch.dtype, n_columns: int, elu: float, size: float) -> None:
    config = GRU4RecConfig(batch_size=10, elu=elu, bpreg=0.7)
    plan = plan_of(dtype, n_columns, is_weighted=n_columns == 17)
    scores, bias = values(dtype, 4, n_columns, size=size), values(dtype, n_columns, seed=2)
    expected, gradient = bpr_max(scores + bias, plan.target, plan.count, elu, 0.7, 0.1)
    if plan.weight is not None:
        expected, gradient = expected * plan.weight, gradient * plan.weight[:, None]
    loss, d_scores, d_bias = Kernels(config, bias.new_zeros(N_ITEMS)).loss(scores, bias, plan)
    assert_close(loss, expected)
    assert_close(d_scores, gradient)
    assert_close(d_bias, gradient.sum(0))


@pytest.mark.parametrize("size", [0.1, 60.0])
@pytest.mark.parametrize("logq", [0.0, 1.0])
@pytest.mark.parametrize("n_columns", [1, 17, 5000])
def test_cross_entropy(dtype: torch.dtype, n_columns: int, logq: float, size: float) -> None:
    config = GRU4RecConfig(loss="cross-entropy", batch_size=10, logq=logq, sample_alpha=0.3)
    plan = plan_of(dtype, n_columns, is_weighted=n_columns == 17)
    scores, bias = values(dtype, 4, n_columns, size=size), values(dtype, n_columns, seed=2)
    support = values(dtype, N_ITEMS, seed=3).abs()
    of_columns = support[plan.rows]
    weight = column_weights(plan.count, plan.target_count, of_columns, 0.3, logq)
    own = support[plan.target_idx] * -logq
    expected, gradient = cross_entropy(scores + bias, plan.target, weight, own, 0.1)
    if plan.weight is not None:
        expected, gradient = expected * plan.weight, gradient * plan.weight[:, None]
    loss, d_scores, d_bias = Kernels(config, support).loss(scores, bias, plan)
    assert_close(loss, expected)
    assert_close(d_scores, gradient)
    assert_close(d_bias, gradient.sum(0))


@pytest.mark.parametrize("loss", ["bpr-max", "cross-entropy"])
def test_columns_that_occur_nowhere_change_nothing_even_as_the_highest(
    loss: str, dtype: torch.dtype
) -> None:
    kernels = Kernels(GRU4RecConfig(loss=loss), torch.zeros(N_ITEMS, dtype=dtype, device=DEVICE))
    plan, bias = plan_of(dtype, 9, is_weighted=False), torch.zeros(9, dtype=dtype, device=DEVICE)
    scores = values(dtype, 4, 9) - 300
    wide = torch.cat([scores, torch.zeros_like(scores)], dim=1)
    wide_plan = replace(
        plan, count=torch.cat([plan.count, bias]), target_count=torch.cat([plan.target_count, bias])
    )
    expected, gradient, _ = kernels.loss(scores, bias, plan)
    found, d_wide, _ = kernels.loss(wide, bias.repeat(2), wide_plan)
    assert torch.isfinite(expected).all()
    assert_close(found, expected)
    assert_close(d_wide[:, :9], gradient)
    assert not d_wide[:, 9:].any()


@pytest.mark.parametrize("size", [1e4, -1e4])
@pytest.mark.parametrize("loss", ["bpr-max", "cross-entropy"])
def test_huge_scores_stay_finite(loss: str, size: float) -> None:
    kernels = Kernels(GRU4RecConfig(loss=loss), torch.zeros(N_ITEMS, device=DEVICE))
    scores = torch.tensor([[size, 0.0, -size]], device=DEVICE).repeat(3, 1)
    plan = plan_of(torch.float32, 3, is_weighted=False, n_rows=3)
    found, gradient, _ = kernels.loss(scores, torch.zeros(3, device=DEVICE), plan)
    assert torch.isfinite(found).all()
    assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("momentum", [0.0, 0.4])
@pytest.mark.parametrize("shape", [(1,), (7,), (40, 96)])
def test_whole_tensors(dtype: torch.dtype, shape: tuple[int, ...], momentum: float) -> None:
    config = GRU4RecConfig(learning_rate=0.1, momentum=momentum)
    kernels = Kernels(config, torch.zeros(N_ITEMS, dtype=dtype, device=DEVICE))
    weights = [{"w": values(dtype, *shape)} for _ in range(2)]
    moved = Adagrad(weights[0], 0.1, momentum, kernels=kernels)
    expected = Adagrad(weights[1], 0.1, momentum)
    for step in range(3):
        for optimizer in (moved, expected):
            optimizer.step("w", values(dtype, *shape, seed=step))
    for found, one in zip(moved.moved("w"), expected.moved("w"), strict=True):
        assert (found is None) == (one is None)
        if found is not None and one is not None:
            assert_close(found, one)


@pytest.mark.parametrize("momentum", [0.0, 0.4])
@pytest.mark.parametrize(("n_units", "n_lanes"), [(1, 3), (7, 40), (1500, 5), (4, 1030)])
def test_rows_and_their_biases(
    dtype: torch.dtype, n_units: int, n_lanes: int, momentum: float
) -> None:
    config = GRU4RecConfig(learning_rate=0.1, momentum=momentum)
    kernels = Kernels(config, torch.zeros(N_ITEMS, dtype=dtype, device=DEVICE))
    rows, n_scored = torch.tensor([3, 17, 31, 39, 0, 4], device=DEVICE), 4
    weights = [{"t": values(dtype, 40, n_units), "b": values(dtype, 40)} for _ in range(2)]
    before = {name: tensor.clone() for name, tensor in weights[0].items()}
    moved, plain = (Adagrad(one, 0.1, momentum) for one in weights)
    for step in range(2):
        # Lanes in any order, many at some rows, none at others; most of the many are at no row.
        drawn = np.random.default_rng(step).integers(1, max(6, n_lanes // 8), n_lanes)
        drawn[-2:] = drawn[:2] = 5
        place = torch.from_numpy(drawn).to(DEVICE)
        of_lanes = values(dtype, n_lanes, n_units, seed=20 + step)
        gradient, d_bias = values(dtype, n_scored, n_units, seed=step), values(dtype, n_scored)
        kernels.move_rows(
            moved.moved("t"), rows, gradient, (place, of_lanes), (moved.moved("b"), d_bias)
        )
        summed = torch.zeros(n_lanes + 6, n_units, dtype=dtype, device=DEVICE)
        summed[:n_scored] = gradient
        summed = summed.index_add_(0, place, of_lanes)[:6].clone()
        plain.step_rows("t", rows, weights[1]["t"].index_select(0, rows), summed)
        scored = rows[:n_scored]
        plain.step_rows("b", scored, weights[1]["b"].index_select(0, scored), d_bias.clone())
    others = torch.tensor(sorted(set(range(40)) - set(rows.tolist())), device=DEVICE)
    for name in ("t", "b"):
        for found, one in zip(moved.moved(name), plain.moved(name), strict=True):
            if found is not None and one is not None:
                assert_close(found, one)
        assert torch.equal(weights[0][name][others], before[name][others])
        assert not moved.accumulated[name][others].any()
    assert torch.equal(weights[0]["b"][rows[n_scored:]], before["b"][rows[n_scored:]])


FORMS = [
    {"loss": "bpr-max", "elu": 0.5},
    {"loss": "bpr-max", "elu": 0.0, "momentum": 0.0, "embedding": "separate", "layers": (9, 5)},
    {"loss": "bpr-max", "elu": 1.0, "bpreg": 0.0, "embedding": "none"},
    {"loss": "cross-entropy", "logq": 1.0, "is_weighted": True},
    {"loss": "cross-entropy", "embedding": "separate", "embedding_size": 8, "momentum": 0.0},
    {"loss": "cross-entropy", "logq": 0.5, "embedding": "none"},
    {"loss": "bpr-max", "n_items": 12, "is_weighted": True},  # every item is scored
    {"loss": "cross-entropy", "n_items": 12, "embedding": "separate"},
    {"loss": "bpr-max", "n_sample": 0},
    {"loss": "cross-entropy", "n_sample": 0, "embedding": "separate"},
]


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_a_step_with_kernels_moves_everything_as_one_without_does(
    dtype: torch.dtype, form: dict
) -> None:
    options = {"n_items": 60, "n_sample": 40, "layers": (7,), "momentum": 0.3, **form}
    n_items, is_weighted = options.pop("n_items"), options.pop("is_weighted", False)
    config = GRU4RecConfig(batch_size=6, dropout_embed=0.4, dropout_hidden=0.2, **options)
    rng = np.random.default_rng(5)
    support = rng.integers(1, 90, n_items)
    inputs, targets = rng.integers(0, n_items, (2, 3, 5))
    inputs[:, 1] = inputs[:, 3] = inputs[:, 0]  # three lanes at one item
    plans = plan_steps(
        inputs, targets, rng.integers(0, n_items, (3, config.n_sample)), n_items,
        is_shared=config.embedding == "shared", device=DEVICE, dtype=dtype,
        weights=rng.random((3, 5), np.float32) if is_weighted else None,
    )  # fmt: skip
    assert any(plan.covers_all for plan in plans) == (n_items == 12)
    with_kernels, plain = (
        TrainingStep(
            GRU4Rec.initial(config, n_items, np.random.default_rng(3), device=DEVICE, dtype=dtype),
            support, Dropout(np.random.SeedSequence(1), DEVICE, dtype), is_fused=False,
            with_kernels=has_kernels,
        )
        for has_kernels in (True, False)
    )  # fmt: skip
    states = [step.model.zero_hidden(5) for step in (with_kernels, plain)]
    for plan in plans:
        (loss, states[0]), (expected_loss, states[1]) = (
            step(plan, state) for step, state in zip((with_kernels, plain), states, strict=True)
        )
        assert_close(loss, expected_loss)
    for found, expected in zip(*states, strict=True):
        assert_close(found, expected)
    for name in plain.model.weights:
        moved = zip(with_kernels.optimizer.moved(name), plain.optimizer.moved(name), strict=True)
        for found, expected in moved:
            if expected is not None:
                assert_close(found, expected)


@pytest.mark.parametrize("embedding", ["shared", "separate"])
@pytest.mark.parametrize("loss", ["bpr-max", "cross-entropy"])
def test_an_epoch_with_kernels_its_tail_too_is_one_without(
    loss: str, embedding: str, ring: Sessions, small: GRU4RecConfig
) -> None:
    few = Sessions(ring.item_idx[: ring.offsets[16]], ring.offsets[:17], ring.n_items)
    if embedding == "shared":  # steps that count differently
        few = replace(few, weight=np.linspace(0.2, 3, len(few.item_idx), dtype=np.float32))
    config = replace(small, loss=loss, embedding=embedding, n_epochs=1, n_sample=12, layers=(8,))
    kernels = Trainer(few, config, DEVICE, 3, with_kernels=True, is_static=True)
    plain = Trainer(few, config, CPU, 3, is_fused=False, is_static=False)
    with torch.no_grad():
        assert kernels.run_epoch() == pytest.approx(plain.run_epoch(), rel=1e-4)
    kernels.close()
    assert kernels._graphed is not None
    assert any(block.n_lanes < config.batch_size for block in kernels._blocks)
    for name, weight in plain.model.weights.items():
        found = kernels.trained_model.weights[name].to("cpu")
        torch.testing.assert_close(found, weight, rtol=0, atol=2e-4, msg=name)
    for name in ("output.weight", "output.bias"):
        assert not kernels.model.weights[name][-1].any()
        assert not kernels.step.optimizer.accumulated[name][-1].any()


def test_a_checkpoint_of_other_passes_is_not_gone_on_from(
    tmp_path: Path, ring: Sessions, small: GRU4RecConfig, caplog: pytest.LogCaptureFixture
) -> None:
    few = Sessions(ring.item_idx[: ring.offsets[16]], ring.offsets[:17], ring.n_items)
    config = replace(small, n_epochs=1, n_sample=4, layers=(4,))
    options = {"device": DEVICE.type, "checkpoint": Checkpoint(tmp_path / "one.safetensors", 0.0)}
    train(few, config, **options)
    assert not train(few, config, with_kernels=True, **options).log.is_resumed
    assert "it is of other passes" in caplog.text
    assert train(few, config, with_kernels=True, **options).log.is_resumed


@pytest.mark.slow
def test_kernels_are_compiled_for_gpus_without_spilling_and_save_launches(tmp_path: Path) -> None:
    environment = {
        **os.environ, "TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path),
        "PYTHONPATH": f"{SCRIPT.parents[2]}:{os.environ.get('PYTHONPATH', '')}",
    }  # fmt: skip
    found = subprocess.run(
        [sys.executable, str(SCRIPT), "80", "90"], env=environment, stdout=subprocess.PIPE,
        text=True, check=True,
    )  # fmt: skip
    report = json.loads(found.stdout)
    compiled = {(one["kernel"], one["capability"]) for one in report["compiled"]}
    names = ("_bpr_max", "_cross_entropy", "_column_weights", "_move", "_move_rows")
    assert compiled == {(name, capability) for name in names for capability in (80, 90)}
    assert all(one["spilled_bytes"] == 0 for one in report["compiled"])
    for form, launches in report["launches"].items():
        assert launches["with kernels"] <= 0.6 * launches["without"], form


class TestRefusals:
    """Asked for where they cannot run, kernels are refused with what to do; nothing falls back."""

    @pytest.fixture(autouse=True)
    def _triton(self) -> None:
        """Here it may be missing."""

    def test_on_a_cpu(
        self, ring: Sessions, small: GRU4RecConfig, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("TRITON_INTERPRET", raising=False)
        with pytest.raises(NoKernels, match=r"run on CUDA alone; .*GPU_KERNELS=false.*`cpu`"):
            train(ring, small, device="cpu", with_kernels=True)

    def test_by_several_processes(self, ring: Sessions, small: GRU4RecConfig) -> None:
        with pytest.raises(NoKernels, match=r"SHALLOP_TRAINING__PROCESSES to 1; .*`2`"):
            train_in_processes(2, ring, small, device="cpu", with_kernels=True)

    def test_without_triton(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "triton", None)
        with pytest.raises(NoKernels, match=r"`make kernels` installs; .*GPU_KERNELS=false"):
            check_kernels(torch.device("cuda"))

"""The compiled passes against PyTorch's own, and what happens where there is no compiler."""

import logging
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from models import dropout as dropout_module
from models import fused as fused_module
from models import step as step_module
from models.dropout import Dropout
from models.fused import Fused, fused_for
from models.gru4rec import GRU4Rec, GRU4RecConfig
from models.losses import bpr_max, cross_entropy
from models.optimizer import Adagrad
from models.plan import plan_steps
from models.step import TrainingStep
from warehouse import compiled as warehouse_compiled

CPU = torch.device("cpu")
TOLERANCE = {torch.float32: 2e-5, torch.float64: 1e-12}


@pytest.fixture(params=[torch.float32, torch.float64], ids=str)
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    return request.param


@pytest.fixture
def fused(dtype: torch.dtype) -> Fused:
    found = fused_for(CPU, dtype)
    if found is None:
        pytest.skip("no C++ compiler on this machine")
    return found


def values(dtype: torch.dtype, *shape: int, seed: int = 1, size: float = 2.0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(0, size, shape)).to(dtype)


def assert_close(found: Tensor, expected: Tensor) -> None:
    tolerance = TOLERANCE[expected.dtype]
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("size", [0.1, 3.0, 60.0])
@pytest.mark.parametrize("elu", [0.0, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("n_columns", [3, 17, 130])
def test_bpr_max(fused: Fused, dtype: torch.dtype, n_columns: int, elu: float, size: float) -> None:
    scores, bias = values(dtype, 9, n_columns, size=size), values(dtype, n_columns, seed=2)
    target = torch.arange(9) % n_columns
    count = (1 + torch.arange(n_columns) % 3).to(dtype)
    expected, expected_gradient = bpr_max(scores + bias, target, count, elu, 0.7, 0.1)
    counted = count.clone()
    loss, d_bias = fused.bpr_max(scores, bias, target, counted, elu, 0.7, 0.1)
    assert_close(loss, expected)
    assert_close(scores, expected_gradient)
    assert_close(d_bias, expected_gradient.sum(0))
    assert torch.equal(counted, count)


@pytest.mark.parametrize("size", [0.1, 3.0, 60.0])
@pytest.mark.parametrize("n_columns", [3, 17, 130])
def test_cross_entropy(fused: Fused, dtype: torch.dtype, n_columns: int, size: float) -> None:
    scores, bias = values(dtype, 9, n_columns, size=size), values(dtype, n_columns, seed=2)
    target = torch.arange(9) % n_columns
    weight, own = values(dtype, n_columns, seed=3).abs(), values(dtype, 9, seed=4) - 4
    expected, expected_gradient = cross_entropy(scores + bias, target, weight, own, 0.1)
    loss, d_bias = fused.cross_entropy(scores, bias, target, weight.exp(), own.exp(), 0.1)
    assert_close(loss, expected)
    assert_close(scores, expected_gradient)
    assert_close(d_bias, expected_gradient.sum(0))


FORMS = [
    {"loss": "bpr-max", "elu": 0.5, "embedding": "shared"},
    {"loss": "bpr-max", "elu": 0.0, "embedding": "separate", "layers": (9, 5, 7)},
    {"loss": "cross-entropy", "logq": 1.0, "embedding": "shared", "layers": (4, 6)},
    {"loss": "cross-entropy", "embedding": "separate", "embedding_size": 8, "momentum": 0.0},
    {"loss": "bpr-max", "embedding": "shared", "n_items": 12},  # every item is scored
    {"loss": "cross-entropy", "embedding": "separate", "n_items": 12},
    # Gradients of more rows than are worked out at once.
    {"loss": "bpr-max", "embedding": "shared", "n_items": 3000, "n_sample": 900, "layers": (130,)},
]


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_a_compiled_step_moves_everything_as_one_of_pytorch_does(
    fused: Fused, dtype: torch.dtype, form: dict
) -> None:
    options = {"n_items": 60, "n_sample": 40, "layers": (7,), "momentum": 0.3, **form}
    n_items = options.pop("n_items")
    config = GRU4RecConfig(batch_size=6, dropout_embed=0.4, dropout_hidden=0.2, **options)
    rng = np.random.default_rng(5)
    support = rng.integers(1, 90, n_items)
    inputs, targets = rng.integers(0, n_items, (2, 4, 5))
    inputs[:, 1] = inputs[:, 0]  # two lanes at one item
    negatives = rng.integers(0, n_items, (4, config.n_sample))
    plans = plan_steps(
        inputs, targets, negatives, n_items, is_shared=config.embedding == "shared", device=CPU,
        dtype=dtype,
    )  # fmt: skip
    assert any(plan.covers_all for plan in plans) == (n_items == 12)
    compiled, plain = (
        TrainingStep(
            GRU4Rec.initial(config, n_items, np.random.default_rng(3), dtype=dtype), support,
            Dropout(np.random.SeedSequence(1), CPU, dtype), is_fused=is_fused,
        )
        for is_fused in (True, False)
    )  # fmt: skip
    if compiled.fused_step is None:
        pytest.skip("no matrix product by that name in this PyTorch")
    states = [step.model.zero_hidden(5) for step in (compiled, plain)]
    for plan in plans:
        (loss, states[0]), (expected_loss, states[1]) = (
            step(plan, state) for step, state in zip((compiled, plain), states, strict=True)
        )
        assert_close(loss, expected_loss)
    for found, expected in zip(*states, strict=True):
        assert_close(found, expected)
    for part in ("accumulated", "velocity"):
        of, expected_of = (getattr(step.optimizer, part) for step in (compiled, plain))
        for name, expected in expected_of.items():
            assert_close(of[name], expected)
    for name, expected in plain.model.weights.items():
        assert_close(compiled.model.weights[name], expected)


def test_steps_in_one_call_are_those_one_by_one(fused: Fused, dtype: torch.dtype) -> None:
    config = GRU4RecConfig(layers=(5, 9), batch_size=6, n_sample=30)
    rng = np.random.default_rng(8)
    inputs, targets = rng.integers(0, 60, (2, 11, 6))
    plans = plan_steps(
        inputs, targets, rng.integers(0, 60, (11, 30)), 60, is_shared=True, device=CPU, dtype=dtype
    )
    starts = rng.random((11, 6)) < 0.3

    def trained(at_once: int) -> tuple[list[Tensor], Tensor]:
        model = GRU4Rec.initial(config, 60, np.random.default_rng(3), dtype=dtype)
        dropout = Dropout(np.random.SeedSequence(1), CPU, dtype)
        step = TrainingStep(model, np.ones(60, np.int64), dropout)
        if step.fused_step is None:
            pytest.skip("no matrix product by that name in this PyTorch")
        hidden, losses = [state + 0.5 for state in model.zero_hidden(6)], []
        first = [state.clone() for state in hidden]
        before = hidden
        for n in range(0, 11, at_once):
            now = slice(n, n + at_once)
            loss, hidden = step.steps(plans[now], starts[now], hidden)
            losses.append(loss)
        assert all(map(torch.equal, before, first))
        return [*hidden, *model.weights.values()], torch.cat(losses)

    (found, losses), (expected, expected_losses) = trained(11), trained(1)
    assert torch.equal(losses, expected_losses)
    assert all(map(torch.equal, found, expected))


def test_masks_are_those_without_a_compiler(
    fused: Fused, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    def drawn() -> Tensor:
        dropout = Dropout(np.random.SeedSequence(4), CPU, dtype)
        return torch.cat([dropout.mask((7, 31), p) for p in (0.05, 0.5, 0.99) * 3])

    compiled = drawn()
    monkeypatch.setattr(dropout_module, "kept", lambda *options: None)
    assert torch.equal(compiled, drawn())
    assert 0 < (compiled == 0).sum() < compiled.numel()


def test_a_library_without_the_product_leaves_the_step_to_pytorch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(step_module, "blas_product", lambda dtype: None)
    config = GRU4RecConfig(layers=(4,))
    model = GRU4Rec.initial(config, 20, np.random.default_rng(3))
    step = TrainingStep(model, np.ones(20, np.int64))
    assert step.fused_step is None
    [plan] = plan_steps(
        np.array([[1, 2]]), np.array([[2, 3]]), np.array([[4, 5]]), 20, is_shared=True, device=CPU,
        dtype=torch.float32,
    )  # fmt: skip
    loss, _ = step(plan, model.zero_hidden(2))
    assert torch.isfinite(loss)


@pytest.mark.parametrize("momentum", [0.0, 0.4])
@pytest.mark.parametrize("columns", [(), (1,), (7,), (96,)])
def test_adagrad(
    fused: Fused, dtype: torch.dtype, columns: tuple[int, ...], momentum: float
) -> None:
    table, rows = values(dtype, 40, *columns), torch.tensor([0, 3, 4, 17, 31, 39])
    weights = [{"t": table.clone()}, {"t": table.clone()}]
    compiled, plain = Adagrad(weights[0], 0.1, momentum, fused), Adagrad(weights[1], 0.1, momentum)
    for step in range(3):
        gradient = values(dtype, len(rows), *columns, seed=step)
        for optimizer, of in zip((compiled, plain), weights, strict=True):
            optimizer.step_rows("t", rows, of["t"].index_select(0, rows), gradient.clone())
            optimizer.step("t", values(dtype, *table.shape, seed=9))
    assert_close(weights[0]["t"], weights[1]["t"])
    assert_close(compiled.accumulated["t"], plain.accumulated["t"])


def test_gather(fused: Fused, dtype: torch.dtype) -> None:
    table, rows = values(dtype, 30, 11), torch.tensor([29, 0, 7, 7, 12, 1])
    out = table.new_empty(6, 11)
    fused.gather(table, rows, out)
    assert torch.equal(out, table[rows])


def test_without_a_compiler_training_says_so_and_takes_pytorch(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(warehouse_compiled, "_COMPILERS", ("no-such-compiler",))
    fused_module.compiled.cache_clear()
    with caplog.at_level(logging.INFO):
        assert fused_for(CPU, torch.float32) is None
    assert "no C++ compiler" in caplog.text
    fused_module.compiled.cache_clear()


def test_a_compiler_that_fails_is_reported_with_what_it_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    broken = tmp_path / "broken-compiler"
    broken.write_text("#!/bin/sh\necho no such flag >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setattr(warehouse_compiled, "_COMPILERS", ("broken-compiler",))
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    fused_module.compiled.cache_clear()
    assert fused_for(CPU, torch.float32) is None
    assert "no such flag" in caplog.text
    fused_module.compiled.cache_clear()


def test_a_gpu_or_another_type_has_none() -> None:
    assert fused_for(torch.device("meta"), torch.float32) is None
    assert fused_for(CPU, torch.float16) is None

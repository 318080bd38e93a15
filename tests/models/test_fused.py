"""The compiled passes against PyTorch's own, and what happens where there is no compiler."""

import logging
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from models import fused as fused_module
from models.cells import reset_after, reset_after_gradient
from models.fused import Fused, fused_for
from models.losses import bpr_max, cross_entropy
from models.optimizer import Adagrad

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
    loss, d_bias = fused.cross_entropy(scores, bias, target, weight, own, 0.1)
    assert_close(loss, expected)
    assert_close(scores, expected_gradient)
    assert_close(d_bias, expected_gradient.sum(0))


@pytest.mark.parametrize("is_dropped", [False, True])
@pytest.mark.parametrize("units", [1, 16, 37])
def test_gru_and_its_gradient(
    fused: Fused, dtype: torch.dtype, units: int, is_dropped: bool
) -> None:
    x, hidden = values(dtype, 5, 3 * units), values(dtype, 5, units, seed=2, size=0.5)
    weight, bias_ih = values(dtype, 3 * units, units, seed=3), values(dtype, 3 * units, seed=4)
    bias_hh, d_after = values(dtype, 3 * units, seed=5), values(dtype, 5, units, seed=6)
    mask = (values(dtype, 5, units, seed=7) > 0).to(dtype) * 2 if is_dropped else None
    after, cache = reset_after(x + bias_ih, hidden, weight, bias_hh)
    d_cell = d_after if mask is None else d_after * mask
    expected = reset_after_gradient(d_cell, cache)
    h = hidden @ weight.T
    found = fused.gru_forward(x, h, bias_ih, bias_hh, hidden, mask)
    fused.gru_backward(d_after, x, h, hidden, mask)
    assert_close(found, after if mask is None else after * mask)
    assert_close(x, expected.x_gates)
    assert_close(h, expected.recurrent["bias_hh"][0])


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
    monkeypatch.setattr(fused_module, "_COMPILERS", ("no-such-compiler",))
    fused_module._library.cache_clear()
    with caplog.at_level(logging.INFO):
        assert fused_for(CPU, torch.float32) is None
    assert "no C++ compiler" in caplog.text
    fused_module._library.cache_clear()


def test_a_compiler_that_fails_is_reported_with_what_it_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    broken = tmp_path / "broken-compiler"
    broken.write_text("#!/bin/sh\necho no such flag >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setattr(fused_module, "_COMPILERS", ("broken-compiler",))
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    fused_module._library.cache_clear()
    assert fused_for(CPU, torch.float32) is None
    assert "no such flag" in caplog.text
    fused_module._library.cache_clear()


def test_a_gpu_or_another_type_has_none() -> None:
    assert fused_for(torch.device("meta"), torch.float32) is None
    assert fused_for(CPU, torch.float16) is None

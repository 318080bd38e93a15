"""Trajectories of the reference trainer in float64, reproduced step by step."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from models.dataset import Sessions
from models.gru4rec import GRU4Rec, GRU4RecConfig
from models.plan import plan_steps
from models.schedule import epoch_schedule
from models.step import TrainingStep

CASES = [
    (loss, elu, logq, embedding, momentum)
    for loss, elu, logq in (
        ("bpr-max", 0.5, 0), ("bpr-max", 0.0, 0), ("cross-entropy", 0.0, 0),
        ("cross-entropy", 0.0, 1),
    )
    for embedding in ("shared", "separate", "none")
    for momentum in (0.0, 0.3)
]  # fmt: skip
BATCH_SIZE = 4
TOLERANCE = 1e-9


IS_GPU_HERE = torch.cuda.is_available()
KERNELS = pytest.param(
    "kernels", marks=[pytest.mark.slow, *([pytest.mark.gpu] if IS_GPU_HERE else [])]
)


def passes(name: str) -> dict[str, bool]:
    """How `TrainingStep` is told to take them."""
    if name == "kernels":
        pytest.importorskip("triton", reason="no Triton here, `make kernels` installs it")
    return {"is_fused": name == "compiled", "with_kernels": name == "kernels"}


@pytest.mark.parametrize("taken", ["compiled", "pytorch", KERNELS])
@pytest.mark.parametrize(("loss", "elu", "logq", "embedding", "momentum"), CASES)
def test_every_step_comes_out_as_in_the_reference(
    shop_data: Path,
    loss: str,
    elu: float,
    logq: float,
    embedding: str,
    momentum: float,
    taken: str,
) -> None:
    options = passes(taken)
    device = torch.device("cuda" if taken == "kernels" and IS_GPU_HERE else "cpu")
    name = f"{loss}_elu{elu}_logq{logq}_{embedding}_mom{momentum}.npz"
    golden = np.load(shop_data / "golden" / name)
    config = GRU4RecConfig(
        loss=loss, embedding=embedding, layers=(5,), n_epochs=1, batch_size=BATCH_SIZE, n_sample=6,
        sample_alpha=0.5, learning_rate=0.1, momentum=momentum, dropout_embed=0, dropout_hidden=0,
        elu=elu, bpreg=1.95 if elu else 0.9, logq=logq,
    )  # fmt: skip
    model = GRU4Rec(config, _weights(golden, "w0", embedding)).to(device)
    support = np.bincount(_item_idx(golden))
    step = TrainingStep(model, support, **options)
    hidden = model.zero_hidden(BATCH_SIZE)
    lanes_before = np.arange(BATCH_SIZE)
    schedule = epoch_schedule(_sessions(golden), BATCH_SIZE)

    for index, (lanes, inputs, targets) in enumerate(_live(schedule.inputs, schedule.targets)):
        n_live = len(lanes)
        assert inputs.tolist() == golden["X"][index, :n_live].tolist()
        assert targets.tolist() == golden["Y"][index, :n_live].tolist()
        going_on = torch.from_numpy(np.searchsorted(lanes_before, lanes))
        keep = torch.from_numpy(~schedule.starts[index, lanes]).double()[:, None]
        hidden = [state[going_on.to(device)] * keep.to(device) for state in hidden]
        lanes_before = lanes
        plan = _plan(inputs, targets, golden["neg"][index], model)
        found, hidden = step(plan, hidden)
        assert float(found) == pytest.approx(float(golden["loss"][index]), abs=TOLERANCE), index
        expected = golden["hidden"][index, :n_live]
        np.testing.assert_allclose(hidden[0].cpu().numpy(), expected, atol=TOLERANCE, rtol=0)

    assert index == len(golden["X"]) - 1
    accumulated, velocity = step.optimizer.accumulated, step.optimizer.velocity
    for part, values in (("w1", model.weights), ("acc", accumulated), ("mom", velocity)):
        for weight, value in values.items():
            expected_value = _weights(golden, part, embedding)[weight]
            assert torch.allclose(value.cpu(), expected_value, atol=TOLERANCE, rtol=0), (
                part,
                weight,
            )


def _item_idx(golden: np.lib.npyio.NpzFile) -> np.ndarray:
    index = {item: item_idx for item_idx, item in enumerate(golden["item_order"].tolist())}
    return np.asarray([index[item] for item in golden["item"].tolist()])


def _sessions(golden: np.lib.npyio.NpzFile) -> Sessions:
    rows: dict[int, list[tuple[int, int]]] = {}
    for session, item, time in zip(
        golden["session"].tolist(), _item_idx(golden).tolist(), golden["time"].tolist(), strict=True
    ):
        rows.setdefault(session, []).append((time, item))
    ordered = sorted((sorted(steps) for steps in rows.values()), key=lambda steps: steps[0][0])
    return Sessions.from_lists(
        [[item for _, item in steps] for steps in ordered], len(golden["item_order"])
    )


def _live(
    inputs: np.ndarray, targets: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    for row, following in zip(inputs, targets, strict=True):
        lanes = np.flatnonzero(row >= 0)
        yield lanes, row[lanes], following[lanes]


def _plan(inputs: np.ndarray, targets: np.ndarray, negatives: np.ndarray, model: GRU4Rec):
    [plan] = plan_steps(
        inputs[None], targets[None], negatives[None], model.n_items,
        is_shared=model.config.embedding == "shared", device=model.weights["output.bias"].device,
        dtype=torch.float64,
    )  # fmt: skip
    return plan


def _weights(golden: np.lib.npyio.NpzFile, part: str, embedding: str) -> dict[str, Tensor]:
    """The reference's arrays by our names and in our layout."""

    def of(name: str) -> Tensor:
        return torch.from_numpy(golden[f"{part}.{name}"].copy())

    weights = {"output.weight": of("Wy.weight"), "output.bias": of("By.weight").squeeze(1)}
    if embedding == "none":  # gates stand in the order new, reset, update there
        weights["input.weight"] = of("GE.Wx0.weight").roll(-5, dims=1)
        weights["gru.0.bias"] = of("GE.Bh0").roll(-5)
        weights["gru.0.weight_gates"] = of("GE.Wrz0").T.contiguous()
        weights["gru.0.weight_new"] = of("GE.Wh0").T.contiguous()
        return weights
    if embedding == "separate":
        weights["input.weight"] = of("E.weight")
    for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
        weights[f"gru.0.{name}"] = of(f"G.0.{name}")
    return weights

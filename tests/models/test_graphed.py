"""Steps of one shape: equal to steps of varying shape, and fit to be captured as a CUDA graph."""

import itertools
from dataclasses import replace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from models.ahead import Ahead
from models.dataset import Sessions
from models.graphed import GraphedSteps
from models.gru4rec import GRU4RecConfig
from models.step import TrainingStep
from models.trainer import Trainer
from models.training import train

CPU = torch.device("cpu")
WAITING = {
    torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default,
    torch.ops.aten.masked_select.default, torch.ops.aten.equal.default,
    torch.ops.aten._unique2.default,
}  # fmt: skip
FORMS = [
    {"embedding": embedding, **loss}
    for embedding, loss in itertools.product(
        ("shared", "separate", "none"),
        ({"loss": "bpr-max"}, {"loss": "cross-entropy", "logq": 1.0, "momentum": 0.0}),
    )
]


@pytest.fixture(scope="module")
def config(small: GRU4RecConfig) -> GRU4RecConfig:
    return replace(small, n_epochs=1, n_sample=12, layers=(8,), dropout_hidden=0.1)


@pytest.fixture(scope="module")
def few(ring: Sessions) -> Sessions:
    return Sessions(ring.item_idx[: ring.offsets[200]], ring.offsets[:201], ring.n_items)


@pytest.mark.parametrize("is_fused", [False, True])
@pytest.mark.parametrize("form", FORMS, ids=str)
def test_steps_of_one_shape_are_the_steps_of_varying_shape(
    form: dict, is_fused: bool, few: Sessions, config: GRU4RecConfig
) -> None:
    config = replace(config, **form)
    static = Trainer(few, config, CPU, 3, is_fused=is_fused, is_static=True)
    varying = Trainer(few, config, CPU, 3, is_fused=is_fused, is_static=False)
    with torch.no_grad():
        assert static.run_epoch() == pytest.approx(varying.run_epoch(), rel=1e-4)
    static.close()
    for name, weight in varying.model.weights.items():
        found = static.trained_model.weights[name]
        torch.testing.assert_close(found, weight, rtol=0, atol=2e-4, msg=name)
    for name in ("output.weight", "output.bias"):
        assert not static.model.weights[name][-1].any()
        assert not static.step.optimizer.accumulated[name][-1].any()


class Recorded(TorchDispatchMode):
    """Notes every operation with the shapes it takes; none may look at a value."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[tuple[str, list[torch.Size]]] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        if func in WAITING:
            raise AssertionError(f"a step waits for a value: {func}")
        shapes = [value.shape for value in tree_leaves((args, kwargs)) if hasattr(value, "shape")]
        self.operations.append((str(func), shapes))
        return func(*args, **(kwargs or {}))


def steps(config: GRU4RecConfig, few: Sessions) -> GraphedSteps:
    """Steps of a block, filled and ready to run; not the compiled ones, which no GPU takes."""
    trainer = Trainer(few, config, CPU, 3, is_fused=False, is_static=True)
    with torch.no_grad():
        trainer.run_block()
    trainer.close()
    assert trainer._graphed is not None
    trainer._graphed._at.zero_()
    return trainer._graphed


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_a_step_waits_for_no_value_and_has_the_same_shapes_each_time(
    form: dict, few: Sessions, config: GRU4RecConfig
) -> None:
    ready = steps(replace(config, dropout_hidden=0.0, layers=(8, 6), **form), few)
    seen = []
    for _ in range(3):
        with Recorded() as recorded, torch.no_grad():
            ready.advance()
        seen.append(recorded.operations)
    assert len(seen[0]) > 30
    assert seen[0] == seen[1] == seen[2]


def test_the_check_above_would_see_a_step_that_waits(
    few: Sessions, config: GRU4RecConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready, loss = steps(config, few), TrainingStep.loss

    def waiting(self: TrainingStep, *arguments: object) -> object:
        found = loss(self, *arguments)
        float(found[0].sum())
        return found

    monkeypatch.setattr(TrainingStep, "loss", waiting)
    with Recorded(), torch.no_grad(), pytest.raises(AssertionError, match="waits for a value"):
        ready.advance()


def test_work_ahead_comes_in_order_each_once() -> None:
    done: list[int] = []

    def work(number: int) -> int:
        done.append(number)
        return number**2

    ahead = Ahead(work, 20)
    assert [ahead[number] for number in range(20)] == [number**2 for number in range(20)]
    assert sorted(done) == list(range(20))
    ahead.close()


@pytest.mark.gpu
@pytest.mark.parametrize("form", FORMS, ids=str)
def test_a_graph_learns_what_eager_steps_learn_on_the_gpu_and_on_the_cpu(
    form: dict, few: Sessions, config: GRU4RecConfig
) -> None:
    config = replace(config, dropout_hidden=0.0, **form)
    assert not torch.backends.cuda.matmul.allow_tf32
    gpu = torch.device("cuda")
    trainers = [
        Trainer(few, config, gpu, 3),
        Trainer(few, config, gpu, 3, with_kernels=True),
        Trainer(few, config, gpu, 3, is_static=False),
        Trainer(few, config, gpu, 3, is_static=False, with_kernels=True),
        Trainer(few, config, CPU, 3),
    ]
    with torch.no_grad():
        losses = [trainer.run_epoch() for trainer in trainers]
    for trainer in trainers:
        trainer.close()
    assert losses == pytest.approx([losses[-1]] * 5, rel=1e-3)
    expected = trainers[-1].trained_model.weights
    for trainer in trainers[:-1]:
        for name, weight in trainer.trained_model.to("cpu").weights.items():
            torch.testing.assert_close(weight, expected[name], rtol=0, atol=1e-3, msg=name)


@pytest.mark.gpu
def test_a_graph_drops_out_anew_in_each_step(few: Sessions, config: GRU4RecConfig) -> None:
    dropping = replace(config, dropout_hidden=0.5, dropout_embed=0.3)
    one, same = (train(few, dropping, device="cuda", seed=1) for _ in range(2))
    without = train(few, config, device="cuda", seed=1)
    assert one.log.losses == pytest.approx(same.log.losses, rel=1e-3)
    assert one.log.losses[0] > without.log.losses[0]


@pytest.mark.gpu
@pytest.mark.parametrize("form", FORMS, ids=str)
def test_kernels_give_the_same_bits_again(form: dict, few: Sessions, config: GRU4RecConfig) -> None:
    config = replace(config, dropout_embed=0.3, **form)
    one, again = (
        train(few, config, device="cuda", seed=1, with_kernels=True).model.weights for _ in range(2)
    )
    for name, weight in one.items():
        assert torch.equal(weight, again[name]), name

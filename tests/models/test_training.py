"""The written-out gradients against autograd, and what a whole training must hold."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from models.dataset import NotEnoughData, Sessions
from models.dropout import Dropout
from models.evaluation import evaluate
from models.gru4rec import GRU4Rec, GRU4RecConfig
from models.plan import plan_steps
from models.popularity import Popularity
from models.step import TrainingStep
from models.trainer import Trainer, TrainingDiverged
from models.training import EpochReport, train

N_ITEMS = 9
RATE = 0.1
INPUTS = np.asarray([[3, 1, 1, 8]])
TARGETS = np.asarray([[2, 3, 2, 0]])
NEGATIVES = np.asarray([[5, 2, 5, 6, 0, 0]])
SUPPORT = np.asarray([4, 9, 1, 3, 2, 7, 5, 1, 6])
TINY = GRU4RecConfig(
    layers=(4,), batch_size=5, n_sample=6, sample_alpha=0.5, learning_rate=RATE, momentum=0.0,
    dropout_embed=0.0, dropout_hidden=0.0, n_epochs=1,
)  # fmt: skip
CONFIGS = [
    replace(TINY, embedding=embedding, layers=layers, **loss)
    for embedding, layers, loss in itertools.product(
        ("shared", "separate", "none"), ((4,), (4, 6), (6, 3, 4)),
        ({"loss": "bpr-max"}, {"loss": "cross-entropy", "logq": 1.0}),
    )
] + [replace(TINY, embedding="separate", embedding_size=3)]  # fmt: skip


def float64_model(config: GRU4RecConfig) -> GRU4Rec:
    model = GRU4Rec.initial(config, N_ITEMS, np.random.default_rng(5), dtype=torch.float64)
    rng = np.random.default_rng(6)
    for weight in model.weights.values():  # biases too, which begin at 0
        weight += torch.from_numpy(rng.normal(0, 0.3, tuple(weight.shape)))
    return model


def hidden_states(config: GRU4RecConfig) -> list[Tensor]:
    rng = np.random.default_rng(8)
    return [torch.from_numpy(rng.normal(0, 0.5, (4, size))) for size in config.layers]


def the_plan(config: GRU4RecConfig, lane_weights: list[float] | None = None):
    [plan] = plan_steps(
        INPUTS, TARGETS, NEGATIVES, N_ITEMS, is_shared=config.embedding == "shared",
        device=torch.device("cpu"), dtype=torch.float64,
        weights=None if lane_weights is None else np.asarray([lane_weights], np.float32),
    )  # fmt: skip
    return plan


def original_cell(weights: dict[str, Tensor], inputs: Tensor, hidden: Tensor) -> Tensor:
    """The GRU of the papers: the reset gate acts on the state before the product."""
    size = hidden.shape[1]
    from_input = inputs + weights["gru.0.bias"]
    gates = torch.sigmoid(from_input[:, : 2 * size] + hidden @ weights["gru.0.weight_gates"].T)
    reset, update = gates[:, :size], gates[:, size:]
    product = (reset * hidden) @ weights["gru.0.weight_new"].T
    return (1 - update) * hidden + update * torch.tanh(from_input[:, 2 * size :] + product)


def written_loss(
    config: GRU4RecConfig, weights: dict[str, Tensor], hidden: list[Tensor],
    lane_weights: list[float] | None = None,
) -> Tensor:  # fmt: skip
    """Loss of the step with a column for every target and negative, through autograd."""
    shared = config.embedding == "shared"
    value = weights["output.weight" if shared else "input.weight"][INPUTS[0]]
    for layer, state in enumerate(hidden):
        if layer == 0 and config.embedding == "none":
            value = original_cell(weights, value, state)
            continue
        names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        value = torch.gru_cell(value, state, *(weights[f"gru.{layer}.{name}"] for name in names))
    lane_weight = torch.tensor(lane_weights or [1.0] * 4, dtype=torch.float64)
    columns = np.concatenate([TARGETS[0], NEGATIVES[0]])
    scores = value @ weights["output.weight"][columns].T + weights["output.bias"][columns]
    if config.loss == "cross-entropy":
        log_support = torch.from_numpy(np.log(SUPPORT))[columns]
        log_support[len(TARGETS[0]) :] *= config.sample_alpha
        shares = torch.softmax(scores - config.logq * log_support, dim=1)
        return -(torch.log(shares.diagonal() + 1e-24) * lane_weight).sum() / config.batch_size
    rated = torch.nn.functional.elu(scores, config.elu)
    total = torch.zeros((), dtype=torch.float64)
    for row in range(len(rated)):
        negatives = torch.cat([rated[row, :row], rated[row, row + 1 :]])
        weight = torch.softmax(negatives, 0)
        won = (weight * torch.sigmoid(rated[row, row] - negatives)).sum()
        loss = config.bpreg * (weight * negatives**2).sum() - torch.log(won + 1e-24)
        total = total + lane_weight[row] * loss
    return total / config.batch_size


def named(config: GRU4RecConfig) -> str:
    return f"{config.loss}-{config.embedding}-{'x'.join(map(str, config.layers))}"


@pytest.mark.parametrize("lane_weights", [None, [1.0, 2.5, 4.0, 0.5]], ids=["alike", "weighted"])
@pytest.mark.parametrize("config", CONFIGS, ids=named)
def test_one_step_moves_every_weight_as_autograd_would(
    config: GRU4RecConfig, lane_weights: list[float] | None
):
    model, hidden = float64_model(config), hidden_states(config)
    leaves = {name: weight.clone().requires_grad_() for name, weight in model.weights.items()}
    loss = written_loss(config, leaves, hidden, lane_weights)
    gradients = torch.autograd.grad(loss, list(leaves.values()))
    found, _ = TrainingStep(model, SUPPORT)(the_plan(config, lane_weights), hidden)
    assert found.item() == pytest.approx(loss.item(), rel=1e-12)
    for (name, before), gradient in zip(leaves.items(), gradients, strict=True):
        after = before.detach() - RATE * gradient / torch.sqrt(gradient**2 + 1e-6)
        torch.testing.assert_close(model.weights[name], after, rtol=1e-9, atol=1e-10, msg=name)


@pytest.mark.parametrize("embedding", ["shared", "separate", "none"])
def test_rows_that_a_step_does_not_touch_stay_bit_identical(embedding: str):
    config = replace(TINY, embedding=embedding, momentum=0.5)
    model = float64_model(config)
    step = TrainingStep(model, SUPPORT)
    hidden = hidden_states(config)
    everything = np.asarray([[0, 1, 2, 3, 4, 5, 6, 7, 8]])
    [warm_up] = plan_steps(
        INPUTS, TARGETS, everything, N_ITEMS, is_shared=embedding == "shared",
        device=torch.device("cpu"), dtype=torch.float64,
    )  # fmt: skip
    step(warm_up, hidden)  # every row has momentum now
    before = {name: weight.clone() for name, weight in model.weights.items()}
    step(the_plan(config), hidden)
    scored = {*TARGETS[0], *NEGATIVES[0]}
    touched = scored | {*INPUTS[0]} if embedding == "shared" else scored
    for name, expected in (("output.weight", touched), ("output.bias", scored)):
        moved = (model.weights[name] != before[name]).reshape(N_ITEMS, -1).any(1)
        assert set(torch.nonzero(moved).ravel().tolist()) == expected, name


def test_the_dropped_out_hidden_state_is_the_one_carried():
    config = replace(TINY, layers=(40,), dropout_hidden=0.5)
    model = float64_model(config)
    _, clean = TrainingStep(model, SUPPORT)(the_plan(config), hidden_states(config))
    model = float64_model(config)
    dropout = Dropout(np.random.SeedSequence(1), torch.device("cpu"), torch.float64)
    _, after = TrainingStep(model, SUPPORT, dropout)(the_plan(config), hidden_states(config))
    dropped = after[0] == 0
    assert 0.25 < dropped.double().mean() < 0.75
    torch.testing.assert_close(after[0][~dropped], 2 * clean[0][~dropped])


@pytest.mark.parametrize("embedding", ["shared", "separate", "none"])
@pytest.mark.parametrize("which", ["dropout_embed", "dropout_hidden"])
def test_both_dropouts_change_a_step(embedding: str, which: str):
    config = replace(TINY, embedding=embedding)
    losses = []
    for p in (0.0, 0.6):
        changed = replace(config, **{which: p})
        dropout = Dropout(np.random.SeedSequence(1), torch.device("cpu"), torch.float64)
        step = TrainingStep(float64_model(changed), SUPPORT, dropout)
        losses.append(step(the_plan(changed), hidden_states(changed))[0].item())
    assert losses[0] != losses[1]


@pytest.mark.parametrize("p", [0.1, 0.5, 0.75])
def test_dropout_drops_with_probability_p_and_keeps_the_mean(p: float):
    mask = Dropout(np.random.SeedSequence(1), torch.device("cpu")).mask((400, 500), p)
    assert mask is not None
    assert (mask == 0).double().mean().item() == pytest.approx(p, abs=0.005)
    assert mask.mean().item() == pytest.approx(1.0, abs=0.02)


def test_initial_weights_are_uniform_by_gate_and_biases_zero():
    config = replace(TINY, embedding="separate", embedding_size=30, layers=(50,))
    model = GRU4Rec.initial(config, 70, np.random.default_rng(1))
    for name, bound in (
        ("input.weight", 6 / (70 + 30)), ("gru.0.weight_ih", 6 / (50 + 30)),
        ("gru.0.weight_hh", 6 / (50 + 50)), ("output.weight", 6 / (70 + 50)),
    ):  # fmt: skip
        assert 0.97 * bound**0.5 < model.weights[name].abs().max() <= bound**0.5, name
    assert not any(model.weights[n].any() for n in model.weights if "bias" in n)


def test_learns_a_ring_that_popularity_cannot(ring: Sessions, small: GRU4RecConfig):
    trained = train(ring, small, device="cpu")
    figures, popular = evaluate(trained.model, ring), evaluate(Popularity(ring), ring)
    assert figures["recall@1"] > 0.95
    assert popular["recall@1"] < 0.2
    assert trained.log.losses[-1] < trained.log.losses[0]


@pytest.mark.parametrize(
    "changes",
    [
        {"loss": "cross-entropy", "logq": 1.0},
        {"embedding": "separate", "embedding_size": 12, "layers": (16, 20)},
        {"embedding": "none"},
        {"n_sample": 0},
    ],
    ids=str,
)
def test_every_form_learns_the_ring(ring: Sessions, small: GRU4RecConfig, changes: dict):
    trained = train(ring, replace(small, **changes), device="cpu")
    assert evaluate(trained.model, ring)["recall@5"] > 0.9


def test_same_seed_same_model_and_another_seed_another(ring: Sessions, small: GRU4RecConfig):
    config = replace(small, n_epochs=1, dropout_embed=0.2, dropout_hidden=0.1)
    one, same, other = (train(ring, config, device="cpu", seed=s).model for s in (1, 1, 2))
    for name, weight in one.weights.items():
        assert torch.equal(weight, same.weights[name]), name
    assert not torch.equal(one.weights["output.weight"], other.weights["output.weight"])


def test_few_sessions_get_fewer_lanes(ring: Sessions, small: GRU4RecConfig):
    few = Sessions(ring.item_idx[: ring.offsets[40]], ring.offsets[:41], ring.n_items)
    trained = train(few, replace(small, batch_size=200, n_epochs=1), device="cpu")
    assert trained.model.config.batch_size == 4


@pytest.mark.parametrize("n_sample", [0, 8])
def test_a_single_session_trains(n_sample: int, small: GRU4RecConfig):
    sessions = Sessions.from_lists([[0, 1, 2, 1]], 3)
    trained = train(sessions, replace(small, n_sample=n_sample), device="cpu")
    assert np.isfinite(trained.log.losses).all()


def test_nothing_to_learn_from_is_refused(small: GRU4RecConfig):
    with pytest.raises(NotEnoughData, match="sessions read: 2"):
        train(Sessions.from_lists([[0], [1]], 2), small)


def test_a_loss_that_is_no_number_stops_training(ring: Sessions, small: GRU4RecConfig):
    trainer = Trainer(ring, small, torch.device("cpu"), seed=1)
    trainer.model.weights["output.bias"][3] = torch.nan
    with torch.no_grad(), pytest.raises(TrainingDiverged, match=r"`learning_rate`.* 0\.1, 0\.2"):
        trainer.run_epoch()


def test_progress_is_reported_each_epoch(ring: Sessions, small: GRU4RecConfig):
    reports: list[EpochReport] = []
    trained = train(ring, replace(small, n_epochs=2), device="cpu", progress=reports.append)
    assert [(report.epoch, report.n_epochs) for report in reports] == [(1, 2), (2, 2)]
    assert [report.loss for report in reports] == trained.log.losses


def test_a_session_alone_has_the_states_that_it_has_in_a_batch(ring: Sessions):
    """Hidden states start at zero with each session, and nowhere else."""
    model = float64_model(replace(TINY, layers=(4, 6)))
    lists = [[1, 2], [3, 4, 5, 6, 7], [8, 0, 1], [5], [2, 3, 4, 0]]
    together = model.states(Sessions.from_lists(lists, N_ITEMS))
    alone = [model.states(Sessions.from_lists([one], N_ITEMS)) for one in lists]
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("n_lanes", [1, 3, 8])
def test_training_carries_the_states_that_each_session_has_alone(n_lanes: int, ring: Sessions):
    """With a rate too small to move the weights; also while the last lanes close."""
    config = replace(TINY, learning_rate=1e-9, layers=(4, 6), batch_size=n_lanes)
    trainer = Trainer(ring, config, torch.device("cpu"), seed=1)
    expected = trainer.model.states(ring)
    steps, carried = trainer.step.steps, []

    def recorded(plans, starts, hidden):
        losses = []
        for number, plan in enumerate(plans):
            loss, hidden = steps([plan], starts[number : number + 1], hidden)
            losses.append(loss)
            carried.append(hidden[-1])
        return torch.cat(losses), hidden

    trainer.step.steps = recorded
    with torch.no_grad():
        trainer.run_epoch()
    found = torch.cat(carried)
    assert found.shape == expected.shape
    for values in (found, expected):  # the same rows, lanes apart from sessions' order
        values[:] = values[np.lexsort(values.numpy().round(4).T)]
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-4)


@pytest.mark.parametrize("embedding", ["shared", "separate", "none"])
def test_a_step_scores_its_targets_and_negatives_and_no_other_item(embedding: str):
    plan = the_plan(replace(TINY, embedding=embedding))
    assert plan.rows[: plan.n_scored].tolist() == sorted({*TARGETS[0], *NEGATIVES[0]})
    assert plan.count.sum() == TARGETS.size + NEGATIVES.size
    assert plan.target_count.sum() == TARGETS.size
    assert plan.n_scored < N_ITEMS


def test_training_needs_no_gradient_engine(ring: Sessions, small: GRU4RecConfig):
    trained = train(ring, replace(small, n_epochs=1), device="cpu")
    assert not any(weight.requires_grad for weight in trained.model.weights.values())

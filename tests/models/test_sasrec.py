from itertools import pairwise

import numpy as np
import pytest
import torch

from models.dataset import NotEnoughData, Sessions
from models.evaluation import evaluate, pairs
from models.sasrec import SASRec, SASRecConfig, _batches, _Loss, _parts, train_sasrec

TOY = SASRecConfig(
    units=16, n_heads=2, max_steps=8, dropout=0.0, n_epochs=30, batch_size=16, learning_rate=0.01
)


@pytest.fixture
def untrained() -> SASRec:
    torch.manual_seed(5)
    return SASRec(TOY, 40).eval()


def test_later_steps_do_not_change_earlier_states(untrained: SASRec):
    steps = torch.randint(0, 40, (3, 8), generator=torch.Generator().manual_seed(1))
    whole = untrained(steps)
    for length in range(1, 8):
        changed = steps.clone()
        changed[:, length:] = 39 - changed[:, length:]
        assert torch.allclose(untrained(changed)[:, :length], whole[:, :length], atol=1e-5)
        assert not torch.allclose(untrained(changed)[:, length], whole[:, length], atol=1e-3)


def test_earlier_steps_and_their_order_matter(untrained: SASRec):
    one = untrained(torch.tensor([[1, 2, 3, 4]]))[:, -1]
    assert not torch.allclose(untrained(torch.tensor([[9, 2, 3, 4]]))[:, -1], one, atol=1e-3)
    assert not torch.allclose(untrained(torch.tensor([[2, 1, 3, 4]]))[:, -1], one, atol=1e-3)


def test_padding_and_company_change_nothing(untrained: SASRec):
    lists = [[1, 2], [3, 4, 5, 6, 7, 8], [9, 10, 11]]
    together = untrained.states(Sessions.from_lists(lists, 40))
    alone = [untrained.states(Sessions.from_lists([one], 40)) for one in lists]
    assert torch.allclose(together, torch.cat(alone), atol=1e-5)


def test_states_are_those_of_each_prefix_and_long_sessions_keep_their_latest_steps(
    untrained: SASRec,
):
    session = np.random.default_rng(2).integers(0, 40, 15).tolist()
    states = untrained.states(Sessions.from_lists([session], 40))
    for at in range(14):
        prefix = torch.tensor([session[max(0, at - 7) : at + 1]])
        assert torch.allclose(states[at, :-1], untrained(prefix)[0, -1], atol=1e-5)
        assert states[at, -1] == session[at]


def test_the_current_item_is_never_recommended(untrained: SASRec):
    sessions = Sessions.from_lists([[3, 7, 3]], 40)
    scores = untrained.scores(untrained.states(sessions))
    current, _ = pairs(sessions)
    assert scores[torch.arange(2), current].tolist() == [-torch.inf] * 2
    assert torch.isfinite(scores).sum() == 2 * 39


@pytest.mark.parametrize("softmax", ["full", "sampled"])
def test_it_learns_a_ring_by_heart(ring: Sessions, softmax: str):
    limits = {"full_softmax_items": 0, "n_sample": 20} if softmax == "sampled" else {}
    config = SASRecConfig(**{**vars(TOY), "n_epochs": 8, **limits})
    losses: list[float] = []
    model = train_sasrec(ring, config, device="cpu", progress=lambda _, loss: losses.append(loss))
    assert len(losses) == 8
    assert losses[-1] < losses[0] / 5
    assert evaluate(model, ring)["recall@1"] > 0.99


def test_what_came_before_the_current_item_is_used():
    # After 0, 2 comes 3; after 1, 2 comes 4: the current item alone cannot tell.
    sessions = Sessions.from_lists([[0, 2, 3], [1, 2, 4]] * 50, 5)
    model = train_sasrec(sessions, TOY, device="cpu")
    scores = model.scores(model.states(Sessions.from_lists([[0, 2, 3], [1, 2, 4]], 5)))
    assert scores[1].argmax() == 3
    assert scores[3].argmax() == 4


def test_the_same_seed_gives_the_same_model_and_leaves_others_chance_alone(ring: Sessions):
    config = SASRecConfig(**{**vars(TOY), "n_epochs": 1, "dropout": 0.2})
    torch.manual_seed(77)
    expected = torch.rand(3)
    torch.manual_seed(77)
    models = [train_sasrec(ring, config, device="cpu", seed=seed) for seed in (1, 1, 2)]
    assert torch.equal(torch.rand(3), expected)
    one, same, other = (model.items.weight for model in models)
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_the_sampled_loss_estimates_the_full_one():
    rng = np.random.default_rng(4)
    sessions = Sessions.from_lists([rng.integers(0, 60, 10).tolist() for _ in range(200)], 60)
    generator = torch.Generator().manual_seed(4)
    hidden, items = (torch.randn(n, 8, generator=generator) for n in (50, 60))
    current = torch.zeros(50, dtype=torch.int64)
    following = torch.randint(1, 60, (50,), generator=generator)
    full = _Loss(SASRecConfig(), sessions, np.random.SeedSequence(4))(
        hidden, items, current, following
    )
    sampling = SASRecConfig(full_softmax_items=0, n_sample=5_000, sample_alpha=0.7)
    sampled = _Loss(sampling, sessions, np.random.SeedSequence(4))(
        hidden, items, current, following
    )
    assert sampled == pytest.approx(full.item(), rel=0.02)


def test_a_repeat_of_the_current_item_has_a_finite_loss():
    sessions = Sessions.from_lists([[1, 1, 2]] * 4, 5)
    losses: list[float] = []
    for limit in (0, 10):
        config = SASRecConfig(**{**vars(TOY), "n_epochs": 1, "full_softmax_items": limit})
        train_sasrec(sessions, config, device="cpu", progress=lambda _, one: losses.append(one))
    assert np.isfinite(losses).all()


def test_an_epoch_has_every_pair_once():
    rng = np.random.default_rng(3)
    lists = [rng.integers(0, 30, rng.integers(0, 30)).tolist() for _ in range(60)]
    sessions = Sessions.from_lists(lists, 30)
    found = []
    for steps, length in _batches(sessions, TOY, rng):
        assert length.max() <= TOY.max_steps + 1
        for row, own in zip(steps.tolist(), length.tolist(), strict=True):
            found += list(pairwise(row[:own]))
    current, following = pairs(sessions)
    assert sorted(found) == sorted(zip(current.tolist(), following.tolist(), strict=True))
    starts, lengths = _parts(sessions, 8)
    assert (lengths >= 2).all()
    assert len(starts) >= (sessions.lengths > 1).sum()


def test_nothing_to_learn_is_refused():
    with pytest.raises(NotEnoughData, match="a session of two steps, read: 1"):
        train_sasrec(Sessions.from_lists([[0]], 2), TOY)

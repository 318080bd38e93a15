import math

import pytest
import torch
from torch import Tensor

from models.losses import bpr_max, cross_entropy
from models.negatives import column_weights

# 3 rows; columns are distinct items, `COUNT` says how often each was drawn in all.
TARGET = torch.tensor([0, 2, 2])
TARGET_COUNT = torch.tensor([1.0, 0, 2, 0, 0])
COUNT = torch.tensor([1.0, 2, 4, 1, 3])


def spelled_out(scores: Tensor) -> Tensor:
    """The scores with a column for every occurrence, targets first, as the papers write them."""
    columns = [*TARGET.tolist()]
    for item, (drawn, as_target) in enumerate(zip(COUNT, TARGET_COUNT, strict=True)):
        columns += [item] * int(drawn - as_target)
    return scores[:, columns]


def random_scores(seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 2 * torch.randn(3, 5, generator=generator, dtype=torch.float64)


def written_bpr_max(scores: Tensor, elu: float, bpreg: float) -> Tensor:
    every = spelled_out(scores)
    rated = torch.nn.functional.elu(every, elu) if elu else every
    losses = []
    for row in range(len(rated)):
        negatives = torch.cat([rated[row, :row], rated[row, row + 1 :]])
        weight = torch.softmax(negatives, 0)
        won = torch.sigmoid(rated[row, row] - negatives)
        penalty = bpreg * (weight * negatives**2).sum()
        losses.append(-torch.log((weight * won).sum() + 1e-24) + penalty)
    return torch.stack(losses)


def written_cross_entropy(scores: Tensor, support: Tensor, alpha: float, logq: float) -> Tensor:
    every = spelled_out(scores)
    log_support = spelled_out(support.log().expand(3, -1))
    log_support[:, len(TARGET) :] *= alpha
    shares = torch.softmax(every - logq * log_support, dim=1)
    return -torch.log(shares.diagonal() + 1e-24)


@pytest.mark.parametrize("elu", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("bpreg", [0.0, 1.95])
def test_bpr_max_and_its_gradient_equal_the_formula_over_every_occurrence(elu, bpreg):
    scores = random_scores().requires_grad_()
    expected = written_bpr_max(scores, elu, bpreg)
    (expected_gradient,) = torch.autograd.grad(expected.sum() * 0.25, scores)
    loss, gradient = bpr_max(scores.detach(), TARGET, COUNT.double(), elu, bpreg, 0.25)
    torch.testing.assert_close(loss, expected.detach(), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("logq", [0.0, 0.5, 1.0])
def test_cross_entropy_and_its_gradient_equal_the_formula_over_every_occurrence(logq):
    support, alpha = torch.tensor([3.0, 40, 7, 1, 12], dtype=torch.float64), 0.3
    scores = random_scores().requires_grad_()
    expected = written_cross_entropy(scores, support, alpha, logq)
    (expected_gradient,) = torch.autograd.grad(expected.sum() * 0.25, scores)
    weights = column_weights(COUNT.double(), TARGET_COUNT.double(), support.log(), alpha, logq)
    own = -logq * support.log()[TARGET]
    loss, gradient = cross_entropy(scores.detach(), TARGET, weights, own, 0.25)
    torch.testing.assert_close(loss, expected.detach(), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-10, atol=1e-12)


def test_cross_entropy_by_hand():
    # One row, target drawn once, another item drawn three times: e⁰ / (e⁰ + 3 e^ln2) = 1/7.
    loss, gradient = cross_entropy(
        torch.tensor([[0.0, math.log(2)]]), torch.tensor([0]), torch.log(torch.tensor([1.0, 3.0])),
        torch.zeros(1), 1.0,
    )  # fmt: skip
    assert loss.item() == pytest.approx(math.log(7))
    assert gradient[0].tolist() == pytest.approx([1 / 7 - 1, 6 / 7])


def test_cross_entropy_over_the_whole_catalogue_is_the_full_softmax():
    scores = random_scores()
    weights, own = torch.zeros(5, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    loss, _ = cross_entropy(scores, TARGET, weights, own, 1.0)
    expected = torch.nn.functional.cross_entropy(scores, TARGET, reduction="none")
    torch.testing.assert_close(loss, expected)


def test_bpr_max_by_hand():
    # Target 1, one negative 0 drawn once: its weight is 1, σ(1 − 0), no penalty as 0² = 0.
    loss, gradient = bpr_max(
        torch.tensor([[1.0, 0.0]]), torch.tensor([0]), torch.tensor([1.0, 1.0]), 0.0, 1.0, 1.0
    )
    assert loss.item() == pytest.approx(math.log(1 + math.exp(-1)))
    pull = 1 / (1 + math.e)
    assert gradient[0].tolist() == pytest.approx([-pull, pull])


def test_bpr_max_weighs_negatives_by_softmax_and_scales_the_penalty():
    scores = torch.tensor([[0.0, 1.0, 2.0]])
    weights = torch.softmax(scores[0, 1:], 0)
    plain, _ = bpr_max(scores, torch.tensor([0]), torch.ones(3), 0.0, 0.0, 1.0)
    penalised, _ = bpr_max(scores, torch.tensor([0]), torch.ones(3), 0.0, 0.5, 1.0)
    penalty = 0.5 * (weights[0] * 1 + weights[1] * 4)
    assert (penalised - plain).item() == pytest.approx(penalty.item(), rel=1e-5)


@pytest.mark.parametrize("size", [1e4, -1e4])
def test_huge_scores_stay_finite(size):
    scores = torch.tensor([[size, 0.0, -size]])
    for target in range(3):
        place = torch.tensor([target])
        for loss, gradient in (
            cross_entropy(scores, place, torch.zeros(3), torch.zeros(1), 1.0),
            bpr_max(scores, place, torch.ones(3), 0.5, 1.95, 1.0),
        ):
            assert torch.isfinite(loss).all()
            assert torch.isfinite(gradient).all()


def test_a_zero_difference_needs_no_learning_from_an_accidental_hit_alone():
    # The only negative is the target itself: both pulls cancel.
    loss, gradient = bpr_max(
        torch.tensor([[0.3]]), torch.tensor([0]), torch.tensor([2.0]), 0.0, 0.0, 1.0
    )
    assert loss.item() == pytest.approx(math.log(2))
    assert gradient.item() == pytest.approx(0.0, abs=1e-7)

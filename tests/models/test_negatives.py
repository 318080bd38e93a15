import numpy as np
import pytest

from models.negatives import NegativeSampler

# 99.9 % quantile of chi-square with 5 degrees of freedom.
CHI_SQUARE_5 = 20.5
SUPPORT = np.asarray([100, 10, 1, 50, 400, 5])


@pytest.mark.parametrize("alpha", [0.0, 0.4, 1.0])
def test_draws_follow_support_to_the_alpha(alpha: float):
    drawn = NegativeSampler(SUPPORT, alpha, 200, np.random.SeedSequence(3)).draw(0, 0, 500)
    assert drawn.shape == (500, 200)
    expected = SUPPORT**alpha / (SUPPORT**alpha).sum() * drawn.size
    found = np.bincount(drawn.ravel(), minlength=len(SUPPORT))
    assert ((found - expected) ** 2 / expected).sum() < CHI_SQUARE_5
    assert found[-1] > 0


def test_draws_differ_between_steps_blocks_and_epochs_and_repeat_with_the_seed():
    def draws(seed: int) -> list[list[int]]:
        sampler = NegativeSampler(SUPPORT, 0.5, 60, np.random.SeedSequence(seed))
        places = [(0, 0), (0, 1), (1, 0)]
        return np.concatenate([sampler.draw(*place, 3) for place in places]).tolist()

    rows = draws(1)
    assert len({tuple(row) for row in rows}) == 9
    assert rows == draws(1)
    assert rows != draws(2)


def test_no_negatives_wanted_gives_none():
    assert NegativeSampler(SUPPORT, 0.5, 0, np.random.SeedSequence(1)).draw(0, 0, 4).shape == (4, 0)


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_the_item_of_a_number_is_the_one_that_a_search_finds(alpha: float) -> None:
    rare = np.ones(3000, np.int64)  # far more of them to a bucket than are walked
    support = np.concatenate([rare, [10**9, 5, 10**8], rare, [10**7]])
    sampler = NegativeSampler(support, alpha, 4, np.random.SeedSequence(1))
    bounds = sampler._cumulative
    numbers = np.concatenate(
        [bounds[:-1], np.nextafter(bounds, 0), np.random.default_rng(2).random(5000), [0.0]]
    )
    expected = np.searchsorted(bounds, numbers, side="right")
    assert np.array_equal(sampler._items(numbers), expected)

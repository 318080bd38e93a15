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

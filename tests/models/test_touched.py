import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models import fused_plan
from models.fused import compiled
from models.negatives import NegativeSampler
from models.touched import Touched, touched_rows


def arrays(touched: Touched) -> dict[str, npt.NDArray[np.int64] | None]:
    return vars(touched)


def test_rows_of_two_steps_by_hand() -> None:
    inputs, targets = np.array([[5, 2], [1, 1]]), np.array([[2, 7], [1, 0]])
    negatives = np.array([[7, 7, 3], [9, 1, 0]])
    shared = touched_rows(inputs, targets, negatives, 10, is_shared=True)
    assert shared.rows.tolist() == [2, 3, 7, 5, 0, 1, 9]  # 5 is an input that is not scored
    assert shared.bounds.tolist() == [0, 4, 7]
    assert shared.n_scored.tolist() == [3, 3]
    assert shared.count.tolist() == [1, 1, 3, 2, 2, 1]
    assert shared.target_count.tolist() == [1, 0, 1, 1, 1, 0]
    assert shared.target.tolist() == [[0, 2], [1, 0]]
    assert shared.input.tolist() == [[3, 0], [1, 1]]
    apart = touched_rows(inputs, targets, negatives, 10, is_shared=False)
    assert apart.rows.tolist() == [2, 3, 7, 0, 1, 9]
    assert apart.bounds.tolist() == [0, 3, 6]
    assert apart.input_rows is not None
    assert apart.input_rows.tolist() == [2, 5, 1]
    assert apart.input_bounds is not None
    assert apart.input_bounds.tolist() == [0, 2, 3]
    assert apart.input.tolist() == [[1, 0], [0, 0]]


@pytest.mark.skipif(compiled() is None, reason="no C++ compiler")
@given(
    seed=st.integers(0, 2**32 - 1), n_steps=st.integers(1, 5), n_lanes=st.integers(1, 9),
    n_sample=st.integers(0, 40), n_items=st.sampled_from([1, 2, 63, 64, 65, 5000, 300_000]),
    is_shared=st.booleans(),
)  # fmt: skip
def test_compiled_code_finds_the_same(
    seed: int, n_steps: int, n_lanes: int, n_sample: int, n_items: int, is_shared: bool
) -> None:
    rng = np.random.default_rng(seed)
    inputs = rng.integers(0, n_items, (n_steps, n_lanes), np.int32)
    targets = rng.integers(0, n_items, (n_steps, n_lanes), np.int32)
    negatives = rng.integers(0, n_items, (n_steps, n_sample))
    expected = touched_rows(inputs, targets, negatives, n_items, is_shared=is_shared)
    found = fused_plan.touched_rows(inputs, targets, negatives, n_items, is_shared=is_shared)
    assert found is not None
    for name, values in arrays(expected).items():
        np.testing.assert_array_equal(arrays(found)[name], values, name)


@pytest.mark.skipif(compiled() is None, reason="no C++ compiler")
@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_compiled_code_draws_the_same(alpha: float) -> None:
    rng = np.random.default_rng(4)
    sampler = NegativeSampler(rng.zipf(1.3, 5000), alpha, 8, np.random.SeedSequence(1))
    numbers = rng.random((300, 40))
    found = fused_plan.drawn(numbers, sampler._cumulative, sampler._bucket_start)
    np.testing.assert_array_equal(found, sampler._walked(numbers))

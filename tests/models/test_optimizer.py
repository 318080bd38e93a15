import math

import pytest
import torch

from models.optimizer import Adagrad


def test_two_steps_by_hand():
    weights = {"w": torch.tensor([1.0, -2.0], dtype=torch.float64)}
    optimizer = Adagrad(weights, learning_rate=0.1, momentum=0.5)
    optimizer.step("w", torch.tensor([3.0, 0.0], dtype=torch.float64))
    first = -0.1 * 3 / math.sqrt(9 + 1e-6)
    assert weights["w"].tolist() == pytest.approx([1 + first, -2.0])
    optimizer.step("w", torch.tensor([4.0, 0.0], dtype=torch.float64))
    second = 0.5 * first - 0.1 * 4 / math.sqrt(9 + 16 + 1e-6)
    assert weights["w"].tolist() == pytest.approx([1 + first + second, -2.0], rel=1e-12)


@pytest.mark.parametrize("momentum", [0.0, 0.4])
def test_touched_rows_move_as_in_a_table_of_their_own_and_others_stay(momentum: float):
    generator = torch.Generator().manual_seed(2)
    table = torch.randn(6, 3, generator=generator, dtype=torch.float64)
    rows = torch.tensor([1, 3, 4])
    weights, alone = {"t": table.clone()}, {"t": table[rows].clone()}
    by_row = Adagrad(weights, 0.1, momentum)
    whole = Adagrad(alone, 0.1, momentum)
    for _ in range(3):
        gradient = torch.randn(3, 3, generator=generator, dtype=torch.float64)
        by_row.step_rows("t", rows, weights["t"][rows], gradient.clone())
        whole.step("t", gradient)
    torch.testing.assert_close(weights["t"][rows], alone["t"], rtol=1e-12, atol=1e-12)
    others = [0, 2, 5]
    assert torch.equal(weights["t"][others], table[others])
    assert not by_row.accumulated["t"][others].any()

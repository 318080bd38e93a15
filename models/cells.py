"""The two GRU cells in use, each with its gradient written out.

B parallel sessions, H hidden units. `x_gates` is (B, 3H): what the input adds to the reset, update
and new gates, bias included. Both take and give hidden states of (B, H).

`reset_after` is the cell of Cho et al. as cuDNN computes it (reset applied to the recurrent
product); `reset_before` the original (reset applied to the hidden state), which Hidasi et al.
use where the items have no embedding. They are not the same function. A training step reaches one
step back and no further (no back-propagation through time), so the gradient with respect to the
previous hidden state is never needed.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class CellCache(NamedTuple):
    """What the gradient needs of the forward step."""

    hidden: Tensor  # (B, H) before the step
    reset: Tensor
    update: Tensor
    new: Tensor
    recurrent: Tensor  # reset_after: U_n h + b_n; reset_before: reset * hidden


class CellGradient(NamedTuple):
    """Gradients with respect to the cell's inputs and recurrent weights.

    `recurrent` has two factors by weight, (B, rows) and (B, columns): the gradient is
    `left.T @ right`. That of a bias has no `right`; it is `left.sum(0)`.
    """

    x_gates: Tensor  # (B, 3H)
    recurrent: dict[str, tuple[Tensor, Tensor | None]]


def reset_after(
    x_gates: Tensor, hidden: Tensor, weight: Tensor, bias: Tensor
) -> tuple[Tensor, CellCache]:
    """`weight` is (3H, H), `bias` (3H,), gates in the order reset, update, new."""
    size = hidden.shape[1]
    h_gates = torch.addmm(bias, hidden, weight.T)  # (B, H) @ (H, 3H)
    gates = (x_gates[:, : 2 * size] + h_gates[:, : 2 * size]).sigmoid_()
    reset, update = gates[:, :size], gates[:, size:]
    recurrent = h_gates[:, 2 * size :]
    new = torch.addcmul(x_gates[:, 2 * size :], reset, recurrent).tanh_()
    return torch.lerp(new, hidden, update), CellCache(hidden, reset, update, new, recurrent)


def reset_after_gradient(d_hidden: Tensor, cache: CellCache) -> CellGradient:
    """From the gradient (B, H) with respect to the new hidden state."""
    hidden, reset, update, new, recurrent = cache
    size = hidden.shape[1]
    d_x = d_hidden.new_empty(d_hidden.shape[0], 3 * size)
    d_new = d_x[:, 2 * size :]
    torch.mul(d_hidden * (1 - update), 1 - new * new, out=d_new)
    torch.mul(d_new * recurrent, reset * (1 - reset), out=d_x[:, :size])
    torch.mul(d_hidden * (hidden - new), update * (1 - update), out=d_x[:, size : 2 * size])
    d_h = d_x.clone()
    d_h[:, 2 * size :] *= reset
    return CellGradient(d_x, {"weight_hh": (d_h, hidden), "bias_hh": (d_h, None)})


def reset_before(
    x_gates: Tensor, hidden: Tensor, weight_gates: Tensor, weight_new: Tensor
) -> tuple[Tensor, CellCache]:
    """`weight_gates` is (2H, H) for reset and update, `weight_new` (H, H)."""
    size = hidden.shape[1]
    gates = torch.addmm(x_gates[:, : 2 * size], hidden, weight_gates.T).sigmoid_()
    reset, update = gates[:, :size], gates[:, size:]
    recurrent = reset * hidden
    new = torch.addmm(x_gates[:, 2 * size :], recurrent, weight_new.T).tanh_()
    return torch.lerp(hidden, new, update), CellCache(hidden, reset, update, new, recurrent)


def reset_before_gradient(d_hidden: Tensor, cache: CellCache, weight_new: Tensor) -> CellGradient:
    """From the gradient (B, H) with respect to the new hidden state."""
    hidden, reset, update, new, recurrent = cache
    size = hidden.shape[1]
    d_x = d_hidden.new_empty(d_hidden.shape[0], 3 * size)
    d_new = d_x[:, 2 * size :]
    torch.mul(d_hidden * update, 1 - new * new, out=d_new)
    d_recurrent = d_new @ weight_new
    torch.mul(d_recurrent * hidden, reset * (1 - reset), out=d_x[:, :size])
    torch.mul(d_hidden * (new - hidden), update * (1 - update), out=d_x[:, size : 2 * size])
    d_gates = d_x[:, : 2 * size]
    return CellGradient(d_x, {"weight_gates": (d_gates, hidden), "weight_new": (d_new, recurrent)})

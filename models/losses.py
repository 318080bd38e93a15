"""Ranking losses of GRU4Rec and their gradients, over distinct items.

B rows (one target each), U columns: the distinct items among the targets and the sampled
negatives. An item drawn m times would be m equal columns in the papers; here it is one column that
weighs m times as much, which is the same loss and gradient for less work. A row's target is column
`target[row]`, and one of that column's occurrences; accidental hits stay negatives.

Losses are per row, (B,); gradients with respect to the scores, (B, U), are multiplied by `scale`.
"""

import torch
from torch import Tensor

_EPSILON = 1e-24  # inside the logarithm


def cross_entropy(
    scores: Tensor, target: Tensor, log_weight: Tensor, target_log_weight: Tensor, scale: float
) -> tuple[Tensor, Tensor]:
    """-log softmax of the target, columns weighted by `exp(log_weight)` (U,).

    `target_log_weight` (B,) is the weight of the target's own occurrence. Without logQ correction
    the weights are log counts and 0; see `models.negatives.column_weights`.
    """
    gradient = torch.softmax(scores + log_weight, dim=1)
    row = target.unsqueeze(1)
    share = torch.exp(target_log_weight - log_weight.index_select(0, target))
    probability = gradient.gather(1, row).squeeze(1) * share
    loss = -torch.log(probability + _EPSILON)
    pull = probability / (probability + _EPSILON) * scale
    gradient *= pull.unsqueeze(1)
    return loss, gradient.scatter_add_(1, row, -pull.unsqueeze(1))


def bpr_max(
    scores: Tensor, target: Tensor, count: Tensor, elu: float, bpreg: float, scale: float
) -> tuple[Tensor, Tensor]:
    """BPR-max with score regularisation (arXiv:1706.03847, equations 8 and 10).

    `count` (U,) is how often each column occurs; weights are a softmax over the negatives alone.
    `elu` > 0 passes all scores through ELU first.
    """
    row = target.unsqueeze(1)
    rated = torch.nn.functional.elu(scores, elu) if elu else scores
    rated_target = rated.gather(1, row)
    # The target's own occurrence is no negative: once less there, -inf where it was the only one.
    logits = rated + torch.log(count)
    logits.scatter_(1, row, rated_target + torch.log(count.index_select(0, target) - 1)[:, None])
    weight = torch.softmax(logits, dim=1)
    won = torch.sigmoid(rated_target - rated)  # σ(r_t − r_j)
    weight_won = weight * won
    probability = weight_won.sum(1, keepdim=True)
    probability_won = weight_won.mul_(won).sum(1, keepdim=True)  # Σ w σ²
    penalty = (weight * rated).mul_(rated).sum(1, keepdim=True)  # Σ w r²
    loss = -torch.log(probability + _EPSILON) + bpreg * penalty
    pull = scale / (probability + _EPSILON)
    # d loss / d r_j = w_j (bpreg (r_j² + 2 r_j − Σ w r²) − (σ_j² − p) / p)
    gradient = torch.addcmul(rated, rated, rated, value=0.5).mul_(2 * bpreg * scale)
    gradient.addcmul_(won.square_(), pull, value=-1)
    gradient += pull * probability - bpreg * scale * penalty
    gradient *= weight
    gradient.scatter_add_(1, row, pull * (probability_won - probability))
    if elu:  # the kernel behind autograd: one pass, where `torch.where` takes twenty times as long
        gradient = torch.ops.aten.elu_backward(gradient, elu, 1, 1, True, rated)
    return loss.squeeze(1), gradient

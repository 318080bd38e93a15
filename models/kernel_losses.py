"""The losses of a training step and their gradients as Triton kernels: one program for each row.

What they compute is in `losses.py`. There a loss makes some fifteen passes over the scores in
memory, each a launch; here a program goes over its row three times (greatest score, sums,
gradients), in tiles of `_COLUMNS`, so that a row may be of any width.

B rows (one target each), U columns. Pointers are to dense tensors; numbers that are the same for a
whole training are compiled in, in the precision of the scores.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

_COLUMNS = 4096  # at once, by the threads of one program
_PER_WARP = 512  # of them
_NARROW = 256  # columns of a program that weighs columns


def bpr_max(
    scores: Tensor, bias: Tensor, target: Tensor, count: Tensor, weight: Tensor | None,
    *, elu: float, bpreg: float, scale: float,
) -> Tensor:  # fmt: skip
    """`losses.bpr_max` of `scores + bias`, each row's times its `weight` (B,): the losses (B,).

    Scores (B, U) become their gradients.
    """
    n_rows, n_columns = scores.shape
    loss = scores.new_empty(n_rows)
    columns, n_warps = _tile(n_columns)
    _bpr_max[(n_rows,)](
        scores, bias, target, count, weight, loss, n_columns, elu, bpreg, scale, columns,
        num_warps=n_warps,
    )  # fmt: skip
    return loss


def cross_entropy(
    scores: Tensor, bias: Tensor, target: Tensor, column_weight: Tensor,
    own_weight: Tensor | None, target_idx: Tensor, weight: Tensor | None, *, scale: float,
) -> Tensor:  # fmt: skip
    """`losses.cross_entropy` likewise, with weights of columns that are not logarithms.

    `own_weight` of an item (N,) is that of a target's own occurrence, 1 where there are none.
    """
    n_rows, n_columns = scores.shape
    loss = scores.new_empty(n_rows)
    columns, n_warps = _tile(n_columns)
    _cross_entropy[(n_rows,)](
        scores, bias, target, column_weight, own_weight, target_idx, weight, loss, n_columns,
        scale, columns, num_warps=n_warps,
    )  # fmt: skip
    return loss


def column_weights(
    rows: Tensor, count: Tensor, target_count: Tensor, as_target: Tensor, as_sample: Tensor
) -> Tensor:
    """exp of `negatives.column_weights`, (U,), from what one occurrence of an item weighs, (N,)."""
    weight = torch.empty_like(count)
    n_columns = count.shape[0]
    _column_weights[(triton.cdiv(n_columns, _NARROW),)](
        rows, count, target_count, as_target, as_sample, weight, n_columns, _NARROW, num_warps=2
    )
    return weight


def _tile(n_columns: int) -> tuple[int, int]:
    """Columns that a program takes at once, and its warps."""
    columns = min(_COLUMNS, triton.next_power_of_2(n_columns))
    return columns, max(1, columns // _PER_WARP)


@triton.jit
def _rated(scores, bias, columns, is_column, ELU: tl.constexpr):
    """Scores with their bias, passed through ELU."""
    score = tl.load(scores + columns, mask=is_column, other=0.0)
    score += tl.load(bias + columns, mask=is_column, other=0.0)
    if ELU > 0:
        score = tl.where(score > 0, score, ELU * (tl.exp(tl.minimum(score, 0.0)) - 1))
    return score


@triton.jit
def _negatives(count, columns, is_column, target):
    """Occurrences of each column; the target's own is no negative."""
    found = tl.load(count + columns, mask=is_column, other=0.0)
    return tl.where(columns == target, found - 1, found)


@triton.jit
def _relative(rated, n, highest):
    """n exp(rated - highest); 0 where n is, whose score may be the highest of all."""
    return tl.where(n > 0, n * tl.exp(tl.minimum(rated - highest, 0.0)), 0.0)


@triton.jit
def _sigmoid_of_minus(x):
    """1 / (1 + exp(x)), of an exponential that cannot overflow."""
    power = tl.exp(-tl.abs(x))
    return tl.where(x < 0, 1.0, power) / (1 + power)


@triton.jit(do_not_specialize_on_alignment=["target"])
def _bpr_max(
    scores, bias, target, count, weight, loss, n_columns,
    ELU: tl.constexpr, BPREG: tl.constexpr, SCALE: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    scores += row * n_columns
    own_column = tl.load(target + row)
    own = _rated(scores, bias, own_column, own_column < n_columns, ELU)

    highest = tl.full((), float("-inf"), own.dtype)
    for start in range(0, n_columns, COLUMNS):
        columns = start + tl.arange(0, COLUMNS)
        is_column = columns < n_columns
        n = _negatives(count, columns, is_column, own_column)
        rated = _rated(scores, bias, columns, is_column, ELU)
        highest = tl.maximum(highest, tl.max(tl.where(n > 0, rated, float("-inf"))))

    total = tl.zeros((), own.dtype)  # Σ w, of which all sums below are still to be divided by
    won = tl.zeros((), own.dtype)  # Σ w σ
    won_squared = tl.zeros((), own.dtype)  # Σ w σ²
    penalty = tl.zeros((), own.dtype)  # Σ w r²
    for start in range(0, n_columns, COLUMNS):
        columns = start + tl.arange(0, COLUMNS)
        is_column = columns < n_columns
        n = _negatives(count, columns, is_column, own_column)
        rated = _rated(scores, bias, columns, is_column, ELU)
        w = _relative(rated, n, highest)
        sigma = _sigmoid_of_minus(rated - own)
        total += tl.sum(w)
        won += tl.sum(w * sigma)
        won_squared += tl.sum(w * sigma * sigma)
        penalty += tl.sum(w * rated * rated)

    probability = won / total
    penalty = penalty / total
    factor = tl.full((), SCALE, own.dtype)
    row_loss = BPREG * penalty - tl.log(probability + 1e-24)
    if weight is not None:
        row_weight = tl.load(weight + row)
        row_loss *= row_weight
        factor *= row_weight
    tl.store(loss + row, row_loss)

    pull = factor / (probability + 1e-24)
    regular = BPREG * factor
    constant = pull * probability - regular * penalty
    of_target = pull * (won_squared / total - probability)
    for start in range(0, n_columns, COLUMNS):
        columns = start + tl.arange(0, COLUMNS)
        is_column = columns < n_columns
        n = _negatives(count, columns, is_column, own_column)
        rated = _rated(scores, bias, columns, is_column, ELU)
        sigma = _sigmoid_of_minus(rated - own)
        gradient = regular * (rated * rated + 2 * rated) - pull * sigma * sigma + constant
        gradient *= _relative(rated, n, highest) / total
        gradient = tl.where(columns == own_column, gradient + of_target, gradient)
        if ELU > 0:
            gradient = tl.where(rated > 0, gradient, gradient * (rated + ELU))
        tl.store(scores + columns, gradient, mask=is_column)


@triton.jit(do_not_specialize_on_alignment=["target", "target_idx"])
def _cross_entropy(
    scores, bias, target, column_weight, own_weight, target_idx, weight, loss, n_columns,
    SCALE: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    scores += row * n_columns
    own_column = tl.load(target + row)
    own = _rated(scores, bias, own_column, own_column < n_columns, 0.0)

    highest = tl.full((), float("-inf"), own.dtype)
    for start in range(0, n_columns, COLUMNS):
        columns = start + tl.arange(0, COLUMNS)
        is_column = columns < n_columns
        n = tl.load(column_weight + columns, mask=is_column, other=0.0)
        score = _rated(scores, bias, columns, is_column, 0.0)
        highest = tl.maximum(highest, tl.max(tl.where(n > 0, score, float("-inf"))))

    total = tl.zeros((), own.dtype)
    for start in range(0, n_columns, COLUMNS):
        columns = start + tl.arange(0, COLUMNS)
        is_column = columns < n_columns
        n = tl.load(column_weight + columns, mask=is_column, other=0.0)
        score = _rated(scores, bias, columns, is_column, 0.0)
        total += tl.sum(_relative(score, n, highest))

    probability = tl.exp(own - highest) / total
    if own_weight is not None:
        probability *= tl.load(own_weight + tl.load(target_idx + row))
    pull = probability / (probability + 1e-24) * SCALE
    row_loss = -tl.log(probability + 1e-24)
    if weight is not None:
        row_weight = tl.load(weight + row)
        row_loss *= row_weight
        pull *= row_weight
    tl.store(loss + row, row_loss)

    for start in range(0, n_columns, COLUMNS):
        columns = start + tl.arange(0, COLUMNS)
        is_column = columns < n_columns
        n = tl.load(column_weight + columns, mask=is_column, other=0.0)
        score = _rated(scores, bias, columns, is_column, 0.0)
        gradient = _relative(score, n, highest) / total * pull
        gradient = tl.where(columns == own_column, gradient - pull, gradient)
        tl.store(scores + columns, gradient, mask=is_column)


@triton.jit
def _column_weights(
    rows, count, target_count, as_target, as_sample, weight, n_columns, COLUMNS: tl.constexpr
):
    columns = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    is_column = columns < n_columns
    item = tl.load(rows + columns, mask=is_column, other=0)
    of_targets = tl.load(target_count + columns, mask=is_column, other=0.0)
    of_samples = tl.load(count + columns, mask=is_column, other=0.0) - of_targets
    found = of_targets * tl.load(as_target + item, mask=is_column, other=0.0)
    found += of_samples * tl.load(as_sample + item, mask=is_column, other=0.0)
    tl.store(weight + columns, found, mask=is_column)

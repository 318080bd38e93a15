// Losses and their gradients in one call; what they compute is in `losses.py`.
//
// B rows (one target each), U columns, `stride` values from row to row. A row of scores is small
// enough to stay in the first-level cache while it is worked on.

#pragma once

#include "fused_maths.h"

namespace {

template <typename T>
T highest_of(const T* values, int64_t n) {
    T highest = -INFINITY;
#pragma omp simd reduction(max : highest)
    for (int64_t j = 0; j < n; ++j) highest = values[j] > highest ? values[j] : highest;
    return highest;
}

template <typename T>
struct Sums {
    T weight = 0, won = 0, won_squared = 0, penalty = 0;
};

// weight = count e^(r - highest), won = sigmoid(own - r), and their sums over a row. `is_near`: the
// two exponentials are one but for a factor that neither overflows nor vanishes.
template <typename T, bool is_near>
Sums<T> weigh(const T* __restrict rated, const T* __restrict count, int64_t n_columns, T highest,
              T own, T* __restrict weight, T* __restrict won) {
    T total = 0, sum_won = 0, sum_won_squared = 0, penalty = 0;
    const T factor = is_near ? exponential(highest - own) : T(0);
#pragma omp simd reduction(+ : total, sum_won, sum_won_squared, penalty)
    for (int64_t j = 0; j < n_columns; ++j) {
        const T r = rated[j];
        const T e = exponential(r - highest);
        const T w = count[j] * e;
        const T s = 1 / (1 + (is_near ? e * factor : exponential(r - own)));
        const T ws = w * s;
        weight[j] = w;
        won[j] = s;
        total += w;
        sum_won += ws;
        sum_won_squared += ws * s;
        penalty += w * r * r;
    }
    return {total, sum_won, sum_won_squared, penalty};
}

// `count` is changed while a row is worked on, and back again; `work` has room for two rows.
template <typename T>
void bpr_max(T* __restrict scores, const T* __restrict bias, const int64_t* target,
             T* __restrict count, int64_t n_rows, int64_t n_columns, int64_t stride, T elu, T bpreg,
             T scale, T* losses, T* __restrict d_bias, T* __restrict work) {
    const T epsilon = static_cast<T>(1e-24);
    T* __restrict weight = work;
    T* __restrict won = work + n_columns;
    for (int64_t j = 0; j < n_columns; ++j) d_bias[j] = 0;
    for (int64_t row = 0; row < n_rows; ++row) {
        T* __restrict rated = scores + row * stride;
        if (elu > 0) {
#pragma omp simd
            for (int64_t j = 0; j < n_columns; ++j) {
                const T x = rated[j] + bias[j];
                const T below = elu * (exponential(x < 0 ? x : T(0)) - 1);
                rated[j] = x < 0 ? below : x;
            }
        } else {
#pragma omp simd
            for (int64_t j = 0; j < n_columns; ++j) rated[j] += bias[j];
        }
        // The target's own occurrence is no negative.
        const int64_t t = target[row];
        const T own = rated[t];
        count[t] -= 1;
        T highest = highest_of(rated, n_columns);
        if (count[t] == 0 && own == highest) {
            const T left = highest_of(rated, t), right = highest_of(rated + t + 1, n_columns - t - 1);
            highest = left > right ? left : right;
        }
        const bool is_near = std::fabs(highest - own) < 40;
        const Sums<T> sums =
            is_near ? weigh<T, true>(rated, count, n_columns, highest, own, weight, won)
                    : weigh<T, false>(rated, count, n_columns, highest, own, weight, won);
        count[t] += 1;
        const T share = 1 / sums.weight;
        const T probability = sums.won * share;
        const T penalty = sums.penalty * share;
        losses[row] = -std::log(probability + epsilon) + bpreg * penalty;
        const T pull = scale / (probability + epsilon);
        const T regular = bpreg * scale;
        const T constant = pull * probability - regular * penalty;
#pragma omp simd
        for (int64_t j = 0; j < n_columns; ++j) {
            const T r = rated[j];
            const T slope = elu > 0 && r < 0 ? r + elu : T(1);
            const T inner = regular * (r * r + 2 * r) - pull * won[j] * won[j] + constant;
            const T g = weight[j] * share * inner * slope;
            rated[j] = g;
            d_bias[j] += g;
        }
        const T slope = elu > 0 && own < 0 ? own + elu : T(1);
        const T extra = pull * (sums.won_squared * share - probability) * slope;
        rated[t] += extra;
        d_bias[t] += extra;
    }
}

// `weight` (U,) and `own_weight` (B,) are those of `losses.py`, without their logarithm.
template <typename T>
void cross_entropy(T* __restrict scores, const T* __restrict bias, const int64_t* target,
                   const T* __restrict weight, const T* own_weight, int64_t n_rows,
                   int64_t n_columns, int64_t stride, T scale, T* losses, T* __restrict d_bias) {
    const T epsilon = static_cast<T>(1e-24);
    for (int64_t j = 0; j < n_columns; ++j) d_bias[j] = 0;
    for (int64_t row = 0; row < n_rows; ++row) {
        T* __restrict logits = scores + row * stride;
        T highest = -INFINITY;
#pragma omp simd reduction(max : highest)
        for (int64_t j = 0; j < n_columns; ++j) {
            const T x = logits[j] + bias[j];
            logits[j] = x;
            highest = x > highest ? x : highest;
        }
        T total = 0;
#pragma omp simd reduction(+ : total)
        for (int64_t j = 0; j < n_columns; ++j) {
            const T e = weight[j] * exponential(logits[j] - highest);
            logits[j] = e;
            total += e;
        }
        const int64_t t = target[row];
        const T probability = logits[t] / total * (own_weight[row] / weight[t]);
        losses[row] = -std::log(probability + epsilon);
        const T pull = probability / (probability + epsilon) * scale;
        const T factor = pull / total;
#pragma omp simd
        for (int64_t j = 0; j < n_columns; ++j) {
            const T g = logits[j] * factor;
            logits[j] = g;
            d_bias[j] += g;
        }
        logits[t] -= pull;
        d_bias[t] -= pull;
    }
}

}  // namespace

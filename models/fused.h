// The passes of a training step over memory, each made once; `fused_step.h` makes a step of them. What
// they compute is in `losses.py`, `cells.py` and `optimizer.py`, and the tests hold both to it.
//
// B rows (one target each), U columns. Arrays are dense and row-major; a row of scores is small
// enough to stay in the first-level cache while it is worked on.

#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

namespace {

// e^x to 2 units in the last place, in a form that compilers turn into vector instructions:
// x = n ln 2 + r, e^r by its Taylor series to r^7 (|r| < 0.35: rest below 6e-9), 2^n by the exponent.
inline float exponential(float x) {
    const bool vanishes = x < -87.0f;
    x = vanishes ? -87.0f : (x > 88.0f ? 88.0f : x);
    const float n = std::nearbyintf(x * 1.44269504088896341f);
    float r = std::fma(n, -0.693359375f, x);
    r = std::fma(n, 2.12194440e-4f, r);
    float p = 1.9841270e-4f;
    p = std::fma(p, r, 1.3888889e-3f);
    p = std::fma(p, r, 8.3333333e-3f);
    p = std::fma(p, r, 4.1666667e-2f);
    p = std::fma(p, r, 1.6666667e-1f);
    p = std::fma(p, r, 0.5f);
    p = std::fma(p, r, 1.0f);
    p = std::fma(p, r, 1.0f);
    const int32_t bits = (static_cast<int32_t>(n) + 127) << 23;
    float power;
    std::memcpy(&power, &bits, sizeof power);
    return vanishes ? 0.0f : p * power;
}

inline double exponential(double x) { return std::exp(x); }

// 1 / sqrt(x) of what is neither zero nor infinite, to 2 units in the last place: a first guess from
// the exponent (within 4 %), then Newton's step three times. A division and a root take six times
// as long in vectors.
inline float reciprocal_root(float x) {
    int32_t bits;
    std::memcpy(&bits, &x, sizeof bits);
    bits = 0x5f3759df - (bits >> 1);
    float y;
    std::memcpy(&y, &bits, sizeof y);
    const float half = 0.5f * x;
    y *= 1.5f - half * y * y;
    y *= 1.5f - half * y * y;
    y *= 1.5f - half * y * y;
    return y;
}

inline double reciprocal_root(double x) { return 1 / std::sqrt(x); }

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
             T* __restrict count, int64_t n_rows, int64_t n_columns, T elu, T bpreg, T scale,
             T* losses, T* __restrict d_bias, T* __restrict work) {
    const T epsilon = static_cast<T>(1e-24);
    T* __restrict weight = work;
    T* __restrict won = work + n_columns;
    for (int64_t j = 0; j < n_columns; ++j) d_bias[j] = 0;
    for (int64_t row = 0; row < n_rows; ++row) {
        T* __restrict rated = scores + row * n_columns;
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
                   int64_t n_columns, T scale, T* losses, T* __restrict d_bias) {
    const T epsilon = static_cast<T>(1e-24);
    for (int64_t j = 0; j < n_columns; ++j) d_bias[j] = 0;
    for (int64_t row = 0; row < n_rows; ++row) {
        T* __restrict logits = scores + row * n_columns;
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

template <typename T>
inline T sigmoid(T x) {
    return 1 / (1 + exponential(-x));
}

// `x_gates` and `h_gates` are (B, 3H) without their biases. They become reset, update, new gate
// and (the last third of h_gates) the recurrent part of the new gate. `mask` may be null.
template <typename T>
void gru_forward(T* __restrict x_gates, T* __restrict h_gates, const T* __restrict bias_ih,
                 const T* __restrict bias_hh, const T* __restrict hidden, const T* __restrict mask,
                 int64_t n_rows, int64_t size, T* __restrict after) {
    for (int64_t row = 0; row < n_rows; ++row) {
        T* __restrict x = x_gates + row * 3 * size;
        T* __restrict h = h_gates + row * 3 * size;
        const T* __restrict before = hidden + row * size;
        T* __restrict out = after + row * size;
#pragma omp simd
        for (int64_t j = 0; j < 2 * size; ++j) x[j] = sigmoid(x[j] + h[j] + bias_ih[j] + bias_hh[j]);
#pragma omp simd
        for (int64_t j = 0; j < size; ++j) {
            const int64_t k = 2 * size + j;
            const T recurrent = h[k] + bias_hh[k];
            const T fresh = 2 * sigmoid(2 * (x[k] + bias_ih[k] + x[j] * recurrent)) - 1;  // tanh
            h[k] = recurrent;
            x[k] = fresh;
            out[j] = fresh + x[size + j] * (before[j] - fresh);
        }
        if (mask) {
            const T* __restrict keep = mask + row * size;
#pragma omp simd
            for (int64_t j = 0; j < size; ++j) out[j] *= keep[j];
        }
    }
}

// From d_hidden and what gru_forward left: d_x in place of the gates, d_h in place of h_gates, and
// their sums over rows, (3H,) each.
template <typename T>
void gru_backward(const T* __restrict d_hidden, T* __restrict gates, T* __restrict h_gates,
                  const T* __restrict hidden, const T* __restrict mask, int64_t n_rows,
                  int64_t size, T* __restrict d_bias_ih, T* __restrict d_bias_hh) {
    for (int64_t j = 0; j < 3 * size; ++j) d_bias_ih[j] = d_bias_hh[j] = 0;
    for (int64_t row = 0; row < n_rows; ++row) {
        T* __restrict x = gates + row * 3 * size;
        T* __restrict h = h_gates + row * 3 * size;
        const T* __restrict before = hidden + row * size;
        const T* __restrict d_after = d_hidden + row * size;
        const T* __restrict keep = mask ? mask + row * size : nullptr;
#pragma omp simd
        for (int64_t j = 0; j < size; ++j) {
            const T reset = x[j], update = x[size + j], fresh = x[2 * size + j];
            const T d = keep ? d_after[j] * keep[j] : d_after[j];
            const T d_new = d * (1 - update) * (1 - fresh * fresh);
            const T d_reset = d_new * h[2 * size + j] * reset * (1 - reset);
            const T d_update = d * (before[j] - fresh) * update * (1 - update);
            x[j] = h[j] = d_reset;
            x[size + j] = h[size + j] = d_update;
            x[2 * size + j] = d_new;
            h[2 * size + j] = d_new * reset;
            d_bias_ih[j] += d_reset;
            d_bias_ih[size + j] += d_update;
            d_bias_ih[2 * size + j] += d_new;
            d_bias_hh[2 * size + j] += d_new * reset;
        }
    }
    std::memcpy(d_bias_hh, d_bias_ih, 2 * size * sizeof(T));
}

// Rows of a table lie apart in memory: each is asked for a few rows ahead.
template <typename T>
inline void prefetch(const T* row, int64_t n_columns) {
    constexpr int64_t line = 64 / static_cast<int64_t>(sizeof(T));
    for (int64_t j = 0; j < n_columns && j < 16 * line; j += line) __builtin_prefetch(row + j);
}

template <typename T>
void gather(const T* __restrict table, const int64_t* rows, int64_t n_rows, int64_t n_columns,
            T* __restrict out) {
    for (int64_t row = 0; row < n_rows; ++row) {
        if (row + 4 < n_rows) prefetch(table + rows[row + 4] * n_columns, n_columns);
        std::memcpy(out + row * n_columns, table + rows[row] * n_columns, n_columns * sizeof(T));
    }
}

// rows == nullptr: the n_rows rows that stand at the beginning of the table.
template <typename T, bool has_momentum>
void adagrad(T* __restrict weight, T* __restrict accumulated, T* __restrict velocity,
             const int64_t* rows, const T* __restrict gradient, int64_t n_rows, int64_t n_columns,
             T rate, T momentum) {
    if (rows && n_columns == 1) {
        for (int64_t row = 0; row < n_rows; ++row) {
            const int64_t at = rows[row];
            const T g = gradient[row], sum = accumulated[at] + g * g;
            accumulated[at] = sum;
            T step = -rate * g * reciprocal_root(sum + static_cast<T>(1e-6));
            if (has_momentum) velocity[at] = step += momentum * velocity[at];
            weight[at] += step;
        }
        return;
    }
    for (int64_t row = 0; row < n_rows; ++row) {
        const int64_t at = (rows ? rows[row] : row) * n_columns;
        T* __restrict w = weight + at;
        T* __restrict a = accumulated + at;
        T* __restrict v = has_momentum ? velocity + at : nullptr;
        const T* __restrict g = gradient + row * n_columns;
        if (rows && row + 2 < n_rows) {
            const int64_t ahead = rows[row + 2] * n_columns;
            prefetch(weight + ahead, n_columns);
            prefetch(accumulated + ahead, n_columns);
            if (has_momentum) prefetch(velocity + ahead, n_columns);
        }
#pragma omp simd
        for (int64_t j = 0; j < n_columns; ++j) {
            const T sum = a[j] + g[j] * g[j];
            a[j] = sum;
            T step = -rate * g[j] * reciprocal_root(sum + static_cast<T>(1e-6));
            if (has_momentum) {
                step += momentum * v[j];
                v[j] = step;
            }
            w[j] += step;
        }
    }
}

template <typename T>
void adagrad_of(T* weight, T* accumulated, T* velocity, const int64_t* rows, const T* gradient,
                int64_t n_rows, int64_t n_columns, double rate, double momentum) {
    const T lr = static_cast<T>(rate), mu = static_cast<T>(momentum);
    if (velocity)
        adagrad<T, true>(weight, accumulated, velocity, rows, gradient, n_rows, n_columns, lr, mu);
    else
        adagrad<T, false>(weight, accumulated, velocity, rows, gradient, n_rows, n_columns, lr, mu);
}

}  // namespace

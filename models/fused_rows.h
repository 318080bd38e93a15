// Rows of tables gathered, and moved by Adagrad as `optimizer.py` says. Arrays are dense, by rows.

#pragma once

#include "fused_maths.h"

namespace {

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
             int64_t stride, T rate, T momentum) {
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
        const T* __restrict g = gradient + row * stride;
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
                int64_t n_rows, int64_t n_columns, int64_t stride, double rate, double momentum) {
    const T lr = static_cast<T>(rate), mu = static_cast<T>(momentum);
    if (velocity)
        adagrad<T, true>(weight, accumulated, velocity, rows, gradient, n_rows, n_columns, stride,
                         lr, mu);
    else
        adagrad<T, false>(weight, accumulated, velocity, rows, gradient, n_rows, n_columns, stride,
                         lr, mu);
}

}  // namespace

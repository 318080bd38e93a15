// The gates of a GRU layer, forward and backward; what they compute is in `cells.py`.

#pragma once

#include "fused_maths.h"

namespace {

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

}  // namespace

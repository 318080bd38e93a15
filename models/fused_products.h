// Products whose operands are rows of tables, or whose results move them.

#pragma once

#include "fused_tiles.h"

#include <cstring>
#include <utility>

namespace {

constexpr int64_t kDeep = 128;  // so many rows of a panel stay in the first-level cache

// A panel's width in vectors; the last of `n_columns` may be narrower than the others.
template <typename T>
inline int64_t vectors_from(int64_t column, int64_t n_columns) {
    return std::min<int64_t>((n_columns - column + Vector<T>::size - 1) / Vector<T>::size, kWide);
}

// A left operand aᵀ of n_rows (rounded up to kHigh, with zeros) from its rows, each of k values.
template <typename T>
void pack_left(const T* rows, int64_t n_rows, int64_t k, T* out) {
    for (int64_t row = 0; row < rounded_up(n_rows, kHigh); ++row) {
        T* to = out + row / kHigh * kHigh * k + row % kHigh;
        for (int64_t i = 0; i < k; ++i) to[i * kHigh] = row < n_rows ? rows[row * k + i] : T(0);
    }
}

// b (k, n_columns) in panels one after another, each (k, its vectors); zeros beyond the columns.
template <typename T>
void pack_panels(const T* b, int64_t k, int64_t n_columns, T* out) {
    for (int64_t column = 0; column < n_columns; column += Vector<T>::panel) {
        const int64_t width = vectors_from<T>(column, n_columns) * Vector<T>::size;
        const int64_t n = std::min(width, n_columns - column);
        for (int64_t i = 0; i < k; ++i, out += width) {
            std::memcpy(out, b + i * n_columns + column, n * sizeof(T));
            std::fill(out + n, out + width, T(0));
        }
    }
}

// Some rows of a product aᵀ b into `out` (rows, n_columns rounded up to vectors): those of the columns
// of `a` (k, lda) from `first` on. Both `out` and memory behind `a` reach to a multiple of kHigh.
// Room: `left` for so many columns of `a`.
template <typename T>
void product_rows(const T* a, int64_t lda, int64_t first, int64_t rows, int64_t k,
                  const T* panels, int64_t n_columns, T* left, T* out, Lines<T>& lines) {
    const int64_t stride = rounded_up(n_columns, Vector<T>::size);
    const int64_t high = rounded_up(rows, kHigh);
    for (int64_t i = 0; i < k; ++i)
        for (int64_t row = 0; row < high; row += kHigh)
            std::memcpy(left + (row * k + i * kHigh), a + i * lda + first + row, kHigh * sizeof(T));
    const int64_t n_panels = (n_columns + Vector<T>::panel - 1) / Vector<T>::panel;
    lines.spread(high / kHigh * n_panels * (k / 4));
    for (int64_t column = 0; column < n_columns; column += Vector<T>::panel) {
        const int64_t wide = vectors_from<T>(column, n_columns);
        for (int64_t row = 0; row < high; row += kHigh)
            tile_of(wide, k, left + row * k, panels, false, out + row * stride + column, stride,
                    lines);
        panels += wide * Vector<T>::size * k;
    }
}

#if defined(__has_builtin)
#if __has_builtin(__builtin_shufflevector)  // GCC has it from version 12 on
#define HAS_SHUFFLES

// Of a 2 x 2 block of squares of `step` columns, the upper or lower row after its transposition.
template <int step, bool is_upper, typename V, size_t... column>
inline V exchanged(V upper, V lower, std::index_sequence<column...>) {
    constexpr int n = sizeof...(column);
    if constexpr (is_upper)
        return __builtin_shufflevector(
            upper, lower, ((column & step) ? n + int(column) - step : int(column))...);
    else
        return __builtin_shufflevector(
            upper, lower, ((column & step) ? n + int(column) : int(column) + step)...);
}

template <int step, typename V, size_t n>
inline void exchange(V (&rows)[n]) {
    if constexpr (step < static_cast<int>(n)) {
        constexpr auto columns = std::make_index_sequence<n>();
#pragma GCC unroll 16
        for (int i = 0; i < static_cast<int>(n); ++i) {
            if (i & step) continue;
            const V upper = rows[i], lower = rows[i + step];
            rows[i] = exchanged<step, true>(upper, lower, columns);
            rows[i + step] = exchanged<step, false>(upper, lower, columns);
        }
        exchange<step * 2>(rows);
    }
}

#endif
#endif

// `out` (n_columns, ldo) = columns of as many rows as a vector has values, transposed.
template <typename T>
void transpose(const T* const* rows, int64_t first, int64_t n_columns, T* out, int64_t ldo) {
    constexpr int size = Vector<T>::size;
    int64_t column = 0;
#ifdef HAS_SHUFFLES
    using Loose = typename Vector<T>::loose;
    for (; column + size <= n_columns; column += size) {
        typename Vector<T>::type square[size];
#pragma GCC unroll 16
        for (int i = 0; i < size; ++i)
            square[i] = *reinterpret_cast<const Loose*>(rows[i] + first + column);
        exchange<1>(square);
#pragma GCC unroll 16
        for (int i = 0; i < size; ++i)
            *reinterpret_cast<Loose*>(out + (column + i) * ldo) = square[i];
    }
#endif
    for (; column < n_columns; ++column)
        for (int i = 0; i < size; ++i) out[column * ldo + i] = rows[i][first + column];
}

// scores (n_lanes rounded up to kHigh, stride) = value (n_lanes, size) times the rows of a table,
// transposed. The rows are copied to `copied`, one after another, unless they are the table's own
// first ones, `rows` being null. `stride` has room for whole panels of columns. Room: `left` for a
// value of as many lanes as scores, `panel` for kDeep rows of one.
template <typename T>
void score(const T* value, int64_t n_lanes, int64_t size, const T* table, const int64_t* rows,
           int64_t n_rows, T* copied, T* left, T* panel, T* scores, int64_t stride) {
    constexpr int64_t width = Vector<T>::panel;
    pack_left(value, n_lanes, size, left);
    const int64_t n_groups = rounded_up(n_lanes, kHigh) / kHigh;
    for (int64_t first = 0; first < n_rows; first += width) {
        const T* row[width];
        for (int64_t i = 0; i < width; ++i) {
            const int64_t at = std::min(first + i, n_rows - 1);
            row[i] = table + (rows ? rows[at] : at) * size;
            if (rows && first + i < n_rows) std::memcpy(copied + at * size, row[i], size * sizeof(T));
        }
        Lines<T> lines({table}, rows, first + width, std::min(first + 2 * width, n_rows), size);
        lines.spread(n_groups * (size / 4));
        for (int64_t k = 0; k < size; k += kDeep) {
            const int64_t deep = std::min(kDeep, size - k);
            for (int64_t v = 0; v < width; v += Vector<T>::size)
                transpose(row + v, k, deep, panel + v, width);
            for (int64_t group = 0; group < n_groups; ++group)
                tile<T, kWide>(deep, left + (group * size + k) * kHigh, panel, k > 0,
                               scores + group * kHigh * stride + first, stride, lines);
        }
    }
}

}  // namespace

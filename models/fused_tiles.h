// Matrix products that memory is fetched behind: a product by the BLAS waits for no row of a table, but
// its caller does, before and after. Here the lines of the rows that come next are asked for while the
// present ones are multiplied, and rows are gathered into the form that the product wants.
//
// A tile is kHigh x kWide vectors of the result, held in registers; its operands are packed: the left
// one kHigh rows at a time, the right one in panels of kWide vectors, both with the summed axis first.

#pragma once

#include <algorithm>
#include <cstdint>
#include <initializer_list>

namespace {

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64, kHigh = 8;
#elif defined(__AVX__)
constexpr int kVectorBytes = 32, kHigh = 4;
#elif defined(__aarch64__)
constexpr int kVectorBytes = 16, kHigh = 8;
#else
constexpr int kVectorBytes = 16, kHigh = 4;
#endif
constexpr int kWide = 3, kLine = 64;

// `loose`: wherever a T may stand.
template <typename T>
struct Vector {
    static constexpr int size = kVectorBytes / sizeof(T), panel = kWide * size;
    typedef T type __attribute__((vector_size(kVectorBytes)));
    typedef T loose __attribute__((vector_size(kVectorBytes), aligned(alignof(T)), may_alias));
};

inline int64_t rounded_up(int64_t n, int64_t multiple) {
    return (n + multiple - 1) / multiple * multiple;
}

// Rows of up to three tables that are soon needed, asked for line by line.
template <typename T>
class Lines {
public:
    Lines() = default;
    // Rows first to last of `rows`, or of the tables themselves where that is null.
    Lines(std::initializer_list<const T*> tables, const int64_t* rows, int64_t first, int64_t last,
          int64_t n_columns)
        : rows_(rows), n_columns_(n_columns), row_(first) {
        for (const T* table : tables)
            if (table) tables_[n_tables_++] = table;
        last_ = std::max(first, last);
        if (row_ < last_) begin();
    }

    // Spread them over `n` turns.
    void spread(int64_t n) {
        const int64_t of_row = n_columns_ * static_cast<int64_t>(sizeof(T)) / kLine + 1;
        if (n) each_turn_ = (last_ - row_) * n_tables_ * of_row * kWhole / n + 1;
    }

    // One turn.
    void ask() {
        for (due_ += each_turn_; due_ >= kWhole && row_ < last_; due_ -= kWhole) {
            __builtin_prefetch(reinterpret_cast<const void*>(at_), 0, 2);
            at_ += kLine;
            if (at_ < end_) continue;
            if (++table_ == n_tables_) {
                table_ = 0;
                if (++row_ == last_) return;
            }
            begin();
        }
    }

private:
    static constexpr int64_t kWhole = 1 << 10;  // one line; turns are due parts of it

    void begin() {
        const int64_t row = rows_ ? rows_[row_] : row_;
        const uintptr_t start = reinterpret_cast<uintptr_t>(tables_[table_] + row * n_columns_);
        at_ = start / kLine * kLine;
        end_ = start + n_columns_ * sizeof(T);
    }

    const T* tables_[3] = {};
    const int64_t* rows_ = nullptr;
    int64_t n_columns_ = 0, row_ = 0, last_ = 0, each_turn_ = 0, due_ = 0;
    int n_tables_ = 0, table_ = 0;
    uintptr_t at_ = 0, end_ = 0;
};

// c (kHigh, wide vectors) = a (k, kHigh)ᵀ b (k, wide vectors), added to what is there where asked.
template <typename T, int wide>
inline void tile(int64_t k, const T* __restrict a, const T* __restrict b, bool is_added,
                 T* __restrict c, int64_t ldc, Lines<T>& lines) {
    using Loose = typename Vector<T>::loose;
    constexpr int size = Vector<T>::size;
    typename Vector<T>::type sums[kHigh][wide] = {};
    const auto multiply_add = [&](int64_t i) {
        typename Vector<T>::type right[wide];
#pragma GCC unroll 8
        for (int v = 0; v < wide; ++v)
            right[v] = *reinterpret_cast<const Loose*>(b + (i * wide + v) * size);
#pragma GCC unroll 8
        for (int row = 0; row < kHigh; ++row)
#pragma GCC unroll 8
            for (int v = 0; v < wide; ++v) sums[row][v] += a[i * kHigh + row] * right[v];
    };
    int64_t i = 0;
    for (; i + 4 <= k; i += 4) {
        lines.ask();
        for (int64_t turn = 0; turn < 4; ++turn) multiply_add(i + turn);
    }
    for (; i < k; ++i) multiply_add(i);
#pragma GCC unroll 8
    for (int row = 0; row < kHigh; ++row)
#pragma GCC unroll 8
        for (int v = 0; v < wide; ++v) {
            Loose& out = *reinterpret_cast<Loose*>(c + row * ldc + v * size);
            out = is_added ? out + sums[row][v] : sums[row][v];
        }
}

template <typename T>
inline void tile_of(int64_t wide, int64_t k, const T* a, const T* b, bool is_added, T* c,
                    int64_t ldc, Lines<T>& lines) {
    if (wide == 3) tile<T, 3>(k, a, b, is_added, c, ldc, lines);
    else if (wide == 2) tile<T, 2>(k, a, b, is_added, c, ldc, lines);
    else tile<T, 1>(k, a, b, is_added, c, ldc, lines);
}

}  // namespace

// What some training steps touch, and draws of negatives and of what drops out. `touched.py`,
// `negatives.py` and `dropout.py` say what comes out, and do the same without a compiler.

#pragma once

#include <cstdint>
#include <vector>

// K steps of B lanes each, S negatives a step; arrays are (K, B) and (K, S).
struct Lanes {
    int64_t n_steps, n_lanes, n_sample, n_items, is_shared;
    const int64_t *inputs, *targets, *negatives;
};

// Room for what is found: `touched.Touched`. `input_rows` and `input_bounds` where tables are separate.
struct Touched {
    int64_t *rows, *bounds, *n_scored, *count, *target_count, *target, *input, *input_rows,
        *input_bounds;
};

namespace {

class Planner {
public:
    explicit Planner(const Lanes& lanes)
        : lanes_(lanes), found_(lanes.n_items, 0), words_(lanes.n_items / 64 + 1, 0),
          filled_(words_.size() / 64 + 1, 0) {}

    void run(const Touched& out) {
        const int64_t n_lanes = lanes_.n_lanes, n_sample = lanes_.n_sample;
        int64_t row = 0, column = 0, input_row = 0;
        for (int64_t step = 0; step < lanes_.n_steps; ++step) {
            const int64_t* inputs = lanes_.inputs + step * n_lanes;
            const int64_t* targets = lanes_.targets + step * n_lanes;
            const int64_t* negatives = lanes_.negatives + step * n_sample;
            int64_t *target = out.target + step * n_lanes, *input = out.input + step * n_lanes;
            out.bounds[step] = row;
            begin();
            for (int64_t lane = 0; lane < n_lanes; ++lane) mark(targets[lane]);
            for (int64_t j = 0; j < n_sample; ++j) mark(negatives[j]);
            const int64_t n_scored = out.n_scored[step] = take(out.rows + row, 0);
            for (int64_t j = column; j < column + n_scored; ++j)
                out.count[j] = out.target_count[j] = 0;
            for (int64_t lane = 0; lane < n_lanes; ++lane) {
                target[lane] = place(targets[lane]);
                ++out.count[column + target[lane]];
                ++out.target_count[column + target[lane]];
            }
            for (int64_t j = 0; j < n_sample; ++j) ++out.count[column + place(negatives[j])];
            row += n_scored;
            column += n_scored;
            if (!lanes_.is_shared) begin();
            for (int64_t lane = 0; lane < n_lanes; ++lane)
                if (!is_found(inputs[lane])) mark(inputs[lane]);
            if (lanes_.is_shared) {
                row += take(out.rows + row, n_scored);
            } else {
                out.input_bounds[step] = input_row;
                input_row += take(out.input_rows + input_row, 0);
            }
            for (int64_t lane = 0; lane < n_lanes; ++lane) input[lane] = place(inputs[lane]);
        }
        out.bounds[lanes_.n_steps] = row;
        if (!lanes_.is_shared) out.input_bounds[lanes_.n_steps] = input_row;
    }

private:
    // From here on no item is found.
    void begin() { ++list_; }

    void mark(int64_t item) {
        const int64_t word = item / 64;
        words_[word] |= uint64_t{1} << (item % 64);
        filled_[word / 64] |= uint64_t{1} << (word % 64);
    }

    // The marked items, ascending; their places count from `first`. How many they are.
    int64_t take(int64_t* items, int64_t first) {
        int64_t n = 0;
        for (int64_t at = 0; at < static_cast<int64_t>(filled_.size()); ++at) {
            for (uint64_t words = filled_[at]; words; words &= words - 1) {
                const int64_t word = at * 64 + __builtin_ctzll(words);
                for (uint64_t bits = words_[word]; bits; bits &= bits - 1) {
                    const int64_t item = word * 64 + __builtin_ctzll(bits);
                    found_[item] = list_ << 32 | static_cast<uint64_t>(first + n);
                    items[n++] = item;
                }
                words_[word] = 0;
            }
            filled_[at] = 0;
        }
        return n;
    }

    bool is_found(int64_t item) const { return found_[item] >> 32 == list_; }
    int64_t place(int64_t item) const { return static_cast<int64_t>(found_[item] & 0xffffffff); }

    const Lanes& lanes_;
    std::vector<uint64_t> found_;            // of an item: the list that it is in, and its place
    std::vector<uint64_t> words_, filled_;   // a bit for each marked item; for each word with any
    uint64_t list_ = 0;
};

}  // namespace

extern "C" void touched(const Lanes* lanes, const Touched* out) { Planner(*lanes).run(*out); }

// The first item whose share of `cumulative` goes beyond each number; `bucket_start` has it for the
// numbers 0, 1 / n_buckets, … A bucket has half an item on average, by what is drawn of it.
extern "C" void drawn(const double* uniform, int64_t n, const double* cumulative,
                      const int64_t* bucket_start, int64_t n_buckets, int64_t* items) {
    for (int64_t i = 0; i < n; ++i) {
        int64_t item = bucket_start[static_cast<int64_t>(uniform[i] * static_cast<double>(n_buckets))];
        while (cumulative[item] <= uniform[i]) ++item;
        items[i] = item;
    }
}

// What drops out: 0 where a number of 16 bits is below `dropped`, else `scale`.
#define EXPORT_KEPT(T, SUFFIX)                                                                     \
    extern "C" void kept_##SUFFIX(const uint16_t* bits, int64_t n, int64_t dropped, double scale,  \
                                  T* out) {                                                        \
        const T kept = static_cast<T>(scale);                                                      \
        const int32_t least = static_cast<int32_t>(dropped);                                       \
        for (int64_t i = 0; i < n; ++i) out[i] = bits[i] < least ? T(0) : kept;                    \
    }

EXPORT_KEPT(float, float32)
EXPORT_KEPT(double, float64)

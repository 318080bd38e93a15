// What a step is told: the network, the step's plan and its states. `fused_step.py` lays out the same.

#pragma once

#include <cstdint>

namespace {

template <typename T>
struct Parameter {
    T *weight, *accumulated, *velocity;  // no velocity without momentum
};

template <typename T>
struct Layer {
    int64_t n_inputs, size;
    Parameter<T> weight_ih, weight_hh, bias_ih, bias_hh;
};

template <typename T>
struct Network {
    int64_t n_layers, is_shared, is_bpr_max;
    double learning_rate, momentum, elu, bpreg, batch_size;
    void* product;  // sgemm or dgemm, as Fortran calls it
    const Layer<T>* layers;
    Parameter<T> input, output, bias;  // no input where it is shared
    // By item, cross-entropy only: weight of an occurrence as a target, as a sampled negative.
    const T *as_target, *as_sample;
};

// See `plan.py`. `rows` is null where the rows are those of the table.
template <typename T>
struct Plan {
    int64_t n_lanes, n_rows, n_scored, n_input_rows;
    const int64_t *rows, *item_idx, *input_rows, *input, *target, *target_idx;
    T* count;
    const T *target_count, *weight;  // no weight where all targets count alike
};

// Hidden states before and after the step and what drops out of the latter, by layer; `drop_input`
// and what is in `drop` may be null. A lane with no `keep` begins a session: its state before becomes
// zero. `keep` is null where none does.
template <typename T>
struct States {
    T* const* before;
    T* const* after;
    const T* const* drop;
    const T *drop_input, *keep;
};

// Memory of a step is cut from one piece; at no address it is only counted.
template <typename T>
class Room {
public:
    explicit Room(T* start) : start_(start) {}
    T* take(int64_t n) {
        T* piece = start_ ? start_ + used_ : nullptr;
        used_ += (n + 63) / 64 * 64;
        return piece;
    }
    int64_t used() const { return used_; }

private:
    T* start_;
    int64_t used_ = 0;
};

}  // namespace

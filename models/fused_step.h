// A training step: what it computes is in `step.py` and `layers.py`, and the tests hold it to them.
//
// B lanes, H units of the last layer, E columns of the input, U scored items among R rows. Products
// are those of the BLAS that PyTorch brings; the caller gives its address. `fused_step.py` lays out
// the same structs.

#pragma once

#include "fused.h"

#include <algorithm>
#include <ctime>

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
// and what is in `drop` may be null.
template <typename T>
struct States {
    const T* const* before;
    T* const* after;
    const T* const* drop;
    const T* drop_input;
};

template <typename T>
using Product = void (*)(const char*, const char*, const int*, const int*, const int*, const T*,
                         const T*, const int*, const T*, const int*, const T*, T*, const int*);

enum Phase { kForward, kLoss, kBackward, kOptimiser };

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

template <typename T>
class Step {
public:
    Step(const Network<T>& net, const Plan<T>& plan, T* room, double* seconds)
        : net_(net), plan_(plan), room_(room), seconds_(seconds), lanes_(plan.n_lanes),
          size_(net.layers[net.n_layers - 1].size), n_inputs_(net.layers[0].n_inputs) {
        int64_t widest = n_inputs_, units = 0;
        for (int64_t n = 0; n < net.n_layers; ++n) {
            widest = std::max(widest, net.layers[n].size);
            units += net.layers[n].size;
        }
        table_ = plan.rows ? room_.take(plan.n_rows * size_) : net.output.weight;
        scores_ = room_.take(lanes_ * plan.n_scored);
        inputs_ = room_.take(lanes_ * n_inputs_);
        gates_ = room_.take(6 * lanes_ * units);
        d_value_ = room_.take(lanes_ * widest);
        d_next_ = room_.take(lanes_ * widest);
        d_rows_ = room_.take(std::max(kGradient, 16 * widest));
        d_bias_ = room_.take(6 * widest);
        column_bias_ = room_.take(plan.n_scored);
        column_weight_ = room_.take(plan.n_scored);
        d_column_ = room_.take(plan.n_scored);
        work_ = room_.take(2 * plan.n_scored);
        losses_ = room_.take(lanes_);
        own_ = room_.take(lanes_);
        lanes_of_ = reinterpret_cast<int64_t*>(
            room_.take((plan.n_input_rows + lanes_) * sizeof(int64_t) / sizeof(T)));
    }

    int64_t room() const { return room_.used(); }

    T run(const States<T>& states) {
        started_ = seconds_ ? now() : 0;
        forward(states);
        ended(kForward);
        loss();
        ended(kLoss);
        const T* value = states.after[net_.n_layers - 1];
        multiply(false, false, lanes_, size_, plan_.n_scored, scores_, plan_.n_scored, table_, size_,
                 d_value_);
        ended(kBackward);
        backward(states);
        update_items(value);
        T total = 0;
        for (int64_t lane = 0; lane < lanes_; ++lane) total += losses_[lane];
        return total / static_cast<T>(net_.batch_size);
    }

private:
    // Values of a gradient that are worked out and used while the second-level cache holds them.
    static constexpr int64_t kGradient = (1 << 18) / sizeof(T);

    const Network<T>& net_;
    const Plan<T>& plan_;
    Room<T> room_;
    double* seconds_;  // by phase, or null
    double started_ = 0;
    const int64_t lanes_, size_, n_inputs_;
    T *table_, *scores_, *inputs_, *gates_, *d_value_, *d_next_, *d_rows_, *d_bias_, *column_bias_,
        *column_weight_, *d_column_, *work_, *losses_, *own_;
    int64_t* lanes_of_;  // first lane of each input row, then the next lane of each; -1 ends

    static double now() {
        timespec time;
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
        return time.tv_sec + 1e-9 * time.tv_nsec;
    }

    void ended(Phase phase) {
        if (!seconds_) return;
        const double time = now();
        seconds_[phase] += time - started_;
        started_ = time;
    }

    // c (m, n) = a (m, k) b (k, n), a or b stored transposed; all by rows, `lda`, `ldb` long.
    void multiply(bool a_transposed, bool b_transposed, int64_t m, int64_t n, int64_t k, const T* a,
                  int64_t lda, const T* b, int64_t ldb, T* c) {
        const int rows = m, columns = n, inner = k, of_a = lda, of_b = ldb;
        const T one = 1, zero = 0;
        reinterpret_cast<Product<T>>(net_.product)(
            b_transposed ? "T" : "N", a_transposed ? "T" : "N", &columns, &rows, &inner, &one, b,
            &of_b, a, &of_a, &zero, c, &columns);
    }

    const T* inputs_of(int64_t layer, const States<T>& states) const {
        return layer ? states.after[layer - 1] : inputs_;
    }

    T* gates_of(int64_t layer) const {
        T* gates = gates_;
        for (int64_t n = 0; n < layer; ++n) gates += 6 * lanes_ * net_.layers[n].size;
        return gates;
    }

    void forward(const States<T>& states) {
        if (plan_.rows) gather(net_.output.weight, plan_.rows, plan_.n_rows, size_, table_);
        for (int64_t lane = 0; lane < lanes_; ++lane) {
            const int64_t row = plan_.input[lane];
            const T* source = net_.is_shared ? table_ + row * size_
                                             : net_.input.weight + plan_.input_rows[row] * n_inputs_;
            T* out = inputs_ + lane * n_inputs_;
            std::memcpy(out, source, n_inputs_ * sizeof(T));
            if (states.drop_input) scale(out, states.drop_input + lane * n_inputs_, n_inputs_);
        }
        for (int64_t n = 0; n < net_.n_layers; ++n) {
            const Layer<T>& layer = net_.layers[n];
            const int64_t size = layer.size, width = 3 * size;
            T *x = gates_of(n), *h = x + lanes_ * width;
            multiply(false, true, lanes_, width, layer.n_inputs, inputs_of(n, states),
                     layer.n_inputs, layer.weight_ih.weight, layer.n_inputs, x);
            multiply(false, true, lanes_, width, size, states.before[n], size,
                     layer.weight_hh.weight, size, h);
            gru_forward(x, h, layer.bias_ih.weight, layer.bias_hh.weight, states.before[n],
                        states.drop[n], lanes_, size, states.after[n]);
        }
        multiply(false, true, lanes_, plan_.n_scored, size_, states.after[net_.n_layers - 1], size_,
                 table_, size_, scores_);
    }

    void loss() {
        unweighted_loss();
        if (plan_.weight) weigh();
    }

    // Each lane's loss and gradient times the weight of its target.
    void weigh() {
        for (int64_t j = 0; j < plan_.n_scored; ++j) d_column_[j] = 0;
        for (int64_t lane = 0; lane < lanes_; ++lane) {
            const T weight = plan_.weight[lane];
            losses_[lane] *= weight;
            T* __restrict d = scores_ + lane * plan_.n_scored;
#pragma omp simd
            for (int64_t j = 0; j < plan_.n_scored; ++j) d_column_[j] += d[j] *= weight;
        }
    }

    void unweighted_loss() {
        const T scale = static_cast<T>(1 / net_.batch_size);
        const int64_t* item = plan_.item_idx;
        for (int64_t j = 0; j < plan_.n_scored; ++j) column_bias_[j] = net_.bias.weight[item[j]];
        if (net_.is_bpr_max) {
            bpr_max(scores_, column_bias_, plan_.target, plan_.count, lanes_, plan_.n_scored,
                    static_cast<T>(net_.elu), static_cast<T>(net_.bpreg), scale, losses_, d_column_,
                    work_);
            return;
        }
        for (int64_t j = 0; j < plan_.n_scored; ++j) {
            const T n_targets = plan_.target_count[j];
            column_weight_[j] = n_targets * net_.as_target[item[j]] +
                                (plan_.count[j] - n_targets) * net_.as_sample[item[j]];
        }
        for (int64_t lane = 0; lane < lanes_; ++lane)
            own_[lane] = net_.as_target[plan_.target_idx[lane]];
        cross_entropy(scores_, column_bias_, plan_.target, column_weight_, own_, lanes_,
                      plan_.n_scored, scale, losses_, d_column_);
    }

    // From d_value_ (B, H) on; leaves the gradient of the inputs (B, E) there.
    void backward(const States<T>& states) {
        for (int64_t n = net_.n_layers - 1; n >= 0; --n) {
            const Layer<T>& layer = net_.layers[n];
            const int64_t size = layer.size, width = 3 * size;
            const T* inputs = inputs_of(n, states);
            T *d_x = gates_of(n), *d_h = d_x + lanes_ * width, *d_hh = d_bias_ + width;
            gru_backward(d_value_, d_x, d_h, states.before[n], states.drop[n], lanes_, size, d_bias_,
                         d_hh);
            multiply(false, false, lanes_, layer.n_inputs, width, d_x, width, layer.weight_ih.weight,
                     layer.n_inputs, d_next_);
            std::swap(d_value_, d_next_);
            ended(kBackward);
            move(layer.weight_ih, nullptr, width, layer.n_inputs, [&](int64_t first, int64_t rows) {
                multiply(true, false, rows, layer.n_inputs, lanes_, d_x + first, width, inputs,
                         layer.n_inputs, d_rows_);
            });
            move(layer.weight_hh, nullptr, width, size, [&](int64_t first, int64_t rows) {
                multiply(true, false, rows, size, lanes_, d_h + first, width, states.before[n], size,
                         d_rows_);
            });
            adagrad_of(layer.bias_ih, nullptr, d_bias_, 1, width);
            adagrad_of(layer.bias_hh, nullptr, d_hh, 1, width);
            ended(kOptimiser);
        }
        if (states.drop_input) scale(d_value_, states.drop_input, lanes_ * n_inputs_);
    }

    void update_items(const T* value) {
        list_lanes();
        move(net_.output, plan_.rows, net_.is_shared ? plan_.n_rows : plan_.n_scored, size_,
             [&](int64_t first, int64_t rows) {
                 const int64_t scored = std::clamp<int64_t>(plan_.n_scored - first, 0, rows);
                 if (scored)
                     multiply(true, false, scored, size_, lanes_, scores_ + first, plan_.n_scored,
                              value, size_, d_rows_);
                 std::fill(d_rows_ + scored * size_, d_rows_ + rows * size_, T(0));
                 if (net_.is_shared) add_inputs(first, rows);
             });
        if (!net_.is_shared)
            move(net_.input, plan_.input_rows, plan_.n_input_rows, n_inputs_,
                 [&](int64_t first, int64_t rows) {
                     std::fill(d_rows_, d_rows_ + rows * n_inputs_, T(0));
                     add_inputs(first, rows);
                 });
        if (plan_.rows)
            adagrad_of(net_.bias, plan_.rows, d_column_, plan_.n_scored, 1);
        else
            adagrad_of(net_.bias, nullptr, d_column_, 1, plan_.n_scored);
        ended(kOptimiser);
    }

    void list_lanes() {
        int64_t* next = lanes_of_ + plan_.n_input_rows;
        std::fill(lanes_of_, next, int64_t(-1));
        for (int64_t lane = lanes_ - 1; lane >= 0; --lane) {
            next[lane] = lanes_of_[plan_.input[lane]];
            lanes_of_[plan_.input[lane]] = lane;
        }
    }

    // Each input's gradient to its row of d_rows_, which holds `rows` of them from `first` on.
    void add_inputs(int64_t first, int64_t rows) {
        const int64_t* next = lanes_of_ + plan_.n_input_rows;
        for (int64_t row = 0; row < rows; ++row)
            for (int64_t lane = lanes_of_[first + row]; lane >= 0; lane = next[lane]) {
                T* __restrict out = d_rows_ + row * n_inputs_;
                const T* __restrict d_input = d_value_ + lane * n_inputs_;
#pragma omp simd
                for (int64_t j = 0; j < n_inputs_; ++j) out[j] += d_input[j];
            }
    }

    // Some rows of a gradient into d_rows_ by `gradient`, then what they move, and so on.
    template <typename Gradient>
    void move(const Parameter<T>& moved, const int64_t* rows, int64_t n_rows, int64_t n_columns,
              Gradient gradient) {
        const int64_t at_once = std::max<int64_t>(kGradient / n_columns / 16, 1) * 16;
        for (int64_t first = 0; first < n_rows; first += at_once) {
            const int64_t n = std::min(at_once, n_rows - first);
            gradient(first, n);
            ended(kBackward);
            const int64_t skipped = rows ? 0 : first * n_columns;
            T* velocity = moved.velocity ? moved.velocity + skipped : nullptr;
            adagrad_of({moved.weight + skipped, moved.accumulated + skipped, velocity},
                       rows ? rows + first : nullptr, d_rows_, n, n_columns);
            ended(kOptimiser);
        }
    }

    void adagrad_of(const Parameter<T>& moved, const int64_t* rows, const T* gradient,
                    int64_t n_rows, int64_t n_columns) {
        ::adagrad_of(moved.weight, moved.accumulated, moved.velocity, rows, gradient, n_rows,
                     n_columns, net_.learning_rate, net_.momentum);
    }

    static void scale(T* __restrict values, const T* __restrict factors, int64_t n) {
#pragma omp simd
        for (int64_t j = 0; j < n; ++j) values[j] *= factors[j];
    }
};

}  // namespace

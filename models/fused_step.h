// A training step: what it computes is in `step.py` and `layers.py`, and the tests hold it to them.
//
// B lanes, H units of the last layer, E columns of the input, U scored items among R rows. Products
// that rows of tables go into, or that move weights, are those of `fused_products.h`, which fetch rows
// ahead; the others those of the BLAS that PyTorch brings, whose address the caller gives.

#pragma once

#include "fused_gru.h"
#include "fused_layout.h"
#include "fused_losses.h"
#include "fused_products.h"
#include "fused_rows.h"

#include <algorithm>
#include <ctime>

namespace {

template <typename T>
using Product = void (*)(const char*, const char*, const int*, const int*, const int*, const T*,
                         const T*, const int*, const T*, const int*, const T*, T*, const int*);

enum Phase { kForward, kLoss, kBackward, kOptimiser };

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
        const int64_t high_lanes = rounded_up(lanes_, kHigh);
        stride_ = rounded_up(plan.n_scored, Vector<T>::panel);
        if (stride_ * sizeof(T) % kPage == 0) stride_ += Vector<T>::panel;
        table_ = plan.rows ? room_.take(plan.n_scored * size_) : net.output.weight;
        scores_ = room_.take(high_lanes * stride_);
        inputs_ = room_.take(lanes_ * n_inputs_);
        gates_ = room_.take(6 * lanes_ * units + kHigh);
        d_value_ = room_.take(lanes_ * widest);
        d_next_ = room_.take(lanes_ * widest);
        left_ = room_.take(std::max(high_lanes * size_, kRows * lanes_));
        panels_ = room_.take(std::max(lanes_ * rounded_up(widest, Vector<T>::size),
                                      kDeep * Vector<T>::panel));
        d_rows_ = room_.take(kRows * rounded_up(widest, Vector<T>::size));
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
        if (states.keep) begin_sessions(states);
        forward(states);
        ended(kForward);
        loss();
        ended(kLoss);
        const T* value = states.after[net_.n_layers - 1];
        multiply(false, false, lanes_, size_, plan_.n_scored, scores_, stride_, table_, size_, d_value_);
        ended(kBackward);
        backward(states);
        update_items(value);
        T total = 0;
        for (int64_t lane = 0; lane < lanes_; ++lane) total += losses_[lane];
        return total / static_cast<T>(net_.batch_size);
    }

private:
    // Rows of a gradient that are worked out and used while the second-level cache holds them.
    static constexpr int64_t kRows = 64;
    static constexpr int64_t kPage = 4096;  // rows so far apart share few places of a cache

    const Network<T>& net_;
    const Plan<T>& plan_;
    Room<T> room_;
    double* seconds_;  // by phase, or null
    double started_ = 0;
    const int64_t lanes_, size_, n_inputs_;
    int64_t stride_;  // of the scores
    T *table_, *scores_, *inputs_, *gates_, *d_value_, *d_next_, *left_, *panels_, *d_rows_,
        *d_bias_, *column_bias_, *column_weight_, *d_column_, *work_, *losses_, *own_;
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

    void begin_sessions(const States<T>& states) {
        for (int64_t n = 0; n < net_.n_layers; ++n)
            for (int64_t lane = 0; lane < lanes_; ++lane) {
                const int64_t size = net_.layers[n].size;
                if (states.keep[lane] == 0) std::fill_n(states.before[n] + lane * size, size, T(0));
            }
    }

    void forward(const States<T>& states) {
        const T* input_table = net_.is_shared ? net_.output.weight : net_.input.weight;
        const int64_t* input_rows = net_.is_shared ? plan_.rows : plan_.input_rows;
        for (int64_t lane = 0; lane < lanes_; ++lane) {
            const int64_t row = plan_.input[lane];
            const T* source = input_table + (input_rows ? input_rows[row] : row) * n_inputs_;
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
        score(states.after[net_.n_layers - 1], lanes_, size_, net_.output.weight, plan_.rows,
              plan_.n_scored, table_, left_, panels_, scores_, stride_);
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
            T* __restrict d = scores_ + lane * stride_;
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
                    stride_, static_cast<T>(net_.elu), static_cast<T>(net_.bpreg), scale, losses_, d_column_,
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
                      plan_.n_scored, stride_, scale, losses_, d_column_);
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
            move(layer.weight_ih, nullptr, width, layer.n_inputs, width, d_x, width, inputs);
            move(layer.weight_hh, nullptr, width, size, width, d_h, width, states.before[n]);
            adagrad_of(layer.bias_ih, nullptr, d_bias_, 1, width, width);
            adagrad_of(layer.bias_hh, nullptr, d_hh, 1, width, width);
            ended(kOptimiser);
        }
        if (states.drop_input) scale(d_value_, states.drop_input, lanes_ * n_inputs_);
    }

    void update_items(const T* value) {
        list_lanes();
        move(net_.output, plan_.rows, net_.is_shared ? plan_.n_rows : plan_.n_scored, size_,
             plan_.n_scored, scores_, stride_, value, net_.is_shared);
        if (!net_.is_shared)
            move(net_.input, plan_.input_rows, plan_.n_input_rows, n_inputs_, 0, nullptr, 0, nullptr,
                 true);
        if (plan_.rows)
            adagrad_of(net_.bias, plan_.rows, d_column_, plan_.n_scored, 1, 1);
        else
            adagrad_of(net_.bias, nullptr, d_column_, 1, plan_.n_scored,
                       plan_.n_scored);
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
    void add_inputs(int64_t first, int64_t rows, int64_t stride) {
        const int64_t* next = lanes_of_ + plan_.n_input_rows;
        for (int64_t row = 0; row < rows; ++row)
            for (int64_t lane = lanes_of_[first + row]; lane >= 0; lane = next[lane]) {
                T* __restrict out = d_rows_ + row * stride;
                const T* __restrict d_input = d_value_ + lane * n_inputs_;
#pragma omp simd
                for (int64_t j = 0; j < n_inputs_; ++j) out[j] += d_input[j];
            }
    }

    // Moves `rows` of a parameter, some at a time, by their gradient: aᵀ b for the first `n_products`
    // of them, a (lanes, lda), b (lanes, n_columns), and what the inputs' gradients add.
    void move(const Parameter<T>& moved, const int64_t* rows, int64_t n_rows, int64_t n_columns,
              int64_t n_products, const T* a, int64_t lda, const T* b, bool has_inputs = false) {
        const int64_t stride = rounded_up(n_columns, Vector<T>::size);
        if (n_products) pack_panels(b, lanes_, n_columns, panels_);
        for (int64_t first = 0; first < n_rows; first += kRows) {
            const int64_t n = std::min(kRows, n_rows - first), after = first + n;
            Lines<T> lines({moved.weight, moved.accumulated, moved.velocity}, rows, after,
                           std::min(after + kRows, n_rows), n_columns);
            const int64_t of_product = std::clamp<int64_t>(n_products - first, 0, n);
            product_rows(a, lda, first, of_product, lanes_, panels_, n_columns, left_, d_rows_, lines);
            std::fill(d_rows_ + of_product * stride, d_rows_ + n * stride, T(0));
            if (has_inputs) add_inputs(first, n, stride);
            ended(kBackward);
            const int64_t skipped = rows ? 0 : first * n_columns;
            T* velocity = moved.velocity ? moved.velocity + skipped : nullptr;
            adagrad_of({moved.weight + skipped, moved.accumulated + skipped, velocity},
                       rows ? rows + first : nullptr, d_rows_, n, n_columns, stride);
            ended(kOptimiser);
        }
    }

    void adagrad_of(const Parameter<T>& moved, const int64_t* rows, const T* gradient,
                    int64_t n_rows, int64_t n_columns, int64_t stride) {
        ::adagrad_of(moved.weight, moved.accumulated, moved.velocity, rows, gradient, n_rows,
                     n_columns, stride, net_.learning_rate, net_.momentum);
    }

    static void scale(T* __restrict values, const T* __restrict factors, int64_t n) {
#pragma omp simd
        for (int64_t j = 0; j < n; ++j) values[j] *= factors[j];
    }
};

}  // namespace

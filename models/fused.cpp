// What `fused.py` compiles: training steps in one call, single passes of one, and plans of steps.

#include "fused_plan.h"
#include "fused_step.h"

// `steps_room` gives how many values `room` must have space for.
#define EXPORT_FOR(T, SUFFIX)                                                                      \
    extern "C" int64_t steps_room_##SUFFIX(const Network<T>* net, const Plan<T>* plans,            \
                                           int64_t n) {                                            \
        int64_t room = 0;                                                                          \
        for (int64_t i = 0; i < n; ++i)                                                            \
            room = std::max(room, Step<T>(*net, plans[i], nullptr, nullptr).room());               \
        return room;                                                                               \
    }                                                                                              \
    extern "C" void steps_##SUFFIX(const Network<T>* net, const Plan<T>* plans,                    \
                                   const States<T>* states, int64_t n, T* room, T* losses,         \
                                   double* seconds) {                                              \
        for (int64_t i = 0; i < n; ++i)                                                            \
            losses[i] = Step<T>(*net, plans[i], room, seconds).run(states[i]);                     \
    }                                                                                              \
    extern "C" void bpr_max_##SUFFIX(T* scores, const T* bias, const int64_t* target, T* count,    \
                                     int64_t n_rows, int64_t n_columns, double elu, double bpreg,  \
                                     double scale, T* losses, T* d_bias, T* work) {                \
        bpr_max<T>(scores, bias, target, count, n_rows, n_columns, n_columns, static_cast<T>(elu), \
                   static_cast<T>(bpreg), static_cast<T>(scale), losses, d_bias, work);            \
    }                                                                                              \
    extern "C" void cross_entropy_##SUFFIX(T* scores, const T* bias, const int64_t* target,        \
                                           const T* weight, const T* own, int64_t n_rows,          \
                                           int64_t n_columns, double scale, T* losses,             \
                                           T* d_bias) {                                            \
        cross_entropy<T>(scores, bias, target, weight, own, n_rows, n_columns, n_columns,          \
                         static_cast<T>(scale), losses, d_bias);                                   \
    }                                                                                              \
    extern "C" void gather_##SUFFIX(const T* table, const int64_t* rows, int64_t n_rows,           \
                                    int64_t n_columns, T* out) {                                   \
        gather<T>(table, rows, n_rows, n_columns, out);                                            \
    }                                                                                              \
    extern "C" void adagrad_##SUFFIX(T* weight, T* accumulated, T* velocity, const int64_t* rows,  \
                                     const T* gradient, int64_t n_rows, int64_t n_columns,         \
                                     double rate, double momentum) {                               \
        adagrad_of<T>(weight, accumulated, velocity, rows, gradient, n_rows, n_columns,            \
                      n_columns, rate, momentum);                                                                   \
    }

EXPORT_FOR(float, float32)
EXPORT_FOR(double, float64)

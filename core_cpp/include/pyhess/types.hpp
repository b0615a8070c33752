// Basic types of the core. Nothing here knows about Python.
#pragma once

#include <cstdint>

namespace pyhess {

// Every size, offset and count: P and N * width may exceed 2^31.
using index_t = std::int64_t;

// What every entry point of the C ABI returns.
enum class Status : std::int32_t {
    ok = 0,
    bad_argument = 1,
    cancelled = 2,
};

enum class Activation : std::int32_t {
    identity = 0,
    tanh = 1,
    relu = 2,
    softplus = 3,
    sigmoid = 4,
    gelu = 5,
};

enum class Loss : std::int32_t {
    squared_error = 0,  // 1/2 |f - y|^2
    cross_entropy = 1,  // -sum_k y_k log softmax(f)_k
    logistic = 2,       // log(1 + exp(f)) - y f
};

// Elements to which every array inside a workspace is aligned: one cache line of float32.
constexpr index_t kAlign = 16;

// Rows that one running sum in float32 takes in: near the square root of the number of data, so that neither the sum
// over a piece nor the sum of the pieces is long.
constexpr index_t kRowsPerSum = 256;

constexpr index_t round_up(index_t n, index_t multiple) { return (n + multiple - 1) / multiple * multiple; }

}  // namespace pyhess

// Value and gradient at theta, and the state every later product reads.
//
// Reference: the usual back-propagation recursion; delta^l = dL/ds^l, bar^l = dL/da^l = scale (W^{l+1})' delta^{l+1}.
#pragma once

#include "pyhess/problem.hpp"

namespace pyhess {

// Writes each W' (in, ld_out) of `theta` one after the other into `out` (transposed_size elements). Called once per
// theta with out = state, and once per vector: it turns the forward products into the fast layout.
template <class T>
void transpose_weights(const Problem<T>& problem, const T* theta, T* out);

// Fills the state for the rows of the chunks; adds the loss to *value and, unless null, its gradient to grad (P).
template <class T>
Status linearize(const Problem<T>& problem, const T* theta, T* state, index_t chunk_begin, index_t chunk_end,
                 double* value, T* grad, T* work, const volatile std::int32_t* cancel);

// s = scale (W a + b) for one block: out (rows, ld_out). `add` keeps what out holds; the bias is skipped where b is
// null.
template <class T>
void affine(const Problem<T>& problem, index_t l, index_t rows, const T* transposed, const T* b, const T* a, bool add,
            T* out) {
    const Layer& layer = problem.layer(l);
    const T scale = static_cast<T>(layer.scale);
    const bool with_bias = b && !add;
    if (with_bias) problem.kernels().fill_rows(rows, layer.out, layer.ld_out, scale, b, out);
    problem.gemm().nn(layer.out, rows, layer.in, scale, transposed + layer.wt, layer.ld_wt, a, layer.ld_in,
                      with_bias || add ? T(1) : T(0), out, layer.ld_out);
}

// bar = scale W' delta for one block: out (rows, ld_in); W is (out, in) row-major inside theta.
template <class T>
void pull_back(const Problem<T>& problem, index_t l, index_t rows, const T* theta, const T* delta, bool add, T* out) {
    const Layer& layer = problem.layer(l);
    problem.gemm().nn(layer.in, rows, layer.out, static_cast<T>(layer.scale), theta + layer.w, layer.in, delta,
                      layer.ld_out, add ? T(1) : T(0), out, layer.ld_in);
}

// W-block of out += factor scale delta a'. In float32 the rows are added up in pieces, because a running sum over
// thousands of like terms loses the last digits of every one of them.
template <class T>
void add_outer(const Problem<T>& problem, index_t l, index_t rows, T factor, const T* delta, const T* a, T* out) {
    const Layer& layer = problem.layer(l);
    const index_t piece = sizeof(T) == sizeof(float) ? kRowsPerSum : rows;
    for (index_t row = 0; row < rows; row += piece)
        problem.gemm().nt(layer.in, layer.out, rows - row < piece ? rows - row : piece,
                          factor * static_cast<T>(layer.scale), a + row * layer.ld_in, layer.ld_in,
                          delta + row * layer.ld_out, layer.ld_out, T(1), out + layer.w, layer.in);
}

// b-block of out += scale (sum of delta over rows), where there are biases
template <class T>
void add_bias(const Problem<T>& problem, index_t l, index_t rows, const T* delta, T* out) {
    const Layer& layer = problem.layer(l);
    if (layer.b < 0) return;
    problem.kernels().add_column_sums(rows, layer.out, layer.ld_out, static_cast<T>(layer.scale), delta, out + layer.b);
}

// The bias part of a flat vector, or null.
template <class T>
const T* bias_of(const Problem<T>& problem, index_t l, const T* theta) {
    const index_t at = problem.layer(l).b;
    return at < 0 ? nullptr : theta + at;
}

}  // namespace pyhess

// The four linear maps of a layer on one block of data, for both memory layouts: rows of data through GEMM, or lanes
// across data (Problem::lanes) through the fused kernels of narrow layers.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>

#include "pyhess/problem.hpp"

namespace pyhess {

// A weight matrix of a flat parameter vector, its transposed copies where the layout needs them, and what it
// multiplies.
template <class T>
struct Term {
    const T* params;
    const T* transposed;  // null for pull_back
    const T* x;
};

// The bias part of a flat vector, or null.
template <class T>
const T* bias_of(const Problem<T>& problem, index_t l, const T* theta) {
    const index_t at = problem.layer(l).b;
    return at < 0 ? nullptr : theta + at;
}

// out = scale (bias + sum_t W_t x_t); bias may be null
template <class T, std::size_t N>
void affine(const Problem<T>& problem, index_t l, index_t rows, const T* bias, const std::array<Term<T>, N>& terms,
            T* out) {
    const Layer& layer = problem.layer(l);
    const T scale = static_cast<T>(layer.scale);
    if (problem.lanes()) {
        std::array<LaneTerm<T>, N> lane;
        for (std::size_t t = 0; t < N; ++t) lane[t] = {terms[t].params + layer.w, terms[t].x};
        return problem.kernels().lane_affine(layer.out, layer.in, rows, scale, bias, layer.in, 1, N, lane.data(), out);
    }
    if (bias) problem.kernels().fill_rows(rows, layer.out, layer.ld_out, scale, bias, out);
    bool add = bias != nullptr;
    for (const Term<T>& term : terms) {
        problem.gemm().nn(layer.out, rows, layer.in, scale, term.transposed + layer.wt, layer.ld_wt, term.x,
                          layer.ld_in, add ? T(1) : T(0), out, layer.ld_out);
        add = true;
    }
}

// out = scale sum_t W_t' x_t
template <class T, std::size_t N>
void pull_back(const Problem<T>& problem, index_t l, index_t rows, const std::array<Term<T>, N>& terms, T* out) {
    const Layer& layer = problem.layer(l);
    const T scale = static_cast<T>(layer.scale);
    if (problem.lanes()) {
        std::array<LaneTerm<T>, N> lane;
        for (std::size_t t = 0; t < N; ++t) lane[t] = {terms[t].params + layer.w, terms[t].x};
        return problem.kernels().lane_affine(layer.in, layer.out, rows, scale, nullptr, 1, layer.in, N, lane.data(),
                                             out);
    }
    for (std::size_t t = 0; t < N; ++t)
        problem.gemm().nn(layer.in, rows, layer.out, scale, terms[t].params + layer.w, layer.in, terms[t].x,
                          layer.ld_out, t == 0 ? T(0) : T(1), out, layer.ld_in);
}

// s1 = scale (V a + W a1 + c), (v, vt) holding V and c; a1 is null in the first layer
template <class T>
void tangent(const Problem<T>& problem, index_t l, index_t rows, const T* theta, const T* state, const T* v,
             const T* vt, const T* a, const T* a1, T* s1) {
    const T* c = bias_of(problem, l, v);
    if (a1)
        affine<T, 2>(problem, l, rows, c, {{{v, vt, a}, {theta, state, a1}}}, s1);
    else
        affine<T, 1>(problem, l, rows, c, {{{v, vt, a}}}, s1);
}

// W-block of out += factor scale sum_t left_t right_t'. In float32 the rows are added up in pieces, because a running
// sum over thousands of like terms loses the last digits of every one of them; lanes are many short sums by nature.
template <class T, std::size_t N>
void add_outer(const Problem<T>& problem, index_t l, index_t rows, T factor, const std::array<LaneTerm<T>, N>& terms,
               T* out) {
    const Layer& layer = problem.layer(l);
    const T scale = factor * static_cast<T>(layer.scale);
    if (problem.lanes())
        return problem.kernels().lane_outer(layer.out, layer.in, rows, scale, N, terms.data(), out + layer.w);
    const index_t piece = sizeof(T) == sizeof(float) ? kRowsPerSum : rows;
    for (const LaneTerm<T>& term : terms)
        for (index_t row = 0; row < rows; row += piece)
            problem.gemm().nt(layer.in, layer.out, std::min(piece, rows - row), scale, term.right + row * layer.ld_in,
                              layer.ld_in, term.left + row * layer.ld_out, layer.ld_out, T(1), out + layer.w, layer.in);
}

// b-block of out += factor scale (sum of delta over the data), where there are biases
template <class T>
void add_bias(const Problem<T>& problem, index_t l, index_t rows, T factor, const T* delta, T* out) {
    const Layer& layer = problem.layer(l);
    if (layer.b < 0) return;
    const T scale = factor * static_cast<T>(layer.scale);
    if (problem.lanes()) return problem.kernels().lane_sums(layer.out, rows, scale, delta, out + layer.b);
    problem.kernels().add_column_sums(rows, layer.out, layer.ld_out, scale, delta, out + layer.b);
}

// The functions of loss.hpp in the problem's layout.
template <class T>
double output_loss(const Problem<T>& problem, const LossBlock<T>& block, const T* f, T* delta) {
    return problem.lanes() ? problem.kernels().lane_loss_forward(problem.loss(), block, f, delta)
                           : loss_forward(problem.loss(), block, f, delta);
}

template <class T>
void output_curvature(const Problem<T>& problem, const LossBlock<T>& block, T* u) {
    return problem.lanes() ? problem.kernels().lane_loss_curvature(problem.loss(), block, u)
                           : loss_curvature(problem.loss(), block, u);
}

template <class T>
double output_jet(const Problem<T>& problem, const LossBlock<T>& block, const T* delta, const T* u, const T* s2, T* x1,
                  T* x0) {
    return problem.lanes() ? problem.kernels().lane_loss_jet(problem.loss(), block, delta, u, s2, x1, x0)
                           : loss_jet(problem.loss(), block, delta, u, s2, x1, x0);
}

}  // namespace pyhess

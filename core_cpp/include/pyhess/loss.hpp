// The three losses on one block of rows: value, gradient, Hessian times a direction, third derivative along a
// direction. Every derivative carries the datum's weight, so the sums over rows are the weighted mean's derivatives.
#pragma once

#include "pyhess/types.hpp"

namespace pyhess {

template <class T>
struct LossBlock {
    index_t rows, num_outputs, ld;  // with lanes across data the arrays are (num_outputs, rows) and ld is unused
    const T* weight;                // (rows)  w_i / sum w
    const double* mass;             // (rows)  w_i / sum w times sum_k y_ik for cross_entropy, else the weight
    const T* target;                // (rows, num_outputs), dense
    T* prob;  // (rows, ld)  softmax of the outputs, or the folded sigmoid (loss.cpp); unused for squared_error
};

// Returns the weighted sum of losses; writes delta = dL/df and, where there is one, prob.
template <class T>
double loss_forward(Loss loss, const LossBlock<T>& block, const T* f, T* delta);

// u -> A u with A = d2L/df2
template <class T>
void loss_curvature(Loss loss, const LossBlock<T>& block, T* u);

// From the output's jet (u = s1 and s2, half the second derivative): returns sum u'Au + 2 delta's2;
// x1 = A u, x0 = T[u, u] / 2 + A s2.
template <class T>
double loss_jet(Loss loss, const LossBlock<T>& block, const T* delta, const T* u, const T* s2, T* x1, T* x0);

}  // namespace pyhess

// Value and gradient at theta, and the state every later product reads.
//
// Reference: the usual back-propagation recursion; delta^l = dL/ds^l, bar^l = dL/da^l = scale (W^{l+1})' delta^{l+1}.
#pragma once

#include "pyhess/problem.hpp"

namespace pyhess {

// Writes each W' (in, ld_out) of `theta` one after the other into `out` (transposed_size elements). Called once per
// theta with out = state, and once per vector: it turns the forward products into the fast layout. With lanes across
// data there is nothing to transpose.
template <class T>
void transpose_weights(const Problem<T>& problem, const T* theta, T* out);

// Fills the state for the rows of the chunks; adds the loss to *value and, unless null, its gradient to grad (P).
template <class T>
Status linearize(const Problem<T>& problem, const T* theta, T* state, index_t chunk_begin, index_t chunk_end,
                 double* value, T* grad, T* work, const volatile std::int32_t* cancel);

}  // namespace pyhess

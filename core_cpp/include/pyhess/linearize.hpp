// Value and gradient at theta, and the state every later product reads.
//
// Reference: the usual back-propagation recursion; delta^l = dL/ds^l, bar^l = dL/da^l = scale (W^{l+1})' delta^{l+1}.
#pragma once

#include "pyhess/problem.hpp"
#include "pyhess/workspace.hpp"

namespace pyhess {

// Writes each W' (in, ld_out) of `theta` one after the other into `out` (transposed_size elements). Called once per
// theta with out = state, and once per vector: it turns the forward products into the fast layout. With lanes across
// data there is nothing to transpose.
template <class T>
void transpose_weights(const Problem<T>& problem, const T* theta, T* out);

// The same in pieces, in any order.
template <class T>
index_t transposed_strips(const Problem<T>& problem);
template <class T>
void transpose_strip(const Problem<T>& problem, const T* theta, T* out, index_t strip);

// Fills what is kept of one block; adds the gradient to grad (P) unless null; returns the block's loss.
template <class T>
double linearize_block(const Problem<T>& problem, const T* theta, const T* transposed, T* kept, index_t row,
                       index_t rows, T* grad, const Workspace<T>& space);

// Makes the arrays of a block from what the state of a problem that packs has of it.
template <class T>
void unpack(const Problem<T>& problem, const T* stored, T* kept, index_t rows);

// What the block's products read: kept since the linearization, or computed here and now.
template <class T>
T* kept_block(const Problem<T>& problem, const T* theta, const T* state, bool fresh, T* work, index_t row,
              index_t rows) {
    T* kept = problem.kept(state, work, row, fresh);
    if (fresh || problem.streaming())
        linearize_block(problem, theta, state, kept, row, rows, static_cast<T*>(nullptr), Workspace<T>(problem, work));
    else if (problem.packs())
        unpack<T>(problem, problem.stored(state, row), kept, rows);
    return kept;
}

// Fills the state for the rows of the chunks; adds the loss to *value and, unless null, its gradient to grad (P).
template <class T>
Status linearize(const Problem<T>& problem, const T* theta, T* state, index_t chunk_begin, index_t chunk_end,
                 double* value, T* grad, T* work, const volatile std::int32_t* cancel);

}  // namespace pyhess

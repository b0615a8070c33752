// Gauss-Newton matrix times a vector: G v = mean J' A J v, the Hessian without the terms in phi'' and V' delta.
#pragma once

#include "pyhess/problem.hpp"

namespace pyhess {

// Adds the rows' part of G v to out (P). vt holds the transposed weights of v.
template <class T>
Status ggn(const Problem<T>& problem, const T* theta, const T* state, bool fresh, const T* v, const T* vt, T* out,
           index_t chunk_begin, index_t chunk_end, T* work, const volatile std::int32_t* cancel);

}  // namespace pyhess

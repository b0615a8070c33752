// Hessian times a vector: forward-over-reverse along V with the primal state reused,
//     s1^l = scale (W a1^{l-1} + V a^{l-1} + c),  a1 = phi' s1,
//     d1^D = A s1^D,  d1^l = phi' scale (W' d1^{l+1} + V' delta^{l+1}) + phi'' bar s1,
//     (Hv)^l = scale (d1 a' + delta a1').
// Cost 4 N P_1 + 12 N (P - P_1) flops, P_1 the size of the first layer.
#pragma once

#include "pyhess/problem.hpp"

namespace pyhess {

// Adds the rows' part of H v to out (P). vt holds the transposed weights of v.
template <class T>
Status hvp(const Problem<T>& problem, const T* theta, const T* state, bool fresh, const T* v, const T* vt, T* out,
           index_t chunk_begin, index_t chunk_end, T* work, const volatile std::int32_t* cancel);

}  // namespace pyhess

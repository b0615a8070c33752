// The curvature jet: q = v'H(theta)v, H v and dq/dtheta together, from a second-order forward jet and one reverse pass.
//
//     forward   s1 = scale (W a1 + V a + c),  s2 = scale (W a2 + V a1),  a1 = phi' s1,  a2 = phi' s2 + phi'' s1^2 / 2
//     q         = sum s1' A s1 + 2 delta' s2
//     reverse   x1 = A s1, x0 = T[s1, s1] / 2 + A s2 at the output; below it
//               y1 = scale (W' x1 + V' delta),  y0 = scale (W' x0 + V' x1),
//               x1 = phi' y1 + phi'' bar s1,    x0 = phi' y0 + phi'' s1 y1 + phi'' bar s2 + phi''' bar s1^2 / 2
//     H v       = scale (x1 a' + delta a1'),    dq/dtheta = 2 scale (x0 a' + x1 a1' + delta a2')
//
// s2 and a2 are half the second derivatives, x1 and x0 half the cotangents of s1 and s, so that no product carries a
// factor; the cotangent of s2 is delta, which the linearization already holds.
#pragma once

#include "pyhess/problem.hpp"

namespace pyhess {

// Adds the rows' parts of q to *q, of H v to hv (P) and of dq/dtheta to grad (P). vt holds the transposed weights of v.
template <class T>
Status jet(const Problem<T>& problem, const T* theta, const T* state, bool fresh, const T* v, const T* vt, double* q,
           T* hv, T* grad, index_t chunk_begin, index_t chunk_end, T* work, const volatile std::int32_t* cancel);

}  // namespace pyhess

// Joint descent of the Rayleigh quotient rho(theta, u) = v'H(theta)v / u'u, v = S u, over a box or a ball, from one
// start.
//
// A point is z = (x, u) with theta = mid + half x; x lies in [-1, 1]^P for a box and in the unit ball for a ball. The
// diagonal S is the identity, or what turns a weighted penalty sum_i w_i theta_i^2 into a plain one: S_i = w_i^(-1/2).
// Each step is a projected limited-memory BFGS step with an Armijo search along the projection arc (Nocedal & Wright,
// Numerical Optimization, 2nd ed., algorithm 7.4; Bertsekas 1982 for the projection). An evaluation is a curvature
// jet that linearizes on the way; it gives rho and its gradient in theta and u together.
#pragma once

#include "pyhess/problem.hpp"

namespace pyhess {

enum class Reach : std::int64_t { box = 0, ball = 1 };

struct DescentRegion {
    Reach reach;
    const double* mid;    // (P)
    const double* half;   // (P)
    const double* scale;  // (P) diagonal of S, or null for the identity
};

struct DescentLimits {
    index_t max_evals;
    double tol;            // three steps in a row that gain less than tol |rho| end the descent
    index_t memory;        // BFGS pairs kept, >= 1
    index_t vertex_steps;  // Frank-Wolfe steps before the first quasi-Newton step
    index_t flips;         // coordinates tried at their other end after those; boxes only
};

// Doubles of scratch that one descent of P parameters needs.
constexpr index_t descent_scratch_size(index_t num_params, index_t memory) {
    return (2 * memory + 5) * 2 * num_params + 4 * num_params + 2 * memory;
}

// Improves z (2P) in place; *value becomes rho(z), or stays as it is where nothing could be evaluated; *evals grows by
// the evaluations made. `turned` holds 2 transposed_size elements, `work` work_size. A cancelled descent leaves the
// best point it reached. With float problems the jets have float's digits, rho too; z and the sums are double all the
// same.
template <class T>
Status descend(const Problem<T>& problem, const DescentRegion& region, const DescentLimits& limits, double* z,
               double* value, std::int64_t* evals, double* scratch, T* turned, T* work,
               const volatile std::int32_t* cancel);

}  // namespace pyhess

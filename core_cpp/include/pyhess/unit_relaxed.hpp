// Lower bounds of one hidden unit's block over cells of its weights, the other units anywhere in what is left of a
// ball.
//
// With z = (p, e x p, delta x p) the block's Taylor polynomial about a cell's middle is a quadratic form but for the
// third order in delta; Lam and Lam_k >= 0 bring in the ball and the cell's sides. Delta of one unit meets only itself,
// e and p, so the matrix is factorised unit by unit, then e, then p. pyhess/certify/unit_relaxed.py has the
// mathematics.
#pragma once

#include "pyhess/types.hpp"

namespace pyhess {

// Pointers and sizes, eight bytes each, so that Python can fill them in as one record. Arrays are dense and row-major;
// E inputs (with the constant one), D = E + 1, n data, M other units, L = M D or one more for the output bias, T and T'
// the pairs and triples of D indices, C cells.
struct RelaxedJob {
    const double* x;        // (n, E)
    const double* weights;  // (n)
    const double* linear;   // (L, n) what the others add, by the changes of their parameters
    const double* square;   // (M, T, n) by the products of two, p <= q, as tensors' entries
    const double* cubic;    // (M, T', n) of three
    index_t num_data, dim, num_units, num_rows;
    double scale_v;
    const double* residual;  // (C, n) at the middle
    const double* phi;       // (5, C, n) phi to phi'''' of the unit's pre-activations
    const double* alpha;     // (C, n) what the polynomials leave out of a datum's form is alpha s^2 + 2 beta |s q|
    const double* beta;      // (C, n)
    const double* outer;     // (C) the middle's output weight
    const double* half;      // (C, D) half widths
    const double* room;      // (C) rho
    const double* left;      // (C) (R^2 - |q|^2) / rho^2, or more
    const double* tilt;      // (C, D) q_k h_k / rho^2
    const double* ratio;     // (C, D) h_k^2 / rho^2
    const double* rounding;  // (C) of the polynomial's values, and of the sums of squares of the third order's matrices
    const double* cubic_rounding;  // (C)
    double target;                 // no more than this is looked for
    double* bounds;                // (C) out
    index_t num_cells;
    std::int64_t next;
    double* scratch;
    index_t scratch_stride;
    const volatile std::int32_t* cancel;
};

// Doubles of scratch that one thread needs.
index_t relaxed_scratch_size(index_t num_data, index_t dim, index_t num_units);

// One thread's share of the cells.
Status bound_relaxed_cells(RelaxedJob& job, index_t thread);

}  // namespace pyhess

// Lower bounds of one hidden unit's block of the residual part over cells of its weights.
//
// The block of unit (u, v) in a network with one hidden layer is R = sum_i w_i [alpha_i z_i z_i', z_i beta_i'; ., 0]
// with alpha_i = phi''(s_i) r_i.v and beta_i = phi'(s_i) r_i, s_i = u.z_i. Both are enclosed, datum by datum, by affine
// forms in local symbols of absolute value at most one: s, v_k, t_k (what the other units add to output k) and e_k
// (what is not known of the residual's entry k). In the global symbols (the cell's coordinates and those of the other
// units) the block is then
//
//     R = M_0 + sum_k delta_k E_k + sum_ik eps_ik G_ik + (remainders),
//
// and eigval_min is bounded by
//
//     vertices    a concave function of delta is smallest at a vertex: up to kMaxVertex symbols are enumerated;
//     majorants   N >= +-E with z'Nz = |z'Ez| at a guessed eigenvector z, for the other symbols, and of least trace(NZ)
//                 for a guessed mixture Z of eigenvectors, for the G_ik;
//     splits      2 beta y q <= |beta| (tau y^2 + q^2/tau) for the remainders.
//
// Any z, Z and tau give a valid bound. Every affine operation adds its rounding to the remainder, sums are allowed
// gamma times the sum of the magnitudes, and the last step is a Cholesky factorisation (S. M. Rump, BIT 46 (2006)).
#pragma once

#include "pyhess/types.hpp"

namespace pyhess {

// Symbols whose vertices are enumerated.
constexpr index_t kMaxVertex = 8;
// Cells that one task takes.
constexpr index_t kCellsPerTask = 8;

// What is known of the other units: affine generators, or twins of one further unit.
enum class Rest : std::int64_t { linear = 0, twins = 1 };

// Pointers and sizes, eight bytes each, so that Python can fill them in as one record. Arrays are dense and row-major;
// D inputs (with the constant one), K outputs, L generators, R roots, n data, dims = 2D + K.
struct UnitJob {
    const double* z;        // (n, D)
    const double* norms;    // (n) bounds of |z_i|
    const double* weights;  // (n) that sum to one
    const double* targets;  // (n, K)
    const double* mass;     // (n) sums of a datum's targets; used for cross-entropy
    index_t num_data, dim, outputs;
    std::int64_t activation, loss;      // Activation but relu, Loss
    double beta, scale_u, scale_v;      // softplus, and the NTK scales of the two layers
    const std::int64_t* kinds;          // (R) Rest
    const double* amplitude;            // (R, K) twins: (number of others) times their v
    const double* offset;               // (R, K) twins: the output biases
    const double* middle;               // (R, n, K) linear, as all that follow
    const double* generators;           // (R, n, K, L)
    const double* slack;                // (3, R, n, K) coefficients of a polynomial in what is left of the radius
    const double* ranges;               // (6, R, n, K) middles, and polynomials that bound the distance from them
    const std::int64_t* powers;         // (L) of the room left of the radius
    const std::int64_t* groups;         // (L) generators whose symbols lie in a common unit ball, or -1
    index_t num_roots, num_generators;  // of the linear models
    const double* centers;              // (R, D + K) of a ball
    const double* inverse;              // (D + K) one over the ball's half-axes, for radius one
    double squared_radius;              // negative for a box
    double* cells;                      // (C, 2, dims) low and high ends; a ball's cells are shrunk in place
    const std::int64_t* roots;          // (C)
    const double* parents;              // (C) bounds known before
    double* bounds;                     // (C) out
    std::int64_t* splits;               // (C) out: the coordinate to cut, or -1
    // (C) in: which to try, or -1 for both; out: 0 twins or generators, 1 ranges, -1 outside the ball
    std::int64_t* models;
    double* directions;  // (C, D + K, D + K) out: the Z of the bound, lower triangle
    index_t num_cells;
    std::int64_t next;  // the next task; 0 at the beginning
    double* scratch;    // a row of unit_scratch_size per thread
    index_t scratch_stride;
    const volatile std::int32_t* cancel;
};
static_assert(sizeof(void*) == 8, "addresses are passed as 64-bit integers");

// Doubles of scratch that one thread needs.
index_t unit_scratch_size(index_t num_data, index_t dim, index_t outputs, index_t num_generators);

// One thread's share of the cells. A cell's results depend on nothing but the cell; those left out after a cancellation
// keep what the arrays held.
Status bound_unit_cells(UnitJob& job, index_t thread);

}  // namespace pyhess

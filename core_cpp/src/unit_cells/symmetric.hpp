// Small symmetric matrices by their lower triangles, and matrices that bound others in the order of quadratic forms.
#pragma once

#include "pyhess/types.hpp"

namespace pyhess::units {

// A view of a square matrix, stored row by row.
struct Square {
    double* at;
    index_t size;

    double& operator()(index_t i, index_t j) const { return at[i * size + j]; }
    void fill(double value) const {
        for (index_t k = 0; k < size * size; ++k) at[k] = value;
    }
    void copy(const Square& other) const {
        for (index_t k = 0; k < size * size; ++k) at[k] = other.at[k];
    }
};

// Matrices of one size, one after the other.
struct Squares {
    double* at;
    index_t size;

    Square operator[](index_t k) const { return {at + k * size * size, size}; }
};

// Whether the factorisation of A - shift I succeeds; b is overwritten.
bool cholesky(const Square& a, const Square& b, double shift);

// Smallest eigenvalue and its vector z by Jacobi's method; approximate. b and q are overwritten.
double smallest(const Square& a, const Square& b, const Square& q, double* z);

double frobenius(const Square& e);

// out = E z; returns z'Ez.
double times(const Square& e, const double* z, double* out);

// E += [weight a z z', weight z b'; ., 0], z of `dim` and b of `outputs` entries.
void accumulate(const Square& e, double a, const double* b, double weight, const double* z, index_t dim,
                index_t outputs);

// N += a matrix >= +-E, with z'Nz = |z'Ez| where that is not small; `norm` bounds that of E, f (size) is overwritten.
// Returns its size for the rounding.
double majorise(const Square& n, const Square& e, const double* z, double* f, double norm);

struct BallScratch {
    Square l, a, b, q, x, y;
};

// N += a matrix >= sum_l eta_l E_l for all |eta| <= 1, the E_l those of `count` whose group is `code`, of small trace
// with the mixture `weight`. Returns its size for the rounding.
double majorise_ball(const Square& n, const Squares& e, const std::int64_t* groups, index_t count, index_t code,
                     const Square& weight, const BallScratch& scratch);

struct Pair {
    double n11, n12, n22;
};

// The N >= +-G, G = [a, b; b, 0], with the smallest trace of NZ for a Z = [y2, yq; yq, q2] > 0.
Pair majorise_pair(double a, double b, double y2, double yq, double q2);

}  // namespace pyhess::units

// Every product by plain loops over data and units, in double: the oracle of the tuned code. It shares only the
// description of the network with it (no blocks, no BLAS, no cached state, the C library's functions).
#pragma once

#include "pyhess/mlp.hpp"
#include "pyhess/types.hpp"

namespace pyhess {

struct NaiveProducts {
    double value = 0.0;  // L
    double q = 0.0;      // v'Hv
    double* gradient;    // (P) dL/dtheta
    double* hvp;         // (P) H v
    double* ggn;         // (P) G v
    double* q_gradient;  // (P) d(v'Hv)/dtheta
};

// x (n, d_in), target (n, num_outputs), weight (n) as given to Problem. Adds to the four arrays.
void naive_products(const Mlp& mlp, Loss loss, index_t n, const double* x, const double* target, const double* weight,
                    const double* theta, const double* v, NaiveProducts& out);

}  // namespace pyhess

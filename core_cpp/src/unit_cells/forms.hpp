// Affine forms with their rounding, and those of activations and residuals.
//
// A form in nl symbols is 2 nl + 2 numbers: middle, nl coefficients, remainder, then for every symbol its share in the
// remainder, which only guides the search. x[k] is the coefficient of symbol k = 1 … nl, x[nl + 1 + k] its share.
#pragma once

#include "pyhess/types.hpp"

namespace pyhess::units {

constexpr double kUnit = 0x1p-53;
constexpr double kTiny = 1e-300;
constexpr double kRootTiny = 1e-150;

struct Forms {
    double* rows;
    index_t nl;

    index_t length() const { return 2 * nl + 2; }
    double* operator[](index_t k) const { return rows + k * length(); }
};

// |middle| + |coefficients| + remainder, and the same without the middle.
double size_of(const double* x, index_t nl);
double radius_of(const double* x, index_t nl);

void multiply(const double* x, const double* y, double* out, index_t nl);
void add(const double* x, const double* y, double* out, index_t nl);

// Forms of phi, phi' and phi'' over s0 +- half in the symbol (s - s0)/half: rows (middle, slope, remainder).
void activation_forms(Activation act, double beta, double s0, double half, double out[3][3]);

// Forms r_k at `place` from f_k at `first`; the remainder becomes the coefficient of e_k, symbol 2 + 2 outputs + k.
// `work` holds 3 outputs.
void residual_forms(Loss loss, index_t outputs, const double* y, double mass, const Forms& forms, index_t first,
                    index_t place, double* work);

}  // namespace pyhess::units

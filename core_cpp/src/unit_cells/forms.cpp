#include "forms.hpp"

#include <cmath>

namespace pyhess::units {

double radius_of(const double* x, index_t nl) {
    double total = x[nl + 1];
    for (index_t k = 1; k <= nl; ++k) total += std::abs(x[k]);
    return total;
}

double size_of(const double* x, index_t nl) {
    double total = x[nl + 1];
    for (index_t k = 0; k <= nl; ++k) total += std::abs(x[k]);
    return total;
}

void multiply(const double* x, const double* y, double* out, index_t nl) {
    const double rad_x = radius_of(x, nl), rad_y = radius_of(y, nl);
    const double rem_x = x[nl + 1], rem_y = y[nl + 1];
    const double x0 = x[0], y0 = y[0];
    double middle = x0 * y0, quadratic = 0.0;
    for (index_t k = 1; k <= nl; ++k) {
        const double xk = x[k], yk = y[k];
        out[k] = x0 * yk + y0 * xk;
        out[nl + 1 + k] = std::abs(x0) * y[nl + 1 + k] + std::abs(y0) * x[nl + 1 + k];
        if (xk != 0.0 || yk != 0.0) {
            const double square = 0.5 * xk * yk;  // xk yk delta^2 lies between 0 and xk yk
            middle += square;
            quadratic += std::abs(square);
            out[nl + 1 + k] += std::abs(xk) * rad_y + std::abs(yk) * rad_x;
            for (index_t j = k + 1; j <= nl; ++j) quadratic += std::abs(xk * y[j] + x[j] * yk);
        }
    }
    out[0] = middle;
    const double rest = std::abs(x0) * rem_y + std::abs(y0) * rem_x + quadratic + rem_x * rad_y + rad_x * rem_y;
    const auto symbols = static_cast<double>(nl);
    out[nl + 1] = rest * (1.0 + 32.0 * symbols * kUnit) +
                  (16.0 + 4.0 * symbols) * kUnit * (std::abs(x0) + rad_x) * (std::abs(y0) + rad_y) + kTiny;
}

void add(const double* x, const double* y, double* out, index_t nl) {
    const double size = size_of(x, nl) + size_of(y, nl);
    for (index_t k = 0; k < 2 * nl + 2; ++k) out[k] = x[k] + y[k];
    out[nl + 1] = out[nl + 1] * (1.0 + 4.0 * kUnit) + 4.0 * kUnit * size + kTiny;
}

}  // namespace pyhess::units

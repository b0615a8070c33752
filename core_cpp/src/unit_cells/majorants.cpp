#include <algorithm>
#include <cmath>

#include "symmetric.hpp"

namespace pyhess::units {
namespace {

// Where the form at z is below this share of the norm, norm I serves as well.
constexpr double kSmallForm = 0.02;

double add_identity(const Square& n, double norm) {
    for (index_t i = 0; i < n.size; ++i) n(i, i) += norm;
    return norm;
}

}  // namespace

// With e = z'Ez, f the part of Ez orthogonal to z and P = I - zz': sign(e) E + 2 ff'/|e| + 2 |PEP| P is one.
double majorise(const Square& n, const Square& e, const double* z, double* f, double norm) {
    const index_t size = n.size;
    const double form = times(e, z, f);
    for (index_t i = 0; i < size; ++i) f[i] -= form * z[i];
    double bend = 0.0;
    for (index_t i = 0; i < size; ++i) bend += f[i] * f[i];
    const double inner = std::sqrt(std::max(0.0, norm * norm - form * form - 2.0 * bend)) + 1e-7 * norm;
    if (!(std::abs(form) > kSmallForm * norm && 2.0 * bend / std::abs(form) + 2.0 * inner < 4.0 * norm))
        return add_identity(n, norm);
    const double sign = form >= 0.0 ? 1.0 : -1.0;
    for (index_t i = 0; i < size; ++i) {
        n(i, i) += 2.0 * inner;
        for (index_t j = 0; j <= i; ++j)
            n(i, j) += sign * e(i, j) + 2.0 * f[i] * f[j] / std::abs(form) - 2.0 * inner * z[i] * z[j];
    }
    return 16.0 * norm;
}

// With g_l = z'E_l z, eta = g/|g| and f_l the part of E_l z orthogonal to z: E_eta + 2 sum f_l f_l'/|g| + 2 F P, F >=
// the norms of all P E_eta P.
double majorise_ball(const Square& n, const Squares& e, const std::int64_t* groups, index_t count, index_t code,
                     const double* z, double* work) {
    const index_t size = n.size;
    const auto row = [work, size](index_t k) { return work + k * (size + 1); };  // f_k, then g_k
    double square = 0.0, inner = 0.0, norm = 0.0;
    for (index_t k = 0; k < count; ++k) {
        if (groups[k] != code) continue;
        double* f = row(k);
        const double form = times(e[k], z, f), whole = frobenius(e[k]);
        double bend = 0.0;
        for (index_t i = 0; i < size; ++i) {
            f[i] -= form * z[i];
            bend += f[i] * f[i];
        }
        f[size] = form;
        square += form * form;
        inner += std::max(0.0, whole * whole - form * form - 2.0 * bend) + 1e-14 * whole * whole;
        norm += whole * whole;
    }
    const double length = std::sqrt(square);
    inner = std::sqrt(inner), norm = std::sqrt(norm) * (1.0 + 1e-12);
    double bend = 0.0;
    for (index_t k = 0; k < count; ++k)
        if (groups[k] == code)
            for (index_t i = 0; i < size; ++i) bend += row(k)[i] * row(k)[i];
    if (!(length > kSmallForm * norm && 2.0 * bend / length + 2.0 * inner < 4.0 * norm)) return add_identity(n, norm);
    for (index_t k = 0; k < count; ++k) {
        if (groups[k] != code) continue;
        const double* f = row(k);
        const double eta = f[size] / length;
        const Square part = e[k];
        for (index_t i = 0; i < size; ++i)
            for (index_t j = 0; j <= i; ++j) n(i, j) += eta * part(i, j) + 2.0 * f[i] * f[j] / length;
    }
    for (index_t i = 0; i < size; ++i) {
        n(i, i) += 2.0 * inner;
        for (index_t j = 0; j <= i; ++j) n(i, j) -= 2.0 * inner * z[i] * z[j];
    }
    return (16.0 + static_cast<double>(count)) * norm;
}

// N = Z^-1/2 |Z^1/2 G Z^1/2| Z^-1/2 = (G Z G + b^2 adj Z) / sqrt(tr(GZ)^2 + 4 b^2 det Z).
Pair majorise_pair(double a, double b, double y2, double yq, double q2) {
    if (b == 0.0) return {std::abs(a), 0.0, 0.0};
    const double g1 = a * y2 + b * yq, g2 = a * yq + b * q2;  // first row of G Z
    const double n11 = g1 * a + g2 * b + b * b * q2, n12 = g1 * b - b * b * yq, n22 = 2.0 * b * b * y2;
    const double trace = a * y2 + 2.0 * b * yq;
    const double root = std::sqrt(trace * trace + 4.0 * b * b * (y2 * q2 - yq * yq));
    return {n11 / root, n12 / root, n22 / root};
}

}  // namespace pyhess::units

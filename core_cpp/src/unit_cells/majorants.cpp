#include <algorithm>
#include <cmath>

#include "forms.hpp"
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

// With vectors x_i, y_i, sum_i x_i y_i' = I, and any nu_i > 0, sum_l eta_l p'E_l p = sum_i (p.y_i) (sum_l eta_l x_i'E_l
// p) is at most half of sum_i nu_i (p.y_i)^2 + sum_il (x_i'E_l p)^2 / nu_i. Least in the mixture Z = LL' are x_i = L
// w_i, y_i = L'^-1 w_i with the eigenvectors w_i of L'(sum_l E_l Z E_l)L, whose eigenvalues are the nu_i^2.
double majorise_ball(const Square& n, const Squares& e, const std::int64_t* groups, index_t count, index_t code,
                     const Square& weight, const BallScratch& scratch) {
    const auto& [l, a, b, q, x, y] = scratch;
    const index_t size = n.size;
    double square = 0.0, trace = 0.0;
    for (index_t k = 0; k < count; ++k) {
        if (groups[k] != code) continue;
        const double whole = frobenius(e[k]);
        square += whole * whole;
    }
    const double norm = std::sqrt(square) * (1.0 + 1e-12);
    if (!(norm > 0.0)) return 0.0;
    for (index_t i = 0; i < size; ++i) trace += weight(i, i);
    l.fill(0.0);
    if (!cholesky(weight, l, -1e-9 * trace)) return add_identity(n, norm);
    // a = L'(sum of E Z E)L through q = L'E L
    a.fill(0.0);
    for (index_t k = 0; k < count; ++k) {
        if (groups[k] != code) continue;
        for (index_t j = 0; j < size; ++j) {
            for (index_t i = 0; i < size; ++i) {
                double sum = 0.0;
                for (index_t m = j; m < size; ++m) sum += (m <= i ? e[k](i, m) : e[k](m, i)) * l(m, j);
                b(i, j) = sum;
            }
        }
        for (index_t i = 0; i < size; ++i) {
            for (index_t j = 0; j <= i; ++j) {
                double sum = 0.0;
                for (index_t m = i; m < size; ++m) sum += l(m, i) * b(m, j);
                q(i, j) = q(j, i) = sum;
            }
        }
        for (index_t i = 0; i < size; ++i)
            for (index_t j = 0; j <= i; ++j)
                for (index_t m = 0; m < size; ++m) a(i, j) += q(i, m) * q(j, m);
    }
    smallest(a, b, q, x.at);  // q: the w_i
    double largest = 0.0;
    for (index_t i = 0; i < size; ++i) largest = std::max(largest, b(i, i));
    if (!(largest > 0.0 && largest < 1e300)) return add_identity(n, norm);
    double *eigenvalues = a.at, *image = a.at + size;
    for (index_t i = 0; i < size; ++i) eigenvalues[i] = b(i, i);
    for (index_t i = 0; i < size; ++i) {
        for (index_t k = 0; k < size; ++k) {
            double sum = 0.0;
            for (index_t j = 0; j <= k; ++j) sum += l(k, j) * q(j, i);
            x(i, k) = sum;
        }
        for (index_t k = size; k-- > 0;) {
            double sum = q(k, i);
            for (index_t j = k + 1; j < size; ++j) sum -= l(j, k) * y(i, j);
            y(i, k) = sum / l(k, k);
        }
    }
    // What sum_i x_i y_i' misses of the identity.
    double missing = 0.0, rounded = 0.0;
    for (index_t j = 0; j < size; ++j) {
        for (index_t k = 0; k < size; ++k) {
            double sum = j == k ? -1.0 : 0.0;
            for (index_t i = 0; i < size; ++i) {
                sum += x(i, j) * y(i, k);
                rounded += std::abs(x(i, j) * y(i, k));
            }
            missing += std::abs(sum);
        }
    }
    missing += 2.0 * static_cast<double>(size + 2) * kUnit * (rounded + static_cast<double>(size));
    if (!(missing < 1.0)) return add_identity(n, norm);
    double total = add_identity(n, missing * norm * (1.0 + 1e-12));
    const auto add_square = [&n, size, &total](double factor, const double* f) {
        double length = 0.0;
        for (index_t i = 0; i < size; ++i) {
            const double scaled = factor * f[i];
            length += f[i] * f[i];
            for (index_t j = 0; j <= i; ++j) n(i, j) += scaled * f[j];
        }
        total += factor * length;
    };
    for (index_t i = 0; i < size; ++i) {
        const double nu = std::sqrt(std::max(eigenvalues[i], 1e-12 * largest));
        add_square(0.5 * nu, y.at + i * size);
        for (index_t k = 0; k < count; ++k) {
            if (groups[k] != code) continue;
            times(e[k], x.at + i * size, image);
            add_square(0.5 / nu, image);
        }
    }
    return total;
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

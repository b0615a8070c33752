#include "symmetric.hpp"

#include <cmath>

namespace pyhess::units {
namespace {

constexpr int kSweeps = 12;

void rotate(double& x, double& y, double c, double s) {
    const double old_x = x, old_y = y;
    x = c * old_x - s * old_y, y = s * old_x + c * old_y;
}

}  // namespace

bool cholesky(const Square& a, const Square& b, double shift) {
    for (index_t i = 0; i < a.size; ++i) {
        for (index_t j = 0; j < i; ++j) {
            double x = a(i, j);
            for (index_t k = 0; k < j; ++k) x -= b(i, k) * b(j, k);
            b(i, j) = x / b(j, j);
        }
        double x = a(i, i) - shift;
        for (index_t k = 0; k < i; ++k) x -= b(i, k) * b(i, k);
        if (!(x > 0.0)) return false;
        b(i, i) = std::sqrt(x);
    }
    return true;
}

double smallest(const Square& a, const Square& b, const Square& q, double* z) {
    const index_t size = a.size;
    for (index_t i = 0; i < size; ++i) {
        for (index_t j = 0; j <= i; ++j) {
            b(i, j) = b(j, i) = a(i, j);
            q(i, j) = q(j, i) = 0.0;
        }
        q(i, i) = 1.0;
    }
    for (int sweep = 0; sweep < kSweeps; ++sweep) {
        double off = 0.0, diagonal = 0.0;
        for (index_t i = 0; i < size; ++i) {
            diagonal += b(i, i) * b(i, i);
            for (index_t j = 0; j < i; ++j) off += b(i, j) * b(i, j);
        }
        if (off <= 1e-26 * diagonal) break;
        for (index_t i = 0; i < size; ++i) {
            for (index_t j = 0; j < i; ++j) {
                if (b(i, j) == 0.0) continue;
                const double theta = 0.5 * (b(i, i) - b(j, j)) / b(i, j);
                const double t = (theta >= 0.0 ? 1.0 : -1.0) / (std::abs(theta) + std::sqrt(1.0 + theta * theta));
                const double c = 1.0 / std::sqrt(1.0 + t * t), s = t * c;
                for (index_t k = 0; k < size; ++k) rotate(b(k, j), b(k, i), c, s);
                for (index_t k = 0; k < size; ++k) {
                    rotate(b(j, k), b(i, k), c, s);
                    rotate(q(k, j), q(k, i), c, s);
                }
            }
        }
    }
    index_t best = 0;
    for (index_t i = 0; i < size; ++i)
        if (b(i, i) < b(best, best)) best = i;
    for (index_t k = 0; k < size; ++k) z[k] = q(k, best);
    return b(best, best);
}

double frobenius(const Square& e) {
    double total = 0.0;
    for (index_t i = 0; i < e.size; ++i) {
        for (index_t j = 0; j < i; ++j) total += 2.0 * e(i, j) * e(i, j);
        total += e(i, i) * e(i, i);
    }
    return std::sqrt(total);
}

double times(const Square& e, const double* z, double* out) {
    double form = 0.0;
    for (index_t i = 0; i < e.size; ++i) {
        double x = 0.0;
        for (index_t j = 0; j < e.size; ++j) x += (j <= i ? e(i, j) : e(j, i)) * z[j];
        out[i] = x;
        form += x * z[i];
    }
    return form;
}

void accumulate(const Square& e, double a, const double* b, double weight, const double* z, index_t dim,
                index_t outputs) {
    for (index_t i = 0; i < dim; ++i) {
        const double x = weight * a * z[i];
        if (x != 0.0)
            for (index_t j = 0; j <= i; ++j) e(i, j) += x * z[j];
    }
    for (index_t k = 0; k < outputs; ++k) {
        const double x = weight * b[k];
        if (x != 0.0)
            for (index_t j = 0; j < dim; ++j) e(dim + k, j) += x * z[j];
    }
}

}  // namespace pyhess::units

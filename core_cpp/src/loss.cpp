#include "pyhess/loss.hpp"

#include <algorithm>
#include <cmath>

#include "kernels/folded_sigmoid.hpp"

namespace pyhess {
namespace {

// log(1 + exp(f)) - target f, without overflow on either side and without cancellation where the target is met.
double logistic_loss(double f, double target) {
    return std::log1p(std::exp(-std::fabs(f))) + (f > 0.0 ? (1.0 - target) * f : -target * f);
}

// As kernels/folded_sigmoid.hpp keeps it.
double folded_sigmoid(double f) {
    const double e = std::exp(-std::fabs(f)), small = e / (1.0 + e);
    return f < 0.0 ? small : -small;
}

template <class T>
index_t largest(const T* p, index_t k_end) {
    return std::max_element(p, p + k_end) - p;
}

}  // namespace

template <class T>
double loss_forward(Loss loss, const LossBlock<T>& block, const T* f, T* delta) {
    double total = 0.0;
    const index_t k_end = block.num_outputs;
    for (index_t r = 0; r < block.rows; ++r) {
        const T* row = f + r * block.ld;
        const T* y = block.target + r * k_end;
        T* d = delta + r * block.ld;
        const double w = static_cast<double>(block.weight[r]);
        double value = 0.0;
        if (loss == Loss::squared_error) {
            for (index_t k = 0; k < k_end; ++k) {
                const T residual = row[k] - y[k];
                value += 0.5 * static_cast<double>(residual) * static_cast<double>(residual);
                d[k] = block.weight[r] * residual;
            }
        } else if (loss == Loss::logistic) {
            const double z = static_cast<double>(row[0]), p = folded_sigmoid(z), target = static_cast<double>(y[0]);
            // sigmoid(z) and sigmoid(-z); the side is told from z, because p is zero on both sides beyond |z| = 745
            const double up = z < 0.0 ? p : 1.0 + p, down = z < 0.0 ? 1.0 - p : -p;
            value = logistic_loss(z, target);
            block.prob[r * block.ld] = static_cast<T>(p);
            d[0] = static_cast<T>(w * ((1.0 - target) * up - target * down));
        } else {
            // The largest output is subtracted first and its probability is taken as one minus the others, so that the
            // residual keeps its digits where the network is sure. Sums are in double in both precisions.
            T* p = block.prob + r * block.ld;
            const index_t top = largest(row, k_end);
            const double shift = static_cast<double>(row[top]);
            double others = 0.0;
            for (index_t k = 0; k < k_end; ++k)
                if (k != top) others += std::exp(static_cast<double>(row[k]) - shift);
            const double log_sum = std::log1p(others);
            for (index_t k = 0; k < k_end; ++k) {
                const double target = static_cast<double>(y[k]);
                const double log_p = static_cast<double>(row[k]) - shift - log_sum, prob = std::exp(log_p);
                if (y[k] != T(0)) value -= target * log_p;
                p[k] = static_cast<T>(prob);
                d[k] = static_cast<T>(k == top ? (block.mass[r] - w * target) - block.mass[r] * others / (1.0 + others)
                                               : block.mass[r] * prob - w * target);
            }
        }
        total += w * value;
    }
    return total;
}

template <class T>
void loss_curvature(Loss loss, const LossBlock<T>& block, T* u) {
    const index_t k_end = block.num_outputs;
    for (index_t r = 0; r < block.rows; ++r) {
        T* row = u + r * block.ld;
        if (loss == Loss::squared_error) {
            for (index_t k = 0; k < k_end; ++k) row[k] *= block.weight[r];
        } else if (loss == Loss::logistic) {
            row[0] *= block.weight[r] * folded_slope(block.prob[r * block.ld]);
        } else {
            // A is blind to a common shift; measured from the most probable class the mean keeps its digits.
            const T* p = block.prob + r * block.ld;
            const T mass = static_cast<T>(block.mass[r]), origin = row[largest(p, k_end)];
            T mean = T(0);
            for (index_t k = 0; k < k_end; ++k) row[k] -= origin;
            for (index_t k = 0; k < k_end; ++k) mean += p[k] * row[k];
            for (index_t k = 0; k < k_end; ++k) row[k] = mass * p[k] * (row[k] - mean);
        }
    }
}

template <class T>
double loss_jet(Loss loss, const LossBlock<T>& block, const T* delta, const T* u, const T* s2, T* x1, T* x0) {
    double total = 0.0;
    const index_t k_end = block.num_outputs;
    for (index_t r = 0; r < block.rows; ++r) {
        const index_t at = r * block.ld;
        const T w = block.weight[r];
        T origin = T(0);
        if (loss == Loss::squared_error) {
            for (index_t k = at; k < at + k_end; ++k) {
                x1[k] = w * u[k];
                x0[k] = w * s2[k];
            }
        } else if (loss == Loss::logistic) {
            const T p = block.prob[at], curvature = w * folded_slope(p);
            x1[at] = curvature * u[at];
            x0[at] = curvature * (T(0.5) * folded_asymmetry(p) * u[at] * u[at] + s2[at]);
        } else {
            const T mass = static_cast<T>(block.mass[r]);
            const index_t top = at + largest(block.prob + at, k_end);
            T mean = T(0), mean2 = T(0), variance = T(0);
            origin = u[top];
            for (index_t k = at; k < at + k_end; ++k) {
                mean += block.prob[k] * (u[k] - u[top]);
                mean2 += block.prob[k] * (s2[k] - s2[top]);
            }
            for (index_t k = at; k < at + k_end; ++k) {
                const T centred = (u[k] - u[top]) - mean;
                variance += block.prob[k] * centred * centred;
            }
            for (index_t k = at; k < at + k_end; ++k) {
                const T centred = (u[k] - u[top]) - mean;
                x1[k] = mass * block.prob[k] * centred;
                x0[k] = mass * block.prob[k] * (T(0.5) * (centred * centred - variance) + (s2[k] - s2[top]) - mean2);
            }
        }
        for (index_t k = at; k < at + k_end; ++k)
            total += static_cast<double>(u[k] - origin) * static_cast<double>(x1[k]) +
                     2.0 * (static_cast<double>(delta[k]) * static_cast<double>(s2[k]));
    }
    return total;
}

#define PYHESS_INSTANTIATE(T)                                                 \
    template double loss_forward<T>(Loss, const LossBlock<T>&, const T*, T*); \
    template void loss_curvature<T>(Loss, const LossBlock<T>&, T*);           \
    template double loss_jet<T>(Loss, const LossBlock<T>&, const T*, const T*, const T*, T*, T*);
PYHESS_INSTANTIATE(double)
PYHESS_INSTANTIATE(float)

}  // namespace pyhess

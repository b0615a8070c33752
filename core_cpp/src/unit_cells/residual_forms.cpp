#include <algorithm>
#include <cmath>
#include <limits>

#include "forms.hpp"

namespace pyhess::units {
namespace {

// sigmoid(f) by its secant: the error's extremes are at the ends and where sigmoid' is the slope.
void sigmoid_form(const double* f, double* r, index_t nl) {
    const double rad = radius_of(f, nl) * (1.0 + 64.0 * kUnit) + 4.0 * kUnit * std::abs(f[0]);
    const double low = f[0] - rad, high = f[0] + rad;
    const double p_low = 0.5 * (1.0 + std::tanh(0.5 * low)), p_high = 0.5 * (1.0 + std::tanh(0.5 * high));
    double slope;
    if (rad > 1e-3) {
        slope = std::min(0.25, std::max(0.0, (p_high - p_low) / (high - low)));
    } else {
        const double p = 0.5 * (1.0 + std::tanh(0.5 * f[0]));
        slope = p * (1.0 - p);
    }
    // In terms of x = f - f_0, so that large f do not cost accuracy.
    const double at_low = p_low + slope * rad, at_high = p_high - slope * rad;
    double lo = std::min(at_low, at_high), hi = std::max(at_low, at_high);
    const double root = std::sqrt(std::max(0.0, 0.25 - slope));
    if (slope > 0.0) {
        const double p = slope / (0.5 + root);  // the smaller solution of p (1 - p) = slope
        const double place = std::log(p / (1.0 - p));
        if (low - 1e-6 <= place && place <= high + 1e-6) lo = std::min(lo, p - slope * (place - f[0]));
        if (low - 1e-6 <= -place && -place <= high + 1e-6) hi = std::max(hi, 1.0 - p + slope * (place + f[0]));
    }
    for (index_t k = 0; k < 2 * nl + 2; ++k) r[k] = slope * f[k];
    for (index_t k = nl + 1; k < 2 * nl + 2; ++k) r[k] = std::abs(r[k]);
    r[0] = 0.5 * (lo + hi);
    // A critical point that is off by x changes the value by x^2 only; sqrt near slope 1/4 is good to 1e-8.
    r[nl + 1] += 0.5 * (hi - lo) + 1e-14 * (1.0 + slope * (rad + std::abs(f[0])));
    for (index_t k = 1; k <= nl; ++k) r[nl + 1 + k] += 0.1 * std::abs(f[k]) * rad;
}

// mass softmax(f)_k - y_k: the tangent at the middles where its error is small, an interval otherwise.
void softmax_forms(index_t outputs, const double* y, double mass, const Forms& forms, index_t first, index_t place,
                   double* work) {
    const index_t nl = forms.nl;
    double *low = work, *high = work + outputs, *p = work + 2 * outputs;
    double top = -std::numeric_limits<double>::infinity();
    for (index_t k = 0; k < outputs; ++k) {
        const double* f = forms[first + k];
        const double rad = radius_of(f, nl) * (1.0 + 64.0 * kUnit) + 8.0 * kUnit * std::abs(f[0]);
        low[k] = f[0] - rad, high[k] = f[0] + rad;
        top = std::max(top, f[0]);
    }
    double total = 0.0;
    for (index_t k = 0; k < outputs; ++k) {
        p[k] = std::exp(forms[first + k][0] - top);
        total += p[k];
    }
    double spread = 0.0;  // of the deviations from the middle
    for (index_t k = 0; k < outputs; ++k) {
        p[k] /= total;
        for (index_t j = 0; j < k; ++j) spread = std::max(spread, 0.5 * (high[k] - low[k]) + 0.5 * (high[j] - low[j]));
    }
    const auto slope_of = [p](index_t k, index_t j) { return p[k] * ((j == k ? 1.0 : 0.0) - p[j]); };
    for (index_t k = 0; k < outputs; ++k) {
        double worst = 1.0, best = 1.0;
        for (index_t j = 0; j < outputs; ++j) {
            if (j == k) continue;
            worst += std::exp(std::min(700.0, high[j] - low[k]));
            best += std::exp(std::min(700.0, low[j] - high[k]));
        }
        const double lo = 1.0 / worst, hi = 1.0 / best;
        // |d^2 p_k[h, h]| = p_k |(h_k - mean)^2 - variance| <= p_k spread^2
        const double curved = 0.5 * hi * spread * spread;
        double* r = forms[place + k];
        std::fill(r, r + forms.length(), 0.0);
        double linear = 0.0;
        for (index_t j = 0; j < outputs; ++j) linear += std::abs(slope_of(k, j)) * forms[first + j][nl + 1];
        if (curved + linear < 0.5 * (hi - lo)) {
            for (index_t j = 0; j < outputs; ++j) {
                const double* f = forms[first + j];
                const double slope = mass * p[k] * ((j == k ? 1.0 : 0.0) - p[j]);
                for (index_t i = 1; i <= nl; ++i) {
                    r[i] += slope * f[i];
                    r[nl + 1 + i] += std::abs(slope) * f[nl + 1 + i];
                }
            }
            r[0] = mass * p[k] - y[k];
            r[nl + 1] = mass * (curved + linear);
        } else {
            r[0] = mass * 0.5 * (lo + hi) - y[k];
            r[nl + 1] = mass * 0.5 * (hi - lo);
        }
        for (index_t j = 0; j < outputs; ++j)
            for (index_t i = 1; i <= nl; ++i)
                r[nl + 1 + i] += 0.5 * mass * hi * std::abs(forms[first + j][i]) * std::min(1.0, spread);
        const double allowance =
            (64.0 + 8.0 * static_cast<double>(outputs)) * kUnit * (1.0 + spread + std::abs(forms[first + k][0] - top));
        r[nl + 1] +=
            mass * allowance * (1.0 + std::abs(high[k]) + std::abs(low[k])) + 8.0 * kUnit * std::abs(y[k]) + kTiny;
    }
}

}  // namespace

void residual_forms(Loss loss, index_t outputs, const double* y, double mass, const Forms& forms, index_t first,
                    index_t place, double* work) {
    const index_t nl = forms.nl;
    if (loss == Loss::cross_entropy) softmax_forms(outputs, y, mass, forms, first, place, work);
    for (index_t k = 0; k < outputs; ++k) {
        const double* f = forms[first + k];
        double* r = forms[place + k];
        if (loss == Loss::squared_error) {
            std::copy(f, f + forms.length(), r);
            r[0] = f[0] - y[k];
            r[nl + 1] += 4.0 * kUnit * (std::abs(f[0]) + std::abs(y[k])) + kTiny;
        } else if (loss == Loss::logistic) {
            sigmoid_form(f, r, nl);
            r[0] -= y[k];
            r[nl + 1] += 8.0 * kUnit;
        }
        r[2 + 2 * outputs + k] = r[nl + 1];
        r[nl + 1] = 0.0;
    }
}

}  // namespace pyhess::units

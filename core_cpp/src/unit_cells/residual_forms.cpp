#include <algorithm>
#include <cmath>
#include <limits>

#include "forms.hpp"

namespace pyhess::units {
namespace {

// The logistic function about `at`: in middle + slope (f - at) +- error for f in [at - below, at + above], by its
// secant.
struct Line {
    double slope, middle, error;
};

Line sigmoid_line(double at, double below, double above) {
    const double low = at - below, high = at + above, width = below + above;
    const double p_low = 0.5 * (1.0 + std::tanh(0.5 * low)), p_high = 0.5 * (1.0 + std::tanh(0.5 * high));
    double slope;
    if (width > 2e-3) {
        slope = std::min(0.25, std::max(0.0, (p_high - p_low) / (high - low)));
    } else {
        const double p = 0.5 * (1.0 + std::tanh(0.5 * at));
        slope = p * (1.0 - p);
    }
    // In terms of f - at, so that large f do not cost accuracy. The error's extremes are at the ends and where sigmoid'
    // is the slope.
    const double at_low = p_low + slope * below, at_high = p_high - slope * above;
    double lo = std::min(at_low, at_high), hi = std::max(at_low, at_high);
    const double root = std::sqrt(std::max(0.0, 0.25 - slope));
    if (slope > 0.0) {
        const double p = slope / (0.5 + root);  // the smaller solution of p (1 - p) = slope
        const double place = std::log(p / (1.0 - p));
        if (low - 1e-6 <= place && place <= high + 1e-6) lo = std::min(lo, p - slope * (place - at));
        if (low - 1e-6 <= -place && -place <= high + 1e-6) hi = std::max(hi, 1.0 - p + slope * (place + at));
    }
    // A critical point that is off by x changes the value by x^2 only; sqrt near slope 1/4 is good to 1e-8.
    return {slope, 0.5 * (lo + hi), 0.5 * (hi - lo) + 1e-14 * (1.0 + slope * (0.5 * width + std::abs(at)))};
}

void sigmoid_form(const double* f, double* r, index_t nl) {
    const double rad = radius_of(f, nl) * (1.0 + 64.0 * kUnit) + 4.0 * kUnit * std::abs(f[0]);
    const auto [slope, middle, error] = sigmoid_line(f[0], rad, rad);
    for (index_t k = 0; k < 2 * nl + 2; ++k) r[k] = slope * f[k];
    for (index_t k = nl + 1; k < 2 * nl + 2; ++k) r[k] = std::abs(r[k]);
    r[0] = middle;
    r[nl + 1] += error;
    for (index_t k = 1; k <= nl; ++k) r[nl + 1 + k] += 0.1 * std::abs(f[k]) * rad;
}

// sup over random h in an interval of length w of log E exp h - E h: two values are the worst.
double log_mean_excess(double w) {
    if (w < 0.5) return 0.125 * w * w;  // Hoeffding's bound, which is near
    if (!(w < 600.0)) return w;
    const double growth = std::expm1(w);
    return std::min(0.125 * w * w, std::log(growth / w) - 1.0 + w / growth) * (1.0 + 1e-12) + 1e-12;
}

struct Secant {
    double slope, middle, error;
};

// p_k about the outputs' middles; q_j, j != k: the others' shares, written for the slopes.
Secant softmax_secant(index_t outputs, index_t k, const Forms& forms, index_t first, const double* low,
                      const double* high, double* q) {
    const index_t nl = forms.nl;
    double top = -std::numeric_limits<double>::infinity(), total = 0.0, widest = 0.0;
    for (index_t j = 0; j < outputs; ++j)
        if (j != k) top = std::max(top, forms[first + j][0]);
    for (index_t j = 0; j < outputs; ++j) {
        if (j == k) continue;
        q[j] = std::exp(forms[first + j][0] - top);
        total += q[j];
        for (index_t l = 0; l < j; ++l)
            if (l != k) widest = std::max(widest, 0.5 * (high[j] - low[j]) + 0.5 * (high[l] - low[l]));
    }
    double reach = 0.5 * (high[k] - low[k]), unknown = forms[first + k][nl + 1];
    for (index_t j = 0; j < outputs; ++j) {
        if (j == k) continue;
        q[j] /= total;
        reach += q[j] * 0.5 * (high[j] - low[j]);
        unknown += q[j] * forms[first + j][nl + 1];
    }
    const double excess = log_mean_excess(widest), at = forms[first + k][0] - top - std::log(total);
    const double room = 1.0 + 64.0 * kUnit;
    const Line line = sigmoid_line(at, (reach + excess) * room, reach * room);
    return {line.slope, line.middle - 0.5 * line.slope * excess,
            line.error + line.slope * (0.5 * excess + unknown) * room};
}

// mass softmax(f)_k - y_k, p_k = sigmoid(f_k - log sum_{j != k} exp f_j): by the secant of the logistic function and
// the logarithm's tangent, from which it is up to `log_mean_excess` above, or by an interval where that leaves less.
void softmax_forms(index_t outputs, const double* y, double mass, const Forms& forms, index_t first, index_t place,
                   double* work) {
    const index_t nl = forms.nl;
    double *low = work, *high = work + outputs, *q = work + 2 * outputs;
    double top = -std::numeric_limits<double>::infinity();
    for (index_t k = 0; k < outputs; ++k) {
        const double* f = forms[first + k];
        const double rad = radius_of(f, nl) * (1.0 + 64.0 * kUnit) + 8.0 * kUnit * std::abs(f[0]);
        low[k] = f[0] - rad, high[k] = f[0] + rad;
        top = std::max(top, f[0]);
    }
    for (index_t k = 0; k < outputs; ++k) {
        double worst = 1.0, best = 1.0, spread = 0.0;
        for (index_t j = 0; j < outputs; ++j) {
            if (j == k) continue;
            worst += std::exp(std::min(700.0, high[j] - low[k]));
            best += std::exp(std::min(700.0, low[j] - high[k]));
            spread = std::max(spread, 0.5 * (high[j] - low[j]) + 0.5 * (high[k] - low[k]));
        }
        const double lo = 1.0 / worst, hi = 1.0 / best;
        double* r = forms[place + k];
        std::fill(r, r + forms.length(), 0.0);
        const Secant secant = softmax_secant(outputs, k, forms, first, low, high, q);
        if (secant.error < 0.5 * (hi - lo)) {
            for (index_t j = 0; j < outputs; ++j) {
                const double* f = forms[first + j];
                const double by = mass * secant.slope * (j == k ? 1.0 : -q[j]);
                for (index_t i = 1; i <= nl; ++i) {
                    r[i] += by * f[i];
                    r[nl + 1 + i] += std::abs(by) * f[nl + 1 + i];
                }
            }
            r[0] = mass * secant.middle - y[k];
            r[nl + 1] = mass * secant.error;
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

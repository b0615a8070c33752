#include <algorithm>
#include <cmath>

#include "forms.hpp"

namespace pyhess::units {
namespace {

// Absolute error allowed to values of activations and derivatives, in units of their natural size.
constexpr double kError = 0x1p-46;
constexpr double kSqrt2 = 1.4142135623730951, kSqrt2Pi = 2.5066282746310002;

struct Extreme {
    double place, value;
};
struct Extremes {
    int count;
    Extreme at[4];
};

constexpr double kBend = 0.769800358919501, kBendAt = 0.6584789484624085;        // 4/(3 sqrt 3), atanh(1/sqrt 3)
constexpr double kThird = 0.6666666666666666, kThirdAt = 1.1462158347805889;     // 2/3, atanh(sqrt(2/3))
constexpr double kGelu1At = 1.4142135623730951;                                  // sqrt 2
constexpr double kGelu3 = 0.7787696350557324, kGelu3At = 0.7922869913932613;     // sqrt((7 - sqrt 33)/2)
constexpr double kGelu3b = 0.09874165861146963, kGelu3bAt = 2.5243377989621387;  // sqrt((7 + sqrt 33)/2)

// Critical points of phi, phi', phi'' and phi''', by code; sigmoid(s) = 1/2 + tanh(s/2)/2, softplus' = sigmoid.
constexpr Extremes kExtremes[6][4] = {
    {},
    {{},
     {1, {{0.0, 1.0}}},
     {2, {{-kBendAt, kBend}, {kBendAt, -kBend}}},
     {3, {{0.0, -2.0}, {-kThirdAt, kThird}, {kThirdAt, kThird}}}},
    {},
    {{}, {}, {1, {{0.0, 0.25}}}, {2, {{-2.0 * kBendAt, kBend / 8.0}, {2.0 * kBendAt, -kBend / 8.0}}}},
    {{},
     {1, {{0.0, 0.25}}},
     {2, {{-2.0 * kBendAt, kBend / 8.0}, {2.0 * kBendAt, -kBend / 8.0}}},
     {3, {{0.0, -0.125}, {-2.0 * kThirdAt, kThird / 16.0}, {2.0 * kThirdAt, kThird / 16.0}}}},
    {{1, {{-0.7517915246935645, -0.16997120747990369}}},
     {2, {{-kGelu1At, -0.12890414518515475}, {kGelu1At, 1.1289041451851550}}},
     {3, {{-2.0, -0.10798193302637613}, {0.0, 0.7978845608028654}, {2.0, -0.10798193302637613}}},
     {4, {{-kGelu3At, kGelu3}, {kGelu3At, -kGelu3}, {-kGelu3bAt, -kGelu3b}, {kGelu3bAt, kGelu3b}}}},
};
// sup of the fourth derivative (softplus: of sigmoid'''), rounded up, by code.
constexpr double kFourth[6] = {0.0, 4.09, 0.0, 0.126, 0.128, 1.6};

// phi … phi''' at s (softplus: at beta s, unscaled, without phi'''); returns a bound of the absolute errors, for
// |phi| <= 1 + |s|.
double derivatives(Activation act, double s, double* out) {
    if (act == Activation::identity) {
        out[0] = s, out[1] = 1.0, out[2] = out[3] = 0.0;
        return 0.0;
    }
    if (act == Activation::tanh) {
        const double t = std::tanh(s), d = (1.0 - t) * (1.0 + t);
        out[0] = t, out[1] = d, out[2] = -2.0 * t * d, out[3] = -2.0 * d * (1.0 - 3.0 * t * t);
        return kError;
    }
    if (act == Activation::sigmoid || act == Activation::softplus) {
        const double t = std::tanh(0.5 * s), d = 0.25 * (1.0 - t) * (1.0 + t);
        double* sigmoid = act == Activation::sigmoid ? out : out + 1;
        sigmoid[0] = 0.5 * (1.0 + t), sigmoid[1] = d, sigmoid[2] = -t * d;
        if (act == Activation::sigmoid) {
            out[3] = -0.5 * d * (1.0 - 3.0 * t * t);
            return kError;
        }
        out[0] = std::max(s, 0.0) + std::log1p(std::exp(-std::abs(s)));
        return kError * (1.0 + std::abs(s));
    }
    const double error = 4.0 * kError * (1.0 + std::abs(s));
    if (std::abs(s) > 38.0) {  // cdf and density are 0 or 1 far below the allowance
        out[0] = std::max(s, 0.0), out[1] = s > 0.0 ? 1.0 : 0.0, out[2] = out[3] = 0.0;
        return error;
    }
    const double cdf = 0.5 * std::erfc(-s / kSqrt2), density = std::exp(-0.5 * s * s) / kSqrt2Pi;
    out[0] = s * cdf, out[1] = cdf + s * density;
    out[2] = density * (2.0 - s * s), out[3] = density * (s * s * s - 4.0 * s);
    return error;
}

double bend_of_sigmoid(double s) {
    const double t = std::tanh(0.5 * s);
    return -0.25 * t * (1.0 - t) * (1.0 + t);
}

struct Range {
    double lo, hi;
};

// Range of a derivative over [low, high] from its values a, b at the ends.
Range order_range(Activation act, int order, double low, double high, double a, double b, double error) {
    double lo = std::min(a, b), hi = std::max(a, b);
    const Extremes& extremes = kExtremes[static_cast<int>(act)][order];
    for (int k = 0; k < extremes.count; ++k) {
        const auto [place, value] = extremes.at[k];
        if (low <= place + 1e-6 && place - 1e-6 <= high) lo = std::min(lo, value), hi = std::max(hi, value);
    }
    return {lo - error, hi + error};
}

}  // namespace

void activation_forms(Activation act, double beta, double s0, double half, double out[3][3]) {
    const bool softplus = act == Activation::softplus;
    const double scale = softplus ? beta : 1.0;
    const double c = s0 * scale, h = half * scale * (1.0 + 4.0 * kUnit) + 2.0 * kUnit * std::abs(s0 * scale);
    const double low = c - h - 2.0 * kUnit * (std::abs(c) + h), high = c + h + 2.0 * kUnit * (std::abs(c) + h);
    double at[4], left[4], right[4];
    const double error =
        std::max(derivatives(act, c, at), std::max(derivatives(act, low, left), derivatives(act, high, right)));
    if (softplus)  // softplus''' = sigmoid''
        at[3] = bend_of_sigmoid(c), left[3] = bend_of_sigmoid(low), right[3] = bend_of_sigmoid(high);
    Range range[4];
    // Errors of z = beta s move the derivatives by no more than `error` as well: z phi^(k+1)(z) is of size one.
    for (int order = 0; order < 4; ++order)
        range[order] = order_range(act, order, low, high, left[order], right[order], error);
    double unit = 1.0 / scale;
    for (int order = 0; order < 3; ++order) {
        const auto [lo, hi] = range[order];
        const double middle = 0.5 * (lo + hi), rad = 0.5 * (hi - lo);
        double shift = 0.0, rest, slope;
        if (order < 2) {
            const double down = 0.5 * h * h * std::min(range[order + 2].lo, 0.0);
            const double up = 0.5 * h * h * std::max(range[order + 2].hi, 0.0);
            shift = 0.5 * (down + up), rest = 0.5 * (up - down), slope = at[order + 1];
        } else {
            rest = 0.5 * h * h * kFourth[static_cast<int>(act)], slope = at[3];
            const double by_mean = 0.5 * (range[3].hi - range[3].lo) * h;
            if (by_mean < rest) rest = by_mean, slope = 0.5 * (range[3].hi + range[3].lo);
        }
        double* form = out[order];
        if (rest < rad)
            form[0] = at[order] + shift, form[1] = slope * h;
        else
            form[0] = middle, form[1] = 0.0, rest = rad;
        const double size = std::abs(form[0]) + std::abs(form[1]) + rest;
        form[2] = rest + 3.0 * error * (1.0 + h) + 16.0 * kUnit * size + kTiny;
        for (int k = 0; k < 3; ++k) form[k] *= unit;
        unit *= scale;
        if (softplus) form[2] += 8.0 * kUnit * (std::abs(form[0]) + std::abs(form[1]) + form[2]);
    }
}

}  // namespace pyhess::units

// The losses with lanes across data against long double, from outputs near zero to saturation, where the naive
// reference loses digits: log(1 + x) and exp of the kernels as they run, and the residuals of sure predictions.
#include <algorithm>
#include <cmath>
#include <cstdio>

#include "check.hpp"
#include "pyhess/loss.hpp"
#include "support.hpp"

using namespace support;
using pyhess::LossBlock;

namespace {

// One datum of K outputs in every lane, but all weight in one of them, so that the sum over lanes is that lane's value.
template <class T>
struct OneDatum {
    index_t rows, at;
    Buffer<T> weight, target, prob, f, delta;
    Buffer<double> mass;

    OneDatum(index_t lanes, index_t lane, const std::vector<double>& outputs, const std::vector<double>& labels)
        : rows(lanes),
          at(lane),
          weight(lanes, T(0)),
          target(count(outputs) * lanes),
          prob(count(outputs) * lanes),
          f(count(outputs) * lanes),
          delta(count(outputs) * lanes),
          mass(lanes, 0.0) {
        weight[lane] = T(1);
        for (index_t k = 0; k < count(outputs); ++k) {
            mass[lane] += labels[static_cast<std::size_t>(k)];
            for (index_t i = 0; i < lanes; ++i) {
                f[k * lanes + i] = static_cast<T>(outputs[static_cast<std::size_t>(k)]);
                target[k * lanes + i] = static_cast<T>(labels[static_cast<std::size_t>(k)]);
            }
        }
    }
    LossBlock<T> block(index_t num_outputs) {
        return {rows, num_outputs, num_outputs, weight.data(), mass.data(), target.data(), prob.data()};
    }
    static index_t count(const std::vector<double>& x) { return static_cast<index_t>(x.size()); }
};

constexpr double kRelative = 4 * 2.220446049250313e-16;  // the value is computed in double in both precisions
template <class T>
constexpr double kDeltaRelative = 4.0 * static_cast<double>(std::numeric_limits<T>::epsilon());
// exp is zero where it would be less than the smallest normal number
template <class T>
constexpr double kTiny = 2.0 * static_cast<double>(std::numeric_limits<T>::min());

std::vector<double> margins() {
    std::vector<double> out{0.0};
    for (int e = -40; e <= 9; ++e)
        for (int i = 0; i < 8; ++i)
            out.push_back(static_cast<double>(static_cast<float>(std::ldexp(1.0 + i / 8.3, e))));
    for (double x : {87.4, 88.0, 104.0, 700.0, 708.25, 709.0, 745.0, 746.0, 1e4, 1e30}) out.push_back(x);
    return out;
}

// log(1 + exp(f)) and its derivative for both labels and both signs.
template <class T>
void check_logistic(const char* level) {
    const auto* kernels = pyhess::find_kernels<T>(level);
    for (double margin : margins())
        for (double sign : {1.0, -1.0})
            for (double label : {0.0, 1.0}) {
                const double f = static_cast<double>(static_cast<T>(sign * margin));
                const check::Note note(std::string("logistic ") + type_name<T>() + " " + level + " at " +
                                       std::to_string(f) + ", label " + std::to_string(label));
                OneDatum<T> datum(16, 11, {f}, {label});
                const double value =
                    kernels->lane_loss_forward(Loss::logistic, datum.block(1), datum.f.data(), datum.delta.data());
                const long double z = label > 0.0 ? -static_cast<long double>(f) : static_cast<long double>(f);
                const long double e = std::exp(-std::fabs(z)), p = (z < 0 ? e : 1.0L) / (1.0L + e);
                const auto loss = static_cast<double>(std::log1p(e) + std::max(z, 0.0L));
                const auto residual = static_cast<double>(label > 0.0 ? -p : p);
                CHECK_NEAR(value, loss, kRelative * loss + kTiny<double>);
                CHECK_NEAR(static_cast<double>(datum.delta[11]), residual,
                           kDeltaRelative<T> * std::fabs(residual) + kTiny<T>);
            }
}

// K classes, the labelled one ahead of the others by the margin (or behind): value log(1 + (K - 1) exp(-margin)).
template <class T>
void check_cross_entropy(const char* level, index_t num_classes) {
    const auto* kernels = pyhess::find_kernels<T>(level);
    for (double margin : margins()) {
        if (static_cast<double>(static_cast<T>(margin)) > 1e6) continue;
        const double f = static_cast<double>(static_cast<T>(margin));
        const auto others = static_cast<long double>(num_classes - 1);
        const check::Note note(std::string("cross-entropy ") + type_name<T>() + " " + level + ", " +
                               std::to_string(num_classes) + " classes, margin " + std::to_string(f));
        const auto size = static_cast<std::size_t>(num_classes);
        std::vector<double> outputs(size, 0.0), labels(size, 0.0);
        outputs[size / 2] = f;
        labels[size / 2] = 1.0;
        OneDatum<T> sure(16, 3, outputs, labels);
        const double value =
            kernels->lane_loss_forward(Loss::cross_entropy, sure.block(num_classes), sure.f.data(), sure.delta.data());
        const long double e = std::exp(-static_cast<long double>(f)), share = 1.0L / (1.0L + others * e);
        const auto loss = static_cast<double>(std::log1p(others * e));
        // A sum of K terms: each addition may round
        const double summed = static_cast<double>(num_classes) / 4.0 * kRelative;
        CHECK_NEAR(value, loss, (kRelative + summed) * loss + static_cast<double>(others) * kTiny<double>);
        for (index_t k = 0; k < num_classes; ++k) {
            const bool labelled = k == num_classes / 2;
            const auto residual = static_cast<double>(labelled ? -others * e * share : e * share);
            CHECK_NEAR(static_cast<double>(sure.delta[k * 16 + 3]), residual,
                       (kDeltaRelative<T> + summed) * std::fabs(residual) + static_cast<double>(others) * kTiny<T>);
        }
        labels.assign(size, 0.0);
        labels[0] = 1.0;
        OneDatum<T> wrong(16, 3, outputs, labels);
        const double cost = kernels->lane_loss_forward(Loss::cross_entropy, wrong.block(num_classes), wrong.f.data(),
                                                       wrong.delta.data());
        CHECK_NEAR(cost, f + loss, (kRelative + summed) * (f + loss));
    }
}

// Both layouts on random outputs of growing size: curvature and third derivatives.
template <class T>
void check_layouts(const char* level, Loss loss, double size) {
    const auto* kernels = pyhess::find_kernels<T>(level);
    const check::Note note(std::string(name_of(loss)) + " " + type_name<T>() + " " + level + ", outputs of size " +
                           std::to_string(size));
    const index_t rows = 48, outputs = loss == Loss::logistic ? 1 : 5, n = rows * outputs;
    std::mt19937 rng(5003);
    std::normal_distribution<double> normal;
    Buffer<T> f(n), y(n), u(n), s2(n), fl(n), yl(n), ul(n), s2l(n), weight(rows);
    Buffer<double> mass(rows, 0.0);
    for (index_t r = 0; r < rows; ++r) {
        weight[r] = static_cast<T>(0.25 * static_cast<double>(1 + r % 4));
        for (index_t k = 0; k < outputs; ++k) {
            const index_t row = r * outputs + k, lane = k * rows + r;
            fl[lane] = f[row] = static_cast<T>(size * normal(rng));
            yl[lane] = y[row] = static_cast<T>(0.125 * static_cast<double>(rng() % 9));
            ul[lane] = u[row] = static_cast<T>(normal(rng));
            s2l[lane] = s2[row] = static_cast<T>(normal(rng));
            mass[r] += static_cast<double>(weight[r]) * static_cast<double>(y[row]);
        }
        if (loss != Loss::cross_entropy) mass[r] = static_cast<double>(weight[r]);
    }
    Buffer<T> prob(n), delta(n), x1(n), x0(n), probl(n), deltal(n), x1l(n), x0l(n);
    const LossBlock<T> by_row{rows, outputs, outputs, weight.data(), mass.data(), y.data(), prob.data()};
    const LossBlock<T> by_lane{rows, outputs, outputs, weight.data(), mass.data(), yl.data(), probl.data()};
    const double value = pyhess::loss_forward(loss, by_row, f.data(), delta.data());
    const double value_l = kernels->lane_loss_forward(loss, by_lane, fl.data(), deltal.data());
    const double q = pyhess::loss_jet(loss, by_row, delta.data(), u.data(), s2.data(), x1.data(), x0.data());
    const double q_l =
        kernels->lane_loss_jet(loss, by_lane, deltal.data(), ul.data(), s2l.data(), x1l.data(), x0l.data());
    const double eps = 64.0 * static_cast<double>(std::numeric_limits<T>::epsilon());
    CHECK_NEAR(value_l, value, 64.0 * 2.3e-16 * value);
    CHECK_NEAR(q_l, q, eps * static_cast<double>(n) * (1.0 + size));
    pyhess::loss_curvature(loss, by_row, u.data());
    kernels->lane_loss_curvature(loss, by_lane, ul.data());
    for (index_t r = 0; r < rows; ++r)
        for (index_t k = 0; k < outputs; ++k) {
            const index_t row = r * outputs + k, lane = k * rows + r;
            const double unit = loss == Loss::squared_error ? 1.0 + size : 1.0;
            CHECK_NEAR(static_cast<double>(deltal[lane]), static_cast<double>(delta[row]), eps * unit);
            CHECK_NEAR(static_cast<double>(ul[lane]), static_cast<double>(u[row]), eps);
            CHECK_NEAR(static_cast<double>(x1l[lane]), static_cast<double>(x1[row]), eps);
            CHECK_NEAR(static_cast<double>(x1l[lane]), static_cast<double>(ul[lane]), eps);
            CHECK_NEAR(static_cast<double>(x0l[lane]), static_cast<double>(x0[row]), 4.0 * eps);
        }
}

template <class T>
void check_losses() {
    for (const char* level : levels()) {
        check_logistic<T>(level);
        for (index_t num_classes : {2, 3, 10, 257}) check_cross_entropy<T>(level, num_classes);
        for (Loss loss : kLosses)
            for (double size : {0.1, 3.0, 60.0, 2000.0}) check_layouts<T>(level, loss, size);
    }
}

}  // namespace

TEST(losses_float64) { check_losses<double>(); }
TEST(losses_float32) { check_losses<float>(); }

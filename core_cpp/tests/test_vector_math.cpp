// The element-wise kernels against the C library in long double, through the tables that the core calls: the
// activations (tanh, sigmoid, softplus, GELU) and, read off softplus's derivatives, expm1 and exp of a negative number.
#include <algorithm>
#include <cmath>
#include <cstdio>

#include "check.hpp"
#include "support.hpp"

using namespace support;
using pyhess::Kernels;
using pyhess::LayerState;

namespace {

constexpr double kUlps = 4.0;

template <class T>
constexpr T kSmallest = std::numeric_limits<T>::min();  // the smallest normal number
template <class T>
constexpr T kInf = std::numeric_limits<T>::infinity();

// |got - want| in units of the last place of `want`. Where `want` is below the smallest normal number, anything between
// zero and that number will do: the polynomials give zero there.
template <class T>
double ulps(T got, long double want) {
    const long double size = std::fabs(want), smallest = static_cast<long double>(kSmallest<T>);
    if (std::isnan(got) || std::isnan(want)) return std::isnan(got) && std::isnan(want) ? 0.0 : HUGE_VAL;
    if (size > static_cast<long double>(std::numeric_limits<T>::max())) return std::isinf(got) ? 0.0 : HUGE_VAL;
    if (size < smallest && std::fabs(static_cast<long double>(got)) <= smallest) return 0.0;
    const int exponent = std::max(std::ilogb(size), std::ilogb(smallest));
    return static_cast<double>(std::fabs(static_cast<long double>(got) - want) /
                               std::scalbn(1.0L, exponent + 1 - std::numeric_limits<T>::digits));
}

// Every binade from the smallest denormal to the largest number, both signs; then evenly spread numbers where the
// functions bend, and powers of two with their neighbours.
template <class T>
std::vector<T> points() {
    std::mt19937_64 rng(20240917);
    std::vector<T> out;
    const int lowest = std::numeric_limits<T>::min_exponent - std::numeric_limits<T>::digits;
    for (int e = lowest; e < std::numeric_limits<T>::max_exponent; ++e) {
        const T power = std::ldexp(T(1), e);
        out.insert(out.end(), {power, std::nextafter(power, T(0)), std::nextafter(power, kInf<T>)});
        const int count = e >= -12 && e <= 10 ? 1500 : 20;
        for (int i = 0; i < count; ++i) out.push_back(power * (T(1) + std::ldexp(static_cast<T>(rng() >> 11), -53)));
    }
    for (int i = 0; i < 40000; ++i) out.push_back(std::ldexp(static_cast<T>(rng() >> 11), -53) * T(100));
    for (int i = 0; i < 8000; ++i) out.push_back(std::ldexp(static_cast<T>(rng() >> 11), -53) * T(760));
    const std::size_t half = out.size();
    for (std::size_t i = 0; i < half; ++i) out.push_back(-out[i]);
    return out;
}

// The largest error over the points; `allowed` may depend on the point.
template <class T, class Allowed>
void compare(const char* what, const char* level, const std::vector<T>& at, const Buffer<T>& got,
             const std::vector<long double>& want, Allowed allowed) {
    double worst = 0.0;
    T where = T(0);
    for (std::size_t i = 0; i < at.size(); ++i) {
        const double off = ulps(got[static_cast<index_t>(i)], want[i]);
        ++check::num_checks();
        if (off > worst) worst = off, where = at[i];
        if (!(off <= allowed(at[i]))) {
            const check::Note note(std::string(what) + " " + type_name<T>() + " " + level + " at " +
                                   std::to_string(at[i]));
            CHECK_NEAR(off, 0.0, allowed(at[i]));
        }
    }
    std::printf("  %-22s %s %-4s largest error %8.3f ulp at %.9g\n", what, type_name<T>(), level, worst,
                static_cast<double>(where));
}

template <class T>
Buffer<T> copy_of(const std::vector<T>& x) {
    return Buffer<T>(std::vector<double>(x.begin(), x.end()));
}

template <class T, class Function>
std::vector<long double> evaluate(const std::vector<T>& x, Function f) {
    std::vector<long double> out;
    for (T point : x) out.push_back(f(static_cast<long double>(point)));
    return out;
}

double plain_bound(double) { return kUlps; }

long double softplus_of(long double z) { return (z > 0 ? z : 0.0L) + std::log1p(std::exp(-std::fabs(z))); }

template <class T>
void check_activation(const char* what, Activation act, const std::vector<T>& x, const std::vector<long double>& want) {
    for (const char* level : levels()) {
        Buffer<T> s = copy_of(x);
        pyhess::find_kernels<T>(level)->activate(act, T(1), s.size(), s.data(), nullptr, nullptr, nullptr);
        compare(what, level, x, s, want, plain_bound);
    }
}

template <class T>
void check_activations() {
    const std::vector<T> x = points<T>();
    check_activation("tanh", Activation::tanh, x, evaluate(x, [](long double s) { return std::tanh(s); }));
    check_activation("sigmoid", Activation::sigmoid, x, evaluate(x, [](long double s) {
                         const long double e = std::exp(-std::fabs(s));
                         return (s < 0 ? e : 1.0L) / (1.0L + e);
                     }));
    check_activation("softplus", Activation::softplus, x, evaluate(x, softplus_of));
}

// phi' = 1 - exp(-a) and phi'' bar = exp(-a) phi' bar of softplus, with a >= 0 its value: expm1 and exp by themselves.
template <class T>
void check_exponentials() {
    std::vector<T> a;
    for (T x : points<T>())
        if (x > T(0)) a.push_back(x);
    const auto n = static_cast<index_t>(a.size());
    const auto slope = evaluate(a, [](long double x) { return -std::expm1(-x); });
    const auto rest = evaluate(a, [](long double x) { return std::exp(-x); });
    for (const char* level : levels()) {
        const Kernels<T>& kernels = *pyhess::find_kernels<T>(level);
        const Buffer<T> value = copy_of(a), one(n, T(1));
        const LayerState<T> layer{value.data(), one.data(), nullptr, nullptr, nullptr, nullptr};
        Buffer<T> out(n);
        kernels.apply_slope(Activation::softplus, T(1), n, layer, one.data(), out.data());
        compare("1 - exp(-a)", level, a, out, slope, plain_bound);
        Buffer<T> curve(n, T(0));
        kernels.hvp_backward(Activation::softplus, T(1), n, layer, one.data(), curve.data());
        compare("exp(-a)", level, a, curve, rest, plain_bound);
    }
}

// GELU and its derivatives. The rounding of s / sqrt(2) and s^2 / 2 costs the tails up to 2 s^2 ulp, the C library's
// erfc a few more; the derivatives have zeros, so their errors are measured against the sum of the sizes of their
// terms.
template <class T>
void check_gelu() {
    const std::vector<T> x = points<T>();
    const auto n = static_cast<index_t>(x.size());
    const long double pi = std::acos(-1.0L);
    const auto cdf = [](long double s) { return 0.5L * std::erfc(-s / std::sqrt(2.0L)); };
    const auto pdf = [pi](long double s) { return std::exp(-0.5L * s * s) / std::sqrt(2.0L * pi); };
    for (const char* level : levels()) {
        Buffer<T> s = copy_of(x), slope(n), curve(n), third(n);
        pyhess::find_kernels<T>(level)->activate(Activation::gelu, T(1), n, s.data(), slope.data(), curve.data(),
                                                 third.data());
        compare("gelu", level, x, s, evaluate(x, [&](long double t) { return t * cdf(t); }),
                [](T t) { return 2.0 * (kUlps + static_cast<double>(t) * static_cast<double>(t)); });
        const long double eps = static_cast<long double>(std::numeric_limits<T>::epsilon());
        const check::Note note(std::string("gelu's derivatives ") + type_name<T>() + " " + level);
        for (index_t i = 0; i < n; ++i) {
            const long double t = static_cast<long double>(x[static_cast<std::size_t>(i)]);
            if (std::fabs(t) > 1e9L) continue;  // t^3 and all the rest of it is zero
            const long double p = pdf(t), c = cdf(t), unit = 2 * eps * (kUlps + t * t), least = kSmallest<T> * 1e5L;
            const auto bound = [&](long double size) { return static_cast<double>(unit * size + least); };
            CHECK_NEAR(slope[i], static_cast<double>(c + t * p), bound(c + std::fabs(t) * p));
            CHECK_NEAR(curve[i], static_cast<double>(p * (2 - t * t)), bound(p * (2 + t * t)));
            CHECK_NEAR(third[i], static_cast<double>(p * t * (t * t - 4)), bound(p * std::fabs(t) * (t * t + 4)));
        }
    }
}

// One value through an activation, in every place of arrays whose length is no multiple of any vector's.
template <class T>
T everywhere(const Kernels<T>& kernels, Activation act, T x, T beta = T(1)) {
    Buffer<T> one(1, x), many(37, x), slope(37), curve(37), third(37);
    kernels.activate(act, beta, 1, one.data(), slope.data(), curve.data(), third.data());
    kernels.activate(act, beta, 37, many.data(), slope.data(), curve.data(), third.data());
    bool same = true;
    for (index_t i = 0; i < 37; ++i) {
        const bool close = std::fabs(many[i] - one[0]) <= T(4) * std::numeric_limits<T>::epsilon() * std::fabs(one[0]);
        same = same && (close || many[i] == one[0] || (std::isnan(many[i]) && std::isnan(one[0])));
    }
    CHECK(same);
    return one[0];
}

template <class T>
bool is_zero(T x, bool negative) {
    return x == T(0) && std::signbit(x) == negative;
}

template <class T>
void check_special_values() {
    const T nan = std::numeric_limits<T>::quiet_NaN(), inf = kInf<T>, tiny = std::numeric_limits<T>::denorm_min();
    for (const char* level : levels()) {
        const check::Note note(std::string(type_name<T>()) + " " + level);
        const Kernels<T>& kernels = *pyhess::find_kernels<T>(level);
        const auto phi = [&](Activation act, T x) { return everywhere<T>(kernels, act, x); };
        for (Activation act : kActivations) {
            const check::Note which(name_of(act));
            CHECK(std::isnan(phi(act, nan)));
            CHECK(std::isnan(phi(act, -nan)));
        }
        for (T x : {tiny, T(3) * tiny, kSmallest<T> / T(2), kSmallest<T>})
            for (T sign : {T(1), T(-1)}) {
                CHECK(phi(Activation::tanh, sign * x) == sign * x);
                CHECK(phi(Activation::identity, sign * x) == sign * x);
                CHECK(phi(Activation::relu, sign * x) == (sign > T(0) ? x : T(0)));
                CHECK(phi(Activation::sigmoid, sign * x) == T(0.5));
                CHECK(std::fabs(phi(Activation::gelu, sign * x) - sign * x / T(2)) <= tiny);
            }
        CHECK(is_zero(phi(Activation::tanh, T(0)), false));
        CHECK(is_zero(phi(Activation::tanh, T(-0.0)), true));
        CHECK(is_zero(phi(Activation::gelu, T(0)), false));
        CHECK(is_zero(phi(Activation::gelu, T(-0.0)), true));
        CHECK(phi(Activation::relu, T(-0.0)) == T(0));
        CHECK(phi(Activation::sigmoid, T(-0.0)) == T(0.5));
        for (T x : {inf, std::numeric_limits<T>::max(), T(1e4)}) {
            CHECK(phi(Activation::tanh, x) == T(1));
            CHECK(phi(Activation::tanh, -x) == T(-1));
            CHECK(phi(Activation::sigmoid, x) == T(1));
            CHECK(phi(Activation::sigmoid, -x) == T(0));
            CHECK(phi(Activation::softplus, x) == x);
            CHECK(phi(Activation::softplus, -x) == T(0));
            CHECK(phi(Activation::relu, x) == x);
            CHECK(phi(Activation::relu, -x) == T(0));
            CHECK(phi(Activation::gelu, x) == x);
            CHECK(phi(Activation::gelu, -x) == T(0));
            CHECK(everywhere<T>(kernels, Activation::softplus, -x, T(3)) == T(0));
        }
    }
}

}  // namespace

TEST(activations_float64) { check_activations<double>(); }
TEST(activations_float32) { check_activations<float>(); }
TEST(exponentials_float64) { check_exponentials<double>(); }
TEST(exponentials_float32) { check_exponentials<float>(); }
TEST(gelu_float64) { check_gelu<double>(); }
TEST(gelu_float32) { check_gelu<float>(); }
TEST(special_values_float64) { check_special_values<double>(); }
TEST(special_values_float32) { check_special_values<float>(); }

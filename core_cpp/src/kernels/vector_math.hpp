// Exponentials and their kin as branch-free polynomials: plain loops over them vectorise at every level. For
// kernels.cpp alone, which is built once per instruction-set level; hence the internal linkage.
#pragma once

#include <cmath>
#include <cstdint>

namespace pyhess {
namespace {

// x = k ln2 + r with |r| <= ln2/2, k read off the low bits of x*log2(e) + 1.5*2^mantissa; the Taylor series of expm1(r)
// is exact to rounding at the degree used. No table and no branch, so the loops below vectorise at every level. Clamps
// are written as (x < floor ? floor : x), which lets a NaN through.

template <class T>
struct Format;

template <>
struct Format<double> {
    using bits = std::int64_t;
    using ubits = std::uint64_t;
    static constexpr double magic = 6755399441055744.0;  // 1.5 * 2^52
    static constexpr double log2e = 1.44269504088896340736;
    static constexpr double ln2_hi = 6.93147180369123816490e-01;
    static constexpr double ln2_lo = 1.90821492927058770002e-10;
    static constexpr double exp_floor = -708.396;  // log of the smallest normal number, rounded up
    static constexpr double tanh_ceil = 20.0;
    static constexpr int mantissa = 52;
};

template <>
struct Format<float> {
    using bits = std::int32_t;
    using ubits = std::uint32_t;
    static constexpr float magic = 12582912.0f;  // 1.5 * 2^23
    static constexpr float log2e = 1.44269504f;
    static constexpr float ln2_hi = 6.93145752e-01f;
    static constexpr float ln2_lo = 1.42860677e-06f;
    static constexpr float exp_floor = -87.336f;
    static constexpr float tanh_ceil = 10.0f;
    static constexpr int mantissa = 23;
};

// expm1(r) for |r| <= ln2/2
inline double expm1_series(double r) {
    double p = 1.0 / 6227020800.0;
    p = p * r + 1.0 / 479001600.0;
    p = p * r + 1.0 / 39916800.0;
    p = p * r + 1.0 / 3628800.0;
    p = p * r + 1.0 / 362880.0;
    p = p * r + 1.0 / 40320.0;
    p = p * r + 1.0 / 5040.0;
    p = p * r + 1.0 / 720.0;
    p = p * r + 1.0 / 120.0;
    p = p * r + 1.0 / 24.0;
    p = p * r + 1.0 / 6.0;
    p = p * r + 0.5;
    return r + r * r * p;
}

inline float expm1_series(float r) {
    float p = 1.0f / 5040.0f;
    p = p * r + 1.0f / 720.0f;
    p = p * r + 1.0f / 120.0f;
    p = p * r + 1.0f / 24.0f;
    p = p * r + 1.0f / 6.0f;
    p = p * r + 0.5f;
    return r + r * r * p;
}

// For x <= 0: exp(x) = two_k (1 + em1).
template <class T>
inline void split_exp(T x, T& two_k, T& em1) {
    using F = Format<T>;
    using U = typename F::ubits;
    x = x < F::exp_floor ? F::exp_floor : x;
    const T shifted = x * F::log2e + F::magic;
    const T magic = F::magic, one = T(1);
    const T k = shifted - magic;
    U raw, raw_magic, raw_one;
    __builtin_memcpy(&raw, &shifted, sizeof(T));
    __builtin_memcpy(&raw_magic, &magic, sizeof(T));
    __builtin_memcpy(&raw_one, &one, sizeof(T));
    const U scaled = raw_one + ((raw - raw_magic) << F::mantissa);
    __builtin_memcpy(&two_k, &scaled, sizeof(T));
    em1 = expm1_series((x - k * F::ln2_hi) - k * F::ln2_lo);
}

// exp(x) for x <= 0; zero where it would be less than the smallest normal number.
template <class T>
inline T exp_negative(T x) {
    T two_k, em1;
    split_exp(x, two_k, em1);
    const T e = two_k + two_k * em1;
    return x < Format<T>::exp_floor ? T(0) : e;
}

// exp(x) - 1 for x <= 0
template <class T>
inline T expm1_negative(T x) {
    T two_k, em1;
    split_exp(x, two_k, em1);
    return two_k * em1 + (two_k - T(1));
}

// log(1 + t) for 0 <= t <= 1 as 2 artanh(t / (2 + t)); the series needs 17 (8) terms at y <= 1/3.
inline double log1p_unit(double t) {
    const double y = t / (2.0 + t), z = y * y;
    double p = 1.0 / 33.0;
    for (int k = 15; k >= 0; --k) p = p * z + 1.0 / (2 * k + 1);
    return 2.0 * y * p;
}

inline float log1p_unit(float t) {
    const float y = t / (2.0f + t), z = y * y;
    float p = 1.0f / 15.0f;
    for (int k = 6; k >= 0; --k) p = p * z + 1.0f / static_cast<float>(2 * k + 1);
    return 2.0f * y * p;
}

inline double absolute(double x) { return __builtin_fabs(x); }
inline float absolute(float x) { return __builtin_fabsf(x); }
inline double with_sign(double x, double s) { return __builtin_copysign(x, s); }
inline float with_sign(float x, float s) { return __builtin_copysignf(x, s); }

}  // namespace
}  // namespace pyhess

// Built once per instruction-set level; PYHESS_KERNEL_ISA names the level. Only <cstdint> and <cmath> may be included
// and everything but the two table functions has internal linkage (kernels.hpp gives the reason).
#include "pyhess/kernels.hpp"

#include <cmath>
#include <cstdint>

namespace pyhess {
namespace {

// ---- exponentials -------------------------------------------------------------------------------------------------
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
    static constexpr double exp_floor = -708.0;
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
    static constexpr float exp_floor = -87.0f;
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

template <class T>
inline T exp_negative(T x) {
    T two_k, em1;
    split_exp(x, two_k, em1);
    return two_k + two_k * em1;
}

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

// ---- activations --------------------------------------------------------------------------------------------------
// value(s); then, from a = value(s) alone: slope = phi', curve = phi''; curve_bar(a, delta) = phi'' bar and
// third_bar(a, delta) = phi''' bar with delta = phi' bar.

template <class T>
struct Identity {
    static T value(T s, T) { return s; }
    static T slope(T, T) { return T(1); }
    static T curve(T, T) { return T(0); }
    static T curve_bar(T, T, T) { return T(0); }
    static T third_bar(T, T, T) { return T(0); }
};

template <class T>
struct Tanh {
    static T value(T s, T) {
        T x = absolute(s);
        x = x > Format<T>::tanh_ceil ? Format<T>::tanh_ceil : x;
        const T t = expm1_negative(T(-2) * x);
        return with_sign(-t / (t + T(2)), s);
    }
    static T slope(T a, T) { return T(1) - a * a; }
    static T curve(T a, T) { return T(-2) * a * (T(1) - a * a); }
    static T curve_bar(T a, T, T delta) { return T(-2) * a * delta; }
    static T third_bar(T a, T, T delta) { return (T(6) * a * a - T(2)) * delta; }
};

template <class T>
struct Relu {
    static T value(T s, T) { return s < T(0) ? T(0) : s; }
    static T slope(T a, T) { return a > T(0) ? T(1) : T(0); }
    static T curve(T, T) { return T(0); }
    static T curve_bar(T, T, T) { return T(0); }
    static T third_bar(T, T, T) { return T(0); }
};

template <class T>
struct Sigmoid {
    static T value(T s, T) {
        const T e = exp_negative(-absolute(s));
        return (s < T(0) ? e : T(1)) / (T(1) + e);
    }
    static T slope(T a, T) { return a * (T(1) - a); }
    static T curve(T a, T) { return a * (T(1) - a) * (T(1) - T(2) * a); }
    static T curve_bar(T a, T, T delta) { return (T(1) - T(2) * a) * delta; }
    static T third_bar(T a, T, T delta) { return (T(1) - T(6) * a * (T(1) - a)) * delta; }
};

template <class T>
struct Softplus {
    static T value(T s, T beta) {
        const T z = beta * s;
        return ((z > T(0) ? z : T(0)) + log1p_unit(exp_negative(-absolute(z)))) / beta;
    }
    static T slope(T a, T beta) { return -expm1_negative(-beta * a); }
    // 1 - phi', with all its digits where phi' is near 1
    static T rest(T a, T beta) { return exp_negative(-beta * a); }
    static T curve(T a, T beta) { return beta * slope(a, beta) * rest(a, beta); }
    static T curve_bar(T a, T beta, T delta) { return beta * rest(a, beta) * delta; }
    static T third_bar(T a, T beta, T delta) {
        return beta * beta * rest(a, beta) * (rest(a, beta) - slope(a, beta)) * delta;
    }
};

// ---- loops over one activation --------------------------------------------------------------------------------------

template <class T, template <class> class Phi>
struct Loops {
    static void activate(T beta, index_t n, T* __restrict s) {
        for (index_t i = 0; i < n; ++i) s[i] = Phi<T>::value(s[i], beta);
    }
    static void backward(T beta, index_t n, const T* __restrict a, T* __restrict bar) {
        for (index_t i = 0; i < n; ++i) bar[i] *= Phi<T>::slope(a[i], beta);
    }
    static void apply_slope(T beta, index_t n, const LayerState<T>& layer, const T* x, T* out) {
        const T* __restrict a = layer.a;
        for (index_t i = 0; i < n; ++i) out[i] = Phi<T>::slope(a[i], beta) * x[i];
    }
    static void hvp_backward(T beta, index_t n, const LayerState<T>& layer, const T* __restrict s1, T* __restrict x) {
        const T* __restrict a = layer.a;
        const T* __restrict delta = layer.delta;
        for (index_t i = 0; i < n; ++i)
            x[i] = Phi<T>::slope(a[i], beta) * x[i] + Phi<T>::curve_bar(a[i], beta, delta[i]) * s1[i];
    }
    static void jet_forward(T beta, index_t n, const LayerState<T>& layer, const T* __restrict s1,
                            const T* __restrict s2, T* __restrict a1, T* __restrict a2) {
        const T* __restrict a = layer.a;
        for (index_t i = 0; i < n; ++i) {
            const T slope = Phi<T>::slope(a[i], beta), u = s1[i];
            a1[i] = slope * u;
            a2[i] = slope * s2[i] + Phi<T>::curve(a[i], beta) * u * u;
        }
    }
    static void jet_backward(T beta, index_t n, const LayerState<T>& layer, const T* __restrict s1,
                             const T* __restrict s2, T* __restrict x1, T* __restrict x0) {
        const T* __restrict a = layer.a;
        const T* __restrict delta = layer.delta;
        for (index_t i = 0; i < n; ++i) {
            const T slope = Phi<T>::slope(a[i], beta), u = s1[i], y1 = x1[i];
            const T curve_bar = Phi<T>::curve_bar(a[i], beta, delta[i]);
            x1[i] = slope * y1 + curve_bar * u;
            x0[i] = slope * x0[i] + T(2) * Phi<T>::curve(a[i], beta) * u * y1 + curve_bar * s2[i] +
                    Phi<T>::third_bar(a[i], beta, delta[i]) * u * u;
        }
    }
};

// GELU reads its derivatives from memory instead of recomputing erfc and exp.
template <class T>
struct Gelu {
    static void activate(index_t n, T* __restrict s, T* __restrict slope, T* __restrict curve, T* __restrict third) {
        constexpr T inv_sqrt2 = T(0.70710678118654752440), inv_sqrt2pi = T(0.39894228040143267794);
        for (index_t i = 0; i < n; ++i) {
            const T x = s[i];
            T c = x > T(40) ? T(40) : x;  // beyond 40 every derivative is constant to rounding; avoids inf * 0
            c = c < T(-40) ? T(-40) : c;
            const T cdf = T(0.5) * std::erfc(-c * inv_sqrt2);
            const T pdf = inv_sqrt2pi * exp_negative(T(-0.5) * c * c);
            s[i] = x * cdf;
            slope[i] = cdf + c * pdf;
            curve[i] = pdf * (T(2) - c * c);
            third[i] = pdf * c * (c * c - T(4));
        }
    }
    static void multiply(index_t n, const T* __restrict slope, const T* x, T* out) {
        for (index_t i = 0; i < n; ++i) out[i] = slope[i] * x[i];
    }
    static void hvp_backward(index_t n, const LayerState<T>& layer, const T* __restrict s1, T* __restrict x) {
        const T* __restrict slope = layer.slope, * __restrict curve = layer.curve, * __restrict bar = layer.bar;
        for (index_t i = 0; i < n; ++i) x[i] = slope[i] * x[i] + curve[i] * bar[i] * s1[i];
    }
    static void jet_forward(index_t n, const LayerState<T>& layer, const T* __restrict s1, const T* __restrict s2,
                            T* __restrict a1, T* __restrict a2) {
        const T* __restrict slope = layer.slope, * __restrict curve = layer.curve;
        for (index_t i = 0; i < n; ++i) {
            a1[i] = slope[i] * s1[i];
            a2[i] = slope[i] * s2[i] + curve[i] * s1[i] * s1[i];
        }
    }
    static void jet_backward(index_t n, const LayerState<T>& layer, const T* __restrict s1, const T* __restrict s2,
                             T* __restrict x1, T* __restrict x0) {
        const T* __restrict slope = layer.slope, * __restrict curve = layer.curve;
        const T* __restrict third = layer.third, * __restrict bar = layer.bar;
        for (index_t i = 0; i < n; ++i) {
            const T u = s1[i], y1 = x1[i];
            x1[i] = slope[i] * y1 + curve[i] * bar[i] * u;
            x0[i] = slope[i] * x0[i] + T(2) * curve[i] * u * y1 + (curve[i] * s2[i] + third[i] * u * u) * bar[i];
        }
    }
};

// ---- one entry per kernel: choose the activation once per block ---------------------------------------------------

#define PYHESS_FOR_EACH_ACTIVATION(CALL)                  \
    switch (act) {                                        \
        case Activation::identity: CALL(Identity); break; \
        case Activation::tanh: CALL(Tanh); break;         \
        case Activation::relu: CALL(Relu); break;         \
        case Activation::softplus: CALL(Softplus); break; \
        case Activation::sigmoid: CALL(Sigmoid); break;   \
        case Activation::gelu: break;                     \
    }

template <class T>
void activate(Activation act, T beta, index_t n, T* s, T* slope, T* curve, T* third) {
    if (act == Activation::gelu) return Gelu<T>::activate(n, s, slope, curve, third);
#define PYHESS_CALL(Phi) Loops<T, Phi>::activate(beta, n, s)
    PYHESS_FOR_EACH_ACTIVATION(PYHESS_CALL)
#undef PYHESS_CALL
}

template <class T>
void backward(Activation act, T beta, index_t n, const T* a, const T* slope, T* bar) {
    if (act == Activation::gelu) return Gelu<T>::multiply(n, slope, bar, bar);
#define PYHESS_CALL(Phi) Loops<T, Phi>::backward(beta, n, a, bar)
    PYHESS_FOR_EACH_ACTIVATION(PYHESS_CALL)
#undef PYHESS_CALL
}

template <class T>
void apply_slope(Activation act, T beta, index_t n, const LayerState<T>& layer, const T* x, T* out) {
    if (act == Activation::gelu) return Gelu<T>::multiply(n, layer.slope, x, out);
#define PYHESS_CALL(Phi) Loops<T, Phi>::apply_slope(beta, n, layer, x, out)
    PYHESS_FOR_EACH_ACTIVATION(PYHESS_CALL)
#undef PYHESS_CALL
}

template <class T>
void hvp_backward(Activation act, T beta, index_t n, const LayerState<T>& layer, const T* s1, T* x) {
    if (act == Activation::gelu) return Gelu<T>::hvp_backward(n, layer, s1, x);
#define PYHESS_CALL(Phi) Loops<T, Phi>::hvp_backward(beta, n, layer, s1, x)
    PYHESS_FOR_EACH_ACTIVATION(PYHESS_CALL)
#undef PYHESS_CALL
}

template <class T>
void jet_forward(Activation act, T beta, index_t n, const LayerState<T>& layer, const T* s1, const T* s2, T* a1,
                 T* a2) {
    if (act == Activation::gelu) return Gelu<T>::jet_forward(n, layer, s1, s2, a1, a2);
#define PYHESS_CALL(Phi) Loops<T, Phi>::jet_forward(beta, n, layer, s1, s2, a1, a2)
    PYHESS_FOR_EACH_ACTIVATION(PYHESS_CALL)
#undef PYHESS_CALL
}

template <class T>
void jet_backward(Activation act, T beta, index_t n, const LayerState<T>& layer, const T* s1, const T* s2, T* x1,
                  T* x0) {
    if (act == Activation::gelu) return Gelu<T>::jet_backward(n, layer, s1, s2, x1, x0);
#define PYHESS_CALL(Phi) Loops<T, Phi>::jet_backward(beta, n, layer, s1, s2, x1, x0)
    PYHESS_FOR_EACH_ACTIVATION(PYHESS_CALL)
#undef PYHESS_CALL
}

// ---- rows and columns -----------------------------------------------------------------------------------------------

template <class T>
void fill_rows(index_t rows, index_t m, index_t ld, T scale, const T* __restrict row, T* __restrict x) {
    for (index_t r = 0; r < rows; ++r)
        for (index_t j = 0; j < m; ++j) x[r * ld + j] = scale * row[j];
}

template <class T>
void add_column_sums(index_t rows, index_t m, index_t ld, T scale, const T* __restrict x, T* __restrict out) {
    // Strips of eight columns keep the partial sums in registers and fix the order of addition; pieces of rows are
    // added up in double, so that a long sum in float32 keeps its digits.
    for (index_t j = 0; j < m; j += 8) {
        const index_t width = m - j < 8 ? m - j : 8;
        double total[8] = {};
        for (index_t begin = 0; begin < rows; begin += kRowsPerSum) {
            const index_t end = rows - begin < kRowsPerSum ? rows : begin + kRowsPerSum;
            T sum[8] = {};
            if (width == 8) {
                for (index_t r = begin; r < end; ++r)
                    for (index_t c = 0; c < 8; ++c) sum[c] += x[r * ld + j + c];
            } else {
                for (index_t r = begin; r < end; ++r)
                    for (index_t c = 0; c < width; ++c) sum[c] += x[r * ld + j + c];
            }
            for (index_t c = 0; c < width; ++c) total[c] += static_cast<double>(sum[c]);
        }
        for (index_t c = 0; c < width; ++c) out[j + c] += static_cast<T>(static_cast<double>(scale) * total[c]);
    }
}

// ---- portable matrix products: the fallback where the BLAS is unknown, and the test oracle --------------------------

template <class T, bool kTransposed>
void gemm(index_t m, index_t n, index_t k, T alpha, const T* __restrict a, index_t lda, const T* __restrict b,
          index_t ldb, T beta, T* __restrict c, index_t ldc) {
    for (index_t j = 0; j < n; ++j) {
        T* __restrict column = c + j * ldc;
        if (beta == T(0)) {
            for (index_t i = 0; i < m; ++i) column[i] = T(0);
        } else if (beta != T(1)) {
            for (index_t i = 0; i < m; ++i) column[i] *= beta;
        }
        for (index_t p = 0; p < k; ++p) {
            const T factor = alpha * (kTransposed ? b[j + p * ldb] : b[p + j * ldb]);
            const T* __restrict source = a + p * lda;
            for (index_t i = 0; i < m; ++i) column[i] += factor * source[i];
        }
    }
}

template <class T>
constexpr Kernels<T> make_table() {
    return Kernels<T>{activate<T>,     backward<T>,  apply_slope<T>,     hvp_backward<T>, jet_forward<T>,
                      jet_backward<T>, fill_rows<T>, add_column_sums<T>, gemm<T, false>,  gemm<T, true>};
}

const Kernels<double> kTable64 = make_table<double>();
const Kernels<float> kTable32 = make_table<float>();

}  // namespace

#define PYHESS_CONCAT_(a, b) a##b
#define PYHESS_CONCAT(a, b) PYHESS_CONCAT_(a, b)

extern "C" {
const void* PYHESS_CONCAT(pyhess_kernels64_, PYHESS_KERNEL_ISA)() { return &kTable64; }
const void* PYHESS_CONCAT(pyhess_kernels32_, PYHESS_KERNEL_ISA)() { return &kTable32; }
}

}  // namespace pyhess

// The activations and the element-wise loops over them. For kernels.cpp alone (see vector_math.hpp).
#pragma once

#include "pyhess/kernels.hpp"
#include "vector_math.hpp"

namespace pyhess {
namespace {

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
            a2[i] = slope * (s2 ? s2[i] : T(0)) + T(0.5) * Phi<T>::curve(a[i], beta) * u * u;
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
            x0[i] = slope * x0[i] + Phi<T>::curve(a[i], beta) * u * y1 + curve_bar * (s2 ? s2[i] : T(0)) +
                    T(0.5) * Phi<T>::third_bar(a[i], beta, delta[i]) * u * u;
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
            T c = x > T(40) ? T(40) : x;  // beyond 40 everything but x itself is constant to rounding; avoids inf * 0
            c = c < T(-40) ? T(-40) : c;
            const T cdf = T(0.5) * std::erfc(-c * inv_sqrt2);
            const T pdf = inv_sqrt2pi * exp_negative(T(-0.5) * c * c);
            s[i] = (x > c ? x : c) * cdf;
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
            a2[i] = slope[i] * (s2 ? s2[i] : T(0)) + T(0.5) * curve[i] * s1[i] * s1[i];
        }
    }
    static void jet_backward(index_t n, const LayerState<T>& layer, const T* __restrict s1, const T* __restrict s2,
                             T* __restrict x1, T* __restrict x0) {
        const T* __restrict slope = layer.slope, * __restrict curve = layer.curve;
        const T* __restrict third = layer.third, * __restrict bar = layer.bar;
        for (index_t i = 0; i < n; ++i) {
            const T u = s1[i], y1 = x1[i];
            x1[i] = slope[i] * y1 + curve[i] * bar[i] * u;
            x0[i] = slope[i] * x0[i] + curve[i] * u * y1 +
                    (curve[i] * (s2 ? s2[i] : T(0)) + T(0.5) * third[i] * u * u) * bar[i];
        }
    }
};

}  // namespace
}  // namespace pyhess

// The element-wise kernels and the portable matrix kernels, compiled once per instruction-set level.
//
// kernels.cpp is built several times with different compiler flags (base, v3, v4); each build fills a table of function
// pointers and nothing else leaves its translation unit, so no inlined AVX-512 code can leak into a machine without it.
#pragma once

#include "pyhess/types.hpp"

namespace pyhess {

// The state of one hidden layer over n consecutive numbers (rows times leading dimension).
// slope, curve, third and bar are kept for GELU alone; for every other activation they are null, because phi', phi''
// and phi''' follow from the activation a and the cotangent delta = phi' * bar by a few multiplications.
template <class T>
struct LayerState {
    const T* a;      // phi(s)
    const T* delta;  // dL/ds
    const T* slope;  // phi'(s)
    const T* curve;  // phi''(s)
    const T* third;  // phi'''(s)
    const T* bar;    // dL/da
};

// "x -> y" in a comment means: x is read from and y is written to the same array.
template <class T>
struct Kernels {
    // s -> a = phi(s); for GELU also slope, curve and third.
    void (*activate)(Activation act, T beta, index_t n, T* s, T* slope, T* curve, T* third);
    // bar -> delta = phi' bar
    void (*backward)(Activation act, T beta, index_t n, const T* a, const T* slope, T* bar);
    // out = phi' x (out may be x)
    void (*apply_slope)(Activation act, T beta, index_t n, const LayerState<T>& layer, const T* x, T* out);
    // x -> phi' x + phi'' bar s1
    void (*hvp_backward)(Activation act, T beta, index_t n, const LayerState<T>& layer, const T* s1, T* x);
    // a1 = phi' s1 ; a2 = phi' s2 + phi'' s1^2
    void (*jet_forward)(Activation act, T beta, index_t n, const LayerState<T>& layer, const T* s1, const T* s2, T* a1,
                        T* a2);
    // x1 -> phi' x1 + phi'' bar s1 ; x0 -> phi' x0 + 2 phi'' s1 x1 + phi'' bar s2 + phi''' bar s1^2
    void (*jet_backward)(Activation act, T beta, index_t n, const LayerState<T>& layer, const T* s1, const T* s2, T* x1,
                         T* x0);
    // x[r, :] = scale * row, over `rows` rows with leading dimension ld
    void (*fill_rows)(index_t rows, index_t m, index_t ld, T scale, const T* row, T* x);
    // out += scale * (sum of the rows of x)
    void (*add_column_sums)(index_t rows, index_t m, index_t ld, T scale, const T* x, T* out);
    // C = alpha A B + beta C and C = alpha A B' + beta C, column-major as in BLAS.
    void (*gemm_nn)(index_t m, index_t n, index_t k, T alpha, const T* a, index_t lda, const T* b, index_t ldb, T beta,
                    T* c, index_t ldc);
    void (*gemm_nt)(index_t m, index_t n, index_t k, T alpha, const T* a, index_t lda, const T* b, index_t ldb, T beta,
                    T* c, index_t ldc);
};

// The best level this processor runs, or the one asked for ("base", "v3", "v4"); null if it cannot run here.
const char* best_isa();
bool isa_available(const char* name);
template <class T>
const Kernels<T>* find_kernels(const char* name);

}  // namespace pyhess

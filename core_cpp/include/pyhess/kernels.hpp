// The element-wise kernels and the portable matrix kernels, compiled once per instruction-set level.
//
// kernels.cpp is built several times with different compiler flags (base, v3, v4); each build fills a table of function
// pointers and nothing else leaves its translation unit, so no inlined AVX-512 code can leak into a machine without it.
#pragma once

#include "pyhess/loss.hpp"
#include "pyhess/types.hpp"

namespace pyhess {

// The state of one hidden layer over n consecutive numbers (rows times leading dimension).
// slope, curve, third and bar are there for GELU alone; for every other activation they are null, because phi', phi''
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

// Two arrays that are multiplied: a weight matrix and what it acts on, or the two factors of an outer product.
template <class T>
struct LaneTerm {
    const T* left;
    const T* right;
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
    // The next two take a null s2 for zeros.
    // a1 = phi' s1 ; a2 = phi' s2 + phi'' s1^2 / 2
    void (*jet_forward)(Activation act, T beta, index_t n, const LayerState<T>& layer, const T* s1, const T* s2, T* a1,
                        T* a2);
    // x1 -> phi' x1 + phi'' bar s1 ; x0 -> phi' x0 + phi'' s1 x1 + phi'' bar s2 + phi''' bar s1^2 / 2
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

    // Of long vectors of parameters; the order of additions is fixed for each level.
    double (*dot)(index_t n, const double* a, const double* b);
    // y += factor x
    void (*add_multiple)(index_t n, double factor, const double* x, double* y);

    // Widest network that the following kernels should serve (kernels/lane_products.hpp).
    index_t lane_width;
    // Narrow layers, lanes across data points: arrays are (features, lanes), lanes a multiple of 64 bytes.
    // out = scale (bias + sum_t W_t right_t) with W_t(r, k) = left_t[r row_stride + k col_stride]; bias may be null
    void (*lane_affine)(index_t rows, index_t in, index_t lanes, T scale, const T* bias, index_t row_stride,
                        index_t col_stride, index_t count, const LaneTerm<T>* terms, T* out);
    // out (rows, in) += factor sum_t left_t right_t'
    void (*lane_outer)(index_t rows, index_t in, index_t lanes, T factor, index_t count, const LaneTerm<T>* terms,
                       T* out);
    // out[r] += factor * (sum of row r of x)
    void (*lane_sums)(index_t rows, index_t lanes, T factor, const T* x, T* out);
    // As the functions of loss.hpp.
    double (*lane_loss_forward)(Loss loss, const LossBlock<T>& block, const T* f, T* delta);
    void (*lane_loss_curvature)(Loss loss, const LossBlock<T>& block, T* u);
    double (*lane_loss_jet)(Loss loss, const LossBlock<T>& block, const T* delta, const T* u, const T* s2, T* x1,
                            T* x0);
};

// The best level this processor runs, or the one asked for ("base", "v3", "v4"); null if it cannot run here.
const char* best_isa();
bool isa_available(const char* name);
template <class T>
const Kernels<T>* find_kernels(const char* name);

}  // namespace pyhess

// Built once per instruction-set level; PYHESS_KERNEL_ISA names the level. Only <cstdint> and <cmath> may be included
// and everything but the two table functions has internal linkage (kernels.hpp gives the reason).
#include "pyhess/kernels.hpp"

#include "kernels/activations.hpp"
#include "kernels/lane_losses.hpp"
#include "kernels/lane_products.hpp"

namespace pyhess {
namespace {

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

// ---- vectors of parameters ------------------------------------------------------------------------------------------

// Running sums side by side, so that the compiler may use vectors and the order of additions stays fixed.
double dot(index_t n, const double* __restrict a, const double* __restrict b) {
    constexpr int kSums = 16;
    double sums[kSums] = {};
    index_t i = 0;
    for (; i + kSums <= n; i += kSums)
        for (int j = 0; j < kSums; ++j) sums[j] += a[i + j] * b[i + j];
    for (int j = 0; i < n; ++i, ++j) sums[j] += a[i] * b[i];
    for (int half = kSums / 2; half > 0; half /= 2)
        for (int j = 0; j < half; ++j) sums[j] += sums[j + half];
    return sums[0];
}

void add_multiple(index_t n, double factor, const double* __restrict x, double* __restrict y) {
    for (index_t i = 0; i < n; ++i) y[i] += factor * x[i];
}

template <class T>
constexpr Kernels<T> make_table() {
    return Kernels<T>{activate<T>,
                      backward<T>,
                      apply_slope<T>,
                      hvp_backward<T>,
                      jet_forward<T>,
                      jet_backward<T>,
                      fill_rows<T>,
                      add_column_sums<T>,
                      gemm<T, false>,
                      gemm<T, true>,
                      dot,
                      add_multiple,
                      kLaneWidth,
                      lane_affine<T>,
                      lane_outer<T>,
                      lane_sums<T>,
                      lane_loss_forward<T>,
                      lane_loss_curvature<T>,
                      lane_loss_jet<T>};
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

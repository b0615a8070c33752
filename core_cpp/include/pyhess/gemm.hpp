// The one seam to BLAS. The binding hands in the address of dgemm/sgemm and the width of its integers; without an
// address the portable kernels serve. Only the layouts NN and NT exist: TN is up to three times slower at small sizes.
#pragma once

#include "pyhess/kernels.hpp"
#include "pyhess/types.hpp"

namespace pyhess {

template <class T>
class Gemm {
public:
    Gemm() = default;
    Gemm(const Kernels<T>* kernels, std::uintptr_t blas, int int_bytes)
        : kernels_(kernels), blas_(blas), int_bytes_(int_bytes) {}

    // C = alpha A B + beta C ; A (m, k), B (k, n), C (m, n), column-major
    void nn(index_t m, index_t n, index_t k, T alpha, const T* a, index_t lda, const T* b, index_t ldb, T beta, T* c,
            index_t ldc) const {
        if (!blas_) return kernels_->gemm_nn(m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
        call('N', m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
    }

    // C = alpha A B' + beta C ; A (m, k), B (n, k), C (m, n), column-major
    void nt(index_t m, index_t n, index_t k, T alpha, const T* a, index_t lda, const T* b, index_t ldb, T beta, T* c,
            index_t ldc) const {
        if (!blas_) return kernels_->gemm_nt(m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
        call('T', m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
    }

    // The largest dimension or leading dimension the BLAS can be told of.
    index_t max_dimension() const { return blas_ && int_bytes_ == 4 ? index_t{INT32_MAX} : INT64_MAX; }

private:
    template <class Int>
    using Fortran = void (*)(char*, char*, Int*, Int*, Int*, T*, T*, Int*, T*, Int*, T*, T*, Int*);

    template <class Int>
    void call_as(char trans_b, index_t m, index_t n, index_t k, T alpha, const T* a, index_t lda, const T* b,
                 index_t ldb, T beta, T* c, index_t ldc) const {
        char none = 'N';
        Int mi = static_cast<Int>(m), ni = static_cast<Int>(n), ki = static_cast<Int>(k);
        Int la = static_cast<Int>(lda), lb = static_cast<Int>(ldb), lc = static_cast<Int>(ldc);
        reinterpret_cast<Fortran<Int>>(blas_)(&none, &trans_b, &mi, &ni, &ki, &alpha, const_cast<T*>(a), &la,
                                              const_cast<T*>(b), &lb, &beta, c, &lc);
    }

    void call(char trans_b, index_t m, index_t n, index_t k, T alpha, const T* a, index_t lda, const T* b, index_t ldb,
              T beta, T* c, index_t ldc) const {
        if (int_bytes_ == 4)
            call_as<std::int32_t>(trans_b, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
        else
            call_as<std::int64_t>(trans_b, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
    }

    const Kernels<T>* kernels_ = nullptr;
    std::uintptr_t blas_ = 0;
    int int_bytes_ = 4;
};

}  // namespace pyhess

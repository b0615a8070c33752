// Linearization, Hessian and Gauss-Newton products and the jet against the naive reference: both precisions, both
// layouts, every level of this machine, with the portable matrix kernels and through the seam to BLAS.
#include <algorithm>
#include <cstdio>

#include "check.hpp"
#include "pyhess/ggn.hpp"
#include "pyhess/hvp.hpp"
#include "pyhess/jet.hpp"
#include "pyhess/linearize.hpp"
#include "support.hpp"

using namespace support;
using pyhess::Gemm;
using pyhess::Kernels;
using pyhess::Problem;
using pyhess::Status;

namespace {

constexpr index_t kRows = 0, kLanes = index_t{1} << 20;  // as lane_width: never and always lanes across data

// Relative to the largest entry of the result; three to six times what GCC 12 on x86-64 gives.
template <class T>
constexpr double kTolerance = sizeof(T) == 8 ? 1e-13 : 2e-5;

double largest(const std::vector<double>& x) {
    double out = 0.0;
    for (double value : x) out = std::max(out, std::fabs(value));
    return out;
}

template <class T>
double worst = 0.0;  // error over the largest entry, over all comparisons

template <class T>
void compare(const char* what, const Buffer<T>& got, double start, const std::vector<double>& want) {
    const check::Note note(what);
    const double scale = largest(want) + std::fabs(start);
    for (index_t i = 0; i < got.size(); ++i) {
        const double expected = start + want[static_cast<std::size_t>(i)], found = static_cast<double>(got[i]);
        CHECK_NEAR(found, expected, kTolerance<T> * scale + 1e-300);
        if (scale > 0.0) worst<T> = std::max(worst<T>, std::fabs(found - expected) / scale);
    }
}

// All products of one case by the tuned code; the results are added to `start`.
template <class T>
void check_products(const Case& c, const Products& want, const Kernels<T>* kernels, const Gemm<T>& gemm,
                    index_t lane_width, double start = 0.0, bool streaming = false, bool fresh = false) {
    const auto problem = c.problem<T>(kernels, gemm, lane_width, streaming);
    CHECK(problem->lanes() == (lane_width == kLanes));
    const index_t size = c.mlp.num_params, chunks = problem->num_chunks();
    const Buffer<T> theta(c.theta), v(c.v);
    Buffer<T> state(problem->state_size()), vt(problem->transposed_size()), work(problem->work_size());
    pyhess::transpose_weights<T>(*problem, theta.data(), state.data());
    pyhess::transpose_weights<T>(*problem, v.data(), vt.data());
    const T from = static_cast<T>(start);
    Buffer<T> gradient(size, from), hv(size, from), gv(size, from), jet_hv(size, from), q_gradient(size, from);
    double value = start, unused = 0.0, q = start;
    bool ok = true;
    for (index_t k = chunks - 1; k >= 0; --k) {  // chunks may be done in any order
        const auto run = [&](Status status) { ok = ok && status == Status::ok; };
        run(pyhess::linearize<T>(*problem, theta.data(), state.data(), k, k + 1, &unused, nullptr, work.data(),
                                 nullptr));
        run(pyhess::linearize<T>(*problem, theta.data(), state.data(), k, k + 1, &value, gradient.data(), work.data(),
                                 nullptr));
        run(pyhess::hvp<T>(*problem, theta.data(), state.data(), fresh, v.data(), vt.data(), hv.data(), k, k + 1,
                           work.data(), nullptr));
        run(pyhess::ggn<T>(*problem, theta.data(), state.data(), fresh, v.data(), vt.data(), gv.data(), k, k + 1,
                           work.data(), nullptr));
        run(pyhess::jet<T>(*problem, theta.data(), state.data(), fresh, v.data(), vt.data(), &q, jet_hv.data(),
                           q_gradient.data(), k, k + 1, work.data(), nullptr));
    }
    CHECK(ok);
    const double q_scale = largest(want.hvp) * largest(c.v) * std::sqrt(static_cast<double>(size)) + std::fabs(want.q);
    CHECK_NEAR(value - start, want.value, kTolerance<T> * (std::fabs(want.value) + std::fabs(start)));
    CHECK_NEAR(unused, want.value, kTolerance<T> * std::fabs(want.value));
    CHECK_NEAR(q - start, want.q, kTolerance<T> * (q_scale + std::fabs(start)));
    compare("gradient", gradient, start, want.gradient);
    compare("hvp", hv, start, want.hvp);
    compare("ggn", gv, start, want.ggn);
    compare("jet's hvp", jet_hv, start, want.hvp);
    compare("gradient of v'Hv", q_gradient, start, want.q_gradient);
}

template <class T>
void check_everywhere(const Case& c, const std::string& text) {
    const Products want = reference(c, c.theta.data(), c.v.data());
    for (const char* level : levels())
        for (index_t lane_width : {kRows, kLanes}) {
            const check::Note note(text + " " + type_name<T>() + " " + level + (lane_width ? " lanes" : " rows"));
            const Kernels<T>* kernels = pyhess::find_kernels<T>(level);
            check_products<T>(c, want, kernels, Gemm<T>(kernels, 0, 4), lane_width);
            const check::Note streamed("streaming");
            check_products<T>(c, want, kernels, Gemm<T>(kernels, 0, 4), lane_width, 0.0, true);
            const check::Note anew("fresh");
            check_products<T>(c, want, kernels, Gemm<T>(kernels, 0, 4), lane_width, 0.0, false, true);
        }
}

std::string describe(const std::vector<index_t>& widths, index_t n, bool bias) {
    std::string out;
    for (index_t width : widths) out += (out.empty() ? "" : "-") + std::to_string(width);
    return out + (bias ? ", biases, N = " : ", no biases, N = ") + std::to_string(n);
}

// Every activation and loss in small networks of no to three hidden layers.
template <class T>
void check_small() {
    unsigned seed = 7001;
    for (const std::vector<index_t>& hidden :
         {std::vector<index_t>{}, std::vector<index_t>{7}, std::vector<index_t>{9, 1}, std::vector<index_t>{4, 11, 5}})
        for (Activation act : kActivations)
            for (Loss loss : kLosses)
                for (bool bias : {true, false})
                    for (index_t n : {index_t{1}, index_t{37}}) {
                        if (hidden.empty() && act != Activation::identity) continue;
                        std::vector<index_t> widths{3};
                        widths.insert(widths.end(), hidden.begin(), hidden.end());
                        widths.push_back(loss == Loss::logistic ? 1 : 3);
                        const Case c(widths, std::vector<Activation>(hidden.size(), act), loss, bias, n, ++seed);
                        check_everywhere<T>(c, describe(widths, n, bias) + " " + name_of(act) + " " + name_of(loss));
                    }
    std::printf("  %s: largest error %.2e of the largest entry\n", type_name<T>(), worst<T>);
}

// Wide layers with padded rows, several blocks and chunks, different activations in one network.
template <class T>
void check_large() {
    struct Shape {
        std::vector<index_t> widths;
        std::vector<Activation> acts;
        Loss loss;
        index_t n;
        bool many_chunks;
    };
    const Shape shapes[] = {
        {{70, 66, 3}, {Activation::tanh}, Loss::cross_entropy, 301, false},
        {{5, 128, 1}, {Activation::gelu}, Loss::logistic, 143, false},
        {{6, 10, 8, 7, 4},
         {Activation::softplus, Activation::gelu, Activation::sigmoid},
         Loss::cross_entropy,
         1311,
         false},
        {{9, 65, 40, 2}, {Activation::sigmoid, Activation::tanh}, Loss::squared_error, 1297, true},
    };
    unsigned seed = 7901;
    for (const Shape& shape : shapes) {
        const Case c(shape.widths, shape.acts, shape.loss, true, shape.n, ++seed);
        const Kernels<T>* kernels = pyhess::find_kernels<T>("base");
        for (index_t lane_width : {kRows, kLanes}) {
            const auto problem = c.problem<T>(kernels, Gemm<T>(kernels, 0, 4), lane_width);
            if (shape.many_chunks) CHECK(problem->num_chunks() > 1);
            if (shape.n > 1024) CHECK(problem->num_blocks() > 1);
        }
        check_everywhere<T>(c, describe(shape.widths, shape.n, true));
    }
    std::printf("  %s: largest error %.2e of the largest entry\n", type_name<T>(), worst<T>);
}

// A BLAS routine as Fortran sees it, C = alpha A op(B) + beta C.
template <class T, class Int>
void fortran_gemm(char* trans_a, char* trans_b, Int* m, Int* n, Int* k, T* alpha, T* a, Int* lda, T* b, Int* ldb,
                  T* beta, T* c, Int* ldc) {
    CHECK(*trans_a == 'N' && (*trans_b == 'N' || *trans_b == 'T'));
    CHECK(*lda >= *m && *ldc >= *m && *ldb >= (*trans_b == 'N' ? *k : *n));
    for (Int j = 0; j < *n; ++j)
        for (Int i = 0; i < *m; ++i) {
            double sum = 0.0;
            for (Int p = 0; p < *k; ++p)
                sum += static_cast<double>(a[i + p * *lda]) *
                       static_cast<double>(*trans_b == 'N' ? b[p + j * *ldb] : b[j + p * *ldb]);
            T& out = c[i + j * *ldc];
            out = *alpha * static_cast<T>(sum) + (*beta == T(0) ? T(0) : *beta * out);
        }
}

template <class T, class Int>
void check_blas() {
    const check::Note note(std::string(type_name<T>()) + ", BLAS integers of " + std::to_string(8 * sizeof(Int)));
    const Kernels<T>* kernels = pyhess::find_kernels<T>(pyhess::best_isa());
    const Gemm<T> gemm(kernels, reinterpret_cast<std::uintptr_t>(&fortran_gemm<T, Int>), sizeof(Int));
    const Case c({11, 13, 70, 3}, {Activation::tanh, Activation::softplus}, Loss::cross_entropy, true, 41, 8123);
    check_products<T>(c, reference(c, c.theta.data(), c.v.data()), kernels, gemm, kRows);
}

template <class T>
void check_added() {
    const Case c({5, 8, 3}, {Activation::tanh}, Loss::squared_error, true, 29, 8231);
    const Products want = reference(c, c.theta.data(), c.v.data());
    const Kernels<T>* kernels = pyhess::find_kernels<T>(pyhess::best_isa());
    for (index_t lane_width : {kRows, kLanes})
        check_products<T>(c, want, kernels, Gemm<T>(kernels, 0, 4), lane_width, 0.75);
}

}  // namespace

TEST(products_small_float64) { check_small<double>(); }
TEST(products_small_float32) { check_small<float>(); }
TEST(products_large_float64) { check_large<double>(); }
TEST(products_large_float32) { check_large<float>(); }
TEST(products_through_blas) {
    check_blas<double, std::int32_t>();
    check_blas<double, std::int64_t>();
    check_blas<float, std::int32_t>();
    check_blas<float, std::int64_t>();
}
TEST(products_add_to_their_arrays) {
    check_added<double>();
    check_added<float>();
}

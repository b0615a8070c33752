// The C ABI as Numba calls it: addresses as integers, statuses, the cancel flag and the counter.
#include "check.hpp"
#include "pyhess/any_problem.hpp"
#include "pyhess/capi.h"
#include "pyhess/descent.hpp"
#include "support.hpp"

using namespace support;
using pyhess::AnyProblem;
using pyhess::Gemm;

namespace {

constexpr std::int32_t kOk = 0, kBadArgument = 1, kCancelled = 2;

std::int64_t address(const void* at) { return static_cast<std::int64_t>(reinterpret_cast<std::uintptr_t>(at)); }

const Case& example() {
    static const Case c({4, 6, 3}, {Activation::tanh}, Loss::cross_entropy, true, 23, 9001);
    return c;
}

// Every buffer of one problem, at its documented size.
template <class T>
struct Bound {
    AnyProblem any;
    Buffer<T> theta, v, state, vt, work, gradient, hv, gv, q_gradient;
    double value = 0.0, q = 0.0;
    std::int32_t cancel = 0;

    explicit Bound(index_t lane_width) : Bound(build(lane_width)) {}

    std::int64_t problem() const { return address(&any); }
    std::int32_t linearize() {
        return ph_linearize(problem(), theta.address(), state.address(), 0, 1, address(&value), gradient.address(),
                            work.address(), address(&cancel));
    }
    std::int32_t hvp() {
        return ph_hvp(problem(), theta.address(), state.address(), v.address(), vt.address(), hv.address(), 0, 1,
                      work.address(), address(&cancel));
    }
    std::int32_t ggn() {
        return ph_ggn(problem(), theta.address(), state.address(), v.address(), vt.address(), gv.address(), 0, 1,
                      work.address(), address(&cancel));
    }
    std::int32_t jet() {
        return ph_jet(problem(), theta.address(), state.address(), v.address(), vt.address(), address(&q), hv.address(),
                      q_gradient.address(), 0, 1, work.address(), address(&cancel));
    }

private:
    using Owned = std::unique_ptr<pyhess::Problem<T>>;

    explicit Bound(Owned p)
        : theta(example().theta),
          v(example().v),
          state(p->state_size()),
          vt(p->transposed_size()),
          work(p->work_size()),
          gradient(size(), T(0)),
          hv(size(), T(0)),
          gv(size(), T(0)),
          q_gradient(size(), T(0)) {
        if constexpr (sizeof(T) == 8)
            any.f64 = std::move(p);
        else
            any.f32 = std::move(p);
    }
    static index_t size() { return example().mlp.num_params; }
    static Owned build(index_t lane_width) {
        const auto* kernels = pyhess::find_kernels<T>(pyhess::best_isa());
        return example().problem<T>(kernels, Gemm<T>(kernels, 0, 4), lane_width);
    }
};

template <class T>
bool untouched(const Buffer<T>& x) {
    for (index_t i = 0; i < x.size(); ++i)
        if (x[i] != T(0)) return false;
    return true;
}

template <class T>
void check_products(index_t lane_width) {
    const check::Note note(std::string(type_name<T>()) + (lane_width ? " lanes" : " rows"));
    Bound<T> bound(lane_width);
    CHECK(ph_prepare(bound.problem(), bound.theta.address(), bound.state.address()) == kOk);
    CHECK(ph_transpose(bound.problem(), bound.v.address(), bound.vt.address()) == kOk);

    bound.cancel = 1;
    CHECK(bound.linearize() == kCancelled);
    CHECK(bound.hvp() == kCancelled);
    CHECK(bound.ggn() == kCancelled);
    CHECK(bound.jet() == kCancelled);
    CHECK(untouched(bound.gradient) && untouched(bound.hv) && untouched(bound.gv) && untouched(bound.q_gradient));
    CHECK(bound.value == 0.0 && bound.q == 0.0);

    bound.cancel = 0;
    CHECK(bound.linearize() == kOk);
    CHECK(bound.hvp() == kOk);
    CHECK(bound.ggn() == kOk);
    CHECK(bound.jet() == kOk);
    const Products want = reference(example(), example().theta.data(), example().v.data());
    const double tolerance = sizeof(T) == 8 ? 1e-12 : 1e-5;
    CHECK_NEAR(bound.value, want.value, tolerance * want.value);
    CHECK_NEAR(bound.q, want.q, 10.0 * tolerance);
    for (index_t i = 0; i < bound.hv.size(); ++i) {
        const auto at = static_cast<std::size_t>(i);
        CHECK_NEAR(static_cast<double>(bound.gradient[i]), want.gradient[at], tolerance);
        CHECK_NEAR(static_cast<double>(bound.hv[i]), 2.0 * want.hvp[at], 10.0 * tolerance);  // from hvp and jet
        CHECK_NEAR(static_cast<double>(bound.gv[i]), want.ggn[at], 10.0 * tolerance);
        CHECK_NEAR(static_cast<double>(bound.q_gradient[i]), want.q_gradient[at], 100.0 * tolerance);
    }
}

}  // namespace

TEST(capi_products_and_cancel) {
    for (index_t lane_width : {0, 64}) {
        check_products<double>(lane_width);
        check_products<float>(lane_width);
    }
}

TEST(capi_refuses_what_is_no_problem) {
    const AnyProblem empty;
    for (std::int64_t problem : {std::int64_t{0}, address(&empty)}) {
        CHECK(ph_prepare(problem, 0, 0) == kBadArgument);
        CHECK(ph_transpose(problem, 0, 0) == kBadArgument);
        CHECK(ph_linearize(problem, 0, 0, 0, 1, 0, 0, 0, 0) == kBadArgument);
        CHECK(ph_hvp(problem, 0, 0, 0, 0, 0, 0, 1, 0, 0) == kBadArgument);
        CHECK(ph_ggn(problem, 0, 0, 0, 0, 0, 0, 1, 0, 0) == kBadArgument);
        CHECK(ph_jet(problem, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0) == kBadArgument);
        CHECK(ph_descend(problem, 0, 0, 0, 0, 10, 0, 5, 0, 0, 0, 0, 0, 0, 0, 0) == kBadArgument);
    }
}

TEST(capi_descend) {
    const Bound<float> single(-1);
    CHECK(ph_descend(single.problem(), 0, 0, 0, 0, 10, 0, 5, 0, 0, 0, 0, 0, 0, 0, 0) == kBadArgument);

    Bound<double> bound(-1);
    for (std::int64_t reach : {-1, 2})
        CHECK(ph_descend(bound.problem(), reach, 0, 0, 0, 10, 0, 5, 0, 0, 0, 0, 0, 0, 0, 0) == kBadArgument);
    const index_t size = example().mlp.num_params, memory = 4;
    Buffer<double> half(size, 0.5), z(2 * size, 0.25), scratch(pyhess::descent_scratch_size(size, memory));
    double value = 0.0;
    const double tol = 1e-8;
    std::int64_t evals = 0;
    const auto descend = [&](index_t pairs) {
        return ph_descend(bound.problem(), 1, bound.theta.address(), half.address(), 0, 25, address(&tol), pairs,
                          z.address(), address(&value), address(&evals), scratch.address(), bound.state.address(),
                          bound.vt.address(), bound.work.address(), address(&bound.cancel));
    };
    CHECK(descend(0) == kBadArgument);
    CHECK(descend(-3) == kBadArgument);
    CHECK(evals == 0);
    bound.cancel = 1;
    CHECK(descend(memory) == kCancelled);
    bound.cancel = 0;
    evals = 0;
    CHECK(descend(memory) == kOk);
    CHECK(evals > 1 && evals <= 25);
    std::vector<double> theta;
    for (index_t i = 0; i < size; ++i) theta.push_back(bound.theta[i] + 0.5 * z[i]);
    const double* v = z.data() + size;
    double vv = 0.0;
    for (index_t i = 0; i < size; ++i) vv += v[i] * v[i];
    CHECK_NEAR(value, reference(example(), theta.data(), v).q / vv, 1e-11);
}

TEST(capi_fetch_add) {
    std::int64_t counter = (std::int64_t{1} << 40) + 5;
    CHECK(ph_fetch_add(address(&counter), 3) == (std::int64_t{1} << 40) + 5);
    CHECK(ph_fetch_add(address(&counter), -9) == (std::int64_t{1} << 40) + 8);
    CHECK(counter == (std::int64_t{1} << 40) - 1);
}

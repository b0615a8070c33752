#include "pyhess/capi.h"

#include "pyhess/any_problem.hpp"
#include "pyhess/descent.hpp"
#include "pyhess/ggn.hpp"
#include "pyhess/hvp.hpp"
#include "pyhess/jet.hpp"
#include "pyhess/linearize.hpp"

namespace {

using namespace pyhess;

template <class T>
T* at(std::int64_t address) {
    return reinterpret_cast<T*>(static_cast<std::uintptr_t>(address));
}

const volatile std::int32_t* flag(std::int64_t address) { return at<const volatile std::int32_t>(address); }

// Calls body(problem, T{}) with the problem's own element type.
template <class Body>
std::int32_t dispatch(std::int64_t address, Body body) {
    const auto* any = at<const AnyProblem>(address);
    if (!any || (!any->f64 && !any->f32)) return static_cast<std::int32_t>(Status::bad_argument);
    return static_cast<std::int32_t>(any->f64 ? body(*any->f64, double{}) : body(*any->f32, float{}));
}

}  // namespace

extern "C" {

int32_t ph_prepare(int64_t problem, int64_t theta, int64_t state) {
    return ph_transpose(problem, theta, state);  // the state begins with the transposed weights
}

int32_t ph_transpose(int64_t problem, int64_t v, int64_t vt) {
    return dispatch(problem, [&](const auto& p, auto zero) {
        using T = decltype(zero);
        transpose_weights<T>(p, at<T>(v), at<T>(vt));
        return Status::ok;
    });
}

int32_t ph_linearize(int64_t problem, int64_t theta, int64_t state, int64_t chunk_begin, int64_t chunk_end,
                     int64_t value, int64_t grad, int64_t work, int64_t cancel) {
    return dispatch(problem, [&](const auto& p, auto zero) {
        using T = decltype(zero);
        return linearize<T>(p, at<T>(theta), at<T>(state), chunk_begin, chunk_end, at<double>(value), at<T>(grad),
                            at<T>(work), flag(cancel));
    });
}

int32_t ph_hvp(int64_t problem, int64_t theta, int64_t state, int64_t v, int64_t vt, int64_t out, int64_t chunk_begin,
               int64_t chunk_end, int64_t work, int64_t cancel) {
    return dispatch(problem, [&](const auto& p, auto zero) {
        using T = decltype(zero);
        return hvp<T>(p, at<T>(theta), at<T>(state), at<T>(v), at<T>(vt), at<T>(out), chunk_begin, chunk_end,
                      at<T>(work), flag(cancel));
    });
}

int32_t ph_ggn(int64_t problem, int64_t theta, int64_t state, int64_t v, int64_t vt, int64_t out, int64_t chunk_begin,
               int64_t chunk_end, int64_t work, int64_t cancel) {
    return dispatch(problem, [&](const auto& p, auto zero) {
        using T = decltype(zero);
        return ggn<T>(p, at<T>(theta), at<T>(state), at<T>(v), at<T>(vt), at<T>(out), chunk_begin, chunk_end,
                      at<T>(work), flag(cancel));
    });
}

int32_t ph_jet(int64_t problem, int64_t theta, int64_t state, int64_t v, int64_t vt, int64_t q, int64_t hv,
               int64_t grad, int64_t chunk_begin, int64_t chunk_end, int64_t work, int64_t cancel) {
    return dispatch(problem, [&](const auto& p, auto zero) {
        using T = decltype(zero);
        return jet<T>(p, at<T>(theta), at<T>(state), at<T>(v), at<T>(vt), at<double>(q), at<T>(hv), at<T>(grad),
                      chunk_begin, chunk_end, at<T>(work), flag(cancel));
    });
}

int32_t ph_descend(int64_t problem, int64_t reach, int64_t mid, int64_t half, int64_t scale, int64_t max_evals,
                   int64_t tol, int64_t memory, int64_t z, int64_t value, int64_t evals, int64_t scratch, int64_t state,
                   int64_t vt, int64_t work, int64_t cancel) {
    const auto* any = at<const AnyProblem>(problem);
    if (!any || !any->f64 || memory < 1 || reach < 0 || reach > 1)
        return static_cast<std::int32_t>(Status::bad_argument);
    const DescentRegion region{static_cast<Reach>(reach), at<const double>(mid), at<const double>(half),
                               at<const double>(scale)};
    const DescentLimits limits{max_evals, *at<const double>(tol), memory};
    return static_cast<std::int32_t>(descend(*any->f64, region, limits, at<double>(z), at<double>(value),
                                             at<std::int64_t>(evals), at<double>(scratch), at<double>(state),
                                             at<double>(vt), at<double>(work), flag(cancel)));
}

int64_t ph_fetch_add(int64_t counter, int64_t increment) {
    return __atomic_fetch_add(at<int64_t>(counter), increment, __ATOMIC_RELAXED);
}

}  // extern "C"

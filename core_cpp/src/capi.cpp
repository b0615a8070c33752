#include "pyhess/capi.h"

#include "pyhess/any_problem.hpp"
#include "pyhess/descent.hpp"
#include "pyhess/job.hpp"
#include "pyhess/unit_cells.hpp"
#include "pyhess/unit_relaxed.hpp"

namespace {

using namespace pyhess;

template <class T>
T* at(std::int64_t address) {
    return reinterpret_cast<T*>(static_cast<std::uintptr_t>(address));
}

std::int32_t run(Status (*share)(Job&, index_t), std::int64_t job, std::int64_t thread) {
    return static_cast<std::int32_t>(job && thread >= 0 ? share(*at<Job>(job), thread) : Status::bad_argument);
}

}  // namespace

extern "C" {

int32_t ph_samples(int64_t job, int64_t thread) { return run(run_samples, job, thread); }
int32_t ph_transposes(int64_t job, int64_t thread) { return run(run_transposes, job, thread); }
int32_t ph_chunks(int64_t job, int64_t thread) { return run(run_chunks, job, thread); }
int32_t ph_sums(int64_t job, int64_t thread) { return run(run_sums, job, thread); }

int32_t ph_descend(int64_t problem, int64_t reach, int64_t mid, int64_t half, int64_t scale, int64_t limits, int64_t z,
                   int64_t value, int64_t evals, int64_t scratch, int64_t turned, int64_t work, int64_t cancel) {
    const auto* any = at<const AnyProblem>(problem);
    const auto* bounds = at<const DescentLimits>(limits);
    if (!any || (!any->f64 && !any->f32) || !bounds || bounds->memory < 1 || reach < 0 || reach > 1)
        return static_cast<std::int32_t>(Status::bad_argument);
    const DescentRegion region{static_cast<Reach>(reach), at<const double>(mid), at<const double>(half),
                               at<const double>(scale)};
    const auto run = [&](const auto& known, auto zero) {
        using T = decltype(zero);
        return descend<T>(known, region, *bounds, at<double>(z), at<double>(value), at<std::int64_t>(evals),
                          at<double>(scratch), at<T>(turned), at<T>(work), at<const volatile std::int32_t>(cancel));
    };
    return static_cast<std::int32_t>(any->f64 ? run(*any->f64, double{}) : run(*any->f32, float{}));
}

int32_t ph_unit_cells(int64_t job, int64_t thread) {
    const bool known = job && thread >= 0;
    return static_cast<std::int32_t>(known ? bound_unit_cells(*at<UnitJob>(job), thread) : Status::bad_argument);
}

int32_t ph_relaxed_cells(int64_t job, int64_t thread) {
    const bool known = job && thread >= 0;
    return static_cast<std::int32_t>(known ? bound_relaxed_cells(*at<RelaxedJob>(job), thread) : Status::bad_argument);
}

int64_t ph_fetch_add(int64_t counter, int64_t increment) {
    return __atomic_fetch_add(at<int64_t>(counter), increment, __ATOMIC_RELAXED);
}

}  // extern "C"

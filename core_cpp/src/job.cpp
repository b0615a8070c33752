#include "pyhess/job.hpp"

#include <algorithm>

#include "pyhess/any_problem.hpp"
#include "pyhess/ggn.hpp"
#include "pyhess/hvp.hpp"
#include "pyhess/jet.hpp"
#include "pyhess/linearize.hpp"

namespace pyhess {
namespace {

// Elements that one task of run_sums adds up.
constexpr index_t kStrip = 4096;

template <class T>
T* row_of(std::int64_t address, std::int64_t stride, index_t row) {
    return address ? reinterpret_cast<T*>(static_cast<std::uintptr_t>(address)) + stride * row : nullptr;
}

// Calls body(problem, T{}) with the problem's own element type.
template <class Body>
Status dispatch(const Job& job, Body body) {
    const auto* any = row_of<const AnyProblem>(job.problem, 0, 0);
    if (!any || (!any->f64 && !any->f32) || job.operation < 0 ||
        job.operation > static_cast<std::int64_t>(Operation::jet))
        return Status::bad_argument;
    return any->f64 ? body(*any->f64, double{}) : body(*any->f32, float{});
}

// Calls body(task) for tasks below `count` until none is left or one ends badly.
template <class Body>
Status draw(Job& job, index_t count, Body body) {
    const auto* cancel = row_of<const volatile std::int32_t>(job.cancel, 0, 0);
    for (;;) {
        if (cancel && *cancel) return Status::cancelled;
        const index_t task = __atomic_fetch_add(&job.next, std::int64_t{1}, __ATOMIC_RELAXED);
        if (task >= count) return Status::ok;
        const Status status = body(task);
        if (status != Status::ok) return status;
    }
}

// The arrays of one sample.
template <class T>
struct Sample {
    Sample(const Job& job, index_t index, index_t thread)
        : operation(static_cast<Operation>(job.operation)),
          fresh(job.fresh != 0),
          theta(row_of<T>(job.theta, job.theta_stride, index)),
          state(row_of<T>(job.state, job.state_stride, fresh ? thread : index)),
          v(row_of<T>(job.v, job.v_stride, index)),
          vt(row_of<T>(job.vt, job.vt_stride, thread)),
          out(row_of<T>(job.out, job.out_stride, index)),
          grad(row_of<T>(job.grad, job.grad_stride, index)),
          value(row_of<double>(job.value, job.value_stride, index)),
          work(row_of<T>(job.work, job.work_stride, thread)),
          cancel(row_of<const volatile std::int32_t>(job.cancel, 0, 0)) {}

    bool turns_theta() const { return fresh || operation == Operation::linearize; }
    bool turns_v() const { return operation != Operation::linearize; }

    Status chunk(const Problem<T>& problem, index_t k, T* to_out, T* to_grad) const {
        const index_t size = problem.mlp().num_params;
        if (to_out) std::fill(to_out, to_out + size, T(0));
        if (to_grad) std::fill(to_grad, to_grad + size, T(0));
        if (value) value[k] = 0.0;
        switch (operation) {
            case Operation::linearize:
                return linearize<T>(problem, theta, state, k, k + 1, value + k, to_grad, work, cancel);
            case Operation::hvp: return hvp<T>(problem, theta, state, fresh, v, vt, to_out, k, k + 1, work, cancel);
            case Operation::ggn: return ggn<T>(problem, theta, state, fresh, v, vt, to_out, k, k + 1, work, cancel);
            case Operation::jet:
                return jet<T>(problem, theta, state, fresh, v, vt, value + k, to_out, to_grad, k, k + 1, work, cancel);
        }
        return Status::bad_argument;
    }

    Operation operation;
    bool fresh;
    const T* theta;
    T* state;
    const T* v;
    T *vt, *out, *grad;
    double* value;
    T* work;
    const volatile std::int32_t* cancel;
};

template <class T>
void add(index_t size, const T* from, T* to) {
    for (index_t i = 0; i < size; ++i) to[i] += from[i];
}

}  // namespace

Status run_samples(Job& job, index_t thread) {
    return dispatch(job, [&](const auto& problem, auto zero) {
        using T = decltype(zero);
        const index_t size = problem.mlp().num_params;
        T* part = row_of<T>(job.parts, job.parts_stride, 2 * thread);
        T* grad_part = row_of<T>(job.parts, job.parts_stride, 2 * thread + 1);
        return draw(job, job.count, [&](index_t index) {
            const Sample<T> sample(job, index, thread);
            if (sample.turns_theta()) transpose_weights<T>(problem, sample.theta, sample.state);
            if (sample.turns_v()) transpose_weights<T>(problem, sample.v, sample.vt);
            Status status = sample.chunk(problem, 0, sample.out, sample.grad);
            for (index_t k = 1; status == Status::ok && k < problem.num_chunks(); ++k) {
                status = sample.chunk(problem, k, sample.out ? part : nullptr, sample.grad ? grad_part : nullptr);
                if (sample.out) add<T>(size, part, sample.out);
                if (sample.grad) add<T>(size, grad_part, sample.grad);
            }
            return status;
        });
    });
}

Status run_transposes(Job& job, index_t) {
    return dispatch(job, [&](const auto& problem, auto zero) {
        using T = decltype(zero);
        const Sample<T> sample(job, 0, 0);
        const index_t strips = transposed_strips(problem);
        return draw(job, 2 * strips, [&](index_t task) {
            if (task < strips && sample.turns_theta())
                transpose_strip<T>(problem, sample.theta, sample.state, task);
            else if (task >= strips && sample.turns_v())
                transpose_strip<T>(problem, sample.v, sample.vt, task - strips);
            return Status::ok;
        });
    });
}

Status run_chunks(Job& job, index_t thread) {
    return dispatch(job, [&](const auto& problem, auto zero) {
        using T = decltype(zero);
        Sample<T> sample(job, 0, 0);
        sample.work = row_of<T>(job.work, job.work_stride, thread);
        const index_t chunks = problem.num_chunks();
        return draw(job, chunks, [&](index_t k) {
            T* part = sample.out ? row_of<T>(job.parts, job.parts_stride, k) : nullptr;
            T* grad_part = sample.grad ? row_of<T>(job.parts, job.parts_stride, sample.out ? chunks + k : k) : nullptr;
            return sample.chunk(problem, k, part, grad_part);
        });
    });
}

Status run_sums(Job& job, index_t thread) {
    return dispatch(job, [&](const auto& problem, auto zero) {
        using T = decltype(zero);
        const Sample<T> sample(job, 0, thread);
        const index_t size = problem.mlp().num_params, strips = (size + kStrip - 1) / kStrip;
        const index_t chunks = problem.num_chunks();
        return draw(job, 2 * strips, [&](index_t task) {
            const bool second = task >= strips;
            T* to = second ? sample.grad : sample.out;
            if (!to) return Status::ok;
            const index_t begin = (second ? task - strips : task) * kStrip;
            const index_t length = std::min(kStrip, size - begin);
            const index_t row = second && sample.out ? chunks : 0;
            const T* first = row_of<T>(job.parts, job.parts_stride, row) + begin;
            std::copy(first, first + length, to + begin);
            for (index_t k = 1; k < chunks; ++k)
                add<T>(length, row_of<T>(job.parts, job.parts_stride, row + k) + begin, to + begin);
            return Status::ok;
        });
    });
}

}  // namespace pyhess

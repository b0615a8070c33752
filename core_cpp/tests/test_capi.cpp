// The C ABI as Numba calls it: addresses as integers, statuses, the cancel flag and the counter.
#include <algorithm>
#include <cstring>

#include "check.hpp"
#include "pyhess/any_problem.hpp"
#include "pyhess/capi.h"
#include "pyhess/descent.hpp"
#include "pyhess/job.hpp"
#include "support.hpp"

using namespace support;
using pyhess::AnyProblem;
using pyhess::DescentLimits;
using pyhess::Gemm;
using pyhess::Job;
using pyhess::kAlign;
using pyhess::Operation;
using pyhess::round_up;

namespace {

constexpr std::int32_t kOk = 0, kBadArgument = 1, kCancelled = 2;

std::int64_t address(const void* at) { return static_cast<std::int64_t>(reinterpret_cast<std::uintptr_t>(at)); }

const Case& example() {
    static const Case c({4, 6, 3}, {Activation::tanh}, Loss::cross_entropy, true, 23, 9001);
    return c;
}

// Every buffer of one problem, at its documented size, and jobs on them.
template <class T>
struct Bound {
    AnyProblem any;
    index_t size, chunks, state_size, turned, work_size;
    std::int32_t cancel = 0;

    Bound(const Case& c, index_t lane_width) : size(c.mlp.num_params) {
        const auto* kernels = pyhess::find_kernels<T>(pyhess::best_isa());
        auto problem = c.problem<T>(kernels, Gemm<T>(kernels, 0, 4), lane_width);
        chunks = problem->num_chunks();
        state_size = problem->state_size(), turned = problem->transposed_size(), work_size = problem->work_size();
        if constexpr (sizeof(T) == 8)
            any.f64 = std::move(problem);
        else
            any.f32 = std::move(problem);
    }
    Job job(Operation operation, index_t count, bool fresh) {
        Job out{};
        out.problem = address(&any);
        out.operation = static_cast<std::int64_t>(operation);
        out.fresh = fresh;
        out.count = count;
        out.cancel = address(&cancel);
        return out;
    }
};

// Rows of buffers with NaN in them, so that what is read before it is written shows.
template <class T>
struct Rows {
    index_t stride;
    Buffer<T> data;
    Rows(index_t count, index_t size) : stride(round_up(size, kAlign)), data(count * stride) {}
    T* row(index_t i) { return data.data() + i * stride; }
};

template <class T>
bool same(const T* a, const T* b, index_t n) {
    return std::memcmp(a, b, static_cast<std::size_t>(n) * sizeof(T)) == 0;
}

template <class T>
struct Results {
    Rows<T> out, grad;
    Buffer<double> value;
    Results(const Bound<T>& bound, index_t count)
        : out(count, bound.size), grad(count, bound.size), value(count * bound.chunks) {}
    void attach(Job& job, Operation operation, index_t chunks) {
        const bool product = operation != Operation::linearize;
        if (product) job.out = out.data.address(), job.out_stride = out.stride;
        if (!product || operation == Operation::jet) {
            job.grad = grad.data.address(), job.grad_stride = grad.stride;
            job.value = value.address(), job.value_stride = chunks;
        }
    }
    bool equal(const Results& other, Operation operation) const {
        const bool product = operation != Operation::linearize;
        bool ok = true;
        if (product) ok = ok && rows_equal(out, other.out);
        if (!product || operation == Operation::jet)
            ok = ok && rows_equal(grad, other.grad) && same(value.data(), other.value.data(), value.size());
        return ok;
    }
    index_t size = 0;  // parameters, without the padding of rows

private:
    bool rows_equal(const Rows<T>& a, const Rows<T>& b) const {
        bool ok = true;
        for (index_t begin = 0; begin < a.data.size(); begin += a.stride)
            ok = ok && same(a.data.data() + begin, b.data.data() + begin, size);
        return ok;
    }
};

constexpr Operation kOperations[] = {Operation::linearize, Operation::hvp, Operation::ggn, Operation::jet};

// Threads take turns at random here; a data race would need real ones, but no two tasks share a row that is written.
template <class T>
void check_jobs(const Case& c, index_t lane_width, bool many_chunks) {
    const check::Note note(std::string(type_name<T>()) + (lane_width ? " lanes" : " rows"));
    constexpr index_t kCount = 3, kThreads = 2;
    Bound<T> bound(c, lane_width);
    CHECK(many_chunks == (bound.chunks > 1));
    Rows<T> theta(kCount, bound.size), v(kCount, bound.size), state(kCount, bound.state_size);
    for (index_t s = 0; s < kCount; ++s)
        for (index_t i = 0; i < bound.size; ++i) {
            theta.row(s)[i] =
                static_cast<T>(c.theta[static_cast<std::size_t>(i)] * (1.0 + 0.25 * static_cast<double>(s)));
            v.row(s)[i] = static_cast<T>(c.v[static_cast<std::size_t>((i + s) % bound.size)]);
        }
    Rows<T> fresh_state(kThreads, bound.turned), vt(kThreads, bound.turned), work(kThreads, bound.work_size);
    Rows<T> parts(std::max(2 * kThreads, 2 * bound.chunks), bound.size);
    const auto prepare = [&](Operation operation, index_t first, index_t count, bool fresh) {
        Job job = bound.job(operation, count, fresh);
        job.theta = address(theta.row(first)), job.theta_stride = theta.stride;
        job.state = address(fresh ? fresh_state.row(0) : state.row(first));
        job.state_stride = fresh ? fresh_state.stride : state.stride;
        job.v = address(v.row(first)), job.v_stride = v.stride;
        job.vt = vt.data.address(), job.vt_stride = vt.stride;
        job.work = work.data.address(), job.work_stride = work.stride;
        job.parts = parts.data.address(), job.parts_stride = parts.stride;
        return job;
    };
    for (Operation operation : kOperations) {
        Results<T> want(bound, kCount);
        want.size = bound.size;
        Job job = prepare(operation, 0, kCount, false);
        want.attach(job, operation, bound.chunks);
        bound.cancel = 1;
        CHECK(ph_samples(address(&job), 0) == kCancelled);
        CHECK(job.next == 0);
        bound.cancel = 0;
        CHECK(ph_samples(address(&job), 1) == kOk);
        CHECK(job.next == kCount + 1);

        for (index_t s = 0; s < kCount; ++s) {  // against the plain loops
            std::vector<double> at, along;
            for (index_t i = 0; i < bound.size; ++i)
                at.push_back(static_cast<double>(theta.row(s)[i])), along.push_back(static_cast<double>(v.row(s)[i]));
            const Products naive = reference(c, at.data(), along.data());
            const double tolerance = sizeof(T) == 8 ? 1e-11 : 1e-4;
            double value = 0.0;
            for (index_t k = 0; k < bound.chunks; ++k) value += want.value[s * bound.chunks + k];
            if (operation == Operation::linearize) CHECK_NEAR(value, naive.value, tolerance * (1.0 + naive.value));
            if (operation == Operation::jet) CHECK_NEAR(value, naive.q, tolerance * (1.0 + std::fabs(naive.q)));
            const auto& product = operation == Operation::ggn ? naive.ggn : naive.hvp;
            const auto& gradient = operation == Operation::jet ? naive.q_gradient : naive.gradient;
            for (index_t i = 0; i < bound.size; ++i) {
                const auto k = static_cast<std::size_t>(i);
                if (job.out) CHECK_NEAR(static_cast<double>(want.out.row(s)[i]), product[k], tolerance);
                if (job.grad) CHECK_NEAR(static_cast<double>(want.grad.row(s)[i]), gradient[k], 10.0 * tolerance);
            }
        }
        const auto expect = [&](const Results<T>& got, const char* what) {
            const check::Note which(what);
            CHECK(got.equal(want, operation));
        };
        if (operation != Operation::linearize) {
            Results<T> got(bound, kCount);
            got.size = bound.size;
            Job fresh = prepare(operation, 0, kCount, true);
            got.attach(fresh, operation, bound.chunks);
            CHECK(ph_samples(address(&fresh), 1) == kOk);
            expect(got, "fresh");
        }
        for (bool fresh : {false, true}) {
            if (fresh && operation == Operation::linearize) continue;
            Results<T> got(bound, kCount);
            got.size = bound.size;
            for (index_t s = 0; s < kCount; ++s) {
                Job single = prepare(operation, s, 1, fresh);
                got.attach(single, operation, bound.chunks);
                if (single.out) single.out = address(got.out.row(s));
                if (single.grad) single.grad = address(got.grad.row(s));
                if (single.value) single.value = address(got.value.data() + s * bound.chunks);
                CHECK(ph_transposes(address(&single), 0) == kOk);
                single.next = 0;
                CHECK(ph_chunks(address(&single), 1) == kOk);
                single.next = 0;
                CHECK(ph_sums(address(&single), 0) == kOk);
            }
            expect(got, fresh ? "fresh, by chunks" : "by chunks");
        }
    }
}

}  // namespace

TEST(capi_jobs) {
    const Case many({9, 65, 40, 2}, {Activation::sigmoid, Activation::tanh}, Loss::squared_error, true, 1297, 9003);
    for (index_t lane_width : {0, 128}) {
        check_jobs<double>(example(), lane_width, false);
        check_jobs<float>(example(), lane_width, false);
        check_jobs<double>(many, lane_width, true);
        check_jobs<float>(many, lane_width, true);
    }
}

TEST(capi_refuses_what_is_no_problem) {
    const AnyProblem empty;
    Bound<double> bound(example(), 0);
    for (auto share : {ph_samples, ph_transposes, ph_chunks, ph_sums}) {
        for (std::int64_t problem : {std::int64_t{0}, address(&empty)}) {
            Job job = bound.job(Operation::hvp, 1, false);
            job.problem = problem;
            CHECK(share(address(&job), 0) == kBadArgument);
        }
        Job job = bound.job(Operation::hvp, 1, false);
        CHECK(share(0, 0) == kBadArgument);
        CHECK(share(address(&job), -1) == kBadArgument);
        for (std::int64_t operation : {-1, 4}) {
            job.operation = operation;
            CHECK(share(address(&job), 0) == kBadArgument);
        }
    }
    const DescentLimits limits{10, 0.0, 5, 0, 0};
    for (std::int64_t problem : {std::int64_t{0}, address(&empty)})
        CHECK(ph_descend(problem, 0, 0, 0, 0, address(&limits), 0, 0, 0, 0, 0, 0, 0) == kBadArgument);
}

template <class T>
void check_descend() {
    Bound<T> bound(example(), -1);
    const index_t size = example().mlp.num_params;
    Buffer<double> half(size, 0.5), z(2 * size, 0.25), scratch(pyhess::descent_scratch_size(size, 4));
    Buffer<double> mid(example().theta);
    Buffer<T> turned(2 * bound.turned), work(bound.work_size);
    double value = 0.0;
    std::int64_t evals = 0;
    const auto descend = [&](std::int64_t reach, const DescentLimits* limits) {
        return ph_descend(address(&bound.any), reach, mid.address(), half.address(), 0, address(limits), z.address(),
                          address(&value), address(&evals), scratch.address(), turned.address(), work.address(),
                          address(&bound.cancel));
    };
    const DescentLimits good{25, 1e-8, 4, 0, 0}, none{25, 1e-8, 0, 0, 0}, negative{25, 1e-8, -3, 0, 0};
    for (std::int64_t reach : {-1, 2}) CHECK(descend(reach, &good) == kBadArgument);
    for (const DescentLimits* limits : {&none, &negative}) CHECK(descend(1, limits) == kBadArgument);
    CHECK(descend(1, nullptr) == kBadArgument);
    CHECK(evals == 0);
    bound.cancel = 1;
    CHECK(descend(1, &good) == kCancelled);
    bound.cancel = 0;
    evals = 0;
    CHECK(descend(1, &good) == kOk);
    CHECK(evals > 1 && evals <= 25);
    std::vector<double> theta;
    for (index_t i = 0; i < size; ++i) theta.push_back(mid[i] + 0.5 * z[i]);
    const double* v = z.data() + size;
    double vv = 0.0;
    for (index_t i = 0; i < size; ++i) vv += v[i] * v[i];
    CHECK_NEAR(value, reference(example(), theta.data(), v).q / vv, sizeof(T) == 8 ? 1e-11 : 1e-5);
}

TEST(capi_descend) {
    check_descend<double>();
    check_descend<float>();
}

TEST(capi_fetch_add) {
    std::int64_t counter = (std::int64_t{1} << 40) + 5;
    CHECK(ph_fetch_add(address(&counter), 3) == (std::int64_t{1} << 40) + 5);
    CHECK(ph_fetch_add(address(&counter), -9) == (std::int64_t{1} << 40) + 8);
    CHECK(counter == (std::int64_t{1} << 40) - 1);
}

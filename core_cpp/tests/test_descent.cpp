// The joint descent: what it promises of every start, with the Rayleigh quotient recomputed by the naive reference.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "check.hpp"
#include "pyhess/descent.hpp"
#include "support.hpp"

using namespace support;
using pyhess::DescentLimits;
using pyhess::DescentRegion;
using pyhess::Gemm;
using pyhess::Kernels;
using pyhess::Problem;
using pyhess::Reach;
using pyhess::Status;

namespace {

using Vector = std::vector<double>;

double norm(const double* x, index_t n) { return std::sqrt(std::inner_product(x, x + n, x, 0.0)); }

// A region and a start for one case.
struct Setting {
    const Case& c;
    Reach reach;
    Vector mid, half, scale, start;  // scale is empty for the identity

    Setting(const Case& problem, Reach kind, unsigned seed, bool scaled = false) : c(problem), reach(kind) {
        std::mt19937 rng(seed);
        std::normal_distribution<double> normal;
        const index_t size = c.mlp.num_params;
        for (index_t i = 0; i < size; ++i) {
            mid.push_back(0.2 * normal(rng));
            half.push_back(i % 7 == 2 ? 0.0 : 0.5 + 0.25 * std::fabs(normal(rng)));  // some parameters cannot move
            if (scaled) scale.push_back(std::exp(0.7 * normal(rng)));
        }
        for (index_t i = 0; i < 2 * size; ++i) start.push_back(normal(rng));  // outside the region: is projected
    }

    index_t size() const { return c.mlp.num_params; }

    // (v'Hv / u'u, norm of its gradient in z along which z may move) by the naive reference
    std::pair<double, double> rayleigh(const double* z) const {
        Vector theta, gradient;
        for (index_t i = 0; i < size(); ++i) theta.push_back(mid[at(i)] + half[at(i)] * z[i]);
        const double* u = z + size();
        Vector v(u, u + size());
        for (std::size_t i = 0; i < scale.size(); ++i) v[i] *= scale[i];
        const Products p = reference(c, theta.data(), v.data());
        const double uu = norm(u, size()) * norm(u, size()), rho = p.q / uu;
        double square = 0.0, radial = 0.0;
        for (index_t i = 0; i < size(); ++i) {
            gradient.push_back(half[at(i)] * p.q_gradient[at(i)] / uu);
            const double along_u = 2.0 * ((scale.empty() ? 1.0 : scale[at(i)]) * p.hvp[at(i)] - rho * u[i]) / uu;
            square += along_u * along_u;
            radial += gradient.back() * z[i];
        }
        const bool rim = reach == Reach::ball && norm(z, size()) > 1.0 - 1e-9;
        for (index_t i = 0; i < size(); ++i) {
            double g = gradient[at(i)];
            if (reach == Reach::box && ((z[i] >= 1.0 && g < 0.0) || (z[i] <= -1.0 && g > 0.0))) g = 0.0;
            if (rim) g -= std::min(radial, 0.0) * z[i];
            square += g * g;
        }
        return {rho, std::sqrt(square)};
    }

    Vector projected_start() const {
        Vector z = start;
        const double length = norm(z.data(), size());
        for (index_t i = 0; i < size(); ++i)
            z[at(i)] = reach == Reach::box ? std::min(1.0, std::max(-1.0, z[at(i)])) : z[at(i)] / std::max(1.0, length);
        return z;
    }

private:
    static std::size_t at(index_t i) { return static_cast<std::size_t>(i); }
};

struct Outcome {
    Status status;
    double value;
    std::int64_t evals;
    Vector z;
};

constexpr double kUntouched = 12345.0;  // the value before a descent
constexpr std::int64_t kEvalsBefore = 17;

Outcome run(const Setting& setting, const Problem<double>& problem, index_t max_evals, index_t memory, double tol,
            const volatile std::int32_t* cancel, index_t vertex_steps = 0, index_t flips = 0) {
    Buffer<double> z(setting.start), mid(setting.mid), half(setting.half), scale(setting.scale);
    const double* factors = setting.scale.empty() ? nullptr : scale.data();
    Buffer<double> scratch(pyhess::descent_scratch_size(setting.size(), memory));
    Buffer<double> turned(2 * problem.transposed_size()), work(problem.work_size());
    Outcome out{Status::ok, kUntouched, kEvalsBefore, {}};
    out.status = pyhess::descend<double>(problem, DescentRegion{setting.reach, mid.data(), half.data(), factors},
                                         DescentLimits{max_evals, tol, memory, vertex_steps, flips}, z.data(),
                                         &out.value, &out.evals, scratch.data(), turned.data(), work.data(), cancel);
    out.z.assign(z.data(), z.data() + z.size());
    return out;
}

void check_point(const Setting& setting, const Outcome& out) {
    for (index_t i = 0; i < setting.size(); ++i) {
        const double z = out.z[static_cast<std::size_t>(i)];
        CHECK(std::isfinite(z));
        if (setting.reach == Reach::box) CHECK(std::fabs(z) <= 1.0);
    }
    if (setting.reach == Reach::ball) CHECK(norm(out.z.data(), setting.size()) <= 1.0 + 1e-14);
    const double rho = setting.rayleigh(out.z.data()).first;
    CHECK_NEAR(out.value, rho, 1e-11 * (1.0 + std::fabs(rho)));
}

std::unique_ptr<Problem<double>> make_problem(const Case& c, const char* level, index_t lane_width) {
    const Kernels<double>* kernels = pyhess::find_kernels<double>(level);
    return c.problem<double>(kernels, Gemm<double>(kernels, 0, 4), lane_width);
}

template <class Body>
void for_each_setting(Body body) {
    unsigned seed = 6007;
    for (Loss loss : kLosses)
        for (const auto& [reach, scaled] : {std::pair{Reach::box, false}, std::pair{Reach::ball, false},
                                            std::pair{Reach::box, true}, std::pair{Reach::ball, true}}) {
            const Case c({3, 5, 4, loss == Loss::logistic ? 1 : 2}, {Activation::tanh, Activation::softplus}, loss,
                         true, 21, ++seed);
            const Setting setting(c, reach, ++seed, scaled);
            const check::Note note(std::string(name_of(loss)) + (reach == Reach::box ? " box" : " ball") +
                                   (scaled ? " scaled" : ""));
            body(c, setting);
        }
}

}  // namespace

// The path does not depend on the budget, so the results of growing budgets are the descent's own history.
TEST(descent_never_increases_and_keeps_its_budget) {
    for_each_setting([](const Case& c, const Setting& setting) {
        const double first = setting.rayleigh(setting.projected_start().data()).first;
        for (const char* level : levels())
            for (index_t lane_width : {index_t{0}, index_t{64}}) {
                const auto problem = make_problem(c, level, lane_width);
                for (index_t memory : {1, 5}) {
                    double before = first + 1e-11 * (1.0 + std::fabs(first));
                    for (index_t budget : {1, 2, 3, 4, 6, 9, 14, 30, 80}) {
                        const Outcome out = run(setting, *problem, budget, memory, 0.0, nullptr);
                        CHECK(out.status == Status::ok);
                        CHECK(out.evals - kEvalsBefore >= 1 && out.evals - kEvalsBefore <= budget);
                        CHECK(out.value <= before);
                        check_point(setting, out);
                        before = out.value;
                        if (budget == 1) CHECK_NEAR(out.value, first, 1e-11 * (1.0 + std::fabs(first)));
                    }
                    CHECK(before < first - 1e-3);
                }
            }
    });
}

// The other kinds of steps, alone (the budget ends before the first quasi-Newton step) and before those.
TEST(descent_by_vertices_and_flips) {
    int gains = 0;
    for_each_setting([&](const Case& c, const Setting& setting) {
        const double first = setting.rayleigh(setting.projected_start().data()).first;
        const auto problem = make_problem(c, pyhess::best_isa(), -1);
        for (index_t flips : {0, 40})
            for (index_t budget : {1, 2, 3, 5, 8, 200}) {
                const Outcome out = run(setting, *problem, budget, 5, 0.0, nullptr, 6, flips);
                CHECK(out.status == Status::ok);
                CHECK(out.evals - kEvalsBefore >= 1 && out.evals - kEvalsBefore <= budget);
                CHECK(out.value <= first + 1e-11 * (1.0 + std::fabs(first)));
                check_point(setting, out);
                if (budget == 3 && out.value < first - 1e-3) ++gains;
                if (budget == 200) CHECK(out.value < first - 1e-3);
            }
    });
    CHECK(gains > 0);
}

TEST(descent_ends_at_a_stationary_point) {
    for_each_setting([](const Case& c, const Setting& setting) {
        const auto problem = make_problem(c, pyhess::best_isa(), -1);
        const Outcome out = run(setting, *problem, 20000, 10, 1e-13, nullptr);
        CHECK(out.evals - kEvalsBefore < 20000);
        const double slope = setting.rayleigh(setting.projected_start().data()).second;
        CHECK_NEAR(setting.rayleigh(out.z.data()).second, 0.0, 1e-4 * slope);
        const Outcome loose = run(setting, *problem, 20000, 10, 1e-2, nullptr);
        CHECK(loose.evals < out.evals);
    });
}

TEST(descent_cancelled_beforehand_touches_nothing) {
    for_each_setting([](const Case& c, const Setting& setting) {
        const std::int32_t cancel = 1;
        const Outcome out = run(setting, *make_problem(c, pyhess::best_isa(), -1), 50, 5, 0.0, &cancel);
        CHECK(out.status == Status::cancelled);
        CHECK(out.value == kUntouched);
    });
}

TEST(descent_without_a_direction_leaves_the_value) {
    for_each_setting([](const Case& c, Setting setting) {
        std::fill(setting.start.begin() + setting.size(), setting.start.end(), 0.0);
        const Outcome out = run(setting, *make_problem(c, pyhess::best_isa(), -1), 50, 5, 0.0, nullptr);
        CHECK(out.status == Status::ok);
        CHECK(out.value == kUntouched);
    });
}

namespace {

volatile std::int32_t stop = 0;
int calls_left = 0;

// A BLAS that raises the cancel flag at one of its calls, in the middle of an evaluation.
void stopping_gemm(char*, char* trans_b, std::int32_t* m, std::int32_t* n, std::int32_t* k, double* alpha, double* a,
                   std::int32_t* lda, double* b, std::int32_t* ldb, double* beta, double* c, std::int32_t* ldc) {
    if (--calls_left == 0) stop = 1;
    const auto* kernels = pyhess::find_kernels<double>("base");
    (*trans_b == 'N' ? kernels->gemm_nn : kernels->gemm_nt)(*m, *n, *k, *alpha, a, *lda, b, *ldb, *beta, c, *ldc);
}

}  // namespace

TEST(descent_cancelled_on_its_way_keeps_its_best_point) {
    const Case c({3, 5, 2}, {Activation::tanh}, Loss::squared_error, true, 1500, 6911);  // several blocks
    const Setting setting(c, Reach::box, 6917);
    const Kernels<double>* kernels = pyhess::find_kernels<double>("base");
    const auto problem =
        c.problem<double>(kernels, Gemm<double>(kernels, reinterpret_cast<std::uintptr_t>(&stopping_gemm), 4), 0);
    CHECK(problem->num_blocks() > 1);
    for (int calls : {200, 333, 500}) {
        stop = 0;
        calls_left = calls;
        const Outcome out = run(setting, *problem, 1000, 5, 0.0, &stop);
        CHECK(out.status == Status::cancelled);
        CHECK(out.evals - kEvalsBefore < 60);
        CHECK(out.value < setting.rayleigh(setting.projected_start().data()).first);
        check_point(setting, out);
    }
}

#include "pyhess/descent.hpp"

#include <algorithm>
#include <cmath>

#include "pyhess/jet.hpp"
#include "pyhess/linearize.hpp"

namespace pyhess {

namespace {

constexpr double kArmijo = 1e-4;
constexpr int kMaxBacktracks = 25;
constexpr int kStalls = 3;

// Eight running sums, so that the compiler may use vectors of any width and the order of additions stays fixed.
double dot(const double* a, const double* b, index_t n) {
    double sums[8] = {};
    index_t i = 0;
    for (; i + 8 <= n; i += 8)
        for (int j = 0; j < 8; ++j) sums[j] += a[i + j] * b[i + j];
    for (int j = 0; i < n; ++i, ++j) sums[j] += a[i] * b[i];
    return ((sums[0] + sums[4]) + (sums[1] + sums[5])) + ((sums[2] + sums[6]) + (sums[3] + sums[7]));
}

class Descent {
public:
    Descent(const Problem<double>& problem, const DescentRegion& region, const DescentLimits& limits, double* scratch,
            double* turned, double* work, const volatile std::int32_t* cancel)
        : problem_(problem),
          region_(region),
          limits_(limits),
          num_params_(problem.mlp().num_params),
          n_(2 * num_params_),
          state_(turned),
          vt_(turned + problem.transposed_size()),
          work_(work),
          cancel_(cancel) {
        double* next = scratch;
        const auto take = [&next](index_t size) {
            double* begin = next;
            next += size;
            return begin;
        };
        g_ = take(n_), reduced_ = take(n_), d_ = take(n_), z_new_ = take(n_), g_new_ = take(n_);
        s_ = take(limits.memory * n_), y_ = take(limits.memory * n_);
        theta_ = take(num_params_), hv_ = take(num_params_), grad_ = take(num_params_);
        v_ = take(num_params_);
        inverse_sy_ = take(limits.memory), alpha_ = take(limits.memory);
    }

    Status run(double* z, double* value, std::int64_t* evals) {
        const std::int64_t budget = *evals + limits_.max_evals;
        project(z);
        double rho = evaluate(z, g_);
        ++*evals;
        if (std::isnan(rho)) return stopped() ? Status::cancelled : Status::ok;
        *value = rho;
        double slope = reduce(z, g_, reduced_);
        int stalls = 0;
        while (*evals < budget && !stopped() && slope > 0.0) {
            direction(z);
            if (!(dot(g_, d_, n_) < 0.0)) {
                count_ = 0;
                direction(z);
            }
            const double rho_new = search_arc(z, rho, evals, budget);
            if (std::isnan(rho_new)) {  // no decrease: once more along the gradient, or the end
                if (count_ == 0) break;
                count_ = 0;
                continue;
            }
            slope = reduce(z_new_, g_new_, d_);
            remember(z);
            std::copy(z_new_, z_new_ + n_, z);
            std::swap(g_, g_new_);
            std::swap(reduced_, d_);
            stalls = rho - rho_new <= limits_.tol * std::abs(rho_new) ? stalls + 1 : 0;
            *value = rho = rho_new;
            if (stalls >= kStalls) break;
            slope = normalize(z, slope);
        }
        return stopped() ? Status::cancelled : Status::ok;
    }

private:
    bool stopped() const { return cancel_ && *cancel_; }

    // rho at z and its gradient g; NaN where the evaluation was cancelled or overflowed.
    double evaluate(const double* z, double* g) {
        const index_t size = num_params_;
        const double* u = z + size;
        const double* v = scaled(u);
        for (index_t i = 0; i < size; ++i) theta_[i] = region_.mid[i] + region_.half[i] * z[i];
        std::fill(hv_, hv_ + size, 0.0);
        std::fill(grad_, grad_ + size, 0.0);
        double q = 0.0;
        transpose_weights<double>(problem_, theta_, state_);
        transpose_weights<double>(problem_, v, vt_);
        const Status status = jet<double>(problem_, theta_, state_, true, v, vt_, &q, hv_, grad_, 0,
                                          problem_.num_chunks(), work_, cancel_);
        const double norm2 = dot(u, u, size);
        if (status != Status::ok || !(norm2 > 0.0)) return std::nan("");
        const double inverse = 1.0 / norm2, rho = q * inverse;
        for (index_t i = 0; i < size; ++i) {
            g[i] = region_.half[i] * grad_[i] * inverse;
            g[size + i] = 2.0 * ((region_.scale ? region_.scale[i] * hv_[i] : hv_[i]) - rho * u[i]) * inverse;
        }
        return rho;
    }

    // v = S u
    const double* scaled(const double* u) {
        if (!region_.scale) return u;
        for (index_t i = 0; i < num_params_; ++i) v_[i] = region_.scale[i] * u[i];
        return v_;
    }

    void project(double* z) const {
        if (region_.reach == Reach::box) {
            for (index_t i = 0; i < num_params_; ++i) z[i] = std::min(1.0, std::max(-1.0, z[i]));
            return;
        }
        const double norm2 = dot(z, z, num_params_);
        if (norm2 <= 1.0) return;
        const double factor = 1.0 / std::sqrt(norm2);
        for (index_t i = 0; i < num_params_; ++i) z[i] *= factor;
    }

    // r = the part of the gradient along which z may move; returns its squared norm.
    double reduce(const double* z, const double* g, double* r) const {
        std::copy(g, g + n_, r);
        if (region_.reach == Reach::box) {
            for (index_t i = 0; i < num_params_; ++i)
                if ((z[i] <= -1.0 && g[i] > 0.0) || (z[i] >= 1.0 && g[i] < 0.0)) r[i] = 0.0;
        } else if (dot(z, z, num_params_) >= 1.0 - 1e-12) {
            const double outward = std::max(0.0, -dot(g, z, num_params_));
            for (index_t i = 0; i < num_params_; ++i) r[i] += outward * z[i];
        }
        return dot(r, r, n_);
    }

    // d = -B r by the two-loop recursion; what the box holds stays where it is.
    void direction(const double* z) {
        const index_t memory = limits_.memory;
        std::copy(reduced_, reduced_ + n_, d_);
        for (index_t k = count_ - 1; k >= 0; --k) {
            const index_t j = (first_ + k) % memory;
            alpha_[j] = inverse_sy_[j] * dot(s_ + j * n_, d_, n_);
            add(-alpha_[j], y_ + j * n_);
        }
        if (count_ > 0) {
            const index_t j = (first_ + count_ - 1) % memory;
            const double scale = 1.0 / (inverse_sy_[j] * dot(y_ + j * n_, y_ + j * n_, n_));
            for (index_t i = 0; i < n_; ++i) d_[i] *= scale;
        }
        for (index_t k = 0; k < count_; ++k) {
            const index_t j = (first_ + k) % memory;
            add(alpha_[j] - inverse_sy_[j] * dot(y_ + j * n_, d_, n_), s_ + j * n_);
        }
        for (index_t i = 0; i < n_; ++i) d_[i] = -d_[i];
        if (region_.reach == Reach::box)
            for (index_t i = 0; i < num_params_; ++i)
                if (reduced_[i] == 0.0 && std::abs(z[i]) >= 1.0) d_[i] = 0.0;
    }

    void add(double factor, const double* x) {
        for (index_t i = 0; i < n_; ++i) d_[i] += factor * x[i];
    }

    // Armijo's rule along the projection arc; z_new and g_new hold the accepted point, whose rho is returned, or NaN.
    double search_arc(const double* z, double rho, std::int64_t* evals, std::int64_t budget) {
        double step = 1.0;
        if (count_ == 0) {  // without pairs the first trial moves by a tenth of the region's half-width at most
            double longest = 0.0;
            for (index_t i = 0; i < n_; ++i) longest = std::max(longest, std::abs(d_[i]));
            step = std::min(1.0, 0.1 / longest);
        }
        for (int trial = 0; trial < kMaxBacktracks; ++trial) {
            for (index_t i = 0; i < n_; ++i) z_new_[i] = z[i] + step * d_[i];
            project(z_new_);
            double predicted = 0.0;
            for (index_t i = 0; i < n_; ++i) predicted += g_[i] * (z_new_[i] - z[i]);
            const double rho_new = evaluate(z_new_, g_new_);
            ++*evals;
            if (rho_new <= rho + kArmijo * predicted && rho_new < rho) return rho_new;
            if (stopped() || *evals >= budget) break;
            // Minimum of the parabola through both values and the slope, within [0.1, 0.5] of the step.
            double shrink = 0.5;
            if (rho_new > rho + predicted && predicted < 0.0)
                shrink = std::min(0.5, std::max(0.1, -0.5 * predicted / (rho_new - rho - predicted)));
            step *= shrink;
        }
        return std::nan("");
    }

    // Keeps the pair (s, y) of the accepted step; d holds the new reduced gradient. Along a ball's boundary the
    // tangential gradients differ, elsewhere the gradients do.
    void remember(const double* z) {
        const index_t memory = limits_.memory;
        if (count_ == memory) first_ = (first_ + 1) % memory, --count_;
        const index_t slot = (first_ + count_) % memory;
        double *s = s_ + slot * n_, *y = y_ + slot * n_;
        const bool ball = region_.reach == Reach::ball;
        const double *now = ball ? d_ : g_new_, *before = ball ? reduced_ : g_;
        for (index_t i = 0; i < n_; ++i) {
            s[i] = z_new_[i] - z[i];
            y[i] = now[i] - before[i];
        }
        const double sy = dot(s, y, n_), yy = dot(y, y, n_);
        if (sy > 1e-10 * yy) {
            inverse_sy_[slot] = 1.0 / sy;
            ++count_;
        }
    }

    // rho does not depend on |u|; the pairs do, so they are dropped when u is brought back to length one.
    double normalize(double* z, double slope) {
        double* u = z + num_params_;
        const double norm2 = dot(u, u, num_params_);
        if (norm2 <= 4.0 && norm2 >= 0.25) return slope;
        const double norm = std::sqrt(norm2);
        for (index_t i = 0; i < num_params_; ++i) {
            u[i] /= norm;
            g_[num_params_ + i] *= norm;
        }
        count_ = 0;
        return reduce(z, g_, reduced_);
    }

    const Problem<double>& problem_;
    const DescentRegion& region_;
    const DescentLimits& limits_;
    const index_t num_params_, n_;
    double *state_, *vt_, *work_;
    const volatile std::int32_t* cancel_;
    double *g_, *reduced_, *d_, *z_new_, *g_new_, *s_, *y_, *theta_, *hv_, *grad_, *v_, *inverse_sy_, *alpha_;
    index_t first_ = 0, count_ = 0;  // of the pairs
};

}  // namespace

Status descend(const Problem<double>& problem, const DescentRegion& region, const DescentLimits& limits, double* z,
               double* value, std::int64_t* evals, double* scratch, double* turned, double* work,
               const volatile std::int32_t* cancel) {
    return Descent(problem, region, limits, scratch, turned, work, cancel).run(z, value, evals);
}

}  // namespace pyhess

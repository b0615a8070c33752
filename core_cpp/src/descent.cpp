#include "pyhess/descent.hpp"

#include <algorithm>
#include <cmath>

#include "pyhess/jet.hpp"
#include "pyhess/linearize.hpp"

namespace pyhess {

namespace {

constexpr double kArmijo = 1e-4, kLeastCurvature = 2.2e-16;
constexpr double kLongest = 1e12;  // of u'u, or of its inverse, in a trial step
constexpr int kMaxBacktracks = 25;
constexpr int kStalls = 3;

// z, rho and all sums are double; T is the type of the jets.
template <class T>
class Descent {
public:
    Descent(const Problem<T>& problem, const DescentRegion& region, const DescentLimits& limits, double* scratch,
            T* turned, T* work, const volatile std::int32_t* cancel)
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
        const auto take_vector = [&] { return reinterpret_cast<T*>(take(num_params_)); };
        theta_ = take_vector(), hv_ = take_vector(), grad_ = take_vector(), v_ = take_vector();
        inverse_sy_ = take(limits.memory), alpha_ = take(limits.memory);
    }

    Status run(double* z, double* value, std::int64_t* evals) {
        const std::int64_t budget = *evals + limits_.max_evals;
        project(z);
        double rho = evaluate(z, g_);
        ++*evals;
        if (std::isnan(rho)) return stopped() ? Status::cancelled : Status::ok;
        *value = rho = visit_vertices(z, rho, evals, budget);
        *value = rho = flip_coordinates(z, rho, evals, budget);
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
            reduce(z_new_, g_new_, d_);
            remember(z);
            std::copy(z_new_, z_new_ + n_, z);
            std::swap(g_, g_new_);
            std::swap(reduced_, d_);
            stalls = rho - rho_new <= limits_.tol * std::abs(rho_new) ? stalls + 1 : 0;
            *value = rho = rho_new;
            if (stalls >= kStalls) break;
            normalize(z);
            slope = dot(reduced_, reduced_, n_);
        }
        return stopped() ? Status::cancelled : Status::ok;
    }

private:
    bool stopped() const { return cancel_ && *cancel_; }

    // rho at z and its gradient g; NaN where the evaluation was cancelled or overflowed, or u is out of range.
    double evaluate(const double* z, double* g) {
        const index_t size = num_params_;
        const double* u = z + size;
        for (index_t i = 0; i < size; ++i) theta_[i] = static_cast<T>(region_.mid[i] + region_.half[i] * z[i]);
        for (index_t i = 0; i < size; ++i) v_[i] = static_cast<T>(region_.scale ? region_.scale[i] * u[i] : u[i]);
        std::fill(hv_, hv_ + size, T(0));
        std::fill(grad_, grad_ + size, T(0));
        double q = 0.0;
        transpose_weights<T>(problem_, theta_, state_);
        transpose_weights<T>(problem_, v_, vt_);
        const Status status =
            jet<T>(problem_, theta_, state_, true, v_, vt_, &q, hv_, grad_, 0, problem_.num_chunks(), work_, cancel_);
        const double norm2 = dot(u, u, size);
        // A u far from length one would cost digits of q, or all of them.
        const double inverse = 1.0 / norm2, rho = q * inverse;
        if (status != Status::ok || !(norm2 < kLongest && inverse < kLongest && std::isfinite(rho)))
            return std::nan("");
        for (index_t i = 0; i < size; ++i) {
            const double hu =
                region_.scale ? region_.scale[i] * static_cast<double>(hv_[i]) : static_cast<double>(hv_[i]);
            g[i] = region_.half[i] * static_cast<double>(grad_[i]) * inverse;
            g[size + i] = 2.0 * (hu - rho * u[i]) * inverse;
        }
        return rho;
    }

    double dot(const double* a, const double* b, index_t n) const { return problem_.kernels().dot(n, a, b); }
    void add(double factor, const double* x, double* to) const { problem_.kernels().add_multiple(n_, factor, x, to); }

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
            add(-alpha_[j], y_ + j * n_, d_);
        }
        if (count_ > 0) {
            const index_t j = (first_ + count_ - 1) % memory;
            const double scale = 1.0 / (inverse_sy_[j] * dot(y_ + j * n_, y_ + j * n_, n_));
            for (index_t i = 0; i < n_; ++i) d_[i] *= scale;
        }
        for (index_t k = 0; k < count_; ++k) {
            const index_t j = (first_ + k) % memory;
            add(alpha_[j] - inverse_sy_[j] * dot(y_ + j * n_, d_, n_), s_ + j * n_, d_);
        }
        for (index_t i = 0; i < n_; ++i) d_[i] = -d_[i];
        if (region_.reach == Reach::box)
            for (index_t i = 0; i < num_params_; ++i)
                if (reduced_[i] == 0.0 && std::abs(z[i]) >= 1.0) d_[i] = 0.0;
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

    // Steps in theta and in the direction by turns: theta goes towards the region's point farthest along the descent of
    // v'H(theta)v (Frank and Wolfe 1956), u to the minimum of rho over the plane of u and its residual.
    double visit_vertices(double* z, double rho, std::int64_t* evals, std::int64_t budget) {
        for (index_t k = 0; k < limits_.vertex_steps; ++k) {
            bool better = false;
            for (double share = 1.0; share > 0.1 && !better; share *= 0.5) {
                towards_vertex(z, share, z_new_);
                if (*evals >= budget || stopped()) return rho;
                better = try_new(z, &rho, evals);
            }
            if (!better) break;
            if (*evals + 1 >= budget) return rho;
            rho = turn(z, rho, evals);
        }
        return rho;
    }

    void towards_vertex(const double* z, double share, double* to) const {
        std::copy(z, z + n_, to);
        const double norm = std::sqrt(dot(g_, g_, num_params_));
        for (index_t i = 0; i < num_params_; ++i) {
            double goal = norm > 0.0 ? -g_[i] / norm : z[i];
            if (region_.reach == Reach::box) goal = g_[i] > 0.0 ? -1.0 : (g_[i] < 0.0 ? 1.0 : z[i]);
            to[i] += share * (goal - z[i]);
        }
    }

    // Goes to z_new if rho is lower there.
    bool try_new(double* z, double* rho, std::int64_t* evals) {
        const double rho_new = evaluate(z_new_, g_new_);
        ++*evals;
        if (!(rho_new < *rho)) return false;
        std::copy(z_new_, z_new_ + n_, z);
        std::swap(g_, g_new_);
        *rho = rho_new;
        return true;
    }

    // Rayleigh and Ritz on span{u, r}, r the gradient of rho in u.
    double turn(double* z, double rho, std::int64_t* evals) {
        const index_t size = num_params_;
        double* u = z + size;
        const double uu = dot(u, u, size), rr = dot(g_ + size, g_ + size, size);
        if (!(rr > 0.0)) return rho;
        std::copy(z, z + size, z_new_);
        std::copy(g_ + size, g_ + n_, z_new_ + size);
        const double rho_r = evaluate(z_new_, g_new_);
        ++*evals;
        // With u and r orthogonal: u'Hu = rho u'u, r'Hu = r'(u'u g_u / 2 + rho u) = u'u r'r / 2, r'Hr = rho_r r'r.
        const double off = 0.5 * std::sqrt(uu * rr), gap = 0.5 * (rho_r - rho);
        if (std::isnan(rho_r) || !(off > 0.0)) return rho;
        const double tangent =
            -off / (gap + std::sqrt(gap * gap + off * off));  // of the angle between u and the minimum
        const double factor = tangent * std::sqrt(uu / rr);
        std::copy(z, z + n_, z_new_);
        for (index_t i = 0; i < size; ++i) z_new_[size + i] = u[i] + factor * g_[size + i];
        try_new(z, &rho, evals);
        return rho;
    }

    // Tries the other end of the interval for coordinates at an end, the least certain first.
    double flip_coordinates(double* z, double rho, std::int64_t* evals, std::int64_t budget) {
        if (region_.reach != Reach::box || limits_.flips <= 0) return rho;
        index_t* order = reinterpret_cast<index_t*>(d_);
        index_t count = 0;
        for (index_t i = 0; i < num_params_; ++i)
            if (std::abs(z[i]) >= 1.0) order[count++] = i;
        std::sort(order, order + count, [&](index_t i, index_t j) {
            return std::abs(g_[i]) < std::abs(g_[j]) || (std::abs(g_[i]) == std::abs(g_[j]) && i < j);
        });
        for (index_t k = 0; k < std::min(count, limits_.flips) && *evals < budget && !stopped(); ++k) {
            std::copy(z, z + n_, z_new_);
            z_new_[order[k]] = -z_new_[order[k]];
            try_new(z, &rho, evals);
        }
        return rho;
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
        // Free of scale: curvatures of 1e13 beside others of 1 are usual in deep networks (the rule of L-BFGS-B).
        const double sy = dot(s, y, n_);
        if (sy > kLeastCurvature * std::abs(dot(before, s, n_))) {
            inverse_sy_[slot] = 1.0 / sy;
            ++count_;
        }
    }

    // rho does not depend on |u|: u goes back to length one, and gradient and pairs go with it.
    void normalize(double* z) {
        double* u = z + num_params_;
        const double norm2 = dot(u, u, num_params_);
        if (norm2 <= 4.0 && norm2 >= 0.25) return;
        const double norm = std::sqrt(norm2), inverse = 1.0 / norm;
        const auto scale = [this](double factor, double* x) {
            for (index_t i = num_params_; i < n_; ++i) x[i] *= factor;
        };
        scale(inverse, z), scale(norm, g_), scale(norm, reduced_);
        for (index_t k = 0; k < count_; ++k) {
            const index_t slot = (first_ + k) % limits_.memory;
            scale(inverse, s_ + slot * n_), scale(norm, y_ + slot * n_);
        }
    }

    const Problem<T>& problem_;
    const DescentRegion& region_;
    const DescentLimits& limits_;
    const index_t num_params_, n_;
    T *state_, *vt_, *work_;
    const volatile std::int32_t* cancel_;
    double *g_, *reduced_, *d_, *z_new_, *g_new_, *s_, *y_, *inverse_sy_, *alpha_;
    T *theta_, *hv_, *grad_, *v_;
    index_t first_ = 0, count_ = 0;  // of the pairs
};

}  // namespace

template <class T>
Status descend(const Problem<T>& problem, const DescentRegion& region, const DescentLimits& limits, double* z,
               double* value, std::int64_t* evals, double* scratch, T* turned, T* work,
               const volatile std::int32_t* cancel) {
    return Descent<T>(problem, region, limits, scratch, turned, work, cancel).run(z, value, evals);
}

template Status descend<double>(const Problem<double>&, const DescentRegion&, const DescentLimits&, double*, double*,
                                std::int64_t*, double*, double*, double*, const volatile std::int32_t*);
template Status descend<float>(const Problem<float>&, const DescentRegion&, const DescentLimits&, double*, double*,
                               std::int64_t*, double*, float*, float*, const volatile std::int32_t*);

}  // namespace pyhess

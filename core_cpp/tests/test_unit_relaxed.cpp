// Relaxed bounds of unit cells against values of the polynomial at random points, computed here by plain loops.
#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "check.hpp"
#include "pyhess/capi.h"
#include "pyhess/unit_relaxed.hpp"

using namespace pyhess;

namespace {

using Vector = std::vector<double>;

constexpr index_t kData = 6, kCells = 5;

std::size_t at(index_t i) { return static_cast<std::size_t>(i); }

// Random polynomials: nothing has to come from a network.
struct Setting {
    index_t inputs, units, size = inputs + 1, rows = units * size + 1, pairs = size * (size + 1) / 2;
    index_t triples = size * (size + 1) * (size + 2) / 6;
    std::mt19937 rng;
    Vector x, weights, linear, square, cubic, residual, phi, rests, outer, half, room, left, tilt, ratio, rounding,
        bounds, scratch;
    index_t stride = relaxed_scratch_size(kData, inputs, units) + 8;
    double scale = 0.9, target = 0.0;
    std::int32_t cancel = 0;

    Vector normal(index_t count, double factor = 1.0) {
        Vector found(at(count));
        for (double& value : found) value = factor * std::normal_distribution<double>()(rng);
        return found;
    }

    Setting(index_t dim, index_t num_units, unsigned seed) : inputs(dim), units(num_units), rng(seed) {
        x = normal(kData * dim);
        weights.assign(kData, 1.0 / kData);
        linear = normal(rows * kData), square = normal(units * pairs * kData, 0.3),
        cubic = normal(units * triples * kData, 0.1);
        residual = normal(kCells * kData), phi = normal(5 * kCells * kData), outer = normal(kCells);
        rests.assign(kCells * kData, 0.0), rounding.assign(kCells, 0.0);
        half.assign(at(kCells * size), 0.05), room.assign(kCells, 0.4), left.assign(kCells, 1.1);
        tilt.assign(at(kCells * size), 0.0), ratio.assign(at(kCells * size), 0.05 * 0.05 / (0.4 * 0.4));
        bounds.assign(kCells, 0.0), scratch.assign(at(2 * stride), 0.0);
    }

    RelaxedJob job() {
        RelaxedJob found{};
        found.x = x.data(), found.weights = weights.data(), found.linear = linear.data(), found.square = square.data();
        found.cubic = cubic.data(), found.num_data = kData, found.dim = inputs, found.num_units = units;
        found.num_rows = rows, found.scale_v = scale, found.residual = residual.data(), found.phi = phi.data();
        found.alpha = found.beta = rests.data(), found.outer = outer.data(), found.half = half.data();
        found.room = room.data(), found.left = left.data(), found.tilt = tilt.data(), found.ratio = ratio.data();
        found.rounding = found.cubic_rounding = rounding.data(), found.target = target, found.bounds = bounds.data();
        found.num_cells = kCells, found.scratch = scratch.data();
        found.scratch_stride = stride, found.cancel = &cancel;
        return found;
    }

    // p'R p for the polynomial at e and delta.
    double value(index_t c, const Vector& e, const Vector& delta, const Vector& p) const {
        double total = 0.0;
        for (index_t i = 0; i < kData; ++i) {
            const auto f = [&](index_t order) { return phi[at((order * kCells + c) * kData + i)]; };
            double sigma = 0.0, ds = 0.0;
            for (index_t d = 0; d < inputs; ++d) {
                sigma += x[at(i * inputs + d)] * p[at(d)];
                ds += x[at(i * inputs + d)] * half[at(c * size + d)] * e[at(d)];
            }
            const double v = outer[at(c)], dv = scale * half[at(c * size + inputs)] * e[at(inputs)], q = p[at(inputs)];
            const double a[3] = {v * f(2), v * f(3) * ds + dv * f(2), 0.5 * v * f(4) * ds * ds + dv * f(3) * ds};
            const double b[3] = {scale * f(1), scale * f(2) * ds, 0.5 * scale * f(3) * ds * ds};
            const double g[3] = {residual[at(c * kData + i)], v * f(1) * ds + dv * f(0),
                                 0.5 * v * f(2) * ds * ds + dv * f(1) * ds};
            double o[4] = {0.0, 0.0, 0.0, 0.0};
            for (index_t l = 0; l < rows; ++l) o[1] += linear[at(l * kData + i)] * room[at(c)] * delta[at(l)];
            for (index_t u = 0; u < units; ++u) {
                index_t two = 0, three = 0;
                const auto change = [&](index_t k) { return room[at(c)] * delta[at(u * size + k)]; };
                for (index_t k = 0; k < size; ++k)
                    for (index_t l = k; l < size; ++l) {
                        const double times = k == l ? 1.0 : 2.0;
                        o[2] += times * square[at((u * pairs + two++) * kData + i)] * change(k) * change(l);
                        for (index_t m = l; m < size; ++m) {
                            const double count = k == l && l == m ? 1.0 : k == l || l == m ? 3.0 : 6.0;
                            o[3] += count * cubic[at((u * triples + three++) * kData + i)] * change(k) * change(l) *
                                    change(m);
                        }
                    }
            }
            const auto form = [&](int order) { return a[order] * sigma * sigma + 2.0 * b[order] * sigma * q; };
            total += weights[at(i)] * ((g[0] + g[1] + g[2] + o[1] + o[2] + o[3]) * form(0) +
                                       (g[0] + g[1] + o[1]) * form(1) + g[0] * form(2));
        }
        return total;
    }
};

}  // namespace

TEST(relaxed_bounds_hold_at_points_of_the_cells) {
    for (const index_t inputs : {1, 2, 3})
        for (const index_t units : {0, 1, 3}) {
            Setting s(inputs, units, static_cast<unsigned>(4600 + 10 * inputs + units));
            const check::Note note(std::to_string(inputs) + " inputs, " + std::to_string(units) + " units");
            RelaxedJob job = s.job();
            CHECK(bound_relaxed_cells(job, 1) == Status::ok);
            for (index_t c = 0; c < kCells; ++c) {
                CHECK(std::isfinite(s.bounds[at(c)]));
                double least = std::numeric_limits<double>::infinity();
                for (int sample = 0; sample < 300; ++sample) {
                    Vector e = s.normal(s.size), delta = s.normal(s.rows), p = s.normal(s.size);
                    double inside = s.left[at(c)], length = 0.0, norm = 0.0;
                    for (index_t k = 0; k < s.size; ++k) {
                        e[at(k)] = std::max(-1.0, std::min(1.0, e[at(k)]));
                        inside -= s.ratio[at(c * s.size + k)] * e[at(k)] * e[at(k)];
                        norm += p[at(k)] * p[at(k)];
                    }
                    for (const double d : delta) length += d * d;
                    // No longer than one, as the third order supposes, and in the ball.
                    for (double& d : delta) d *= std::sqrt(std::min(1.0, inside) / length);
                    least = std::min(least, s.value(c, e, delta, p) / norm);
                }
                CHECK(s.bounds[at(c)] <= least + 1e-12);
            }
        }
}

TEST(relaxed_bounds_are_eigenvalues_where_nothing_changes) {
    Setting s(2, 2, 4651);
    std::fill(s.half.begin(), s.half.end(), 1e-9), std::fill(s.room.begin(), s.room.end(), 1e-9);
    std::fill(s.ratio.begin(), s.ratio.end(), 1.0);
    RelaxedJob job = s.job();
    CHECK(bound_relaxed_cells(job, 0) == Status::ok);
    const Vector none(at(s.size), 0.0), still(at(s.rows), 0.0);
    for (index_t c = 0; c < kCells; ++c) {
        double least = std::numeric_limits<double>::infinity();
        for (int sample = 0; sample < 20000; ++sample) {
            const Vector p = s.normal(s.size);
            double norm = 0.0;
            for (const double value : p) norm += value * value;
            least = std::min(least, s.value(c, none, still, p) / norm);
        }
        CHECK(s.bounds[at(c)] <= least && s.bounds[at(c)] > least - 0.02 * std::fabs(least));
    }
}

TEST(relaxed_cells_do_not_depend_on_who_bounds_them) {
    Setting one(2, 3, 4661), two(2, 3, 4661);
    RelaxedJob whole = one.job();
    CHECK(ph_relaxed_cells(reinterpret_cast<std::int64_t>(&whole), 0) == 0);
    RelaxedJob parts = two.job();
    parts.num_cells = kCells, parts.next = 3;
    CHECK(bound_relaxed_cells(parts, 1) == Status::ok);
    parts.next = 0;
    CHECK(bound_relaxed_cells(parts, 0) == Status::ok);
    CHECK(one.bounds == two.bounds);
}

TEST(relaxed_cells_can_be_cancelled) {
    Setting s(1, 1, 4671);
    s.cancel = 1, s.bounds.assign(kCells, 7.0);
    RelaxedJob job = s.job();
    CHECK(bound_relaxed_cells(job, 0) == Status::cancelled);
    for (const double bound : s.bounds) CHECK(bound == 7.0);
    CHECK(ph_relaxed_cells(0, 0) == static_cast<std::int32_t>(Status::bad_argument));
}

// Bounds of unit cells against eigenvalues of the block at points of the cells, computed here by plain loops.
#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "../src/unit_cells/forms.hpp"
#include "check.hpp"
#include "pyhess/capi.h"
#include "pyhess/unit_cells.hpp"

using namespace pyhess;

namespace {

using Vector = std::vector<double>;

constexpr index_t kData = 7, kRoots = 2, kCells = 21;
constexpr double kInfinity = std::numeric_limits<double>::infinity();

enum class Kind { twins, box, ball };

std::size_t at(index_t i) { return static_cast<std::size_t>(i); }

// (phi, phi', phi'') at s
void activation(Activation act, double beta, double s, double out[3]) {
    const double pi = std::acos(-1.0), density = std::exp(-0.5 * s * s) / std::sqrt(2.0 * pi);
    const double p = 1.0 / (1.0 + std::exp(-(act == Activation::softplus ? beta * s : s))), t = std::tanh(s);
    switch (act) {
        case Activation::identity: out[0] = s, out[1] = 1.0, out[2] = 0.0; return;
        case Activation::tanh: out[0] = t, out[1] = 1.0 - t * t, out[2] = -2.0 * t * (1.0 - t * t); return;
        case Activation::sigmoid: out[0] = p, out[1] = p * (1.0 - p), out[2] = p * (1.0 - p) * (1.0 - 2.0 * p); return;
        case Activation::softplus:
            out[0] = std::log1p(std::exp(beta * s)) / beta, out[1] = p, out[2] = beta * p * (1.0 - p);
            return;
        default:
            out[0] = 0.5 * s * std::erfc(-s / std::sqrt(2.0)), out[1] = out[0] / s + s * density,
            out[2] = density * (2.0 - s * s);
    }
}

// A problem with random models of the other units, and random cells.
struct Setting {
    Activation act;
    Loss loss;
    Kind kind;
    index_t dim = 2, outputs, size, dims, generators;
    double beta = 1.7, scale_u = 0.8, scale_v = 1.3, radius = 0.9;
    std::mt19937 rng;
    Vector z, norms, weights, targets, mass, amplitude, offset, middle, gens, slack, ranges, centers, inverse, cells,
        parents;
    std::vector<std::int64_t> kinds, powers, groups, roots;
    Vector bounds, directions, scratch;
    std::vector<std::int64_t> splits, models;
    index_t stride = 0;
    std::int32_t cancel = 0;

    double normal(double scale = 1.0) { return scale * std::normal_distribution<double>()(rng); }
    double uniform(double low, double high) {
        return low + (high - low) * std::uniform_real_distribution<double>()(rng);
    }

    Setting(Activation a, Loss l, Kind k, double width, unsigned seed)
        : act(a),
          loss(l),
          kind(k),
          outputs(l == Loss::logistic ? 1 : 2),
          size(dim + outputs),
          dims(2 * dim + outputs),
          generators(k == Kind::twins ? 0 : 3),
          rng(seed) {
        const auto draw = [this](Vector& into, index_t count, double scale) {
            for (index_t i = 0; i < count; ++i) into.push_back(normal(scale));
        };
        draw(z, kData * dim, 1.0);
        for (index_t i = 0; i < kData; ++i) {
            norms.push_back(std::hypot(z[at(i * dim)], z[at(i * dim + 1)]) * (1.0 + 1e-15));
            weights.push_back(i == 3 ? 0.0 : 1.0 / 6.0);
            for (index_t o = 0; o < outputs; ++o)
                targets.push_back(loss == Loss::squared_error ? normal() : loss == Loss::logistic ? i % 2 : i % 2 == o);
            mass.push_back(1.0);
        }
        draw(amplitude, kRoots * outputs, 1.0), draw(offset, kRoots * outputs, 0.3);
        const index_t rest = kRoots * kData * outputs;
        draw(middle, rest, 0.5), draw(gens, rest * generators, 0.2);
        for (index_t i = 0; i < 3 * rest; ++i) slack.push_back(0.05 * uniform(0.0, 1.0));
        // The range holds what the generators can make of the largest room: its model is then true where the other is.
        for (double x : middle) ranges.push_back(x);
        for (index_t i = 0; i < rest; ++i) {
            double reach = slack[at(i)] + slack[at(rest + i)] + slack[at(2 * rest + i)];
            for (index_t g = 0; g < generators; ++g) reach += std::fabs(gens[at(i * generators + g)]);
            ranges.push_back(reach);
        }
        ranges.resize(at(4 * rest), 0.0);
        for (index_t i = 0; i < rest; ++i) ranges.push_back(ranges[at(rest + i)]);
        ranges.resize(at(6 * rest), 0.0);
        kinds.assign(kRoots, static_cast<std::int64_t>(kind == Kind::twins ? Rest::twins : Rest::linear));
        for (index_t g = 0; g < generators; ++g) {
            powers.push_back(kind == Kind::ball ? 1 + (g == 2) : 0);
            groups.push_back(kind == Kind::ball ? g / 2 : -1);
        }
        draw(centers, kRoots * size, 0.3);
        for (index_t d = 0; d < size; ++d) inverse.push_back(1.0 / (d < dim ? scale_u : scale_v));
        for (index_t c = 0; c < kCells; ++c) {
            roots.push_back(c % kRoots);
            Vector middles;
            for (index_t d = 0; d < dims; ++d)
                middles.push_back(d < size && kind == Kind::ball ? centers[at(roots.back() * size + d)] + normal(0.2)
                                                                 : normal(0.8));
            for (const double sign : {-1.0, 1.0})
                for (double x : middles) cells.push_back(x + sign * width);
            parents.push_back(-kInfinity);
        }
        bounds = parents, splits.assign(kCells, -7), models.assign(kCells, -7);
        directions.assign(at(kCells * size * size), 0.0);
        stride = unit_scratch_size(kData, dim, outputs, generators);
        scratch.assign(at(2 * stride), std::numeric_limits<double>::quiet_NaN());
    }

    UnitJob job() {
        UnitJob out{};
        out.z = z.data(), out.norms = norms.data(), out.weights = weights.data(), out.targets = targets.data();
        out.mass = mass.data(), out.num_data = kData, out.dim = dim, out.outputs = outputs;
        out.activation = static_cast<std::int64_t>(act), out.loss = static_cast<std::int64_t>(loss);
        out.beta = beta, out.scale_u = scale_u, out.scale_v = scale_v, out.kinds = kinds.data();
        out.amplitude = amplitude.data(), out.offset = offset.data(), out.middle = middle.data();
        out.generators = gens.data(), out.slack = slack.data(), out.ranges = ranges.data();
        out.powers = powers.data(), out.groups = groups.data(), out.num_roots = kRoots, out.num_generators = generators;
        out.centers = centers.data(), out.inverse = inverse.data();
        out.squared_radius = kind == Kind::ball ? radius * radius : -1.0;
        out.cells = cells.data(), out.roots = roots.data(), out.parents = parents.data(), out.bounds = bounds.data();
        out.splits = splits.data(), out.models = models.data(), out.directions = directions.data();
        out.num_cells = kCells, out.scratch = scratch.data(), out.scratch_stride = stride, out.cancel = &cancel;
        return out;
    }

    std::int32_t run(index_t thread = 0) {
        UnitJob record = job();
        return ph_unit_cells(static_cast<std::int64_t>(reinterpret_cast<std::uintptr_t>(&record)), thread);
    }

    // Smallest eigenvalue of the block at a random point of cell c and of the other units' model there.
    double eigval_at_random_point(index_t c) {
        const double *lo = cells.data() + 2 * c * dims, *hi = lo + dims;
        const index_t root = roots[at(c)];
        Vector point, symbols, block(at(size * size), 0.0);
        double room = 1.0;
        for (;;) {
            point.clear();
            double used = 0.0;
            for (index_t d = 0; d < dims; ++d) {
                point.push_back(uniform(lo[d], hi[d]));
                if (d < size) used += std::pow((point.back() - centers[at(root * size + d)]) * inverse[at(d)], 2);
            }
            if (kind != Kind::ball) break;
            if (used <= radius * radius) {
                room = std::sqrt(radius * radius - used);
                break;
            }
        }
        // The symbols of a group lie in the unit ball: a cube inside it will do.
        for (index_t g = 0; g < generators; ++g) symbols.push_back(uniform(-0.7, 0.7));
        for (index_t i = 0; i < kData; ++i) {
            const double* x = z.data() + i * dim;
            double phi[3], other[3], f[2], r[2], total = 0.0, along = 0.0;
            activation(act, beta, point[0] * x[0] + point[1] * x[1], phi);
            activation(act, beta, point[at(size)] * x[0] + point[at(size + 1)] * x[1], other);
            for (index_t o = 0; o < outputs; ++o) {
                const index_t ro = root * outputs + o, rio = (root * kData + i) * outputs + o;
                double t = amplitude[at(ro)] * other[0] + offset[at(ro)];
                if (kind != Kind::twins) {
                    const index_t rest = kRoots * kData * outputs;
                    const double slacks =
                        slack[at(rio)] +
                        (kind == Kind::ball) * (room * slack[at(rest + rio)] + room * room * slack[at(2 * rest + rio)]);
                    t = middle[at(rio)] + uniform(-1.0, 1.0) * slacks;
                    for (index_t g = 0; g < generators; ++g)
                        t += gens[at(rio * generators + g)] * symbols[at(g)] * std::pow(room, powers[at(g)]);
                }
                f[o] = point[at(dim + o)] * phi[0] + t;
                total += std::exp(f[o]);
            }
            for (index_t o = 0; o < outputs; ++o) {
                const double p = loss == Loss::squared_error ? f[o]
                                 : loss == Loss::logistic    ? 1.0 / (1.0 + std::exp(-f[o]))
                                                             : std::exp(f[o]) / total;
                r[o] = p - targets[at(i * outputs + o)];
                along += r[o] * point[at(dim + o)];
            }
            for (index_t a = 0; a < dim; ++a) {
                for (index_t b = 0; b < dim; ++b)
                    block[at(a * size + b)] += weights[at(i)] * scale_u * scale_u * along * phi[2] * x[a] * x[b];
                for (index_t o = 0; o < outputs; ++o) {
                    const double entry = weights[at(i)] * scale_u * scale_v * phi[1] * r[o] * x[a];
                    block[at(a * size + dim + o)] += entry, block[at((dim + o) * size + a)] += entry;
                }
            }
        }
        return smallest_eigval(block);
    }

    // By power iteration on s I - A with many steps: never below the smallest eigenvalue but for rounding.
    double smallest_eigval(const Vector& block) {
        double shift = 0.0, value = 0.0;
        for (double x : block) shift += std::fabs(x);
        Vector v;
        for (index_t d = 0; d < size; ++d) v.push_back(normal());
        for (int step = 0; step < 3000; ++step) {
            Vector next(at(size), 0.0);
            double square = 0.0, form = 0.0;
            for (index_t a = 0; a < size; ++a) {
                for (index_t b = 0; b < size; ++b) next[at(a)] += block[at(a * size + b)] * v[at(b)];
                square += v[at(a)] * v[at(a)], form += next[at(a)] * v[at(a)];
            }
            value = form / square;
            for (index_t a = 0; a < size; ++a)
                v[at(a)] = (shift * v[at(a)] - next[at(a)]) / (std::sqrt(square) * shift);
        }
        return value;
    }
};

template <class Body>
void for_all_settings(double width, Body body) {
    unsigned seed = 4400;
    for (const Activation act :
         {Activation::identity, Activation::tanh, Activation::softplus, Activation::sigmoid, Activation::gelu})
        for (const Loss loss : {Loss::squared_error, Loss::logistic, Loss::cross_entropy})
            for (const Kind kind : {Kind::twins, Kind::box, Kind::ball}) {
                if (kind == Kind::twins && loss != Loss::squared_error) continue;
                const check::Note note("activation " + std::to_string(static_cast<int>(act)) + ", loss " +
                                       std::to_string(static_cast<int>(loss)) + ", kind " +
                                       std::to_string(static_cast<int>(kind)));
                Setting setting(act, loss, kind, width, ++seed);
                body(setting);
            }
}

}  // namespace

TEST(unit_bounds_hold_at_points_of_the_cells) {
    for (const double width : {0.02, 0.2})
        for_all_settings(width, [](Setting& s) {
            CHECK(s.run() == 0);
            index_t bounded = 0;
            for (index_t c = 0; c < kCells; ++c) {
                const double bound = s.bounds[at(c)];
                if (s.models[at(c)] < 0) {
                    CHECK(s.kind == Kind::ball && bound == kInfinity && s.splits[at(c)] == -1);
                    continue;
                }
                ++bounded;
                CHECK(std::isfinite(bound) && s.splits[at(c)] >= 0 && s.splits[at(c)] < s.dims);
                for (int sample = 0; sample < 4; ++sample) {
                    const double found = s.eigval_at_random_point(c);
                    CHECK(bound <= found + 1e-12 * (1.0 + std::fabs(found)));
                }
            }
            CHECK(bounded > 5);
        });
}

TEST(unit_bounds_are_tight_where_nothing_is_unknown) {
    for_all_settings(1e-9, [](Setting& s) {
        for (Vector* spread : {&s.slack, &s.gens}) std::fill(spread->begin(), spread->end(), 0.0);
        if (s.kind == Kind::ball) return;  // what is left of the radius is the other units'
        CHECK(s.run() == 0);
        for (index_t c = 0; c < kCells; ++c) CHECK_NEAR(s.bounds[at(c)], s.eigval_at_random_point(c), 1e-5);
    });
}

TEST(unit_cells_do_not_depend_on_who_bounds_them) {
    Setting one(Activation::tanh, Loss::cross_entropy, Kind::ball, 0.1, 4501);
    Setting two(Activation::tanh, Loss::cross_entropy, Kind::ball, 0.1, 4501);
    CHECK(one.run() == 0);
    // in the other order, with the scratch of another thread
    for (index_t c = kCells; c-- > 0;) {
        UnitJob job = two.job();
        job.cells += 2 * c * two.dims, job.roots += c, job.parents += c, job.bounds += c, job.splits += c,
            job.models += c;
        job.directions += c * two.size * two.size, job.num_cells = 1;
        CHECK(bound_unit_cells(job, 1) == Status::ok);
    }
    CHECK(one.bounds == two.bounds && one.splits == two.splits && one.models == two.models);
    CHECK(one.directions == two.directions && one.cells == two.cells);
}

TEST(unit_cells_try_the_models_asked_for) {
    for (const Kind kind : {Kind::box, Kind::ball}) {
        Setting both(Activation::tanh, Loss::cross_entropy, kind, 0.4, 4503);
        Setting generators(Activation::tanh, Loss::cross_entropy, kind, 0.4, 4503);
        Setting ranges(Activation::tanh, Loss::cross_entropy, kind, 0.4, 4503);
        both.models.assign(kCells, -1), generators.models.assign(kCells, 0), ranges.models.assign(kCells, 1);
        CHECK(both.run() == 0 && generators.run() == 0 && ranges.run() == 0);
        index_t first = 0, second = 0;
        for (std::size_t c = 0; c < at(kCells); ++c) {
            CHECK(both.bounds[c] == std::max(generators.bounds[c], ranges.bounds[c]));
            if (both.models[c] < 0) continue;
            CHECK(generators.models[c] == 0 && ranges.models[c] == 1);
            const Setting& better = both.models[c] == 0 ? generators : ranges;
            CHECK(both.bounds[c] == better.bounds[c] && both.splits[c] == better.splits[c]);
            ++(both.models[c] == 0 ? first : second);
        }
        CHECK(first > 0 && second > 0);
    }
}

TEST(softmax_forms_hold) {
    std::mt19937 rng(4504);
    std::uniform_real_distribution<double> uniform(-1.0, 1.0);
    for (index_t outputs = 1; outputs < 6; ++outputs) {
        const index_t nl = 1 + 3 * outputs, e = 2 + 2 * outputs;
        index_t lines = 0, total = 0;
        for (const double width : {0.0, 1e-9, 1e-4, 0.02, 0.3, 1.0, 4.0, 30.0, 900.0})
            for (int draw = 0; draw < 20; ++draw) {
                Vector rows(at(2 * outputs * (2 * nl + 2)), 0.0), work(at(3 * outputs)), y(at(outputs), 0.0);
                const units::Forms forms{rows.data(), nl};
                y[at(draw % outputs)] = 0.75;
                for (index_t k = 0; k < outputs; ++k) {
                    forms[k][0] = (draw % 2 ? 2.0 : 20.0) * uniform(rng);
                    for (index_t i = 1; i < e; ++i) forms[k][i] = width * uniform(rng);
                    forms[k][nl + 1] = draw % 3 ? 0.1 * width : 0.0;
                }
                units::residual_forms(Loss::cross_entropy, outputs, y.data(), 0.75, forms, 0, outputs, work.data());
                Vector least(at(outputs), kInfinity), most(at(outputs), -kInfinity);
                for (int sample = 0; sample < 60; ++sample) {
                    Vector symbols(at(e)), f(at(outputs));
                    for (double& x : symbols) x = sample % 2 ? uniform(rng) : std::copysign(1.0, uniform(rng));
                    double top = -kInfinity, sum = 0.0;
                    for (index_t k = 0; k < outputs; ++k) {
                        f[at(k)] = forms[k][0] + std::copysign(forms[k][nl + 1], uniform(rng));
                        for (index_t i = 1; i < e; ++i) f[at(k)] += forms[k][i] * symbols[at(i)];
                        top = std::max(top, f[at(k)]);
                    }
                    for (const double x : f) sum += std::exp(x - top);
                    for (index_t k = 0; k < outputs; ++k) {
                        const double* r = forms[outputs + k];
                        const double p = 0.75 * std::exp(f[at(k)] - top) / sum;
                        double line = r[0];
                        for (index_t i = 1; i < e; ++i) line += r[i] * symbols[at(i)];
                        CHECK(std::fabs(p - y[at(k)] - line) <= r[e + k] + 1e-15 * (1.0 + width));
                        least[at(k)] = std::min(least[at(k)], p), most[at(k)] = std::max(most[at(k)], p);
                    }
                }
                for (index_t k = 0; k < outputs; ++k) {
                    const double* r = forms[outputs + k];
                    ++total;
                    if (std::any_of(r + 1, r + e, [](double x) { return x != 0.0; })) ++lines;
                    // no more is left out than what an interval would leave
                    CHECK(r[nl + 1] == 0.0 && r[e + k] <= 0.5 * 0.75 + 1e-11 * (1.0 + width * width));
                }
                if (width == 0.02 && outputs > 1 && draw % 3 == 0)
                    for (index_t k = 0; k < outputs; ++k) {
                        const double range = most[at(k)] - least[at(k)];
                        CHECK(forms[outputs + k][e + k] <= 0.2 * range + 1e-10);
                    }
            }
        CHECK(outputs == 1 ? lines == 0 : 3 * lines > total);
    }
}

TEST(softmax_forms_know_how_far_one_other_output_can_rise) {
    // Output 1 has next to no share at its middle, but at its upper end it takes all from output 2.
    const index_t outputs = 3, nl = 1 + 3 * outputs, e = 2 + 2 * outputs;
    for (const double width : {50.0, 599.0, 601.0, 1990.0}) {
        Vector rows(at(2 * outputs * (2 * nl + 2)), 0.0), work(at(3 * outputs)), y(at(outputs), 0.0);
        const units::Forms forms{rows.data(), nl};
        forms[1][0] = -std::log(width), forms[1][1] = width;
        forms[2][0] = 0.95 * width;
        units::residual_forms(Loss::cross_entropy, outputs, y.data(), 1.0, forms, 0, outputs, work.data());
        const double* r = forms[outputs + 2];
        for (const double symbol : {-1.0, 1.0}) {
            const double p =
                1.0 / (1.0 + std::exp(-forms[2][0]) + std::exp(forms[1][0] + symbol * width - forms[2][0]));
            CHECK(std::fabs(p - (r[0] + r[1] * symbol)) <= r[e + 2] + 1e-12);
        }
    }
}

TEST(unit_cells_keep_what_is_known_and_can_be_cancelled) {
    Setting s(Activation::gelu, Loss::squared_error, Kind::twins, 0.5, 4502);
    s.parents.assign(kCells, -1e-3);
    CHECK(s.run() == 0);
    for (double bound : s.bounds) CHECK(bound >= -1e-3);
    Setting cancelled(Activation::gelu, Loss::squared_error, Kind::twins, 0.5, 4502);
    cancelled.cancel = 1;
    CHECK(cancelled.run() == static_cast<std::int32_t>(Status::cancelled));
    for (std::int64_t split : cancelled.splits) CHECK(split == -7);
    CHECK(ph_unit_cells(0, 0) == static_cast<std::int32_t>(Status::bad_argument));
    CHECK(cancelled.run(-1) == static_cast<std::int32_t>(Status::bad_argument));
}

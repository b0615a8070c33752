#include "pyhess/unit_cells.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "cell.hpp"

namespace pyhess {
namespace units {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

// Hands out arrays one after the other; without memory it only counts.
class Cutter {
public:
    explicit Cutter(double* scratch) : scratch_(scratch) {}
    double* operator()(index_t size) {
        const index_t begin = used_;
        used_ += size;
        return scratch_ ? scratch_ + begin : nullptr;
    }
    index_t used() const { return used_; }

private:
    double* scratch_;
    index_t used_ = 0;
};

}  // namespace

Cell::Cell(const UnitJob& job, double* scratch)
    : job_(job),
      dim_(job.dim),
      outputs_(job.outputs),
      size_(dim_ + outputs_),
      nl_(1 + 3 * outputs_),
      column_stride_(std::max(dim_, job.num_generators)),
      kappa_(job.scale_u * job.scale_u),
      cross_(job.scale_u * job.scale_v),
      at_v_(6),
      at_t_(6 + outputs_),
      at_f_(6 + 2 * outputs_),
      at_r_(6 + 3 * outputs_),
      at_b_(6 + 4 * outputs_) {
    Cutter take(scratch);
    const index_t n = job.num_data, symbols = size_ + column_stride_ + dim_;
    forms_ = {take((6 + 5 * outputs_) * (2 * nl_ + 2)), nl_};
    columns_ = take(outputs_ * column_stride_), work_ = take(3 * outputs_), coefficients_ = take(outputs_);
    rem_a_ = take(n), rem_b_ = take(n * outputs_), free_a_ = take(n * outputs_), free_b_ = take(n * outputs_);
    share_a_ = take(n * nl_), share_b_ = take(n * outputs_ * nl_);
    for (Square* square : {&m0_, &n_, &a_, &b_, &q_, &l_, &x_, &y_, &weight_, &best_weight_})
        *square = {take(size_ * size_), size_};
    e_ = {take(symbols * size_ * size_), size_};
    f_ = take(size_), z_ = take(size_), best_z_ = take(size_);
    sizes_of_ = take(symbols), scores_ = take(symbols);
    scratch_size_ = take.used();
    for (index_t l = 0; l < job.num_generators && job.groups; ++l)
        num_groups_ = std::max<index_t>(num_groups_, job.groups[l] + 1);
}

double Cell::shrink_to_ball() {
    const double *center = job_.centers + root_ * size_, *inverse = job_.inverse;
    const auto gap_of = [&](index_t d) {
        return std::max(0.0, std::max(lo_[d] - center[d], center[d] - hi_[d])) * inverse[d];
    };
    double total = 0.0;
    for (index_t d = 0; d < size_; ++d) {
        const double gap = gap_of(d);
        total += gap * gap * (1.0 - 32.0 * kUnit);
    }
    const double left = job_.squared_radius - total * (1.0 - 4.0 * static_cast<double>(size_) * kUnit);
    if (left < 0.0) return -1.0;
    for (index_t d = 0; d < size_; ++d) {
        const double gap = gap_of(d);
        double reach = std::sqrt(left + gap * gap * (1.0 + 16.0 * kUnit)) / inverse[d] * (1.0 + 32.0 * kUnit);
        reach += 8.0 * kUnit * std::abs(center[d]) + kTiny;
        lo_[d] = std::max(lo_[d], center[d] - reach);
        hi_[d] = std::min(hi_[d], center[d] + reach);
        if (lo_[d] > hi_[d]) return -1.0;
    }
    return std::sqrt(left) * (1.0 + 8.0 * kUnit);
}

// What the rest makes of the bound, times the share of it that a cell at its middle would not have.
void Cell::add_room_scores() {
    double square = 0.0, rest = 0.0;
    for (index_t k = own_symbols(); k < count_; ++k) {
        double trace = 0.0;
        for (index_t i = 0; i < size_; ++i) {
            trace += e_[k](i, i) * best_weight_(i, i);
            for (index_t j = 0; j < i; ++j) trace += 2.0 * e_[k](i, j) * best_weight_(i, j);
        }
        square += trace * trace;
    }
    for (index_t i = 0; i < job_.num_data; ++i) {
        const double* z = job_.z + i * dim_;
        const double y2 = quadratic(best_weight_, z);
        for (index_t k = 0; k < outputs_; ++k) {
            double yq = 0.0;
            for (index_t d = 0; d < dim_; ++d) yq += best_weight_(dim_ + k, d) * z[d];
            rest += std::abs(free_a_[i * outputs_ + k] * y2 + 2.0 * free_b_[i * outputs_ + k] * yq);
        }
    }
    const double scale = (std::sqrt(square) + rest) / (2.0 * room_ * room_ + kTiny);
    const double* center = job_.centers + root_ * size_;
    for (index_t d = 0; d < size_; ++d) {
        const double near = std::max(0.0, std::max(lo_[d] - center[d], center[d] - hi_[d])) * job_.inverse[d];
        const double middle = (0.5 * (lo_[d] + hi_[d]) - center[d]) * job_.inverse[d];
        scores_[d] += scale * (middle * middle - near * near);
    }
}

index_t Cell::split() {
    const bool twin = twins();
    std::fill_n(scores_, own_symbols(), 0.0);
    for (index_t i = 0; i < job_.num_data; ++i) {
        const double* z = job_.z + i * dim_;
        const double y2 = quadratic(best_weight_, z);
        double own = 0.0, other = 0.0;
        for (index_t d = 0; d < dim_; ++d) {
            own += half_width(d) * std::abs(z[d]);
            if (twin) other += half_width(size_ + d) * std::abs(z[d]);
        }
        for (index_t j = 0; j < 1 + 2 * outputs_; ++j) {
            double x = share_a_[i * nl_ + j] * y2;
            for (index_t k = 0; k < outputs_; ++k)
                x += 2.0 * share_b_[(i * outputs_ + k) * nl_ + j] *
                     std::sqrt(std::max(0.0, y2 * best_weight_(dim_ + k, dim_ + k)));
            if (j == 0) {
                for (index_t d = 0; d < dim_; ++d)
                    scores_[d] += x * 0.5 * (hi_[d] - lo_[d]) * std::abs(z[d]) / (own + kTiny);
            } else if (j <= outputs_) {
                scores_[dim_ + j - 1] += x;
            } else if (twin) {
                for (index_t d = size_; d < size_ + dim_; ++d)
                    scores_[d] += x * 0.5 * (hi_[d] - lo_[d]) * std::abs(z[d - size_]) / (other + kTiny);
            }
        }
    }
    if (job_.squared_radius >= 0.0) add_room_scores();
    index_t best = -1;
    for (index_t d = 0; d < own_symbols(); ++d) {
        const double middle = 0.5 * (lo_[d] + hi_[d]);
        if (lo_[d] < middle && middle < hi_[d] && (best < 0 || scores_[d] > scores_[best])) best = d;
    }
    return best;
}

void Cell::run(index_t c) {
    const index_t dims = 2 * dim_ + outputs_;
    lo_ = job_.cells + 2 * c * dims, hi_ = lo_ + dims;
    root_ = job_.roots[c];
    room_ = 0.0;
    if (job_.squared_radius >= 0.0) {
        room_ = shrink_to_ball();
        if (room_ < 0.0) {
            job_.bounds[c] = kInfinity, job_.splits[c] = job_.models[c] = -1;
            return;
        }
    }
    const auto keep = [&](Model model) {
        job_.splits[c] = split();
        std::copy_n(best_weight_.at, size_ * size_, job_.directions + c * size_ * size_);
        job_.models[c] = static_cast<std::int64_t>(model);
    };
    const std::int64_t asked = twins() ? 0 : job_.models[c];
    double value = -kInfinity;
    if (asked != static_cast<std::int64_t>(Model::ranges)) {
        value = bound(Model::generators);
        keep(Model::generators);
    }
    if (asked != static_cast<std::int64_t>(Model::generators)) {
        const double other = bound(Model::ranges);
        if (other > value || !(value > -kInfinity)) {
            value = other;
            keep(Model::ranges);
        }
    }
    if (std::isnan(value)) value = -kInfinity;
    job_.bounds[c] = std::max(job_.parents[c], value);
}

}  // namespace units

index_t unit_scratch_size(index_t num_data, index_t dim, index_t outputs, index_t num_generators) {
    UnitJob job{};
    job.num_data = num_data, job.dim = dim, job.outputs = outputs, job.num_generators = num_generators;
    return units::Cell(job, nullptr).scratch_size();
}

Status bound_unit_cells(UnitJob& job, index_t thread) {
    units::Cell cell(job, job.scratch + thread * job.scratch_stride);
    for (;;) {
        if (job.cancel && *job.cancel) return Status::cancelled;
        const index_t task = __atomic_fetch_add(&job.next, std::int64_t{1}, __ATOMIC_RELAXED);
        const index_t begin = task * kCellsPerTask;
        if (begin >= job.num_cells) return Status::ok;
        for (index_t c = begin; c < std::min(begin + kCellsPerTask, job.num_cells); ++c) cell.run(c);
    }
}

}  // namespace pyhess

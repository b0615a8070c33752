#include <algorithm>
#include <cmath>
#include <limits>

#include "cell.hpp"

namespace pyhess::units {
namespace {

// Mixtures of eigenvectors that are tried for the majorants.
constexpr int kPicks = 8;
// Times the allowance of a Cholesky factorisation is doubled before it is given up.
constexpr int kDoublings = 200;
// Sums of magnitudes beyond this have overflowed, or are about to.
constexpr double kHuge = 1e300;
constexpr double kInfinity = std::numeric_limits<double>::infinity();

}  // namespace

// Marks the symbols with the largest matrices, at most kMaxVertex of them.
void Cell::choose_vertices() {
    const index_t own = own_symbols();
    for (index_t k = 0; k < count_; ++k) sizes_of_[k] = k < own || job_.groups[k - own] < 0 ? frobenius(e_[k]) : 0.0;
    num_vertices_ = 0;
    while (num_vertices_ < kMaxVertex) {
        index_t best = -1;
        for (index_t k = 0; k < count_; ++k)
            if (sizes_of_[k] > 0.0 && (best < 0 || sizes_of_[k] > sizes_of_[best])) best = k;
        if (best < 0) break;
        sizes_of_[best] = -1.0;
        vertices_[num_vertices_++] = best;
    }
    std::sort(vertices_, vertices_ + num_vertices_);
}

// y'Zy for y = (z, 0).
double Cell::quadratic(const Square& weight, const double* z) const {
    double y2 = 0.0;
    for (index_t d = 0; d < dim_; ++d) {
        double x = 0.5 * weight(d, d) * z[d];
        for (index_t j = 0; j < d; ++j) x += weight(d, j) * z[j];
        y2 += 2.0 * x * z[d];
    }
    return y2;
}

// N of a datum's remainders and of its e_k.
void Cell::majorise_datum(index_t i, const Square& weight) {
    const double *z = job_.z + i * dim_, norm = job_.norms[i];
    const double y2 = std::max(quadratic(weight, z), 1e-6 * norm * norm) + 1e-200;
    double a = rem_a_[i];
    for (index_t k = 0; k < outputs_; ++k) {
        const index_t ik = i * outputs_ + k;
        const double q2 = weight(dim_ + k, dim_ + k) + 1e-8;
        double down = 0.0;
        if (rem_b_[ik] > 0.0) {
            const double tau = std::sqrt(q2 / y2);
            a += tau * rem_b_[ik];
            down = rem_b_[ik] / tau;
        }
        if (free_a_[ik] != 0.0 || free_b_[ik] != 0.0) {
            double yq = 0.0;
            for (index_t d = 0; d < dim_; ++d) yq += weight(dim_ + k, d) * z[d];
            const double limit = (1.0 - 1e-6) * std::sqrt(y2 * q2);
            const auto [n11, n12, n22] =
                majorise_pair(free_a_[ik], free_b_[ik], y2, std::min(limit, std::max(-limit, yq)), q2);
            a += n11;
            down += n22;
            for (index_t d = 0; d < dim_; ++d) n_(dim_ + k, d) += n12 * z[d];
            extra_ += 2.0 * std::abs(n12) * norm + std::abs(n11) * norm * norm;
        }
        n_(dim_ + k, dim_ + k) += down;
        extra_ += down;
    }
    extra_ += std::abs(a) * norm * norm;
    for (index_t d = 0; d < dim_; ++d) {
        const double x = a * z[d];
        for (index_t j = 0; j <= d; ++j) n_(d, j) += x * z[j];
    }
}

// N of everything but the middle and the vertex symbols, small in trace(N weight), and the sum of its magnitudes.
void Cell::majorise_rest(const double* z, const Square& weight) {
    n_.fill(0.0);
    extra_ = 0.0;
    for (index_t i = 0; i < job_.num_data; ++i) majorise_datum(i, weight);
    const index_t own = own_symbols();
    for (index_t k = 0; k < count_; ++k) {
        if (is_vertex(k) || (k >= own && job_.groups[k - own] >= 0)) continue;
        const double norm = frobenius(e_[k]) * (1.0 + 1e-12);
        if (norm > 0.0) extra_ += majorise(n_, e_[k], z, f_, norm);
    }
    if (count_ <= own) return;
    for (index_t code = 0; code < num_groups_; ++code)
        extra_ +=
            majorise_ball(n_, {e_[own].at, size_}, job_.groups, count_ - own, code, weight, {l_, a_, b_, q_, x_, y_});
}

// A mixture of eigenvectors whose majorants give the best bound, and the last direction; the bound, not yet a proved
// one. The best majorants are those for a mixture of the eigenvectors they lead to.
double Cell::find_mixture() {
    smallest(m0_, b_, q_, z_);
    for (index_t i = 0; i < size_; ++i) {
        for (index_t j = 0; j <= i; ++j) weight_(i, j) = 0.5 * z_[i] * z_[j];
        weight_(i, i) += 0.25 / static_cast<double>(i < dim_ ? dim_ : outputs_);
    }
    double best = -kInfinity;
    for (int step = 0; step < kPicks; ++step) {
        majorise_rest(z_, weight_);
        if (!(extra_ < kHuge)) return -kInfinity;
        for (index_t i = 0; i < size_; ++i)
            for (index_t j = 0; j <= i; ++j) a_(i, j) = m0_(i, j) - n_(i, j);
        for (index_t c = 0; c < num_vertices_; ++c) {
            const Square e = e_[vertices_[c]];
            const double sign = times(e, z_, f_) >= 0.0 ? 1.0 : -1.0;
            for (index_t i = 0; i < size_; ++i)
                for (index_t j = 0; j <= i; ++j) a_(i, j) -= sign * e(i, j);
        }
        std::copy(z_, z_ + size_, f_);
        const double value = smallest(a_, b_, q_, z_), gain = value - best;
        if (value > best) {
            best = value;
            best_weight_.copy(weight_);
            std::copy(f_, f_ + size_, best_z_);
        }
        if (step > 1 && gain < 1e-4 * std::abs(best)) break;
        const double share = 1.0 / (step + 2.0);
        for (index_t i = 0; i < size_; ++i)
            for (index_t j = 0; j <= i; ++j) weight_(i, j) += share * (z_[i] * z_[j] - weight_(i, j));
    }
    return best;
}

// A proved lower bound, at most `start`, of the eigenvalues of M_0 - N + sum of +-E_k over all signs.
double Cell::vertex_bound(double start, double slack) {
    for (index_t i = 0; i < size_; ++i) {
        for (index_t j = 0; j <= i; ++j) {
            double x = m0_(i, j) - n_(i, j);
            for (index_t c = 0; c < num_vertices_; ++c) x -= e_[vertices_[c]](i, j);
            a_(i, j) = x;
        }
    }
    double value = start;
    for (index_t step = 0; step < index_t{1} << num_vertices_; ++step) {
        if (step > 0) {  // Gray code: one sign changes
            index_t bit = 0;
            while (((step >> bit) & 1) == 0) ++bit;
            const double sign = (((step ^ (step >> 1)) >> bit) & 1) == 0 ? -1.0 : 1.0;
            const Square e = e_[vertices_[bit]];
            for (index_t i = 0; i < size_; ++i)
                for (index_t j = 0; j <= i; ++j) a_(i, j) += 2.0 * sign * e(i, j);
        }
        double drop = 1e-14 * (std::abs(value) + slack);
        if (cholesky(a_, b_, value)) continue;
        value = std::min(value, smallest(a_, b_, q_, z_));
        for (int doubling = 0; doubling < kDoublings; ++doubling) {
            const double trial = value - drop;
            if (cholesky(a_, b_, trial)) {
                value = trial;
                break;
            }
            drop *= 2.0;
            if (!(drop < kInfinity)) return -kInfinity;
        }
    }
    return value;
}

double Cell::bound(Model model) {
    // Nothing may be left from the cell before; upper triangles are never written.
    weight_.fill(0.0), best_weight_.fill(0.0);
    std::fill_n(best_z_, size_, 0.0);
    assemble(model);
    if (!(magnitude_ < kHuge)) return -kInfinity;
    choose_vertices();
    const double best = find_mixture();
    if (!(extra_ < kHuge)) return -kInfinity;
    majorise_rest(best_z_, best_weight_);
    const double total = magnitude_ + extra_;
    const double value = vertex_bound(std::min(best, 0.0) - 1e-13 * total, total);
    const auto size = static_cast<double>(size_);
    double slack =
        (8.0 * static_cast<double>(job_.num_data) + 16384.0 + 8.0 * static_cast<double>(count_) + 64.0 * size * size) *
        kUnit * total;
    slack += 16.0 * (size + 4.0) * size * kUnit * (total + std::abs(value)) + 1e-290;
    return value - slack;
}

}  // namespace pyhess::units

#include <algorithm>
#include <cmath>

#include "cell.hpp"

namespace pyhess::units {
namespace {

// Rows of forms: of phi, phi' and phi''; a product; r.v; alpha.
constexpr index_t kPhi = 0, kPhi1 = 1, kPhi2 = 2, kProduct = 3, kAlong = 4, kAlpha = 5;

}  // namespace

Cell::Reach Cell::reach(const double* z, index_t first) const {
    Reach s{0.0, 0.0, 0.0};
    for (index_t d = 0; d < dim_; ++d) {
        const double low = lo_[first + d], high = hi_[first + d];
        const double c = 0.5 * (low + high), h = std::max(high - c, c - low) * (1.0 + 4.0 * kUnit);
        s.middle += c * z[d];
        s.half += h * std::abs(z[d]);
        s.error += std::abs(c * z[d]);
    }
    const auto dim = static_cast<double>(dim_);
    s.error = (dim + 8.0) * kUnit * (s.error + s.half) + kTiny;
    s.half = s.half * (1.0 + 4.0 * dim * kUnit) + s.error;
    return s;
}

void Cell::twin_units(index_t i) {
    const double* z = job_.z + i * dim_;
    const index_t first = size_;
    const Reach s = reach(z, first);
    double activation[3][3];
    activation_forms(static_cast<Activation>(job_.activation), job_.beta, s.middle, s.half, activation);
    const double* phi = activation[0];
    for (index_t k = 0; k < outputs_; ++k) {
        double* t = forms_[at_t_ + k];
        std::fill(t, t + forms_.length(), 0.0);
        const double v = job_.amplitude[root_ * outputs_ + k], offset = job_.offset[root_ * outputs_ + k];
        t[0] = v * phi[0] + offset;
        const double spread = v * phi[1];
        t[2 + outputs_ + k] = std::abs(spread);
        const double slack = std::abs(v) * phi[2] + std::abs(spread) * (s.error / s.half);
        t[nl_ + 1] =
            slack * (1.0 + 8.0 * kUnit) + 8.0 * kUnit * (std::abs(v * phi[0]) + std::abs(offset) + std::abs(spread));
        t[nl_ + 1 + 2 + outputs_ + k] = t[nl_ + 1] + 1e-3 * std::abs(spread);
        double* column = columns_ + k * column_stride_;
        for (index_t d = 0; d < dim_; ++d) column[d] = spread * (half_width(first + d) * z[d] / s.half);
    }
}

double Cell::range_middle(index_t i, index_t k) const { return polynomial(job_.ranges, 0, i, k); }

double Cell::range_radius(index_t i, index_t k) const {
    const auto range = [&](index_t row) { return polynomial(job_.ranges, row, i, k); };
    const double plain = range(1) + room_ * (range(2) + room_ * range(3)), other = range(4) + room_ * range(5);
    return std::min(plain, other) * (1.0 + 8.0 * kUnit) + 4.0 * kUnit * std::abs(range(0));
}

// Forms t_k of what the other units add to the outputs of datum i, and the generators' values in the columns.
void Cell::other_units(index_t i, Model model) {
    if (twins()) return twin_units(i);
    const index_t count = job_.num_generators;
    for (index_t k = 0; k < outputs_; ++k) {
        double* t = forms_[at_t_ + k];
        std::fill(t, t + forms_.length(), 0.0);
        if (model == Model::generators) {
            t[0] = job_.middle[modelled(i, k)];
            const double* generators = job_.generators + modelled(i, k) * count;
            double* column = columns_ + k * column_stride_;
            for (index_t l = 0; l < count; ++l) {
                column[l] = generators[l];
                if (job_.powers[l] > 0) column[l] *= job_.powers[l] == 1 ? room_ : room_ * room_;
            }
            double spread = 0.0;
            for (index_t code = -1; code < num_groups_; ++code) {
                double alone = 0.0, square = 0.0;
                for (index_t l = 0; l < count; ++l) {
                    if (job_.groups[l] != code) continue;
                    alone += std::abs(column[l]);
                    square += column[l] * column[l];
                }
                spread += code < 0 ? alone : std::sqrt(square) + kRootTiny;
            }
            const auto slack = [&](index_t power) { return polynomial(job_.slack, power, i, k); };
            const double own = slack(0) + room_ * (slack(1) + room_ * slack(2));
            t[nl_ + 1] = own * (1.0 + 8.0 * kUnit) + 8.0 * kUnit * (spread + std::abs(t[0]));
            // What the generators make is no more than the range allows.
            const double most = std::abs(range_middle(i, k) - t[0]) + range_radius(i, k) + t[nl_ + 1];
            spread = std::min(spread * (1.0 + 4.0 * static_cast<double>(count) * kUnit), most * (1.0 + 16.0 * kUnit));
            t[2 + outputs_ + k] = spread;
        } else {
            t[0] = range_middle(i, k);
            t[nl_ + 1] = range_radius(i, k);
        }
    }
}

void Cell::assemble(Model model) {
    count_ = own_symbols() + (!twins() && model == Model::generators ? job_.num_generators : 0);
    m0_.fill(0.0);
    for (index_t k = 0; k < count_; ++k) e_[k].fill(0.0);
    for (index_t k = 0; k < outputs_; ++k) {
        double* v = forms_[at_v_ + k];
        std::fill(v, v + forms_.length(), 0.0);
        const double low = lo_[dim_ + k], high = hi_[dim_ + k];
        v[0] = 0.5 * (low + high);
        v[2 + k] = std::max(high - v[0], v[0] - low) * (1.0 + 4.0 * kUnit);
    }
    magnitude_ = 0.0;
    for (index_t i = 0; i < job_.num_data; ++i) {
        if (job_.weights[i] == 0.0) {
            leave_out_datum(i);
            continue;
        }
        const Reach s = reach(job_.z + i * dim_, 0);
        other_units(i, model);
        double activation[3][3];
        activation_forms(static_cast<Activation>(job_.activation), job_.beta, s.middle, s.half, activation);
        for (index_t order = 0; order < 3; ++order) {
            double* f = forms_[order];
            std::fill(f, f + forms_.length(), 0.0);
            f[0] = activation[order][0], f[1] = activation[order][1];
            f[nl_ + 1] = f[nl_ + 2] = activation[order][2];
        }
        combine(i);
        note_remainders(i, s);
        accumulate_datum(i, s);
    }
}

void Cell::leave_out_datum(index_t i) {
    rem_a_[i] = 0.0;
    for (double* table : {rem_b_, free_a_, free_b_}) std::fill_n(table + i * outputs_, outputs_, 0.0);
    std::fill_n(share_a_ + i * nl_, nl_, 0.0);
    std::fill_n(share_b_ + i * outputs_ * nl_, outputs_ * nl_, 0.0);
}

// alpha and beta of a datum from the forms of phi, v and t.
void Cell::combine(index_t i) {
    const auto product = [this](index_t x, index_t y, index_t out) {
        multiply(forms_[x], forms_[y], forms_[out], nl_);
    };
    for (index_t k = 0; k < outputs_; ++k) {
        product(at_v_ + k, kPhi, kProduct);
        add(forms_[kProduct], forms_[at_t_ + k], forms_[at_f_ + k], nl_);
    }
    residual_forms(static_cast<Loss>(job_.loss), outputs_, job_.targets + i * outputs_, job_.mass[i], forms_, at_f_,
                   at_r_, work_);
    for (index_t k = 0; k < outputs_; ++k) {
        product(at_r_ + k, at_v_ + k, k == 0 ? kAlong : kProduct);
        if (k > 0) add(forms_[kProduct], forms_[kAlong], forms_[kAlong], nl_);
        product(at_r_ + k, kPhi1, at_b_ + k);
    }
    product(kAlong, kPhi2, kAlpha);
}

// The remainders of a datum, the coefficients of its e_k and the shares of the symbols.
void Cell::note_remainders(index_t i, const Reach& s) {
    const double *a = forms_[kAlpha], norm = job_.norms[i];
    const double wa = job_.weights[i] * kappa_, wb = job_.weights[i] * cross_;
    const index_t first_e = 2 + 2 * outputs_;
    magnitude_ += wa * size_of(a, nl_) * norm * norm;
    rem_a_[i] = wa * (a[nl_ + 1] + std::abs(a[1]) * (s.error / s.half));
    for (index_t k = 0; k < outputs_; ++k) {
        const double* b = forms_[at_b_ + k];
        const index_t ik = i * outputs_ + k;
        magnitude_ += 2.0 * wb * size_of(b, nl_) * norm;
        rem_b_[ik] = wb * (b[nl_ + 1] + std::abs(b[1]) * (s.error / s.half));
        for (index_t j = 0; j < outputs_; ++j)  // remainders of other outputs' e do not enter beta_k
            if (j != k) rem_b_[ik] += wb * std::abs(b[first_e + j]);
        free_a_[ik] = wa * a[first_e + k];
        free_b_[ik] = wb * b[first_e + k];
        for (index_t j = 0; j < nl_; ++j) share_b_[ik * nl_ + j] = wb * b[nl_ + 2 + j];
    }
    for (index_t j = 0; j < nl_; ++j) share_a_[i * nl_ + j] = wa * a[nl_ + 2 + j];
}

// What a datum adds to M_0 and to the E_k of the cell's coordinates and of the other units.
void Cell::accumulate_datum(index_t i, const Reach& s) {
    const double *a = forms_[kAlpha], *z = job_.z + i * dim_, w = job_.weights[i];
    const auto add_to = [&](const Square& e, index_t symbol, double weight) {
        for (index_t k = 0; k < outputs_; ++k) coefficients_[k] = cross_ * forms_[at_b_ + k][symbol];
        accumulate(e, kappa_ * a[symbol], coefficients_, weight, z, dim_, outputs_);
    };
    add_to(m0_, 0, w);
    for (index_t d = 0; d < dim_; ++d) {
        const double h = half_width(d) * z[d] / s.half;
        if (h != 0.0) add_to(e_[d], 1, w * h);
    }
    for (index_t j = 0; j < outputs_; ++j) add_to(e_[dim_ + j], 2 + j, w);
    const index_t first_t = 2 + outputs_;
    for (index_t l = 0; l < count_ - size_; ++l) {
        double x = 0.0;
        std::fill_n(coefficients_, outputs_, 0.0);
        for (index_t j = 0; j < outputs_; ++j) {
            const double spread = forms_[at_t_ + j][first_t + j];
            if (!(spread > 0.0)) continue;
            const double h = columns_[j * column_stride_ + l] / spread;
            x += h * a[first_t + j];
            for (index_t k = 0; k < outputs_; ++k) coefficients_[k] += cross_ * h * forms_[at_b_ + k][first_t + j];
        }
        accumulate(e_[size_ + l], kappa_ * x, coefficients_, w, z, dim_, outputs_);
    }
}

}  // namespace pyhess::units

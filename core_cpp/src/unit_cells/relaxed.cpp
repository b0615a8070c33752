#include <algorithm>
#include <cmath>
#include <limits>

#include "forms.hpp"
#include "pyhess/unit_relaxed.hpp"
#include "symmetric.hpp"

namespace pyhess {
namespace units {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
// Steps towards a mixture of directions with the first order alone, and with all.
constexpr int kSteps = 6, kMore = 2;
// The share that the last direction has in the mixture of the last step.
constexpr double kLast = 0.3;
// Shares: of a mixture that is spread over all directions, of the room in Lam's formula, of Lam that is added to its
// diagonal, and of that what proves that it is positive definite.
constexpr double kSpread = 1e-6, kLeastRoom = 0.1, kAdded = 1e-10, kProof = 1e-12;
// How often multipliers are enlarged where the matrix is not positive definite.
constexpr int kEnlarged = 5;
constexpr double kMargin = 1e-9;
// What is added to all Lam_k, in units of the block at the middle: nothing, and then these times 2^k.
constexpr double kFloor = 1e-4;
constexpr int kFloors = 12;
constexpr index_t kMaxDim = 8;

double gamma(double operations) { return 1.001 * operations * kUnit / (1.0 - operations * kUnit); }

// The first columns of L, A = LL', in the lower triangle, row by row; whether that part of A is positive definite.
bool factorise(double* a, index_t n, index_t columns) {
    for (index_t i = 0; i < n; ++i) {
        double* row = a + i * n;
        for (index_t j = 0; j < std::min(i, columns); ++j) {
            const double* other = a + j * n;
            double sum = row[j];
            for (index_t k = 0; k < j; ++k) sum -= row[k] * other[k];
            row[j] = sum / other[j];
        }
        if (i >= columns) continue;
        double sum = row[i];
        for (index_t k = 0; k < i; ++k) sum -= row[k] * row[k];
        if (!(sum > 0.0)) return false;
        row[i] = std::sqrt(sum);
    }
    return true;
}

bool factorise(double* a, index_t n) { return factorise(a, n, n); }

// X = L^-1 X for X (n, r).
void solve(const double* l, index_t n, double* x, index_t r) {
    for (index_t i = 0; i < n; ++i) {
        double* row = x + i * r;
        for (index_t k = 0; k < i; ++k) {
            const double factor = l[i * n + k];
            const double* other = x + k * r;
            for (index_t c = 0; c < r; ++c) row[c] -= factor * other[c];
        }
        const double divisor = l[i * n + i];
        for (index_t c = 0; c < r; ++c) row[c] /= divisor;
    }
}

// A -= X'X in the lower triangle, for X (n, r).
void subtract_square(double* a, const double* x, index_t n, index_t r) {
    for (index_t k = 0; k < n; ++k) {
        const double* row = x + k * r;
        for (index_t i = 0; i < r; ++i) {
            const double factor = row[i];
            double* into = a + i * r;
            for (index_t j = 0; j <= i; ++j) into[j] -= factor * row[j];
        }
    }
}

// C = A F for A (rows, n) and F (n, t), times a factor.
void multiply(const double* a, const double* f, double* c, index_t rows, index_t n, index_t t, double factor) {
    std::fill_n(c, rows * t, 0.0);
    for (index_t i = 0; i < rows; ++i) {
        double* into = c + i * t;
        for (index_t k = 0; k < n; ++k) {
            const double x = factor * a[i * n + k];
            const double* row = f + k * t;
            for (index_t j = 0; j < t; ++j) into[j] += x * row[j];
        }
    }
}

class Relaxed {
public:
    Relaxed(const RelaxedJob& job, double* scratch);
    void run(index_t c);
    index_t scratch_size() const { return used_; }

private:
    double* take(index_t size) {
        const index_t begin = used_;
        used_ += size;
        return scratch_ ? scratch_ + begin : nullptr;
    }
    void expand(const double* numbers, double* out) const {
        for (index_t k = 0; k < d2_; ++k) out[k] = form_[k] < 0 ? 0.0 : numbers[form_[k]];
    }
    // out = A B for D x D matrices, or with a transpose in the place of one.
    template <bool kLeft = false, bool kRight = false>
    void times(const double* a, const double* b, double* out) const {
        for (index_t i = 0; i < d_; ++i)
            for (index_t j = 0; j < d_; ++j) {
                double sum = 0.0;
                for (index_t k = 0; k < d_; ++k)
                    sum += a[kLeft ? k * d_ + i : i * d_ + k] * b[kRight ? j * d_ + k : k * d_ + j];
                out[i * d_ + j] = sum;
            }
    }
    double trace(const double* a) const {
        double sum = 0.0;
        for (index_t i = 0; i < d_; ++i) sum += a[i * d_ + i];
        return sum;
    }
    double size(const double* a, index_t count) const {
        double sum = 0.0;
        for (index_t k = 0; k < count; ++k) sum += std::abs(a[k]);
        return sum;
    }
    void polynomial(index_t c);
    void squares_of_cubic();
    // Eigenvalues and -vectors of the mixture, and its roots.
    void look_at(const double* mixture);
    void side(const double* x, double* out);
    void least(const double* moved, double factor, double* out);
    void multipliers(index_t c, const double* mixture);
    void rests(index_t c, const double* mixture);
    double first_order(index_t c, double* vector);
    bool proved(index_t c, double tau, double& value, double* vector);
    double third(const double* mixture);
    double relaxed(index_t c, const double* mixture, double* vector);
    double lowest(const double* a, double* vector) {
        std::copy_n(a, d2_, square_.at);
        return smallest(square_, b_, q_, vector);
    }

    const RelaxedJob& job_;
    double* scratch_;
    index_t used_ = 0;
    const index_t n_, e_, d_, d2_, m_, rows_, forms_, pairs_, triples_, whole_;
    index_t form_[kMaxDim * kMaxDim] = {}, pair_[kMaxDim * kMaxDim] = {},
                            triple_[kMaxDim * kMaxDim * (kMaxDim + 1) / 2] = {};
    double twice_[kMaxDim * (kMaxDim + 1) / 2] = {};
    double *squares_, *zero_, *along_, *numbers_, *linear_, *mixed_, *square2_, *cubic_, *head_, *first_, *second_;
    double *wide_, *gram_, *sides_, *first_sides_, *lam_, *alone_, *rests_, *tmp_, *tmp2_, *tmp3_, *root_, *inverse_,
        *values_, *turn_;
    double *mixture_, *chosen_, *core_, *inner_, *leaf_, *right_, *solved_, *vector_, *longest_;
    Square square_{}, b_{}, q_{};
};

Relaxed::Relaxed(const RelaxedJob& job, double* scratch)
    : job_(job),
      scratch_(scratch),
      n_(job.num_data),
      e_(job.dim),
      d_(job.dim + 1),
      d2_(d_ * d_),
      m_(job.num_units),
      rows_(m_ * d_ + 1),
      forms_(e_ * (e_ + 1) / 2 + e_),
      pairs_(d_ * (d_ + 1) / 2),
      triples_(d_ * (d_ + 1) * (d_ + 2) / 6),
      whole_(d2_ + d_) {
    squares_ = take(n_ * forms_), zero_ = take(n_ * forms_), along_ = take(d_ * n_ * forms_), numbers_ = take(2 * n_);
    linear_ = take(rows_ * forms_), mixed_ = take(d_ * rows_ * forms_), square2_ = take(m_ * pairs_ * forms_);
    cubic_ = take(m_ * triples_ * forms_), head_ = take(d2_), first_ = take(d_ * d2_), second_ = take(pairs_ * d2_);
    wide_ = take(d2_ * pairs_ * d_), gram_ = take(m_ * d2_ * d2_), sides_ = take(rows_ * d2_),
    first_sides_ = take(d_ * d2_);
    lam_ = take(d2_), alone_ = take(d_ * d2_), rests_ = take(d2_), tmp_ = take(d2_), tmp2_ = take(d2_),
    tmp3_ = take(d2_);
    root_ = take(d2_), inverse_ = take(d2_), values_ = take(d_), turn_ = take(d2_), mixture_ = take(d2_),
    chosen_ = take(d2_);
    core_ = take(whole_ * whole_), inner_ = take(whole_ * whole_), leaf_ = take(d2_ * d2_), right_ = take(d2_ * whole_);
    solved_ = take(d2_ * whole_), vector_ = take(d_), longest_ = take(m_ + 1);
    square_ = {take(d2_), d_}, b_ = {take(d2_), d_}, q_ = {take(d2_), d_};
    index_t at = 0;
    std::fill_n(form_, d2_, -1);
    for (index_t i = 0; i < e_; ++i)
        for (index_t j = i; j < e_; ++j) form_[i * d_ + j] = form_[j * d_ + i] = at++;
    for (index_t i = 0; i < e_; ++i) form_[i * d_ + e_] = form_[e_ * d_ + i] = at++;
    at = 0;
    for (index_t i = 0; i < d_; ++i)
        for (index_t j = i; j < d_; ++j) {
            twice_[at] = i < j ? std::sqrt(2.0) : 1.0;
            pair_[i * d_ + j] = pair_[j * d_ + i] = at++;
        }
    // Triples k <= l <= m in their order, for every (k, pair).
    at = 0;
    for (index_t i = 0; i < d_; ++i)
        for (index_t j = i; j < d_; ++j)
            for (index_t k = j; k < d_; ++k) {
                triple_[i * pairs_ + pair_[j * d_ + k]] = at;
                triple_[j * pairs_ + pair_[i * d_ + k]] = at;
                triple_[k * pairs_ + pair_[i * d_ + j]] = at++;
            }
    if (!scratch) return;
    for (index_t i = 0; i < n_; ++i) {
        const double* x = job.x + i * e_;
        double* row = squares_ + i * forms_;
        index_t k = 0;
        for (index_t a = 0; a < e_; ++a)
            for (index_t b = a; b < e_; ++b) row[k++] = job.weights[i] * x[a] * x[b];
        for (index_t a = 0; a < e_; ++a) row[k++] = job.weights[i] * x[a];
    }
}

void Relaxed::polynomial(index_t c) {
    const index_t inner = forms_ - e_, cells = job_.num_cells;
    const double kv = job_.scale_v, v = job_.outer[c], rho = job_.room[c];
    const double *h = job_.half + c * d_, *r = job_.residual + c * n_;
    const auto phi = [&](index_t order, index_t i) { return job_.phi[(order * cells + c) * n_ + i]; };
    const double hv = h[e_] * kv;
    std::fill_n(head_, forms_, 0.0), std::fill_n(first_, d_ * d2_, 0.0), std::fill_n(second_, pairs_ * d2_, 0.0);
    double a1[kMaxDim], b1[kMaxDim], g1[kMaxDim];
    for (index_t i = 0; i < n_; ++i) {
        const double* x = job_.x + i * e_;
        const double* row = squares_ + i * forms_;
        const double f0 = phi(0, i), f1 = phi(1, i), f2 = phi(2, i), f3 = phi(3, i), f4 = phi(4, i);
        const double a0 = v * f2, b0 = kv * f1;
        const auto add = [&](double* into, double a, double b) {
            for (index_t k = 0; k < inner; ++k) into[k] += a * row[k];
            for (index_t k = inner; k < forms_; ++k) into[k] += b * row[k];
        };
        const auto put = [&](double* into, double a, double b) {
            for (index_t k = 0; k < inner; ++k) into[k] = a * row[k];
            for (index_t k = inner; k < forms_; ++k) into[k] = b * row[k];
        };
        put(zero_ + i * forms_, a0, b0);
        add(head_, r[i] * a0, r[i] * b0);
        for (index_t k = 0; k < d_; ++k) {
            const double step = k < e_ ? x[k] * h[k] : hv;
            a1[k] = k < e_ ? step * v * f3 : step * f2;
            b1[k] = k < e_ ? step * kv * f2 : 0.0;
            g1[k] = k < e_ ? step * v * f1 : step * f0;
            put(along_ + (k * n_ + i) * forms_, a1[k], b1[k]);
            add(first_ + k * d2_, r[i] * a1[k] + g1[k] * a0, r[i] * b1[k] + g1[k] * b0);
        }
        for (index_t k = 0; k < d_; ++k)
            for (index_t l = k; l < d_; ++l) {
                double a2 = 0.0, b2 = 0.0, g2 = 0.0;
                if (l < e_) {
                    const double both = 0.5 * x[k] * h[k] * x[l] * h[l];
                    a2 = both * v * f4, b2 = both * kv * f3, g2 = both * v * f2;
                } else if (k < e_) {
                    const double both = 0.5 * x[k] * h[k] * hv;
                    a2 = both * f3, g2 = both * f1;
                }
                const double a = r[i] * a2 + 0.5 * (g1[k] * a1[l] + g1[l] * a1[k]) + g2 * a0;
                const double b = r[i] * b2 + 0.5 * (g1[k] * b1[l] + g1[l] * b1[k]) + g2 * b0;
                add(second_ + pair_[k * d_ + l] * d2_, a, b);
            }
    }
    const auto spread = [&](double* at) {
        std::copy_n(at, forms_, tmp_);
        expand(tmp_, at);
    };
    spread(head_);
    for (index_t k = 0; k < d_; ++k) spread(first_ + k * d2_);
    for (index_t k = 0; k < pairs_; ++k) spread(second_ + k * d2_);
    multiply(job_.linear, zero_, linear_, job_.num_rows, n_, forms_, rho);
    for (index_t k = 0; k < d_; ++k)
        multiply(job_.linear, along_ + k * n_ * forms_, mixed_ + k * rows_ * forms_, job_.num_rows, n_, forms_, rho);
    multiply(job_.square, zero_, square2_, m_ * pairs_, n_, forms_, rho * rho);
    multiply(job_.cubic, zero_, cubic_, m_ * triples_, n_, forms_, rho * rho * rho);
    squares_of_cubic();
}

// M M' of the third order, unit by unit, and the sums of squares of M.
void Relaxed::squares_of_cubic() {
    const index_t columns = pairs_ * d_;
    for (index_t u = 0; u < m_; ++u) {
        double total = 0.0;
        for (index_t l = 0; l < d_; ++l)
            for (index_t p = 0; p < pairs_; ++p) {
                const double* numbers = cubic_ + (u * triples_ + triple_[l * pairs_ + p]) * forms_;
                for (index_t a = 0; a < d_; ++a)
                    for (index_t b = 0; b < d_; ++b) {
                        const index_t at = form_[a * d_ + b];
                        const double value = at < 0 ? 0.0 : twice_[p] * numbers[at];
                        wide_[(l * d_ + a) * columns + p * d_ + b] = value;
                        total += value * value;
                    }
            }
        longest_[u] = total;
        double* gram = gram_ + u * d2_ * d2_;
        for (index_t i = 0; i < d2_; ++i)
            for (index_t j = 0; j <= i; ++j) {
                const double *x = wide_ + i * columns, *y = wide_ + j * columns;
                double sum = 0.0;
                for (index_t k = 0; k < columns; ++k) sum += x[k] * y[k];
                gram[i * d2_ + j] = gram[j * d2_ + i] = sum;
            }
    }
}

void Relaxed::look_at(const double* mixture) {
    lowest(mixture, vector_);
    double largest = 0.0;
    for (index_t i = 0; i < d_; ++i) largest = std::max(largest, b_(i, i));
    for (index_t i = 0; i < d_; ++i) values_[i] = std::max(b_(i, i), kSpread * largest) + 1e-290;
    std::copy_n(q_.at, d2_, turn_);  // columns
    for (index_t i = 0; i < d_; ++i)
        for (index_t j = 0; j < d_; ++j) {
            double x = 0.0, y = 0.0;
            for (index_t k = 0; k < d_; ++k) {
                const double both = turn_[i * d_ + k] * turn_[j * d_ + k], root = std::sqrt(values_[k]);
                x += both * root, y += both / root;
            }
            root_[i * d_ + j] = x, inverse_[i * d_ + j] = y;
        }
}

// K with K + K' = x and the least tr(K Z K').
void Relaxed::side(const double* x, double* out) {
    times<true>(turn_, x, tmp_);
    times(tmp_, turn_, tmp2_);
    for (index_t i = 0; i < d_; ++i)
        for (index_t j = 0; j < d_; ++j) tmp2_[i * d_ + j] *= values_[i] / (values_[i] + values_[j]);
    times(turn_, tmp2_, tmp_);
    times<false, true>(tmp_, turn_, out);
    for (index_t i = 0; i < d_; ++i)
        for (index_t j = 0; j <= i; ++j) {
            const double miss = 0.5 * (x[i * d_ + j] - out[i * d_ + j] - out[j * d_ + i]);
            out[i * d_ + j] += miss;
            if (i != j) out[j * d_ + i] += miss;
        }
}

// The L of least tr(L Z) + tr(L^-1 S), times a factor, with a little more on its diagonal.
void Relaxed::least(const double* moved, double factor, double* out) {
    times(root_, moved, tmp_);
    times(tmp_, root_, tmp2_);
    for (index_t i = 0; i < d_; ++i)
        for (index_t j = 0; j < i; ++j)
            tmp2_[i * d_ + j] = tmp2_[j * d_ + i] = 0.5 * (tmp2_[i * d_ + j] + tmp2_[j * d_ + i]);
    lowest(tmp2_, vector_);
    for (index_t i = 0; i < d_; ++i)
        for (index_t j = 0; j < d_; ++j) {
            double sum = 0.0;
            for (index_t k = 0; k < d_; ++k) sum += q_(i, k) * q_(j, k) * std::sqrt(std::max(b_(k, k), 0.0));
            tmp_[i * d_ + j] = sum;
        }
    times(inverse_, tmp_, tmp2_);
    times(tmp2_, inverse_, tmp_);
    const double added = kAdded * std::abs(trace(tmp_)) * factor + 1e-150;
    for (index_t i = 0; i < d_; ++i) {
        for (index_t j = 0; j < d_; ++j) out[i * d_ + j] = 0.5 * factor * (tmp_[i * d_ + j] + tmp_[j * d_ + i]);
        out[i * d_ + i] += added;
    }
}

void Relaxed::multipliers(index_t c, const double* mixture) {
    look_at(mixture);
    double* moved = core_;  // not in use yet
    std::fill_n(moved, d2_, 0.0);
    const auto add_moved = [&](const double* k) {
        times(k, mixture, tmp_);
        times<false, true>(tmp_, k, tmp2_);
        for (index_t i = 0; i < d2_; ++i) moved[i] += tmp2_[i];
    };
    for (index_t l = 0; l < job_.num_rows; ++l) {
        expand(linear_ + l * forms_, tmp3_);
        side(tmp3_, sides_ + l * d2_);
        add_moved(sides_ + l * d2_);
    }
    least(moved, 1.0 / std::sqrt(std::max(job_.left[c], kLeastRoom)), lam_);
    for (index_t k = 0; k < d_; ++k) {
        const double tilt = job_.tilt[c * d_ + k];
        for (index_t i = 0; i < d2_; ++i) tmp3_[i] = first_[k * d2_ + i] + 2.0 * tilt * lam_[i];
        side(tmp3_, first_sides_ + k * d2_);
        std::fill_n(moved, d2_, 0.0);
        add_moved(first_sides_ + k * d2_);
        least(moved, 1.0, alone_ + k * d2_);
    }
}

void Relaxed::rests(index_t c, const double* mixture) {
    const double *alpha = job_.alpha + c * n_, *beta = job_.beta + c * n_;
    std::fill_n(rests_, d2_, 0.0);
    const double q2 = std::max(mixture[d2_ - 1], 1e-12);
    for (index_t i = 0; i < n_; ++i) {
        const double* x = job_.x + i * e_;
        double y2 = 0.0, norm = 0.0;
        for (index_t a = 0; a < e_; ++a) {
            double sum = 0.0;
            for (index_t b = 0; b < e_; ++b) sum += mixture[a * d_ + b] * x[b];
            y2 += sum * x[a];
            norm += x[a] * x[a];
        }
        const double t = std::sqrt(q2 / (std::max(y2, 1e-12 * norm) + 1e-290));
        const double heavy = job_.weights[i] * (alpha[i] + t * beta[i]);
        for (index_t a = 0; a < e_; ++a)
            for (index_t b = 0; b < e_; ++b) rests_[a * d_ + b] += heavy * x[a] * x[b];
        rests_[d2_ - 1] += job_.weights[i] * beta[i] / t;
    }
    const double added = gamma(static_cast<double>(n_) + 64.0) * trace(rests_);
    for (index_t i = 0; i < d_; ++i) rests_[i * d_ + i] += added;
}

// The smallest eigenvalue where only terms of the first order count, and its vector.
double Relaxed::first_order(index_t c, double* vector) {
    const auto take_square = [&](const double* matrix, const double* k) {  // tmp3 -= k' matrix^-1 k, factorised
        std::copy_n(k, d2_, tmp_);
        solve(matrix, d_, tmp_, d_);
        for (index_t i = 0; i < d_; ++i)
            for (index_t a = 0; a < d_; ++a)
                for (index_t b = 0; b < d_; ++b) tmp3_[a * d_ + b] -= tmp_[i * d_ + a] * tmp_[i * d_ + b];
    };
    for (index_t i = 0; i < d2_; ++i) tmp3_[i] = head_[i] - job_.left[c] * lam_[i] - rests_[i];
    std::copy_n(lam_, d2_, tmp2_);
    if (!factorise(tmp2_, d_)) return -kInfinity;
    for (index_t l = 0; l < job_.num_rows; ++l) take_square(tmp2_, sides_ + l * d2_);
    for (index_t k = 0; k < d_; ++k) {
        for (index_t i = 0; i < d2_; ++i) tmp3_[i] -= alone_[k * d2_ + i];
        std::copy_n(alone_ + k * d2_, d2_, tmp2_);
        if (!factorise(tmp2_, d_)) return -kInfinity;
        take_square(tmp2_, first_sides_ + k * d2_);
    }
    return lowest(tmp3_, vector);
}

// |M'(delta x p)|^2 in the mixture where the first order has its least.
double Relaxed::third(const double* mixture) {
    std::copy_n(lam_, d2_, tmp2_);
    if (!factorise(tmp2_, d_)) return 0.0;
    double total = 0.0;
    for (index_t u = 0; u < m_; ++u) {
        double* shift = right_;  // (D^2, D): (l, a; b)
        for (index_t l = 0; l < d_; ++l) {
            double* part = shift + l * d2_;
            std::copy_n(sides_ + (u * d_ + l) * d2_, d2_, part);
            solve(tmp2_, d_, part, d_);
            for (index_t i = d_; i-- > 0;) {  // the transposed factor
                for (index_t k = i + 1; k < d_; ++k)
                    for (index_t b = 0; b < d_; ++b) part[i * d_ + b] -= tmp2_[k * d_ + i] * part[k * d_ + b];
                for (index_t b = 0; b < d_; ++b) part[i * d_ + b] /= tmp2_[i * d_ + i];
            }
        }
        double* moved = solved_;  // shift Z
        for (index_t i = 0; i < d2_; ++i)
            for (index_t b = 0; b < d_; ++b) {
                double sum = 0.0;
                for (index_t k = 0; k < d_; ++k) sum += shift[i * d_ + k] * mixture[k * d_ + b];
                moved[i * d_ + b] = sum;
            }
        const double* gram = gram_ + u * d2_ * d2_;
        for (index_t i = 0; i < d2_; ++i)
            for (index_t j = 0; j < d2_; ++j) {
                double sum = 0.0;
                for (index_t b = 0; b < d_; ++b) sum += moved[i * d_ + b] * shift[j * d_ + b];
                total += gram[i * d2_ + j] * sum;
            }
    }
    return total;
}

bool Relaxed::proved(index_t c, double tau, double& value, double* vector) {
    const double left = job_.left[c], *tilt = job_.tilt + c * d_, *ratio = job_.ratio + c * d_;
    const auto positive = [&](const double* matrix) {
        std::copy_n(matrix, d2_, square_.at);
        return cholesky(square_, b_, kProof * trace(matrix));
    };
    if (!positive(lam_)) return false;
    for (index_t k = 0; k < d_; ++k)
        if (!positive(alone_ + k * d2_)) return false;
    std::fill_n(core_, whole_ * whole_, 0.0);
    double total = 0.0;
    for (index_t k = 0; k < d_; ++k)
        for (index_t l = 0; l < d_; ++l)
            for (index_t a = 0; a < d_; ++a)
                for (index_t b = 0; b < d_; ++b) {
                    double x = second_[pair_[k * d_ + l] * d2_ + a * d_ + b];
                    if (k == l) x += ratio[k] * lam_[a * d_ + b] + alone_[k * d2_ + a * d_ + b];
                    core_[(k * d_ + a) * whole_ + l * d_ + b] = x;
                }
    for (index_t k = 0; k < d_; ++k)
        for (index_t a = 0; a < d_; ++a)
            for (index_t b = 0; b < d_; ++b)
                core_[(d2_ + b) * whole_ + k * d_ + a] = first_sides_[k * d2_ + a * d_ + b];
    for (index_t a = 0; a < d_; ++a)
        for (index_t b = 0; b < d_; ++b) {
            double x = head_[a * d_ + b] - left * lam_[a * d_ + b] - rests_[a * d_ + b];
            for (index_t k = 0; k < d_; ++k) x -= alone_[k * d2_ + a * d_ + b];
            core_[(d2_ + a) * whole_ + d2_ + b] = x - (a == b ? 0.5 / tau : 0.0);
        }
    for (index_t u = 0; u < m_; ++u) {
        for (index_t l = 0; l < d_; ++l)
            for (index_t m = 0; m < d_; ++m) {
                expand(square2_ + (u * pairs_ + pair_[l * d_ + m]) * forms_, tmp_);
                for (index_t a = 0; a < d_; ++a)
                    for (index_t b = 0; b < d_; ++b) {
                        const index_t i = l * d_ + a, j = m * d_ + b;
                        leaf_[i * d2_ + j] = tmp_[a * d_ + b] + (l == m ? lam_[a * d_ + b] : 0.0) -
                                             0.5 * tau * gram_[(u * d2_ + i) * d2_ + j];
                    }
            }
        for (index_t l = 0; l < d_; ++l) {
            const index_t row = u * d_ + l;
            for (index_t k = 0; k < d_; ++k) {
                expand(mixed_ + (k * rows_ + row) * forms_, tmp_);
                for (index_t a = 0; a < d_; ++a)
                    for (index_t b = 0; b < d_; ++b)
                        right_[(l * d_ + a) * whole_ + k * d_ + b] = 0.5 * tmp_[a * d_ + b];
            }
            for (index_t a = 0; a < d_; ++a)
                for (index_t b = 0; b < d_; ++b)
                    right_[(l * d_ + a) * whole_ + d2_ + b] = sides_[row * d2_ + a * d_ + b];
        }
        for (index_t i = 0; i < d2_; ++i) total += std::abs(leaf_[i * d2_ + i]);
        if (!factorise(leaf_, d2_)) return false;
        solve(leaf_, d2_, right_, whole_);
        subtract_square(core_, right_, d2_, whole_);
    }
    for (index_t row = m_ * d_; row < job_.num_rows; ++row) {  // the output bias
        std::copy_n(lam_, d2_, leaf_);
        for (index_t k = 0; k < d_; ++k) {
            expand(mixed_ + (k * rows_ + row) * forms_, tmp_);
            for (index_t a = 0; a < d_; ++a)
                for (index_t b = 0; b < d_; ++b) right_[a * whole_ + k * d_ + b] = 0.5 * tmp_[a * d_ + b];
        }
        for (index_t a = 0; a < d_; ++a)
            for (index_t b = 0; b < d_; ++b) right_[a * whole_ + d2_ + b] = sides_[row * d2_ + a * d_ + b];
        total += std::abs(trace(lam_));
        if (!factorise(leaf_, d_)) return false;
        solve(leaf_, d_, right_, whole_);
        subtract_square(core_, right_, d_, whole_);
    }
    // The best of some floors of the Lam_k.
    const double scale = size(head_, d2_);
    double best = -kInfinity, floor = 0.0;
    for (int step = 0; step <= kFloors; ++step) {
        const double trial = step == 0 ? 0.0 : std::ldexp(kFloor * scale, step - 1);
        std::copy_n(core_, whole_ * whole_, inner_);
        for (index_t i = 0; i < d2_; ++i) inner_[i * whole_ + i] += trial;
        if (!factorise(inner_, whole_, d2_)) continue;
        for (index_t a = 0; a < d_; ++a)
            for (index_t b = 0; b <= a; ++b) {
                const double *x = inner_ + (d2_ + a) * whole_, *y = inner_ + (d2_ + b) * whole_;
                double sum = x[d2_ + b];
                for (index_t k = 0; k < d2_; ++k) sum -= x[k] * y[k];
                tmp_[a * d_ + b] = tmp_[b * d_ + a] = sum;
            }
        const double least = lowest(tmp_, vector_) - static_cast<double>(d_) * trial;
        if (!(least > best)) {
            if (best > -kInfinity) break;
            continue;
        }
        best = least, floor = trial;
        std::copy_n(vector_, d_, vector);
    }
    if (!(best > -kInfinity)) return false;
    for (index_t i = 0; i < d2_; ++i) core_[i * whole_ + i] += floor;
    for (index_t a = 0; a < d_; ++a) core_[(d2_ + a) * whole_ + d2_ + a] -= static_cast<double>(d_) * floor;
    for (index_t i = 0; i < d2_; ++i) total += std::abs(core_[i * whole_ + i]);
    const auto dim = static_cast<double>(d_);
    double factor = left + 1.0;
    for (index_t k = 0; k < d_; ++k) factor += 2.0 * std::abs(tilt[k]) + ratio[k];
    double sizes = std::abs(factor) * size(lam_, d2_) + size(alone_, d_ * d2_) + size(first_sides_, d_ * d2_) +
                   size(sides_, job_.num_rows * d2_) + dim * dim * floor + size(rests_, d2_) + scale + 0.5 * dim / tau;
    double longest = 0.0;
    for (index_t u = 0; u < m_; ++u) longest = std::max(longest, longest_[u]);
    double rounding = job_.rounding[c] + gamma(64.0) * sizes;
    rounding +=
        0.5 * tau * (gamma(static_cast<double>(pairs_ * d_) + 64.0) * longest + job_.cubic_rounding[c]) * 1.0001;
    const double rows = static_cast<double>(whole_ + job_.num_rows * d_);
    double margin = kMargin * std::abs(best);
    for (int trial = 0; trial < 4; ++trial) {
        const double claim = best - margin;
        std::copy_n(core_, whole_ * whole_, inner_);
        double sum = total;
        for (index_t a = 0; a < d_; ++a) {
            double& x = inner_[(d2_ + a) * whole_ + d2_ + a];
            x -= claim;
            sum += std::abs(x);
        }
        if (factorise(inner_, whole_)) {
            double slack = 2.0 * gamma(rows + 3.0) * sum * 1.0001 + 1e-290;
            slack += 4.0 * kUnit * (std::abs(claim) + sum);
            value = claim - (dim + 2.0) * slack - rounding - 8.0 * kUnit * std::abs(claim);
            return true;
        }
        margin = 8.0 * margin + 1e-14 * (total + std::abs(claim));
    }
    return false;
}

double Relaxed::relaxed(index_t c, const double* mixture, double* vector) {
    const double length = third(mixture);
    double tau = 1.0 / std::max(std::sqrt(std::max(length, 0.0)), 1e-100), value = -kInfinity;
    for (int trial = 0; trial < kEnlarged; ++trial) {
        if (proved(c, tau, value, vector)) return value;
        for (index_t k = 0; k < d_; ++k)
            for (index_t i = 0; i < d2_; ++i) first_sides_[k * d2_ + i] += 0.4 * job_.tilt[c * d_ + k] * lam_[i];
        for (index_t i = 0; i < d2_; ++i) lam_[i] *= 1.4;
        tau *= 0.5;
    }
    return -kInfinity;
}

void Relaxed::run(index_t c) {
    polynomial(c);
    job_.bounds[c] = -kInfinity;
    double vector[kMaxDim] = {}, best = -kInfinity;
    lowest(head_, vector);
    const auto dim = static_cast<double>(d_);
    for (index_t i = 0; i < d_; ++i)
        for (index_t j = 0; j < d_; ++j)
            mixture_[i * d_ + j] = 0.5 * vector[i] * vector[j] + (i == j ? 0.5 / dim : 0.0);
    std::copy_n(mixture_, d2_, chosen_);
    const auto move = [&](int step) {
        const double share = step < kSteps ? 2.0 / (step + 3.0) : kLast;
        for (index_t i = 0; i < d_; ++i)
            for (index_t j = 0; j < d_; ++j)
                mixture_[i * d_ + j] += share * (vector[i] * vector[j] - mixture_[i * d_ + j]);
    };
    for (int step = 0; step < kSteps; ++step) {
        multipliers(c, mixture_);
        rests(c, mixture_);
        const double value = first_order(c, vector);
        if (!(value > -kInfinity)) break;
        if (value > best) {
            best = value;
            std::copy_n(mixture_, d2_, chosen_);
        }
        move(step);
    }
    std::copy_n(chosen_, d2_, mixture_);
    for (int step = 0; step < kMore; ++step) {
        multipliers(c, mixture_);
        rests(c, mixture_);
        const double value = relaxed(c, mixture_, vector);
        job_.bounds[c] = std::max(job_.bounds[c], value);
        if (!(value > -kInfinity) || value >= job_.target) break;
        move(kSteps + step);
    }
}

}  // namespace
}  // namespace units

index_t relaxed_scratch_size(index_t num_data, index_t dim, index_t num_units) {
    RelaxedJob job{};
    job.num_data = num_data, job.dim = dim, job.num_units = num_units;
    return units::Relaxed(job, nullptr).scratch_size();
}

Status bound_relaxed_cells(RelaxedJob& job, index_t thread) {
    units::Relaxed cell(job, job.scratch + thread * job.scratch_stride);
    for (;;) {
        if (job.cancel && *job.cancel) return Status::cancelled;
        const index_t c = __atomic_fetch_add(&job.next, std::int64_t{1}, __ATOMIC_RELAXED);
        if (c >= job.num_cells) return Status::ok;
        cell.run(c);
    }
}

}  // namespace pyhess

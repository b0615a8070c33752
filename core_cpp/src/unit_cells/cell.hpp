// The bound of one cell, in three parts: assemble.cpp encloses the block, bound.cpp bounds it, unit_cells.cpp does the
// rest.
#pragma once

#include "forms.hpp"
#include "pyhess/unit_cells.hpp"
#include "symmetric.hpp"

namespace pyhess::units {

class Cell {
public:
    // Cuts the scratch into arrays; null only to ask for its size.
    Cell(const UnitJob& job, double* scratch);

    // Bounds cell c and writes its results.
    void run(index_t c);

    index_t scratch_size() const { return scratch_size_; }

private:
    // How s = u.z_i runs over a cell: the middle, a bound of the distance from it, and its rounding error.
    struct Reach {
        double middle, half, error;
    };
    // Generators of the other units, or their ranges.
    enum class Model : std::int64_t { generators = 0, ranges = 1 };

    bool twins() const { return job_.kinds[root_] == static_cast<std::int64_t>(Rest::twins); }
    index_t own_symbols() const { return size_ + (twins() ? dim_ : 0); }
    index_t modelled(index_t i, index_t k) const { return (root_ * job_.num_data + i) * outputs_ + k; }
    double polynomial(const double* table, index_t row, index_t i, index_t k) const {
        return table[row * job_.num_roots * job_.num_data * outputs_ + modelled(i, k)];
    }
    double half_width(index_t d) const { return 0.5 * (hi_[d] - lo_[d]); }

    // Shrinks the unit's cell to the ball; what is left of the radius for the rest, negative if the cell is empty.
    double shrink_to_ball();

    // assemble.cpp: M_0, the E_k, the coefficients of every datum and the sum of all magnitudes.
    void assemble(Model model);
    Reach reach(const double* z, index_t first) const;  // from the coordinates `first` … first + D - 1
    void other_units(index_t i, Model model);
    void twin_units(index_t i);
    // What the other units add to output k of datum i lies within the radius of the middle.
    double range_middle(index_t i, index_t k) const;
    double range_radius(index_t i, index_t k) const;
    void combine(index_t i);
    void note_remainders(index_t i, const Reach& s);
    void accumulate_datum(index_t i, const Reach& s);
    void leave_out_datum(index_t i);

    // bound.cpp
    double bound(Model model);
    void choose_vertices();
    bool is_vertex(index_t k) const { return sizes_of_[k] < 0.0; }
    void majorise_rest(const double* z, const Square& weight);
    void majorise_datum(index_t i, const Square& weight);
    double find_mixture();
    double vertex_bound(double start, double slack);
    double quadratic(const Square& weight, const double* z) const;

    // The coordinate whose symbol has the largest share in the remainders at the last bound's Z; -1 if none can be cut.
    index_t split();
    void add_room_scores();

    const UnitJob& job_;
    const index_t dim_, outputs_, size_, nl_, column_stride_;
    const double kappa_, cross_;
    // rows of forms_ of which there is one per output
    const index_t at_v_, at_t_, at_f_, at_r_, at_b_;

    index_t scratch_size_ = 0;
    double *lo_ = nullptr, *hi_ = nullptr;
    index_t num_groups_ = 0;                             // of generators
    index_t root_ = 0, count_ = 0;                       // symbols in use
    double room_ = 0.0, magnitude_ = 0.0, extra_ = 0.0;  // sums of magnitudes: of the block, of N

    Forms forms_{};
    double *columns_ = nullptr, *work_ = nullptr, *coefficients_ = nullptr;
    double *rem_a_ = nullptr, *rem_b_ = nullptr;      // (n), (n, K): remainders of alpha and beta
    double *free_a_ = nullptr, *free_b_ = nullptr;    // (n, K): coefficients of the e_k
    double *share_a_ = nullptr, *share_b_ = nullptr;  // (n, nl), (n, K, nl): the symbols' shares in the remainders
    Square m0_{}, n_{}, a_{}, b_{}, q_{}, l_{}, x_{}, y_{}, weight_{}, best_weight_{};
    Squares e_{};
    double *f_ = nullptr, *z_ = nullptr, *best_z_ = nullptr;
    double *sizes_of_ = nullptr, *scores_ = nullptr;  // of symbols: norms, or -1 for vertices; shares in the remainders
    index_t vertices_[kMaxVertex] = {};
    index_t num_vertices_ = 0;
};

}  // namespace pyhess::units

// A dense network: s^l = scale_l (W^l a^{l-1} + b^l), a^l = phi_l(s^l), f = s^D.
// Parameters lie flat in the order W1, b1, W2, b2, …; each W is (out, in) row-major.
#pragma once

#include <vector>

#include "pyhess/types.hpp"

namespace pyhess {

struct Layer {
    index_t in = 0, out = 0;
    index_t ld_in = 0, ld_out = 0;  // leading dimensions of the activations on both sides
    index_t w = 0, b = -1;          // offsets into theta; b = -1 without biases
    index_t wt = 0, ld_wt = 0;      // offset and leading dimension of the transposed copy of W
    double scale = 1.0;
    Activation act = Activation::identity;  // of this layer's output; the last layer has none
    double beta = 1.0;
};

struct Mlp {
    std::vector<Layer> layers;
    bool bias = true;
    index_t num_params = 0;
    index_t transposed_size = 0;  // elements of all transposed copies
    index_t max_ld = 0;           // widest leading dimension of any layer output

    index_t depth() const { return static_cast<index_t>(layers.size()); }
    index_t num_inputs() const { return layers.front().in; }
    index_t num_outputs() const { return layers.back().out; }
};

// Rows of small layers stay dense, so that element-wise loops waste nothing; longer rows start on a vector boundary but
// never lie a power of two apart, which would map them onto the same cache sets.
inline index_t leading_dimension(index_t m) {
    if (m < 64) return m;
    const index_t ld = round_up(m, kAlign);
    return ld % 128 == 0 ? ld + kAlign : ld;
}

// Returns false if a size overflows.
bool make_mlp(const std::vector<index_t>& widths, const std::vector<Activation>& acts, const std::vector<double>& betas,
              const std::vector<double>& scales, bool bias, Mlp& out);

}  // namespace pyhess

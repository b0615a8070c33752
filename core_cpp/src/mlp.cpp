#include "pyhess/mlp.hpp"

#include <algorithm>

namespace pyhess {

bool make_mlp(const std::vector<index_t>& widths, const std::vector<Activation>& acts, const std::vector<double>& betas,
              const std::vector<double>& scales, bool bias, Mlp& out) {
    const auto depth = static_cast<index_t>(widths.size()) - 1;
    index_t offset = 0, transposed = 0;
    out = Mlp{};
    out.bias = bias;
    for (index_t l = 0; l < depth; ++l) {
        const auto i = static_cast<std::size_t>(l);
        Layer layer;
        layer.in = widths[i];
        layer.out = widths[i + 1];
        layer.ld_in = leading_dimension(layer.in);
        layer.ld_out = leading_dimension(layer.out);
        layer.scale = scales[i];
        if (l + 1 < depth) {
            layer.act = acts[i];
            layer.beta = betas[i];
        }
        layer.w = offset;
        index_t size = 0;
        if (__builtin_mul_overflow(layer.in, layer.out, &size) || __builtin_add_overflow(offset, size, &offset))
            return false;
        if (bias) {
            layer.b = offset;
            if (__builtin_add_overflow(offset, layer.out, &offset)) return false;
        }
        layer.wt = transposed;
        layer.ld_wt = layer.ld_out;
        if (__builtin_mul_overflow(layer.in, layer.ld_wt, &size) ||
            __builtin_add_overflow(transposed, round_up(size, kAlign), &transposed))
            return false;
        out.max_ld = std::max(out.max_ld, layer.ld_out);
        out.layers.push_back(layer);
    }
    out.num_params = offset;
    out.transposed_size = transposed;
    return true;
}

}  // namespace pyhess

#include "pyhess/problem.hpp"

#include <algorithm>

namespace pyhess {
namespace {

// OpenBLAS has packing-free kernels up to m n k = 1e6, which win 25-50 % for layers between about 96 and 200 units;
// larger layers want longer blocks. The upper ends keep one block's working set inside a 2 MB second-level cache.
constexpr index_t kSmallGemm = 1000000;
constexpr index_t kSmallWidth = 200;
constexpr index_t kCacheBytes = 1 << 20;
constexpr index_t kMinRows = 32, kMaxRows = 1024;

// A chunk should cost well over the few microseconds it takes to hand it to a thread, and the chunks' accumulators
// (num_params each) should neither outweigh the products nor fill the memory.
constexpr double kChunkFlops = 2e7;
constexpr index_t kMaxChunks = 32;
constexpr index_t kAccumulatorBytes = index_t{1} << 28;

}  // namespace

template <class T>
Problem<T>::Problem(Mlp mlp, Loss loss, index_t num_samples, const T* x, const T* target, const double* weight,
                    Gemm<T> gemm, const Kernels<T>* kernels)
    : mlp_(std::move(mlp)), loss_(loss), gemm_(gemm), kernels_(kernels), num_samples_(num_samples) {
    const index_t d = mlp_.num_inputs(), ld = mlp_.layers.front().ld_in, k_end = mlp_.num_outputs();
    x_.assign(static_cast<std::size_t>(num_samples * ld), T(0));
    for (index_t i = 0; i < num_samples; ++i) std::copy(x + i * d, x + (i + 1) * d, x_.data() + i * ld);
    target_.assign(target, target + num_samples * k_end);
    weight_.resize(static_cast<std::size_t>(num_samples));
    mass_.resize(static_cast<std::size_t>(num_samples));
    for (index_t i = 0; i < num_samples; ++i) {
        const auto at = static_cast<std::size_t>(i);
        weight_[at] = static_cast<T>(weight[i]);
        mass_[at] = weight[i];
        if (loss == Loss::cross_entropy) {
            double sum = 0.0;
            for (index_t k = 0; k < k_end; ++k) sum += static_cast<double>(target[i * k_end + k]);
            mass_[at] = weight[i] * sum;
        }
    }
    choose_blocks();
    lay_out();
}

template <class T>
void Problem<T>::choose_blocks() {
    index_t rows = kMaxRows, width_sum = 0;
    double params = 0.0;
    for (const Layer& layer : mlp_.layers) {
        if (std::max(layer.in, layer.out) <= kSmallWidth)
            rows = std::min(rows, kSmallGemm / (layer.in * layer.out) / 4 * 4);
        width_sum += layer.ld_in + layer.ld_out;
        params += static_cast<double>(layer.in) * static_cast<double>(layer.out);
    }
    const index_t row_bytes = 4 * width_sum * static_cast<index_t>(sizeof(T));
    rows = std::min(rows, std::max<index_t>(kCacheBytes / row_bytes / 4 * 4, 4 * kMinRows));
    block_rows_ = std::min(std::max(rows, kMinRows), num_samples_);
    num_blocks_ = (num_samples_ + block_rows_ - 1) / block_rows_;

    const double flops = 12.0 * static_cast<double>(num_samples_) * params;
    const index_t by_work = static_cast<index_t>(std::min(flops / kChunkFlops, 1e6));
    const index_t by_memory = kAccumulatorBytes / (mlp_.num_params * static_cast<index_t>(sizeof(T)));
    num_chunks_ = std::max<index_t>(1, std::min({num_blocks_, by_work, by_memory, kMaxChunks}));
}

template <class T>
void Problem<T>::lay_out() {
    const index_t depth = mlp_.depth();
    index_t offset = mlp_.transposed_size;  // the state begins with the transposed weights
    const auto take = [&offset](index_t size) {
        const index_t at = offset;
        offset += round_up(size, kAlign);
        return at;
    };
    layout_.resize(static_cast<std::size_t>(depth));
    for (index_t l = 0; l < depth; ++l) {
        StateLayout& at = layout_[static_cast<std::size_t>(l)];
        const index_t size = num_samples_ * layer(l).ld_out;
        at.delta = take(size);
        if (l + 1 == depth) {
            if (loss_ != Loss::squared_error) at.prob = take(size);
            continue;
        }
        at.a = take(size);
        if (layer(l).act == Activation::gelu) {
            at.slope = take(size);
            at.curve = take(size);
            at.third = take(size);
            at.bar = take(size);
        }
    }
    state_size_ = offset;

    // Per block: four tangents of every layer's output (s1, a1, s2, a2) and two pairs of cotangents of the widest
    // layer.
    offset = 0;
    for (const Layer& layer : mlp_.layers) take(4 * round_up(block_rows_ * layer.ld_out, kAlign));
    take(4 * round_up(block_rows_ * mlp_.max_ld, kAlign));
    work_size_ = offset;
}

template <class T>
LossBlock<T> Problem<T>::loss_block(T* state, index_t row, index_t rows) const {
    const index_t last = mlp_.depth() - 1, ld = layer(last).ld_out, k_end = mlp_.num_outputs();
    T* prob = layout(last).prob < 0 ? nullptr : state + layout(last).prob + row * ld;
    return {rows, k_end, ld, weight_.data() + row, mass_.data() + row, target_.data() + row * k_end, prob};
}

template <class T>
LayerState<T> Problem<T>::layer_state(const T* state, index_t l, index_t row) const {
    const StateLayout& at = layout(l);
    const index_t shift = row * layer(l).ld_out;
    const auto pick = [&](index_t offset) { return offset < 0 ? nullptr : state + offset + shift; };
    return {pick(at.a), pick(at.delta), pick(at.slope), pick(at.curve), pick(at.third), pick(at.bar)};
}

template class Problem<double>;
template class Problem<float>;

}  // namespace pyhess

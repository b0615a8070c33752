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

// Where no useful block fits that cache, long blocks pay: every block reads and writes the whole gradient once, and
// every chunk has an accumulator to fill and to add up. 512 rows against 128 gain a sixth at 1024 units; four blocks
// are left for the threads.
constexpr index_t kMinWideRows = 128, kMaxWideRows = 512, kMinBlocks = 4;

// With lanes across data: the same bound, and enough lanes to pay for the sums across them.
constexpr index_t kLaneBytes = 3 << 19, kMinLanes = 32, kMaxLanes = 272;

// A chunk should cost well over the few microseconds it takes to hand it to a thread, and the chunks' accumulators
// (num_params each) should neither outweigh the products nor fill the memory.
constexpr double kChunkFlops = 2e7;
constexpr index_t kMaxChunks = 32;
// An accumulator is filled, written and read once more, which costs what some seven data do.
constexpr index_t kMinChunkRows = 128;

}  // namespace

template <class T>
Problem<T>::Problem(Mlp mlp, Loss loss, index_t num_samples, const T* x, const T* target, const double* weight,
                    Gemm<T> gemm, const Kernels<T>* kernels, index_t lane_width, bool streaming,
                    index_t accumulator_bytes)
    : mlp_(std::move(mlp)),
      loss_(loss),
      gemm_(gemm),
      kernels_(kernels),
      streaming_(streaming),
      num_samples_(num_samples) {
    choose_layout(lane_width);
    choose_blocks(accumulator_bytes);
    lay_out();
    if (x) copy_data(x, target, weight);
}

template <class T>
void Problem<T>::choose_layout(index_t lane_width) {
    // The inputs count like any layer: their products with the first layer's weights are the same kernels' work.
    index_t widest = mlp_.num_inputs();
    for (const Layer& layer : mlp_.layers) widest = std::max(widest, layer.out);
    lanes_ = widest <= (lane_width < 0 ? kernels_->lane_width : lane_width);
    if (!lanes_) return;
    for (Layer& layer : mlp_.layers) {  // rows are features: nothing is padded, nothing transposed
        layer.ld_in = layer.in;
        layer.ld_out = layer.out;
    }
    mlp_.transposed_size = 0;
}

template <class T>
void Problem<T>::copy_data(const T* x, const T* target, const double* weight) {
    const index_t d = mlp_.num_inputs(), ld = mlp_.layers.front().ld_in, k_end = mlp_.num_outputs();
    x_.assign(static_cast<std::size_t>(padded_samples_ * ld), T(0));
    target_.assign(static_cast<std::size_t>(padded_samples_ * k_end), T(0));
    weight_.assign(static_cast<std::size_t>(padded_samples_), T(0));
    mass_.assign(static_cast<std::size_t>(padded_samples_), 0.0);
    for (index_t row = 0; row < num_samples_; row += block_rows_) {
        const index_t rows = rows_of_block(row);
        for (index_t r = 0; r < rows; ++r) {
            const index_t datum = std::min(row + r, num_samples_ - 1);
            T* to_x = x_.data() + row * ld + (lanes_ ? r : r * ld);
            T* to_target = target_.data() + row * k_end + (lanes_ ? r : r * k_end);
            const index_t stride = lanes_ ? rows : 1;
            double sum = 0.0;
            for (index_t j = 0; j < d; ++j) to_x[j * stride] = x[datum * d + j];
            for (index_t k = 0; k < k_end; ++k) {
                to_target[k * stride] = target[datum * k_end + k];
                sum += static_cast<double>(target[datum * k_end + k]);
            }
            if (row + r >= num_samples_) continue;  // padding weighs nothing
            const auto at = static_cast<std::size_t>(row + r);
            weight_[at] = static_cast<T>(weight[datum]);
            mass_[at] = loss_ == Loss::cross_entropy ? weight[datum] * sum : weight[datum];
        }
    }
}

template <class T>
void Problem<T>::choose_blocks(index_t accumulator_bytes) {
    index_t rows = kMaxRows, width_sum = 0;
    double params = 0.0;
    for (const Layer& layer : mlp_.layers) {
        if (std::max(layer.in, layer.out) <= kSmallWidth)
            rows = std::min(rows, kSmallGemm / (layer.in * layer.out) / 4 * 4);
        width_sum += layer.ld_in + layer.ld_out;
        params += static_cast<double>(layer.in) * static_cast<double>(layer.out);
    }
    const index_t row_bytes = 4 * width_sum * static_cast<index_t>(sizeof(T));
    if (lanes_) {
        const index_t most = std::min(std::max(kLaneBytes / row_bytes, kMinLanes), kMaxLanes);
        const index_t blocks = (num_samples_ + most - 1) / most;
        block_rows_ = round_lanes((num_samples_ + blocks - 1) / blocks);
    } else {
        const index_t least = std::min(std::max(num_samples_ / kMinBlocks / 4 * 4, kMinWideRows), kMaxWideRows);
        rows = std::min(rows, std::max(kCacheBytes / row_bytes / 4 * 4, least));
        rows = std::max(rows, kMinRows);
        // Of nearly equal length, because what is kept takes as much room for a short block as for a long one.
        const index_t blocks = (num_samples_ + rows - 1) / rows;
        block_rows_ = std::min(round_up((num_samples_ + blocks - 1) / blocks, 4), num_samples_);
    }
    num_blocks_ = (num_samples_ + block_rows_ - 1) / block_rows_;
    const index_t last = (num_blocks_ - 1) * block_rows_;
    padded_samples_ = last + rows_of_block(last);

    const double flops = 12.0 * static_cast<double>(num_samples_) * params;
    const index_t by_work = static_cast<index_t>(std::min(flops / kChunkFlops, 1e6));
    const index_t by_memory = accumulator_bytes / (mlp_.num_params * static_cast<index_t>(sizeof(T)));
    const index_t by_rows = num_samples_ / kMinChunkRows;
    const index_t wanted = std::max<index_t>(1, std::min({num_blocks_, by_work, by_rows, kMaxChunks}));
    num_chunks_ = std::max<index_t>(1, std::min(wanted, by_memory));
    chunks_limited_ = num_chunks_ < wanted;
}

template <class T>
void Problem<T>::lay_out() {
    const index_t depth = mlp_.depth();
    index_t offset = 0;
    const auto take = [&offset](index_t size) {
        const index_t at = offset;
        offset += round_up(size, kAlign);
        return at;
    };
    layout_.resize(static_cast<std::size_t>(depth));
    for (index_t l = 0; l < depth; ++l) {
        StateLayout& at = layout_[static_cast<std::size_t>(l)];
        const index_t size = block_rows_ * layer(l).ld_out;
        at.delta = take(size);
        if (l + 1 == depth) {
            if (loss_ != Loss::squared_error) at.prob = take(size);
            continue;
        }
        at.a = take(size);
        if (layer(l).act == Activation::gelu) {
            at.s = take(size);
            at.slope = take(size);
            at.curve = take(size);
            at.third = take(size);
            at.bar = take(size);
        }
    }
    kept_size_ = offset;

    offset = 0;
    packed_.resize(layout_.size());
    for (std::size_t l = 0; l < layout_.size(); ++l) {
        const StateLayout& from = layout_[l];
        StateLayout& at = packed_[l];
        const index_t size = block_rows_ * mlp_.layers[l].ld_out;
        if (from.s >= 0) {
            at.s = take(size);
            at.bar = take(size);
            continue;
        }
        at.delta = take(size);
        if (from.prob >= 0) at.prob = take(size);
        if (from.a >= 0) at.a = take(size);
    }
    stored_size_ = offset;

    // Per block: four tangents of every layer's output (s1, a1, s2, a2) and two pairs of cotangents of the widest
    // layer.
    offset = 0;
    for (const Layer& layer : mlp_.layers) take(4 * round_up(block_rows_ * layer.ld_out, kAlign));
    take(4 * round_up(block_rows_ * mlp_.max_ld, kAlign));
    work_size_ = offset;
}

template <class T>
LossBlock<T> Problem<T>::loss_block(T* kept, index_t row, index_t rows) const {
    const index_t last = mlp_.depth() - 1, ld = layer(last).ld_out, k_end = mlp_.num_outputs();
    T* prob = layout(last).prob < 0 ? nullptr : kept + layout(last).prob;
    return {rows, k_end, ld, weight_.data() + row, mass_.data() + row, target_.data() + row * k_end, prob};
}

template <class T>
LayerState<T> Problem<T>::layer_state(const T* kept, index_t l) const {
    const StateLayout& at = layout(l);
    const auto pick = [&](index_t offset) { return offset < 0 ? nullptr : kept + offset; };
    return {pick(at.a), pick(at.delta), pick(at.slope), pick(at.curve), pick(at.third), pick(at.bar)};
}

template class Problem<double>;
template class Problem<float>;

}  // namespace pyhess

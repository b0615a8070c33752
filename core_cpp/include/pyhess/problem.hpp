// A network, a loss and a data set, with everything that does not depend on theta: block sizes, memory layout, kernels.
//
// Data is walked in blocks of `block_rows` rows; blocks are grouped into `num_chunks` chunks, the unit of parallel
// work. Both depend on the sizes alone, never on the number of threads, so that sums have one order and results one
// value.
//
// There are two layouts of a block. Rows of data: (rows, features) with a leading dimension, for GEMM. Lanes across
// data: (features, lanes), for narrow networks and the fused kernels; the last block is padded with copies of the last
// datum of weight zero, so that every row of lanes fills whole cache lines.
//
// What a linearization keeps of a block (activations, back-propagated errors) lies in one piece, the blocks' pieces one
// after the other behind the transposed weights in the state. A product may also linearize each block itself, just
// before it needs it, in the worker's own buffer ("fresh"): same bits, and the better way where there is one product
// for each theta. A streaming problem knows no other: its memory does not grow with the number of data.
#pragma once

#include <cstddef>
#include <memory>
#include <vector>

#include "pyhess/aligned.hpp"
#include "pyhess/gemm.hpp"
#include "pyhess/loss.hpp"
#include "pyhess/mlp.hpp"
#include "pyhess/types.hpp"

namespace pyhess {

// Where the arrays of one layer lie in what is kept of a block, in elements of T from its (aligned) beginning; -1 where
// there is none.
struct StateLayout {
    index_t a = -1, delta = -1;  // every hidden layer; delta also for the output layer
    index_t s = -1, slope = -1, curve = -1, third = -1, bar = -1;  // GELU only
    index_t prob = -1;                                             // output layer of cross_entropy and logistic
};

// All accumulators of one result together take no more than this unless the caller says otherwise.
constexpr index_t kAccumulatorBytes = index_t{1} << 31;

template <class T>
class Problem {
public:
    // x (num_samples, d_in) and target (num_samples, num_outputs) row-major; weight (num_samples) sums to one.
    // Networks no wider than lane_width get lanes across data; a negative one stands for the kernels' own. Without x
    // the problem knows its sizes only.
    Problem(Mlp mlp, Loss loss, index_t num_samples, const T* x, const T* target, const double* weight, Gemm<T> gemm,
            const Kernels<T>* kernels, index_t lane_width = -1, bool streaming = false,
            index_t accumulator_bytes = kAccumulatorBytes);

    const Mlp& mlp() const { return mlp_; }
    Loss loss() const { return loss_; }
    const Gemm<T>& gemm() const { return gemm_; }
    const Kernels<T>& kernels() const { return *kernels_; }

    bool lanes() const { return lanes_; }
    bool streaming() const { return streaming_; }
    index_t num_samples() const { return num_samples_; }
    index_t block_rows() const { return block_rows_; }
    index_t num_blocks() const { return num_blocks_; }
    index_t num_chunks() const { return num_chunks_; }
    // Would there be more chunks if their accumulators took less memory?
    bool chunks_limited() const { return chunks_limited_; }
    // Rows, or lanes, of the block that begins at `row`.
    index_t rows_of_block(index_t row) const {
        const index_t left = num_samples_ - row;
        return left >= block_rows_ ? block_rows_ : (lanes_ ? round_lanes(left) : left);
    }
    index_t first_block(index_t chunk) const { return chunk * num_blocks_ / num_chunks_; }

    // Sizes of the caller's buffers in elements of T; each buffer starts on a 64-byte boundary.
    index_t state_size() const { return mlp_.transposed_size + (streaming_ ? 0 : num_blocks_ * stored_size_); }
    index_t transposed_size() const { return mlp_.transposed_size; }  // one per vector; all of the state if fresh
    index_t work_size() const { return work_size_ + kept_size_; }     // one per worker
    index_t data_size() const { return padded_samples_ * (mlp_.layers.front().ld_in + mlp_.num_outputs() + 1); }

    // What is kept of the block that begins at `row`; reading is all a product does to it unless it is fresh.
    T* kept(const T* state, T* work, index_t row, bool fresh) const {
        return fresh || streaming_ || packs() ? work + work_size_ : stored(state, row);
    }
    // GELU's derivatives follow from s: where there is one, the state has two numbers for every unit as for other
    // activations, from which the block's arrays are made anew before each product (kept_block).
    bool packs() const { return stored_size_ != kept_size_; }
    T* stored(const T* state, index_t row) const {
        return const_cast<T*>(state) + mlp_.transposed_size + row / block_rows_ * stored_size_;
    }
    const T* inputs(index_t row) const { return x_.data() + row * mlp_.layers.front().ld_in; }
    const StateLayout& packed(index_t l) const { return packed_[static_cast<std::size_t>(l)]; }
    const StateLayout& layout(index_t l) const { return layout_[static_cast<std::size_t>(l)]; }
    const Layer& layer(index_t l) const { return mlp_.layers[static_cast<std::size_t>(l)]; }
    LossBlock<T> loss_block(T* kept, index_t row, index_t rows) const;
    LayerState<T> layer_state(const T* kept, index_t l) const;

private:
    // Whole cache lines; an odd number of them once there are many, so that rows do not fall onto the same cache sets.
    static index_t round_lanes(index_t n) {
        constexpr index_t line = 64 / static_cast<index_t>(sizeof(T));
        const index_t lines = (n + line - 1) / line;
        return (lines > 8 ? lines | 1 : lines) * line;
    }
    void choose_layout(index_t lane_width);
    void choose_blocks(index_t accumulator_bytes);
    void copy_data(const T* x, const T* target, const double* weight);
    void lay_out();

    Mlp mlp_;
    Loss loss_;
    Gemm<T> gemm_;
    const Kernels<T>* kernels_;
    bool lanes_ = false, streaming_ = false, chunks_limited_ = false;
    index_t num_samples_, padded_samples_ = 0, block_rows_ = 0, num_blocks_ = 0, num_chunks_ = 0;
    index_t kept_size_ = 0, stored_size_ = 0, work_size_ = 0;
    std::vector<T, AlignedAllocator<T>> x_;
    std::vector<T> target_, weight_;
    std::vector<double> mass_;
    std::vector<StateLayout> layout_, packed_;
};

// The activations that enter layer l: the inputs or what the previous layer kept.
template <class T>
const T* layer_input(const Problem<T>& problem, const T* kept, index_t l, index_t row) {
    if (l == 0) return problem.inputs(row);
    return kept + problem.layout(l - 1).a;
}

// Runs body(row, rows) over the blocks of chunks [chunk_begin, chunk_end); stops between blocks once *cancel is
// non-zero.
template <class T, class Body>
Status for_each_block(const Problem<T>& problem, index_t chunk_begin, index_t chunk_end,
                      const volatile std::int32_t* cancel, Body body) {
    for (index_t block = problem.first_block(chunk_begin); block < problem.first_block(chunk_end); ++block) {
        if (cancel && *cancel) return Status::cancelled;
        const index_t row = block * problem.block_rows();
        body(row, problem.rows_of_block(row));
    }
    return Status::ok;
}

}  // namespace pyhess

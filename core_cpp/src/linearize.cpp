#include "pyhess/linearize.hpp"

#include <algorithm>

#include "pyhess/linear.hpp"
#include "pyhess/workspace.hpp"

namespace pyhess {

namespace {

constexpr index_t kTile = 32;

index_t strips_of(const Layer& layer) { return (layer.in + kTile - 1) / kTile; }

}  // namespace

template <class T>
index_t transposed_strips(const Problem<T>& problem) {
    if (problem.lanes()) return 0;
    index_t count = 0;
    for (const Layer& layer : problem.mlp().layers) count += strips_of(layer);
    return count;
}

template <class T>
void transpose_strip(const Problem<T>& problem, const T* theta, T* out, index_t strip) {
    // Through a tile of odd stride: rows of 2^k weights lie on the same few cache lines' places when read column by
    // column.
    constexpr index_t stride = kTile + 1;
    T buffer[kTile * stride];
    index_t l = 0;
    while (strip >= strips_of(problem.layer(l))) strip -= strips_of(problem.layer(l++));
    const Layer& layer = problem.layer(l);
    const T* w = theta + layer.w;
    T* wt = out + layer.wt;
    const index_t i0 = strip * kTile, i_count = std::min(kTile, layer.in - i0);
    for (index_t o0 = 0; o0 < layer.out; o0 += kTile) {
        const index_t o_count = std::min(kTile, layer.out - o0);
        for (index_t o = 0; o < o_count; ++o)
            for (index_t i = 0; i < i_count; ++i) buffer[i * stride + o] = w[(o0 + o) * layer.in + i0 + i];
        for (index_t i = 0; i < i_count; ++i)
            std::copy(buffer + i * stride, buffer + i * stride + o_count, wt + (i0 + i) * layer.ld_wt + o0);
    }
}

template <class T>
void transpose_weights(const Problem<T>& problem, const T* theta, T* out) {
    for (index_t strip = 0; strip < transposed_strips(problem); ++strip) transpose_strip(problem, theta, out, strip);
}

template <class T>
double linearize_block(const Problem<T>& problem, const T* theta, const T* transposed, T* kept, index_t row,
                       index_t rows, T* grad, const Workspace<T>& space) {
    const index_t depth = problem.mlp().depth(), last = depth - 1;
    const Kernels<T>& kernels = problem.kernels();
    for (index_t l = 0; l < last; ++l) {
        const Layer& layer = problem.layer(l);
        const StateLayout& where = problem.layout(l);
        T* s = kept + where.a;
        affine<T, 1>(problem, l, rows, bias_of(problem, l, theta),
                     {{{theta, transposed, layer_input(problem, kept, l, row)}}}, s);
        const bool derivatives = where.slope >= 0;
        if (derivatives) std::copy(s, s + rows * layer.ld_out, kept + where.s);
        kernels.activate(layer.act, static_cast<T>(layer.beta), rows * layer.ld_out, s,
                         derivatives ? kept + where.slope : nullptr, derivatives ? kept + where.curve : nullptr,
                         derivatives ? kept + where.third : nullptr);
    }
    T* f = space.cotangent(0);
    affine<T, 1>(problem, last, rows, bias_of(problem, last, theta),
                 {{{theta, transposed, layer_input(problem, kept, last, row)}}}, f);
    const double value =
        output_loss(problem, problem.loss_block(kept, row, rows), f, kept + problem.layout(last).delta);

    for (index_t l = last; l >= 0; --l) {
        const T* delta = kept + problem.layout(l).delta;
        if (grad) {
            add_outer<T, 1>(problem, l, rows, T(1), {{{delta, layer_input(problem, kept, l, row)}}}, grad);
            add_bias(problem, l, rows, T(1), delta, grad);
        }
        if (l == 0) break;
        const Layer& below = problem.layer(l - 1);
        const StateLayout& where = problem.layout(l - 1);
        const index_t n = rows * below.ld_out;
        T* bar = kept + where.delta;
        pull_back<T, 1>(problem, l, rows, {{{theta, nullptr, delta}}}, bar);
        if (where.bar >= 0) std::copy(bar, bar + n, kept + where.bar);
        kernels.backward(below.act, static_cast<T>(below.beta), n, kept + where.a,
                         where.slope >= 0 ? kept + where.slope : nullptr, bar);
    }
    return value;
}

namespace {

// Copies the arrays that both layouts have.
template <class T>
void copy_arrays(const Problem<T>& problem, index_t l, index_t rows, const StateLayout& from, const T* source,
                 const StateLayout& to, T* target) {
    const index_t n = rows * problem.layer(l).ld_out;
    for (auto array : {&StateLayout::a, &StateLayout::delta, &StateLayout::prob, &StateLayout::s, &StateLayout::bar})
        if (from.*array >= 0 && to.*array >= 0)
            std::copy(source + from.*array, source + from.*array + n, target + to.*array);
}

template <class T>
void pack(const Problem<T>& problem, const T* kept, T* stored, index_t rows) {
    for (index_t l = 0; l < problem.mlp().depth(); ++l)
        copy_arrays(problem, l, rows, problem.layout(l), kept, problem.packed(l), stored);
}

}  // namespace

template <class T>
void unpack(const Problem<T>& problem, const T* stored, T* kept, index_t rows) {
    const Kernels<T>& kernels = problem.kernels();
    for (index_t l = 0; l < problem.mlp().depth(); ++l) {
        const StateLayout& where = problem.layout(l);
        const Layer& layer = problem.layer(l);
        const index_t n = rows * layer.ld_out;
        copy_arrays(problem, l, rows, problem.packed(l), stored, where, kept);
        if (where.s < 0) continue;
        std::copy(kept + where.s, kept + where.s + n, kept + where.a);
        kernels.activate(layer.act, static_cast<T>(layer.beta), n, kept + where.a, kept + where.slope,
                         kept + where.curve, kept + where.third);
        std::copy(kept + where.bar, kept + where.bar + n, kept + where.delta);
        kernels.backward(layer.act, static_cast<T>(layer.beta), n, kept + where.a, kept + where.slope,
                         kept + where.delta);
    }
}

template <class T>
Status linearize(const Problem<T>& problem, const T* theta, T* state, index_t chunk_begin, index_t chunk_end,
                 double* value, T* grad, T* work, const volatile std::int32_t* cancel) {
    const Workspace<T> space(problem, work);
    return for_each_block(problem, chunk_begin, chunk_end, cancel, [&](index_t row, index_t rows) {
        T* kept = problem.kept(state, work, row, false);
        *value += linearize_block(problem, theta, static_cast<const T*>(state), kept, row, rows, grad, space);
        if (problem.packs() && !problem.streaming()) pack(problem, kept, problem.stored(state, row), rows);
    });
}

#define PYHESS_INSTANTIATE(T)                                                                           \
    template index_t transposed_strips<T>(const Problem<T>&);                                           \
    template void transpose_strip<T>(const Problem<T>&, const T*, T*, index_t);                         \
    template void transpose_weights<T>(const Problem<T>&, const T*, T*);                                \
    template void unpack<T>(const Problem<T>&, const T*, T*, index_t);                                  \
    template double linearize_block<T>(const Problem<T>&, const T*, const T*, T*, index_t, index_t, T*, \
                                       const Workspace<T>&);                                            \
    template Status linearize<T>(const Problem<T>&, const T*, T*, index_t, index_t, double*, T*, T*,    \
                                 const volatile std::int32_t*);
PYHESS_INSTANTIATE(double)
PYHESS_INSTANTIATE(float)

}  // namespace pyhess

#include "pyhess/linearize.hpp"

#include <algorithm>

#include "pyhess/linear.hpp"
#include "pyhess/workspace.hpp"

namespace pyhess {

template <class T>
void transpose_weights(const Problem<T>& problem, const T* theta, T* out) {
    constexpr index_t tile = 32;  // both sides of a tile stay in the first-level cache
    if (problem.lanes()) return;
    for (const Layer& layer : problem.mlp().layers) {
        const T* w = theta + layer.w;
        T* wt = out + layer.wt;
        for (index_t i0 = 0; i0 < layer.in; i0 += tile)
            for (index_t o0 = 0; o0 < layer.out; o0 += tile)
                for (index_t i = i0; i < std::min(i0 + tile, layer.in); ++i)
                    for (index_t o = o0; o < std::min(o0 + tile, layer.out); ++o)
                        wt[i * layer.ld_wt + o] = w[o * layer.in + i];
    }
}

template <class T>
double linearize_block(const Problem<T>& problem, const T* theta, const T* transposed, T* kept, index_t row,
                       index_t rows, T* grad, const Workspace<T>& space) {
    const index_t depth = problem.mlp().depth(), last = depth - 1;
    const Kernels<T>& kernels = problem.kernels();
    const auto at = [&](index_t offset, index_t l) {
        return kept + offset + problem.kept_row(row) * problem.layer(l).ld_out;
    };

    for (index_t l = 0; l < last; ++l) {
        const Layer& layer = problem.layer(l);
        const StateLayout& where = problem.layout(l);
        T* s = at(where.a, l);
        affine<T, 1>(problem, l, rows, bias_of(problem, l, theta),
                     {{{theta, transposed, layer_input(problem, kept, l, row)}}}, s);
        const bool derivatives = where.slope >= 0;
        kernels.activate(layer.act, static_cast<T>(layer.beta), rows * layer.ld_out, s,
                         derivatives ? at(where.slope, l) : nullptr, derivatives ? at(where.curve, l) : nullptr,
                         derivatives ? at(where.third, l) : nullptr);
    }
    T* f = space.cotangent(0);
    affine<T, 1>(problem, last, rows, bias_of(problem, last, theta),
                 {{{theta, transposed, layer_input(problem, kept, last, row)}}}, f);
    const double value =
        output_loss(problem, problem.loss_block(kept, row, rows), f, at(problem.layout(last).delta, last));

    for (index_t l = last; l >= 0; --l) {
        const T* delta = at(problem.layout(l).delta, l);
        if (grad) {
            add_outer<T, 1>(problem, l, rows, T(1), {{{delta, layer_input(problem, kept, l, row)}}}, grad);
            add_bias(problem, l, rows, T(1), delta, grad);
        }
        if (l == 0) break;
        const Layer& below = problem.layer(l - 1);
        const StateLayout& where = problem.layout(l - 1);
        const index_t n = rows * below.ld_out;
        T* bar = at(where.delta, l - 1);
        pull_back<T, 1>(problem, l, rows, {{{theta, nullptr, delta}}}, bar);
        if (where.bar >= 0) std::copy(bar, bar + n, at(where.bar, l - 1));
        kernels.backward(below.act, static_cast<T>(below.beta), n, at(where.a, l - 1),
                         where.slope >= 0 ? at(where.slope, l - 1) : nullptr, bar);
    }
    return value;
}

template <class T>
Status linearize(const Problem<T>& problem, const T* theta, T* state, index_t chunk_begin, index_t chunk_end,
                 double* value, T* grad, T* work, const volatile std::int32_t* cancel) {
    const Workspace<T> space(problem, work);
    T* kept = problem.kept(state, work);
    return for_each_block(problem, chunk_begin, chunk_end, cancel, [&](index_t row, index_t rows) {
        *value += linearize_block(problem, theta, static_cast<const T*>(state), kept, row, rows, grad, space);
    });
}

#define PYHESS_INSTANTIATE(T)                                                                           \
    template void transpose_weights<T>(const Problem<T>&, const T*, T*);                                \
    template double linearize_block<T>(const Problem<T>&, const T*, const T*, T*, index_t, index_t, T*, \
                                       const Workspace<T>&);                                            \
    template Status linearize<T>(const Problem<T>&, const T*, T*, index_t, index_t, double*, T*, T*,    \
                                 const volatile std::int32_t*);
PYHESS_INSTANTIATE(double)
PYHESS_INSTANTIATE(float)

}  // namespace pyhess

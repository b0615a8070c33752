#include "pyhess/ggn.hpp"

#include <utility>

#include "pyhess/linear.hpp"
#include "pyhess/linearize.hpp"
#include "pyhess/workspace.hpp"

namespace pyhess {

template <class T>
Status ggn(const Problem<T>& problem, const T* theta, const T* state, bool fresh, const T* v, const T* vt, T* out,
           index_t chunk_begin, index_t chunk_end, T* work, const volatile std::int32_t* cancel) {
    const index_t last = problem.mlp().depth() - 1;
    const Workspace<T> space(problem, work);
    const Kernels<T>& kernels = problem.kernels();

    return for_each_block(problem, chunk_begin, chunk_end, cancel, [&](index_t row, index_t rows) {
        T* kept = kept_block(problem, theta, state, fresh, work, row, rows);
        T *d1 = space.cotangent(0), *next = space.cotangent(1);
        for (index_t l = 0; l <= last; ++l) {
            const Layer& layer = problem.layer(l);
            T* s1 = l < last ? next : d1;
            tangent(problem, l, rows, theta, state, v, vt, layer_input(problem, kept, l, row),
                    l > 0 ? space.tangent(l - 1, 1) : nullptr, s1);
            if (l < last)
                kernels.apply_slope(layer.act, static_cast<T>(layer.beta), rows * layer.ld_out,
                                    problem.layer_state(kept, l), s1, space.tangent(l, 1));
        }
        output_curvature(problem, problem.loss_block(kept, row, rows), d1);
        for (index_t l = last; l >= 0; --l) {
            add_outer<T, 1>(problem, l, rows, T(1), {{{d1, layer_input(problem, kept, l, row)}}}, out);
            add_bias(problem, l, rows, T(1), d1, out);
            if (l == 0) break;
            pull_back<T, 1>(problem, l, rows, {{{theta, nullptr, d1}}}, next);
            const Layer& below = problem.layer(l - 1);
            kernels.apply_slope(below.act, static_cast<T>(below.beta), rows * below.ld_out,
                                problem.layer_state(kept, l - 1), next, next);
            std::swap(d1, next);
        }
    });
}

template Status ggn<double>(const Problem<double>&, const double*, const double*, bool, const double*, const double*,
                            double*, index_t, index_t, double*, const volatile std::int32_t*);
template Status ggn<float>(const Problem<float>&, const float*, const float*, bool, const float*, const float*, float*,
                           index_t, index_t, float*, const volatile std::int32_t*);

}  // namespace pyhess

#include "pyhess/jet.hpp"

#include <utility>

#include "pyhess/linear.hpp"
#include "pyhess/linearize.hpp"
#include "pyhess/workspace.hpp"

namespace pyhess {

template <class T>
Status jet(const Problem<T>& problem, const T* theta, const T* state, bool fresh, const T* v, const T* vt, double* q,
           T* hv, T* grad, index_t chunk_begin, index_t chunk_end, T* work, const volatile std::int32_t* cancel) {
    const index_t last = problem.mlp().depth() - 1;
    const Workspace<T> space(problem, work);
    const Kernels<T>& kernels = problem.kernels();

    return for_each_block(problem, chunk_begin, chunk_end, cancel, [&](index_t row, index_t rows) {
        T* kept = kept_block(problem, theta, state, fresh, work, row, rows);
        for (index_t l = 0; l <= last; ++l) {
            const Layer& layer = problem.layer(l);
            const index_t n = rows * layer.ld_out;
            T* s1 = space.tangent(l, 0);
            T* s2 = space.tangent(l, 2);
            const T* a1 = l > 0 ? space.tangent(l - 1, 1) : nullptr;
            tangent(problem, l, rows, theta, state, v, vt, layer_input(problem, kept, l, row), a1, s1);
            if (l > 0)
                affine<T, 2>(problem, l, rows, nullptr, {{{theta, state, space.tangent(l - 1, 3)}, {v, vt, a1}}}, s2);
            else if (l < last)
                s2 = nullptr;  // zeros: the inputs have no tangent
            else
                for (index_t i = 0; i < n; ++i) s2[i] = T(0);
            if (l < last)
                kernels.jet_forward(layer.act, static_cast<T>(layer.beta), n, problem.layer_state(kept, l), s1, s2,
                                    space.tangent(l, 1), space.tangent(l, 3));
        }
        T *x1 = space.cotangent(0), *y1 = space.cotangent(1), *x0 = space.cotangent(2), *y0 = space.cotangent(3);
        const LossBlock<T> loss = problem.loss_block(kept, row, rows);
        *q += output_jet(problem, loss, problem.layer_state(kept, last).delta, space.tangent(last, 0),
                         space.tangent(last, 2), x1, x0);
        for (index_t l = last; l >= 0; --l) {
            const T* a = layer_input(problem, kept, l, row);
            add_bias(problem, l, rows, T(1), x1, hv);
            add_bias(problem, l, rows, T(2), x0, grad);
            if (l == 0) {
                add_outer<T, 1>(problem, l, rows, T(1), {{{x1, a}}}, hv);
                add_outer<T, 1>(problem, l, rows, T(2), {{{x0, a}}}, grad);
                break;
            }
            const T* delta = problem.layer_state(kept, l).delta;
            const T *a1 = space.tangent(l - 1, 1), *a2 = space.tangent(l - 1, 3);
            add_outer<T, 2>(problem, l, rows, T(1), {{{x1, a}, {delta, a1}}}, hv);
            add_outer<T, 3>(problem, l, rows, T(2), {{{x0, a}, {x1, a1}, {delta, a2}}}, grad);
            pull_back<T, 2>(problem, l, rows, {{{theta, nullptr, x1}, {v, nullptr, delta}}}, y1);
            pull_back<T, 2>(problem, l, rows, {{{theta, nullptr, x0}, {v, nullptr, x1}}}, y0);
            const Layer& below = problem.layer(l - 1);
            kernels.jet_backward(below.act, static_cast<T>(below.beta), rows * below.ld_out,
                                 problem.layer_state(kept, l - 1), space.tangent(l - 1, 0),
                                 l > 1 ? space.tangent(l - 1, 2) : nullptr, y1, y0);
            std::swap(x1, y1);
            std::swap(x0, y0);
        }
    });
}

template Status jet<double>(const Problem<double>&, const double*, const double*, bool, const double*, const double*,
                            double*, double*, double*, index_t, index_t, double*, const volatile std::int32_t*);
template Status jet<float>(const Problem<float>&, const float*, const float*, bool, const float*, const float*, double*,
                           float*, float*, index_t, index_t, float*, const volatile std::int32_t*);

}  // namespace pyhess

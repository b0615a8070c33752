#include "pyhess/jet.hpp"

#include <utility>

#include "pyhess/linearize.hpp"
#include "pyhess/workspace.hpp"

namespace pyhess {
namespace {

// s2 = scale (W a2 + 2 V a1): the doubled term first, so that the second product can add to it.
template <class T>
void second_tangent(const Problem<T>& problem, index_t l, index_t rows, const T* state, const T* vt, const T* a1,
                    const T* a2, T* s2) {
    const Layer& layer = problem.layer(l);
    const T scale = static_cast<T>(layer.scale);
    problem.gemm().nn(layer.out, rows, layer.in, T(2) * scale, vt + layer.wt, layer.ld_wt, a1, layer.ld_in, T(0), s2,
                      layer.ld_out);
    affine<T>(problem, l, rows, state, nullptr, a2, true, s2);
}

// y0 = scale (W' x0 + 2 V' x1)
template <class T>
void second_cotangent(const Problem<T>& problem, index_t l, index_t rows, const T* theta, const T* v, const T* x1,
                      const T* x0, T* y0) {
    const Layer& layer = problem.layer(l);
    problem.gemm().nn(layer.in, rows, layer.out, T(2) * static_cast<T>(layer.scale), v + layer.w, layer.in, x1,
                      layer.ld_out, T(0), y0, layer.ld_in);
    pull_back(problem, l, rows, theta, x0, true, y0);
}

}  // namespace

template <class T>
Status jet(const Problem<T>& problem, const T* theta, const T* state, const T* v, const T* vt, double* q, T* hv,
           T* grad, index_t chunk_begin, index_t chunk_end, T* work, const volatile std::int32_t* cancel) {
    const index_t last = problem.mlp().depth() - 1;
    const Workspace<T> space(problem, work);
    const Kernels<T>& kernels = problem.kernels();

    return for_each_block(problem, chunk_begin, chunk_end, cancel, [&](index_t row, index_t rows) {
        for (index_t l = 0; l <= last; ++l) {
            const Layer& layer = problem.layer(l);
            const index_t n = rows * layer.ld_out;
            T *s1 = space.tangent(l, 0), *s2 = space.tangent(l, 2);
            affine(problem, l, rows, vt, bias_of(problem, l, v), layer_input(problem, state, l, row), false, s1);
            if (l > 0) {
                affine<T>(problem, l, rows, state, nullptr, space.tangent(l - 1, 1), true, s1);
                second_tangent<T>(problem, l, rows, state, vt, space.tangent(l - 1, 1), space.tangent(l - 1, 3), s2);
            } else {
                for (index_t i = 0; i < n; ++i) s2[i] = T(0);
            }
            if (l < last)
                kernels.jet_forward(layer.act, static_cast<T>(layer.beta), n, problem.layer_state(state, l, row), s1,
                                    s2, space.tangent(l, 1), space.tangent(l, 3));
        }
        T *x1 = space.cotangent(0), *y1 = space.cotangent(1), *x0 = space.cotangent(2), *y0 = space.cotangent(3);
        *q += loss_jet<T>(problem.loss(), problem.loss_block(const_cast<T*>(state), row, rows),
                          problem.layer_state(state, last, row).delta, space.tangent(last, 0), space.tangent(last, 2),
                          x1, x0);
        for (index_t l = last; l >= 0; --l) {
            const T* a = layer_input(problem, state, l, row);
            add_outer(problem, l, rows, T(1), x1, a, hv);
            add_outer(problem, l, rows, T(1), x0, a, grad);
            add_bias(problem, l, rows, x1, hv);
            add_bias(problem, l, rows, x0, grad);
            if (l == 0) break;
            const T* delta = problem.layer_state(state, l, row).delta;
            add_outer<T>(problem, l, rows, T(1), delta, space.tangent(l - 1, 1), hv);
            add_outer<T>(problem, l, rows, T(2), x1, space.tangent(l - 1, 1), grad);
            add_outer<T>(problem, l, rows, T(1), delta, space.tangent(l - 1, 3), grad);
            pull_back(problem, l, rows, theta, x1, false, y1);
            pull_back(problem, l, rows, v, delta, true, y1);
            second_cotangent<T>(problem, l, rows, theta, v, x1, x0, y0);
            const Layer& below = problem.layer(l - 1);
            kernels.jet_backward(below.act, static_cast<T>(below.beta), rows * below.ld_out,
                                 problem.layer_state(state, l - 1, row), space.tangent(l - 1, 0),
                                 space.tangent(l - 1, 2), y1, y0);
            std::swap(x1, y1);
            std::swap(x0, y0);
        }
    });
}

template Status jet<double>(const Problem<double>&, const double*, const double*, const double*, const double*, double*,
                            double*, double*, index_t, index_t, double*, const volatile std::int32_t*);
template Status jet<float>(const Problem<float>&, const float*, const float*, const float*, const float*, double*,
                           float*, float*, index_t, index_t, float*, const volatile std::int32_t*);

}  // namespace pyhess

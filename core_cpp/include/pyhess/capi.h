/* The C ABI that Numba kernels call. Every argument is a 64-bit integer: an address or a count. No function allocates,
 * throws or touches a global; all memory is the caller's. `problem` is the address of a pyhess::AnyProblem and carries
 * the element type T (float or double). Results are added to their arrays. `cancel` is the address of an int32: once it
 * is non-zero the function returns PYHESS_CANCELLED before its next block. Return value: pyhess::Status. */
#pragma once

#include <stdint.h>

#define PYHESS_ABI_VERSION 3

#ifdef __cplusplus
extern "C" {
#endif

/* state <- what depends on theta alone (transposed weights); once per theta, before ph_linearize */
int32_t ph_prepare(int64_t problem, int64_t theta, int64_t state);
/* vt <- transposed weights of v; once per vector, before the products */
int32_t ph_transpose(int64_t problem, int64_t v, int64_t vt);
/* forward and backward pass over the chunks; value double[1], grad T[P] or 0 */
int32_t ph_linearize(int64_t problem, int64_t theta, int64_t state, int64_t chunk_begin, int64_t chunk_end,
                     int64_t value, int64_t grad, int64_t work, int64_t cancel);
/* out T[P] */
int32_t ph_hvp(int64_t problem, int64_t theta, int64_t state, int64_t v, int64_t vt, int64_t out, int64_t chunk_begin,
               int64_t chunk_end, int64_t work, int64_t cancel);
int32_t ph_ggn(int64_t problem, int64_t theta, int64_t state, int64_t v, int64_t vt, int64_t out, int64_t chunk_begin,
               int64_t chunk_end, int64_t work, int64_t cancel);
/* q double[1], hv T[P], grad T[P] */
int32_t ph_jet(int64_t problem, int64_t theta, int64_t state, int64_t v, int64_t vt, int64_t q, int64_t hv,
               int64_t grad, int64_t chunk_begin, int64_t chunk_end, int64_t work, int64_t cancel);
/* one start of the joint descent (descent.hpp); float64 problems only. reach 0 box, 1 ball; mid, half double[P];
 * scale double[P] or 0; tol double[1]; z double[2P]; value double[1]; evals int64[1];
 * scratch double[(2 memory + 5) 2P + 4P + 2 memory] */
int32_t ph_descend(int64_t problem, int64_t reach, int64_t mid, int64_t half, int64_t scale, int64_t max_evals,
                   int64_t tol, int64_t memory, int64_t z, int64_t value, int64_t evals, int64_t scratch, int64_t state,
                   int64_t vt, int64_t work, int64_t cancel);
/* atomic: returns the old value of the int64 at `counter` and adds `increment` */
int64_t ph_fetch_add(int64_t counter, int64_t increment);

#ifdef __cplusplus
}
#endif

/* The C ABI that Numba kernels call. Every argument is a 64-bit integer: an address or a count. No function allocates,
 * throws or touches a global; all memory is the caller's. Return value of most: pyhess::Status. */
#pragma once

#include <stdint.h>

#define PYHESS_ABI_VERSION 7

#ifdef __cplusplus
extern "C" {
#endif

/* one thread's share of a pyhess::Job (job.hpp), whose address `job` is */
int32_t ph_samples(int64_t job, int64_t thread);
int32_t ph_transposes(int64_t job, int64_t thread);
int32_t ph_chunks(int64_t job, int64_t thread);
int32_t ph_sums(int64_t job, int64_t thread);
/* one start of the joint descent (descent.hpp). problem is the address of a pyhess::AnyProblem of element type T; reach
 * 0 box, 1 ball; mid, half double[P]; scale double[P] or 0; limits pyhess::DescentLimits; z double[2P]; value
 * double[1]; evals int64[1]; scratch double[descent_scratch_size]; turned T[2 transposed_size]; work T[work_size];
 * cancel int32[1]
 */
int32_t ph_descend(int64_t problem, int64_t reach, int64_t mid, int64_t half, int64_t scale, int64_t limits, int64_t z,
                   int64_t value, int64_t evals, int64_t scratch, int64_t turned, int64_t work, int64_t cancel);
/* one thread's share of a pyhess::UnitJob (unit_cells.hpp), whose address `job` is */
int32_t ph_unit_cells(int64_t job, int64_t thread);
/* one thread's share of a pyhess::RelaxedJob (unit_relaxed.hpp), whose address `job` is */
int32_t ph_relaxed_cells(int64_t job, int64_t thread);
/* atomic: returns the old value of the int64 at `counter` and adds `increment` */
int64_t ph_fetch_add(int64_t counter, int64_t increment);

#ifdef __cplusplus
}
#endif

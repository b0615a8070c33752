// Work that several threads share: products at many thetas, or at one theta chunk by chunk.
//
// A job is addresses and counts, so that Python can fill it in as one record. Each thread that takes part calls the
// same function with its own number; tasks are drawn from a counter, and no result depends on who drew which.
#pragma once

#include "pyhess/problem.hpp"

namespace pyhess {

enum class Operation : std::int64_t { linearize = 0, hvp = 1, ggn = 2, jet = 3 };

// Strides are in elements. "Sample" s is one theta with one vector; a stride of zero means that all samples have the
// same. Results are overwritten.
struct Job {
    std::int64_t problem;  // AnyProblem
    std::int64_t operation;
    std::int64_t fresh;  // not zero: products linearize on the way; a state is then transposed_size elements
    std::int64_t count;  // samples
    std::int64_t theta, theta_stride;
    std::int64_t state, state_stride;  // a row per sample; if fresh, a row per thread
    std::int64_t v, v_stride;
    std::int64_t out, out_stride;      // Hv or Gv
    std::int64_t grad, grad_stride;    // jet: of v'Hv; linearize: of the loss, or 0
    std::int64_t value, value_stride;  // double[chunks] per sample: the parts of the loss, or of v'Hv
    std::int64_t vt, vt_stride;        // a row per thread; for one theta the first row only
    std::int64_t work, work_stride;    // a row per thread
    std::int64_t parts, parts_stride;  // by samples: two rows per thread; by chunks: a row per chunk and result
    std::int64_t next;                 // the next task; 0 at the beginning
    std::int64_t cancel;               // int32 flag
};

// One sample is one task; its chunks follow each other and are added in their order.
Status run_samples(Job& job, index_t thread);

// Sample 0 alone, for all threads: first the transposed copies, then the chunks into their rows of `parts`, then their
// sums. The bits are those of run_samples. The counter is set to zero before each of the three.
Status run_transposes(Job& job, index_t thread);
Status run_chunks(Job& job, index_t thread);
Status run_sums(Job& job, index_t thread);

}  // namespace pyhess

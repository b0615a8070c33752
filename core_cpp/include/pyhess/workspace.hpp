// Cuts one worker's buffer (Problem::work_size elements) into the arrays of one block.
#pragma once

#include "pyhess/problem.hpp"

namespace pyhess {

template <class T>
class Workspace {
public:
    Workspace(const Problem<T>& problem, T* buffer) : problem_(problem), buffer_(buffer) {}

    // Tangents of layer l's output, (block_rows, ld_out) each: 0 = s1, 1 = a1, 2 = s2, 3 = a2.
    T* tangent(index_t l, index_t which) const { return after_layers(l) + which * block(problem_.layer(l).ld_out); }

    // Four cotangent buffers, wide enough for every layer; which = 0 … 3.
    T* cotangent(index_t which) const {
        return after_layers(problem_.mlp().depth()) + which * block(problem_.mlp().max_ld);
    }

private:
    T* after_layers(index_t count) const {
        T* at = buffer_;
        for (index_t l = 0; l < count; ++l) at += 4 * block(problem_.layer(l).ld_out);
        return at;
    }
    index_t block(index_t ld) const { return round_up(problem_.block_rows() * ld, kAlign); }

    const Problem<T>& problem_;
    T* buffer_;
};

}  // namespace pyhess

// A problem of either element type behind one address.
#pragma once

#include <memory>

#include "pyhess/problem.hpp"

namespace pyhess {

struct AnyProblem {
    std::unique_ptr<Problem<double>> f64;
    std::unique_ptr<Problem<float>> f32;
};

}  // namespace pyhess

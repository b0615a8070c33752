// A sigmoid p is kept as the smaller of p and 1 - p, negative where p is the larger one: p (1 - p) and 1 - 2 p then
// lose no digits in saturation, where 1 - p would. For loss.cpp and kernels.cpp (see vector_math.hpp for the linkage).
#pragma once

namespace pyhess {
namespace {

template <class T>
inline T folded_slope(T p) {  // p (1 - p)
    const T small = p < T(0) ? -p : p;
    return small * (T(1) - small);
}
template <class T>
inline T folded_asymmetry(T p) {  // 1 - 2 p
    return p < T(0) ? T(-1) - T(2) * p : T(1) - T(2) * p;
}

}  // namespace
}  // namespace pyhess

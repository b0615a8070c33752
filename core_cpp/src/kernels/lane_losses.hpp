// The losses with lanes across data points: outputs, targets and probabilities are (num_outputs, lanes). The arithmetic
// is that of loss.cpp, one strip of lanes at a time. For kernels.cpp alone (see vector_math.hpp).
#pragma once

#include "folded_sigmoid.hpp"
#include "pyhess/kernels.hpp"
#include "vector_math.hpp"

namespace pyhess {
namespace {

// Lanes per strip: 64 bytes, which divide every row of lanes.
template <class T>
constexpr int kStrip = static_cast<int>(64 / sizeof(T));

// log(1 + x) for x >= 0: 1 + x = 2^k (1 + y) with y taken from x itself, so that small x keep their digits.
inline double log1p_positive(double x) {
    const double u = 1.0 + x;
    std::uint64_t bits;
    __builtin_memcpy(&bits, &u, sizeof(bits));
    // 2^52 k, from the exponent of u / sqrt(1/2): 1 + y lies in [sqrt(1/2), sqrt(2)]
    const std::uint64_t k = (bits - 0x3FE6A09E667F3BCD) & 0xFFF0000000000000;
    const std::uint64_t one = 0x3FF0000000000000, up_bits = one + k, down_bits = one - k;
    double up, down;
    __builtin_memcpy(&up, &up_bits, sizeof(up));
    __builtin_memcpy(&down, &down_bits, sizeof(down));
    const std::uint64_t count_bits = 0x4338000000000000 + (k >> 52);  // the double 1.5 * 2^52 + k
    double count;
    __builtin_memcpy(&count, &count_bits, sizeof(count));
    return (count - Format<double>::magic) * 6.93147180559945309417e-01 + log1p_unit((x - (up - 1.0)) * down);
}

template <class T>
double squared_error_forward(const LossBlock<T>& block, const T* f, T* delta) {
    constexpr int S = kStrip<T>;
    double total[S] = {};
    for (index_t lane = 0; lane < block.rows; lane += S) {
        double value[S] = {};
        for (index_t k = 0; k < block.num_outputs; ++k) {
            const index_t at = k * block.rows + lane;
            for (int i = 0; i < S; ++i) {
                const T residual = f[at + i] - block.target[at + i];
                value[i] += 0.5 * static_cast<double>(residual) * static_cast<double>(residual);
                delta[at + i] = block.weight[lane + i] * residual;
            }
        }
        for (int i = 0; i < S; ++i) total[i] += static_cast<double>(block.weight[lane + i]) * value[i];
    }
    double sum = 0.0;
    for (int i = 0; i < S; ++i) sum += total[i];
    return sum;
}

template <class T>
double logistic_forward(const LossBlock<T>& block, const T* f, T* delta) {
    constexpr int S = kStrip<T>;
    double total[S] = {};
    for (index_t lane = 0; lane < block.rows; lane += S)
        for (int i = 0; i < S; ++i) {
            const double z = static_cast<double>(f[lane + i]), target = static_cast<double>(block.target[lane + i]);
            const double w = static_cast<double>(block.weight[lane + i]);
            const double e = exp_negative(-absolute(z)), small = e / (1.0 + e), big = 1.0 - small;
            const double up = z < 0.0 ? small : big, down = z < 0.0 ? big : small;
            block.prob[lane + i] = static_cast<T>(z < 0.0 ? small : -small);
            delta[lane + i] = static_cast<T>(w * ((1.0 - target) * up - target * down));
            total[i] += w * (log1p_unit(e) + (z < 0.0 ? -target : 1.0 - target) * z);
        }
    double sum = 0.0;
    for (int i = 0; i < S; ++i) sum += total[i];
    return sum;
}

// The pieces of cross_entropy_forward on one strip; every loop is a few whole vectors.
template <class T>
inline void largest_output(index_t k, const T* __restrict z, double* __restrict largest, double* __restrict top) {
    for (int i = 0; i < kStrip<T>; ++i) {
        const double value = static_cast<double>(z[i]);
        top[i] = value > largest[i] ? static_cast<double>(k) : top[i];
        largest[i] = value > largest[i] ? value : largest[i];
    }
}
template <class T>
inline void exponentials(index_t k, const T* __restrict z, const T* __restrict y, const double* __restrict largest,
                         const double* __restrict top, T* __restrict prob, double* __restrict others,
                         double* __restrict value) {
    for (int i = 0; i < kStrip<T>; ++i) {
        const double below = static_cast<double>(z[i]) - largest[i], e = exp_negative(below);
        const double counts = top[i] == static_cast<double>(k) ? 0.0 : 1.0;  // factors: a conditional sum would branch
        const double finite = below < -1e300 ? -1e300 : below;               // so that a target of zero makes zero
        others[i] += counts * e;
        value[i] -= static_cast<double>(y[i]) * finite;
        prob[i] = static_cast<T>(e);
    }
}
template <class T>
inline void residuals(index_t k, const T* __restrict y, const T* __restrict weight, const double* __restrict mass,
                      const double* __restrict others, const double* __restrict share, const double* __restrict top,
                      T* __restrict prob, T* __restrict delta) {
    for (int i = 0; i < kStrip<T>; ++i) {
        const double target = static_cast<double>(weight[i]) * static_cast<double>(y[i]);
        const double p = static_cast<double>(prob[i]) * share[i];
        const double sure = (mass[i] - target) - mass[i] * (others[i] * share[i]), usual = mass[i] * p - target;
        delta[i] = static_cast<T>(top[i] == static_cast<double>(k) ? sure : usual);
        prob[i] = static_cast<T>(p);
    }
}

template <class T>
double cross_entropy_forward(const LossBlock<T>& block, const T* f, T* delta) {
    constexpr int S = kStrip<T>;
    double total[S] = {};
    for (index_t lane = 0; lane < block.rows; lane += S) {
        const T* weight = block.weight + lane;
        const double* mass = block.mass + lane;
        double largest[S], top[S] = {}, others[S] = {}, value[S] = {}, share[S];
        for (int i = 0; i < S; ++i) largest[i] = static_cast<double>(f[lane + i]);
        for (index_t k = 1; k < block.num_outputs; ++k) largest_output(k, f + k * block.rows + lane, largest, top);
        for (index_t k = 0; k < block.num_outputs; ++k) {
            const index_t at = k * block.rows + lane;
            exponentials(k, f + at, block.target + at, largest, top, block.prob + at, others, value);
        }
        for (int i = 0; i < S; ++i) {
            share[i] = 1.0 / (1.0 + others[i]);
            total[i] += static_cast<double>(weight[i]) * value[i] + mass[i] * log1p_positive(others[i]);
        }
        for (index_t k = 0; k < block.num_outputs; ++k) {
            const index_t at = k * block.rows + lane;
            residuals(k, block.target + at, weight, mass, others, share, top, block.prob + at, delta + at);
        }
    }
    double sum = 0.0;
    for (int i = 0; i < S; ++i) sum += total[i];
    return sum;
}

template <class T>
double lane_loss_forward(Loss loss, const LossBlock<T>& block, const T* f, T* delta) {
    if (loss == Loss::squared_error) return squared_error_forward(block, f, delta);
    if (loss == Loss::logistic) return logistic_forward(block, f, delta);
    return cross_entropy_forward(block, f, delta);
}

// u_top and s_top = u and s2 of the most probable class of each lane
template <class T>
inline void most_probable(const LossBlock<T>& block, index_t lane, const T* u, const T* s2, T* __restrict u_top,
                          T* __restrict s_top) {
    constexpr int S = kStrip<T>;
    T best[S];
    for (int i = 0; i < S; ++i) {
        best[i] = block.prob[lane + i];
        u_top[i] = u[lane + i];
        s_top[i] = s2[lane + i];
    }
    for (index_t k = 1; k < block.num_outputs; ++k) {
        const index_t at = k * block.rows + lane;
        for (int i = 0; i < S; ++i) {
            const T p = block.prob[at + i], u_k = u[at + i], s_k = s2[at + i];
            u_top[i] = p > best[i] ? u_k : u_top[i];
            s_top[i] = p > best[i] ? s_k : s_top[i];
            best[i] = p > best[i] ? p : best[i];
        }
    }
}

// prob times the distance of u from its mean, the third central term, and the jet's two outputs, on one strip
template <class T>
inline void softmax_curvature(T* __restrict u, const T* __restrict prob, const double* __restrict mass,
                              const T* __restrict origin, const T* __restrict mean) {
    for (int i = 0; i < kStrip<T>; ++i) u[i] = static_cast<T>(mass[i]) * prob[i] * ((u[i] - origin[i]) - mean[i]);
}
template <class T>
inline void softmax_jet(const T* __restrict u, const T* __restrict s2, const T* __restrict prob,
                        const double* __restrict mass, const T* __restrict u_top, const T* __restrict s_top,
                        const T* __restrict mean, const T* __restrict mean2, const T* __restrict variance,
                        T* __restrict x1, T* __restrict x0) {
    for (int i = 0; i < kStrip<T>; ++i) {
        const T centred = (u[i] - u_top[i]) - mean[i], share = static_cast<T>(mass[i]) * prob[i];
        x1[i] = share * centred;
        x0[i] = share * (T(0.5) * (centred * centred - variance[i]) + ((s2[i] - s_top[i]) - mean2[i]));
    }
}

template <class T>
void lane_loss_curvature(Loss loss, const LossBlock<T>& block, T* u) {
    constexpr int S = kStrip<T>;
    const index_t k_end = block.num_outputs;
    for (index_t lane = 0; lane < block.rows; lane += S) {
        const T* __restrict weight = block.weight + lane;
        if (loss == Loss::squared_error) {
            for (index_t k = 0; k < k_end; ++k) {
                T* __restrict row = u + k * block.rows + lane;
                for (int i = 0; i < S; ++i) row[i] *= weight[i];
            }
        } else if (loss == Loss::logistic) {
            T* __restrict row = u + lane;
            const T* __restrict prob = block.prob + lane;
            for (int i = 0; i < S; ++i) row[i] *= weight[i] * folded_slope(prob[i]);
        } else {
            T origin[S], unused[S], mean[S] = {};
            most_probable(block, lane, u, u, origin, unused);
            for (index_t k = 0; k < k_end; ++k) {
                const index_t at = k * block.rows + lane;
                for (int i = 0; i < S; ++i) mean[i] += block.prob[at + i] * (u[at + i] - origin[i]);
            }
            for (index_t k = 0; k < k_end; ++k) {
                const index_t at = k * block.rows + lane;
                softmax_curvature(u + at, block.prob + at, block.mass + lane, origin, mean);
            }
        }
    }
}

template <class T>
double lane_loss_jet(Loss loss, const LossBlock<T>& block, const T* delta, const T* u, const T* s2, T* x1, T* x0) {
    constexpr int S = kStrip<T>;
    const index_t k_end = block.num_outputs;
    double total[S] = {};
    for (index_t lane = 0; lane < block.rows; lane += S) {
        const T* __restrict weight = block.weight + lane;
        T origin[S] = {}, s_top[S], mean[S] = {}, mean2[S] = {}, variance[S] = {};
        if (loss == Loss::squared_error) {
            for (index_t k = 0; k < k_end; ++k) {
                const index_t at = k * block.rows + lane;
                T* __restrict y1 = x1 + at, * __restrict y0 = x0 + at;
                for (int i = 0; i < S; ++i) {
                    y1[i] = weight[i] * u[at + i];
                    y0[i] = weight[i] * s2[at + i];
                }
            }
        } else if (loss == Loss::logistic) {
            T* __restrict y1 = x1 + lane, * __restrict y0 = x0 + lane;
            for (int i = 0; i < S; ++i) {
                const T p = block.prob[lane + i], curvature = weight[i] * folded_slope(p), along = u[lane + i];
                y1[i] = curvature * along;
                y0[i] = curvature * (T(0.5) * folded_asymmetry(p) * along * along + s2[lane + i]);
            }
        } else {
            most_probable(block, lane, u, s2, origin, s_top);
            for (index_t k = 0; k < k_end; ++k) {
                const index_t at = k * block.rows + lane;
                for (int i = 0; i < S; ++i) {
                    mean[i] += block.prob[at + i] * (u[at + i] - origin[i]);
                    mean2[i] += block.prob[at + i] * (s2[at + i] - s_top[i]);
                }
            }
            for (index_t k = 0; k < k_end; ++k) {
                const index_t at = k * block.rows + lane;
                for (int i = 0; i < S; ++i) {
                    const T centred = (u[at + i] - origin[i]) - mean[i];
                    variance[i] += block.prob[at + i] * centred * centred;
                }
            }
            for (index_t k = 0; k < k_end; ++k) {
                const index_t at = k * block.rows + lane;
                softmax_jet(u + at, s2 + at, block.prob + at, block.mass + lane, origin, s_top, mean, mean2, variance,
                            x1 + at, x0 + at);
            }
        }
        for (index_t k = 0; k < k_end; ++k) {
            const index_t at = k * block.rows + lane;
            for (int i = 0; i < S; ++i)
                total[i] += static_cast<double>(u[at + i] - origin[i]) * static_cast<double>(x1[at + i]) +
                            2.0 * (static_cast<double>(delta[at + i]) * static_cast<double>(s2[at + i]));
        }
    }
    double sum = 0.0;
    for (int i = 0; i < S; ++i) sum += total[i];
    return sum;
}

}  // namespace
}  // namespace pyhess

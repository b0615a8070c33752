// What the tests share: buffers of exactly the documented size, the instruction-set levels of this machine, random
// problems and their products by the naive reference.
#pragma once

#include <cmath>
#include <limits>
#include <memory>
#include <new>
#include <random>
#include <string>
#include <vector>

#include "pyhess/kernels.hpp"
#include "pyhess/mlp.hpp"
#include "pyhess/naive.hpp"
#include "pyhess/problem.hpp"

namespace support {

using pyhess::Activation;
using pyhess::index_t;
using pyhess::Loss;

// n elements on a 64-byte boundary and not one more, so that AddressSanitizer sees an overrun. Filled with NaN: what is
// read before it is written shows in the result.
template <class T>
class Buffer {
public:
    explicit Buffer(index_t n, T value = std::numeric_limits<T>::quiet_NaN())
        : size_(n),
          data_(static_cast<T*>(::operator new(static_cast<std::size_t>(n) * sizeof(T), std::align_val_t{64}))) {
        for (index_t i = 0; i < n; ++i) data_[i] = value;
    }
    explicit Buffer(const std::vector<double>& from) : Buffer(static_cast<index_t>(from.size())) {
        for (index_t i = 0; i < size_; ++i) data_[i] = static_cast<T>(from[static_cast<std::size_t>(i)]);
    }
    ~Buffer() { ::operator delete(data_, std::align_val_t{64}); }
    Buffer(const Buffer&) = delete;
    Buffer& operator=(const Buffer&) = delete;

    T* data() { return data_; }
    const T* data() const { return data_; }
    index_t size() const { return size_; }
    T& operator[](index_t i) { return data_[i]; }
    T operator[](index_t i) const { return data_[i]; }
    std::int64_t address() const { return static_cast<std::int64_t>(reinterpret_cast<std::uintptr_t>(data_)); }

private:
    index_t size_;
    T* data_;
};

// The levels that can run here, the lowest first.
inline std::vector<const char*> levels() {
    std::vector<const char*> out;
    for (const char* name : {"base", "v3", "v4"})
        if (pyhess::isa_available(name)) out.push_back(name);
    return out;
}

constexpr Activation kActivations[] = {Activation::identity, Activation::tanh,    Activation::relu,
                                       Activation::softplus, Activation::sigmoid, Activation::gelu};
constexpr Loss kLosses[] = {Loss::squared_error, Loss::cross_entropy, Loss::logistic};

inline const char* name_of(Activation act) {
    constexpr const char* names[] = {"identity", "tanh", "relu", "softplus", "sigmoid", "gelu"};
    return names[static_cast<int>(act)];
}
inline const char* name_of(Loss loss) {
    constexpr const char* names[] = {"squared_error", "cross_entropy", "logistic"};
    return names[static_cast<int>(loss)];
}
template <class T>
const char* type_name() {
    return sizeof(T) == 8 ? "float64" : "float32";
}

// A network with data, parameters and a direction, in double but with float's digits, so that both precisions see the
// same problem. Numbers are multiples of 1/8 where there is a ReLU: every pre-activation is then exact in both, and
// none falls on another side of the kink (some fall on it).
struct Case {
    pyhess::Mlp mlp;
    Loss loss;
    index_t n;
    std::vector<double> x, target, weight, theta, v;

    Case(const std::vector<index_t>& widths, const std::vector<Activation>& acts, Loss kind, bool bias, index_t samples,
         unsigned seed)
        : loss(kind), n(samples), rng_(seed) {
        bool exact = false;
        for (Activation act : acts) exact = exact || act == Activation::relu;
        std::vector<double> betas, scales;
        for (std::size_t l = 0; l < acts.size(); ++l) betas.push_back(acts[l] == Activation::softplus ? 2.5 : 1.0);
        for (std::size_t l = 0; l + 1 < widths.size(); ++l)
            scales.push_back(exact ? 0.5 : 1.5 / std::sqrt(static_cast<double>(widths[l])));
        if (!pyhess::make_mlp(widths, acts, betas, scales, bias, mlp)) throw std::bad_alloc();
        x = numbers(n * widths.front(), exact);
        theta = numbers(mlp.num_params, exact);
        v = numbers(mlp.num_params, false);
        target = numbers(n * widths.back(), false);
        if (loss != Loss::squared_error)  // soft labels; those of cross-entropy need not sum to one
            for (double& y : target) y = static_cast<double>(static_cast<float>(std::fabs(std::sin(y))));
        weight.assign(static_cast<std::size_t>(n), 0.0);
        double sum = 0.0;
        for (index_t i = 0; i < n; ++i) {
            double& w = weight[static_cast<std::size_t>(i)];
            w = i % 5 == 3 ? 0.0 : static_cast<double>(1 + rng_() % 7);
            sum += w;
        }
        for (double& w : weight) w /= sum;
    }

    template <class T>
    std::unique_ptr<pyhess::Problem<T>> problem(const pyhess::Kernels<T>* kernels, const pyhess::Gemm<T>& gemm,
                                                index_t lane_width, bool streaming = false) const {
        const Buffer<T> xs(x), ys(target);
        const Buffer<double> ws(weight);
        return std::make_unique<pyhess::Problem<T>>(mlp, loss, n, xs.data(), ys.data(), ws.data(), gemm, kernels,
                                                    lane_width, streaming);
    }

private:
    std::vector<double> numbers(index_t count, bool exact) {
        std::uniform_real_distribution<double> real(-1.5, 1.5);
        std::vector<double> out;
        for (index_t i = 0; i < count; ++i)
            out.push_back(exact ? static_cast<double>(static_cast<int>(rng_() % 25) - 12) / 8.0
                                : static_cast<double>(static_cast<float>(real(rng_))));
        return out;
    }
    std::mt19937 rng_;
};

struct Products {
    double value = 0.0, q = 0.0;
    std::vector<double> gradient, hvp, ggn, q_gradient;
};

inline Products reference(const Case& c, const double* theta, const double* v) {
    Products out;
    for (auto* part : {&out.gradient, &out.hvp, &out.ggn, &out.q_gradient})
        part->assign(static_cast<std::size_t>(c.mlp.num_params), 0.0);
    pyhess::NaiveProducts naive{0.0, 0.0, out.gradient.data(), out.hvp.data(), out.ggn.data(), out.q_gradient.data()};
    pyhess::naive_products(c.mlp, c.loss, c.n, c.x.data(), c.target.data(), c.weight.data(), theta, v, naive);
    out.value = naive.value;
    out.q = naive.q;
    return out;
}

}  // namespace support

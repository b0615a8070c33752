#include "pyhess/naive.hpp"

#include <cmath>
#include <vector>

namespace pyhess {
namespace {

using Vector = std::vector<double>;

struct Derivatives {
    double d0, d1, d2, d3;
};

Derivatives activation(Activation act, double beta, double s) {
    switch (act) {
        case Activation::identity: return {s, 1.0, 0.0, 0.0};
        case Activation::relu: return {s > 0.0 ? s : 0.0, s > 0.0 ? 1.0 : 0.0, 0.0, 0.0};
        case Activation::tanh: {
            const double t = std::tanh(s), d = 1.0 - t * t;
            return {t, d, -2.0 * t * d, -2.0 * d * (1.0 - 3.0 * t * t)};
        }
        case Activation::sigmoid: {
            const double p = 1.0 / (1.0 + std::exp(-s)), d = p * (1.0 - p);
            return {p, d, d * (1.0 - 2.0 * p), d * (1.0 - 6.0 * p + 6.0 * p * p)};
        }
        case Activation::softplus: {
            const double z = beta * s, p = 1.0 / (1.0 + std::exp(-z)), d = p * (1.0 - p);
            const double value = (z > 0.0 ? z : 0.0) + std::log1p(std::exp(-std::fabs(z)));
            return {value / beta, p, beta * d, beta * beta * d * (1.0 - 2.0 * p)};
        }
        case Activation::gelu: {
            const double cdf = 0.5 * (1.0 + std::erf(s / std::sqrt(2.0)));
            const double pdf = std::exp(-0.5 * s * s) / std::sqrt(2.0 * std::acos(-1.0));
            return {s * cdf, cdf + s * pdf, pdf * (2.0 - s * s), pdf * (s * s * s - 4.0 * s)};
        }
    }
    return {0.0, 0.0, 0.0, 0.0};
}

// The loss of one datum: value, gradient g, and the two derivatives along a direction.
struct OutputLoss {
    double value = 0.0, mass = 1.0;
    Vector g, p;
    Loss loss;

    OutputLoss(Loss kind, const Vector& f, const double* y) : g(f.size()), p(f.size()), loss(kind) {
        const std::size_t k_end = f.size();
        if (kind == Loss::squared_error) {
            for (std::size_t k = 0; k < k_end; ++k) {
                g[k] = f[k] - y[k];
                value += 0.5 * g[k] * g[k];
            }
        } else if (kind == Loss::logistic) {
            p[0] = 1.0 / (1.0 + std::exp(-f[0]));
            value = (f[0] > 0.0 ? f[0] : 0.0) + std::log1p(std::exp(-std::fabs(f[0]))) - y[0] * f[0];
            g[0] = p[0] - y[0];
        } else {
            double top = f[0], sum = 0.0;
            mass = 0.0;
            for (double z : f) top = z > top ? z : top;
            for (double z : f) sum += std::exp(z - top);
            for (std::size_t k = 0; k < k_end; ++k) mass += y[k];
            for (std::size_t k = 0; k < k_end; ++k) {
                p[k] = std::exp(f[k] - top) / sum;
                g[k] = mass * p[k] - y[k];
                value += y[k] * (top + std::log(sum) - f[k]);
            }
        }
    }

    Vector hessian_times(const Vector& u) const {
        Vector out(u);
        if (loss == Loss::logistic) out[0] = p[0] * (1.0 - p[0]) * u[0];
        if (loss == Loss::cross_entropy) {
            double mean = 0.0;
            for (std::size_t k = 0; k < u.size(); ++k) mean += p[k] * u[k];
            for (std::size_t k = 0; k < u.size(); ++k) out[k] = mass * p[k] * (u[k] - mean);
        }
        return out;
    }

    Vector third_along(const Vector& u) const {
        Vector out(u.size(), 0.0);
        if (loss == Loss::logistic) out[0] = p[0] * (1.0 - p[0]) * (1.0 - 2.0 * p[0]) * u[0] * u[0];
        if (loss == Loss::cross_entropy) {
            double mean = 0.0, square = 0.0;
            for (std::size_t k = 0; k < u.size(); ++k) mean += p[k] * u[k];
            for (std::size_t k = 0; k < u.size(); ++k) square += p[k] * (u[k] - mean) * (u[k] - mean);
            for (std::size_t k = 0; k < u.size(); ++k) out[k] = mass * p[k] * ((u[k] - mean) * (u[k] - mean) - square);
        }
        return out;
    }
};

struct Unit {  // one layer's pre-activation jet and activation derivatives
    Vector s, s1, s2, a, a1, a2;
    std::vector<Derivatives> phi;
};

}  // namespace

void naive_products(const Mlp& mlp, Loss loss, index_t n, const double* x, const double* target, const double* weight,
                    const double* theta, const double* v, NaiveProducts& out) {
    const auto depth = mlp.layers.size();
    const auto d = static_cast<std::size_t>(mlp.num_inputs()), k_end = static_cast<std::size_t>(mlp.num_outputs());
    for (std::size_t i = 0; i < static_cast<std::size_t>(n); ++i) {
        // Forward: value, first and second directional derivative of every pre-activation and activation.
        std::vector<Unit> unit(depth);
        const Vector input(x + i * d, x + (i + 1) * d), none(d, 0.0);
        for (std::size_t l = 0; l < depth; ++l) {
            const Layer& layer = mlp.layers[l];
            const Vector& a = l ? unit[l - 1].a : input;
            const Vector& a1 = l ? unit[l - 1].a1 : none;
            const Vector& a2 = l ? unit[l - 1].a2 : none;
            Unit& u = unit[l];
            for (index_t o = 0; o < layer.out; ++o) {
                double s = layer.b < 0 ? 0.0 : theta[layer.b + o], s1 = layer.b < 0 ? 0.0 : v[layer.b + o], s2 = 0.0;
                for (index_t j = 0; j < layer.in; ++j) {
                    const auto at = static_cast<std::size_t>(j);
                    const double w = theta[layer.w + o * layer.in + j], dw = v[layer.w + o * layer.in + j];
                    s += w * a[at];
                    s1 += w * a1[at] + dw * a[at];
                    s2 += w * a2[at] + 2.0 * dw * a1[at];
                }
                s *= layer.scale, s1 *= layer.scale, s2 *= layer.scale;
                const Derivatives phi = l + 1 < depth ? activation(layer.act, layer.beta, s) : Derivatives{s, 1, 0, 0};
                u.s.push_back(s), u.s1.push_back(s1), u.s2.push_back(s2), u.phi.push_back(phi);
                u.a.push_back(phi.d0), u.a1.push_back(phi.d1 * s1), u.a2.push_back(phi.d1 * s2 + phi.d2 * s1 * s1);
            }
        }
        const Unit& top = unit[depth - 1];
        const OutputLoss at_output(loss, top.s, target + i * k_end);
        const Vector as1 = at_output.hessian_times(top.s1), as2 = at_output.hessian_times(top.s2);
        const Vector third = at_output.third_along(top.s1);
        out.value += weight[i] * at_output.value;

        // Reverse, of the function q = s1'As1 + g's2: the cotangents of s2, s1 and s (S2, S1, S0), and the Gauss-Newton
        // cotangent; then one step down.
        Vector S2(k_end), S1(k_end), S0(k_end), G(k_end);
        for (std::size_t k = 0; k < k_end; ++k) {
            out.q += weight[i] * (top.s1[k] * as1[k] + at_output.g[k] * top.s2[k]);
            S2[k] = weight[i] * at_output.g[k];
            S1[k] = 2.0 * weight[i] * as1[k];
            S0[k] = weight[i] * (third[k] + as2[k]);
            G[k] = weight[i] * as1[k];
        }
        for (std::size_t l = depth; l-- > 0;) {
            const Layer& layer = mlp.layers[l];
            const Vector& a = l ? unit[l - 1].a : input;
            const Vector& a1 = l ? unit[l - 1].a1 : none;
            const Vector& a2 = l ? unit[l - 1].a2 : none;
            const auto width = static_cast<std::size_t>(layer.in);
            Vector A0(width, 0.0), A1(width, 0.0), A2(width, 0.0), AG(width, 0.0);
            for (index_t o = 0; o < layer.out; ++o) {
                const auto r = static_cast<std::size_t>(o);
                for (index_t j = 0; j < layer.in; ++j) {
                    const auto c = static_cast<std::size_t>(j);
                    const index_t at = layer.w + o * layer.in + j;
                    out.gradient[at] += layer.scale * S2[r] * a[c];
                    out.hvp[at] += layer.scale * (0.5 * S1[r] * a[c] + S2[r] * a1[c]);
                    out.ggn[at] += layer.scale * G[r] * a[c];
                    out.q_gradient[at] += layer.scale * (S0[r] * a[c] + S1[r] * a1[c] + S2[r] * a2[c]);
                    A2[c] += layer.scale * theta[at] * S2[r];
                    A1[c] += layer.scale * (theta[at] * S1[r] + 2.0 * v[at] * S2[r]);
                    A0[c] += layer.scale * (theta[at] * S0[r] + v[at] * S1[r]);
                    AG[c] += layer.scale * theta[at] * G[r];
                }
                if (layer.b >= 0) {
                    out.gradient[layer.b + o] += layer.scale * S2[r];
                    out.hvp[layer.b + o] += layer.scale * 0.5 * S1[r];
                    out.ggn[layer.b + o] += layer.scale * G[r];
                    out.q_gradient[layer.b + o] += layer.scale * S0[r];
                }
            }
            if (l == 0) break;
            const Unit& below = unit[l - 1];
            S2.assign(width, 0.0), S1.assign(width, 0.0), S0.assign(width, 0.0), G.assign(width, 0.0);
            for (std::size_t c = 0; c < width; ++c) {
                const Derivatives& phi = below.phi[c];
                const double u = below.s1[c];
                S2[c] = phi.d1 * A2[c];
                S1[c] = phi.d1 * A1[c] + 2.0 * phi.d2 * u * A2[c];
                S0[c] = phi.d1 * A0[c] + phi.d2 * u * A1[c] + (phi.d2 * below.s2[c] + phi.d3 * u * u) * A2[c];
                G[c] = phi.d1 * AG[c];
            }
        }
    }
}

}  // namespace pyhess

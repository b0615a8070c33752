// pyhess._core.Problem: shapes and types are checked here, once; the core below is mathematics only.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <string>
#include <type_traits>

#include "pyhess/any_problem.hpp"
#include "pyhess/descent.hpp"
#include "pyhess/naive.hpp"

namespace py = pybind11;
using namespace pyhess;

namespace {

using Array64 = py::array_t<double, py::array::c_style>;

// Owns a problem and knows its element type.
struct PyProblem {
    AnyProblem any;
    Mlp mlp;
    Loss loss;
    Array64 x, target, weight;  // kept for the naive oracle

    template <class Body>
    auto with(Body body) const {
        return any.f64 ? body(*any.f64) : body(*any.f32);
    }
};

template <class T>
std::unique_ptr<Problem<T>> build(const Mlp& mlp, Loss loss, const Array64& x, const Array64& target,
                                  const Array64& weight, std::uintptr_t blas, int int_bytes, const std::string& isa,
                                  index_t lane_width, bool streaming, index_t accumulator_bytes) {
    const Kernels<T>* kernels = find_kernels<T>(isa.c_str());
    if (!kernels) throw py::value_error("instruction-set level '" + isa + "' cannot run on this processor");
    const Gemm<T> gemm(kernels, blas, int_bytes);
    for (const Layer& layer : mlp.layers)
        if (layer.ld_in >= gemm.max_dimension() || layer.ld_out >= gemm.max_dimension())
            throw py::value_error("a layer is wider than the BLAS can address (2^31 - 1 units)");
    const auto n = static_cast<index_t>(x.shape(0));
    if constexpr (std::is_same_v<T, double>) {
        return std::make_unique<Problem<T>>(mlp, loss, n, x.data(), target.data(), weight.data(), gemm, kernels,
                                            lane_width, streaming, accumulator_bytes);
    } else {
        const std::vector<T> xs(x.data(), x.data() + x.size()), ys(target.data(), target.data() + target.size());
        return std::make_unique<Problem<T>>(mlp, loss, n, xs.data(), ys.data(), weight.data(), gemm, kernels,
                                            lane_width, streaming, accumulator_bytes);
    }
}

Mlp make_network(const std::vector<index_t>& widths, const std::vector<int>& acts, const std::vector<double>& betas,
                 const std::vector<double>& scales, bool bias, int loss) {
    const std::size_t depth = widths.size() - 1;
    if (widths.size() < 2 || acts.size() != depth - 1 || betas.size() != depth - 1 || scales.size() != depth)
        throw py::value_error("widths, activations, betas and scales do not belong together");
    std::vector<Activation> kinds;
    for (int act : acts) {
        if (act < 0 || act > static_cast<int>(Activation::gelu)) throw py::value_error("unknown activation code");
        kinds.push_back(static_cast<Activation>(act));
    }
    if (loss < 0 || loss > static_cast<int>(Loss::logistic)) throw py::value_error("unknown loss code");
    Mlp mlp;
    if (!make_mlp(widths, kinds, betas, scales, bias, mlp))
        throw py::value_error("the network has more than 2^63 parameters");
    return mlp;
}

std::unique_ptr<PyProblem> make_problem(const std::vector<index_t>& widths, const std::vector<int>& acts,
                                        const std::vector<double>& betas, const std::vector<double>& scales, bool bias,
                                        int loss, const Array64& x, const Array64& target, const Array64& weight,
                                        bool single, std::uintptr_t blas, int int_bytes, const std::string& isa,
                                        index_t lane_width, bool streaming, index_t accumulator_bytes) {
    auto out = std::make_unique<PyProblem>();
    out->mlp = make_network(widths, acts, betas, scales, bias, loss);
    if (x.ndim() != 2 || target.ndim() != 2 || weight.ndim() != 1 || x.shape(0) < 1 || x.shape(1) != widths.front() ||
        target.shape(0) != x.shape(0) || target.shape(1) != widths.back() || weight.shape(0) != x.shape(0))
        throw py::value_error("x (N, d_in), target (N, d_out) and weight (N,) must match the widths");
    out->loss = static_cast<Loss>(loss);
    out->x = x;
    out->target = target;
    out->weight = weight;
    if (single)
        out->any.f32 = build<float>(out->mlp, out->loss, x, target, weight, blas, int_bytes, isa, lane_width, streaming,
                                    accumulator_bytes);
    else
        out->any.f64 = build<double>(out->mlp, out->loss, x, target, weight, blas, int_bytes, isa, lane_width,
                                     streaming, accumulator_bytes);
    return out;
}

// The sizes of a problem, in elements, from a problem without data.
template <class T>
py::dict sizes_of(const Mlp& mlp, Loss loss, index_t num_samples, const std::string& isa, bool streaming,
                  index_t accumulator_bytes) {
    const Kernels<T>* kernels = find_kernels<T>(isa.c_str());
    if (!kernels) throw py::value_error("instruction-set level '" + isa + "' cannot run on this processor");
    const Problem<T> problem(mlp, loss, num_samples, nullptr, nullptr, nullptr, Gemm<T>(kernels, 0, 4), kernels, -1,
                             streaming, accumulator_bytes);
    using namespace py::literals;
    return py::dict("data"_a = problem.data_size(), "state"_a = problem.state_size(), "work"_a = problem.work_size(),
                    "transposed"_a = problem.transposed_size(), "num_chunks"_a = problem.num_chunks(),
                    "chunks_limited"_a = problem.chunks_limited());
}

py::dict problem_sizes(const std::vector<index_t>& widths, const std::vector<int>& acts,
                       const std::vector<double>& betas, const std::vector<double>& scales, bool bias, int loss,
                       index_t num_samples, bool single, const std::string& isa, bool streaming,
                       index_t accumulator_bytes) {
    const Mlp mlp = make_network(widths, acts, betas, scales, bias, loss);
    if (num_samples < 1) throw py::value_error("num_samples must be at least 1");
    const auto kind = static_cast<Loss>(loss);
    return single ? sizes_of<float>(mlp, kind, num_samples, isa, streaming, accumulator_bytes)
                  : sizes_of<double>(mlp, kind, num_samples, isa, streaming, accumulator_bytes);
}

py::dict naive(const PyProblem& self, const Array64& theta, const Array64& v) {
    if (theta.ndim() != 1 || v.ndim() != 1 || theta.shape(0) != self.mlp.num_params ||
        v.shape(0) != self.mlp.num_params)
        throw py::value_error("theta and v must have shape (num_params,)");
    Array64 parts[4];
    for (auto& part : parts) {
        part = Array64(static_cast<py::ssize_t>(self.mlp.num_params));
        std::fill(part.mutable_data(), part.mutable_data() + part.size(), 0.0);
    }
    NaiveProducts out{
        0.0, 0.0, parts[0].mutable_data(), parts[1].mutable_data(), parts[2].mutable_data(), parts[3].mutable_data()};
    const double *t = theta.data(), *u = v.data(), *x = self.x.data(), *y = self.target.data(), *w = self.weight.data();
    const auto n = static_cast<index_t>(self.x.shape(0));
    {
        py::gil_scoped_release release;
        naive_products(self.mlp, self.loss, n, x, y, w, t, u, out);
    }
    using namespace py::literals;
    return py::dict("value"_a = out.value, "q"_a = out.q, "gradient"_a = parts[0], "hvp"_a = parts[1],
                    "ggn"_a = parts[2], "q_gradient"_a = parts[3]);
}

}  // namespace

void bind_problem(py::module_& m) {
    py::class_<PyProblem>(m, "Problem", "A network, a loss and a data set, ready for products at any theta.")
        .def(py::init(&make_problem), py::kw_only(), py::arg("widths"), py::arg("activations"), py::arg("betas"),
             py::arg("scales"), py::arg("bias"), py::arg("loss"), py::arg("x").noconvert(),
             py::arg("target").noconvert(), py::arg("weight").noconvert(), py::arg("single"), py::arg("blas"),
             py::arg("blas_int_bytes"), py::arg("isa"), py::arg("lane_width") = -1, py::arg("streaming") = false,
             py::arg("accumulator_bytes") = kAccumulatorBytes)
        .def_property_readonly(
            "address", [](const PyProblem& self) { return reinterpret_cast<std::uintptr_t>(&self.any); },
            "Address of the problem for the C ABI; valid while this object lives.")
        .def_property_readonly("num_params", [](const PyProblem& self) { return self.mlp.num_params; })
        .def_property_readonly(
            "lanes", [](const PyProblem& self) { return self.with([](auto& p) { return p.lanes(); }); },
            "Do blocks hold lanes across data (narrow networks) instead of rows?")
        .def_property_readonly("streaming",
                               [](const PyProblem& self) { return self.with([](auto& p) { return p.streaming(); }); })
        .def_property_readonly("num_chunks",
                               [](const PyProblem& self) { return self.with([](auto& p) { return p.num_chunks(); }); })
        .def_property_readonly("block_rows",
                               [](const PyProblem& self) { return self.with([](auto& p) { return p.block_rows(); }); })
        .def_property_readonly("state_size",
                               [](const PyProblem& self) { return self.with([](auto& p) { return p.state_size(); }); })
        .def_property_readonly("work_size",
                               [](const PyProblem& self) { return self.with([](auto& p) { return p.work_size(); }); })
        .def_property_readonly(
            "transposed_size",
            [](const PyProblem& self) { return self.with([](auto& p) { return p.transposed_size(); }); })
        .def("naive_products", &naive, py::arg("theta").noconvert(), py::arg("v").noconvert(),
             "Every product by plain loops, in float64: the oracle of the tuned code.");
    m.attr("accumulator_bytes") = kAccumulatorBytes;
    m.def("descent_scratch_size", &descent_scratch_size, py::arg("num_params"), py::arg("memory"),
          "Doubles of scratch that one descent needs.");
    m.def("problem_sizes", &problem_sizes, py::kw_only(), py::arg("widths"), py::arg("activations"), py::arg("betas"),
          py::arg("scales"), py::arg("bias"), py::arg("loss"), py::arg("num_samples"), py::arg("single"),
          py::arg("isa"), py::arg("streaming"), py::arg("accumulator_bytes"),
          "Elements of a problem's buffers, without its data being there.");
}

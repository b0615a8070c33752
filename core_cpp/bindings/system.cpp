// What the package asks about this build and this machine: C ABI addresses, instruction sets, compiler, BLAS self-test.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cmath>
#include <string>

#include "pyhess/capi.h"
#include "pyhess/gemm.hpp"
#include "pyhess/job.hpp"
#include "pyhess/kernels.hpp"
#include "pyhess/unit_cells.hpp"
#include "pyhess/unit_relaxed.hpp"

namespace py = pybind11;
using namespace pyhess;

namespace {

template <class Function>
std::uintptr_t address(Function* function) {
    return reinterpret_cast<std::uintptr_t>(function);
}

// Small products of three distinct sizes against the portable kernels: catches a wrong integer width or a wrong symbol.
template <class T>
bool gemm_agrees(std::uintptr_t blas, int int_bytes) {
    const Kernels<T>* kernels = find_kernels<T>("base");
    const Gemm<T> tuned(kernels, blas, int_bytes), portable(kernels, 0, 4);
    const index_t m = 3, n = 2, k = 4;
    T a[12], b[8], bt[8], want[6], got[6];
    for (int i = 0; i < 12; ++i) a[i] = static_cast<T>(i * i % 7 - 3);
    for (int p = 0; p < 4; ++p)
        for (int j = 0; j < 2; ++j) b[p + 4 * j] = bt[j + 2 * p] = static_cast<T>((3 * p + 5 * j) % 4 - 1);
    bool agree = true;
    for (const bool transposed : {false, true}) {
        for (int i = 0; i < 6; ++i) want[i] = got[i] = static_cast<T>(i);
        if (transposed) {
            portable.nt(m, n, k, T(2), a, m, bt, n, T(-1), want, m);
            tuned.nt(m, n, k, T(2), a, m, bt, n, T(-1), got, m);
        } else {
            portable.nn(m, n, k, T(2), a, m, b, k, T(-1), want, m);
            tuned.nn(m, n, k, T(2), a, m, b, k, T(-1), got, m);
        }
        for (int i = 0; i < 6; ++i) agree = agree && want[i] == got[i];  // small integers: exact in any order
    }
    return agree;
}

}  // namespace

void bind_system(py::module_& m) {
    m.attr("abi_version") = PYHESS_ABI_VERSION;
#if defined(__clang__)
    m.attr("compiler") = std::string("clang ") + __clang_version__;
#elif defined(__GNUC__)
    m.attr("compiler") = std::string("gcc ") + __VERSION__;
#else
    m.attr("compiler") = "unknown";
#endif
    m.def(
        "capi",
        [] {
            py::dict out;
            out["ph_samples"] = address(ph_samples);
            out["ph_transposes"] = address(ph_transposes);
            out["ph_chunks"] = address(ph_chunks);
            out["ph_sums"] = address(ph_sums);
            out["ph_descend"] = address(ph_descend);
            out["ph_unit_cells"] = address(ph_unit_cells);
            out["ph_relaxed_cells"] = address(ph_relaxed_cells);
            out["ph_fetch_add"] = address(ph_fetch_add);
            return out;
        },
        "Addresses of the C ABI by name.");
    m.attr("job_size") = sizeof(Job) / sizeof(std::int64_t);
    m.attr("unit_job_size") = sizeof(UnitJob) / sizeof(std::int64_t);
    m.attr("cells_per_task") = kCellsPerTask;
    m.def("unit_scratch_size", unit_scratch_size, py::arg("num_data"), py::arg("dim"), py::arg("outputs"),
          py::arg("num_generators"), "Doubles of scratch that ph_unit_cells needs per thread.");
    m.attr("relaxed_job_size") = sizeof(RelaxedJob) / sizeof(std::int64_t);
    m.def("relaxed_scratch_size", relaxed_scratch_size, py::arg("num_data"), py::arg("dim"), py::arg("num_units"),
          "Doubles of scratch that ph_relaxed_cells needs per thread.");
    m.def(
        "run_samples",
        [](std::uintptr_t job) {
            const py::gil_scoped_release release;
            return ph_samples(static_cast<std::int64_t>(job), 0);
        },
        py::arg("job"), "Carry out a job (job.hpp), known by its address, in the calling thread; its status.");
    m.def(
        "address", [](const py::array& array) { return reinterpret_cast<std::uintptr_t>(array.data()); },
        py::arg("array"), "Where the array's first element lies; some ten times faster than asking the array.");
    m.def("best_isa", [] { return std::string(best_isa()); }, "Highest instruction-set level this processor runs.");
    m.def("isa_available", [](const std::string& name) { return isa_available(name.c_str()); }, py::arg("name"));
    m.def(
        "gemm_agrees",
        [](std::uintptr_t blas, int int_bytes, bool single) {
            return single ? gemm_agrees<float>(blas, int_bytes) : gemm_agrees<double>(blas, int_bytes);
        },
        py::arg("blas"), py::arg("int_bytes"), py::arg("single"),
        "Does GEMM at this address give the right answer for both layouts?");
    m.def(
        "capsule_pointer",
        [](const py::capsule& capsule) {
            return py::make_tuple(reinterpret_cast<std::uintptr_t>(capsule.get_pointer()),
                                  std::string(capsule.name() ? capsule.name() : ""));
        },
        py::arg("capsule"), "(address, name) of a capsule; Cython names a function's capsule after its C signature.");
}

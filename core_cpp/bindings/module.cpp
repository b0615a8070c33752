// The only place, with its neighbours in this folder, that sees Python.
#include <pybind11/pybind11.h>

namespace py = pybind11;

void bind_problem(py::module_& m);
void bind_system(py::module_& m);

PYBIND11_MODULE(_core, m) {
    m.doc() = "Compiled derivatives of dense networks; see pyhess._native for the checked interface.";
    bind_problem(m);
    bind_system(m);
}

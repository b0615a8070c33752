"""Lower bounds of one hidden unit's block of the residual part over cells of its weights, by the C core.

The mathematics is described in ``core_cpp/include/pyhess/unit_cells.hpp``; here its record is filled in.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from .._native import CAPI, CELLS_PER_TASK, UNIT_JOB_SIZE, address, raise_for_status, unit_scratch_size
from .._threads import PARALLEL_LOCK, num_workers
from ..kernels.jobs import share

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

#: Activations whose derivatives the bounds know.
ACTIVATIONS = ("identity", "tanh", "sigmoid", "softplus", "gelu")
#: Models of the other units: affine generators, or twins of one further unit.
LINEAR, TWINS = 0, 1

_FLOATS = ("beta", "scale_u", "scale_v", "squared_radius")
#: The record UnitJob of unit_cells.hpp, where the shapes are given: addresses, counts and numbers.
UNIT_JOB = np.dtype(
    [
        (name, np.float64 if name in _FLOATS else np.int64)
        for name in (
            "z", "norms", "weights", "targets", "mass", "num_data", "dim", "outputs", "activation", "loss", "beta", "scale_u",
            "scale_v", "kinds", "amplitude", "offset", "middle", "generators", "slack", "ranges", "powers", "groups",
            "num_roots", "num_generators", "centers", "inverse", "squared_radius", "cells", "roots", "parents", "bounds",
            "splits", "models", "directions", "num_cells", "next", "scratch", "scratch_stride", "cancel",
        )
    ]
)  # fmt: skip
assert UNIT_JOB.itemsize == 8 * UNIT_JOB_SIZE

_INTEGERS = ("kinds", "powers", "groups")
_FUNCTIONS = np.array([CAPI["ph_unit_cells"]], dtype=np.int64)


class CellBounds(NamedTuple):
    """What is known of C cells.

    ``bounds`` (C,) are proved; ``splits`` (C,) is the coordinate to cut, or -1; ``models`` (C,) and ``directions``
    (C, D + K, D + K) say how each bound was found: 0 for twins or generators, 1 for ranges, -1 outside the ball, and the Z of
    the majorants (lower triangle).
    """

    bounds: FloatArray
    splits: IntArray
    models: IntArray
    directions: FloatArray


class UnitCells:
    """Everything but the cells: a problem, the models of the other units, a ball.

    Parameters
    ----------
    numbers : dict
        The counts and floating-point fields of `UNIT_JOB` that belong to the problem: outputs, activation, loss, beta,
        scale_u, scale_v, squared_radius.
    arrays : dict
        The arrays of the problem, the models and the ball under the names of `UNIT_JOB`.
    """

    def __init__(self, numbers: dict[str, Any], arrays: dict[str, npt.NDArray[Any]]) -> None:
        # kept: the record holds addresses
        self._arrays = {
            name: np.ascontiguousarray(array, dtype=np.int64 if name in _INTEGERS else np.float64)
            for name, array in arrays.items()
        }
        n, dim = self._arrays["z"].shape
        generators = self._arrays["powers"].size
        job = np.zeros(1, dtype=UNIT_JOB)
        for name, number in numbers.items():
            job[name] = number
        for name, array in self._arrays.items():
            job[name] = address(array)
        job["num_data"], job["dim"], job["num_generators"] = n, dim, generators
        job["num_roots"] = len(self._arrays["middle"])
        self._size = dim + int(numbers["outputs"])
        self._scratch = unit_scratch_size(n, dim, int(numbers["outputs"]), generators)
        self._job = job

    def bound(
        self,
        cells: FloatArray,
        roots: IntArray,
        parents: FloatArray,
        stop: npt.NDArray[np.int32],
        models: IntArray | None = None,
    ) -> CellBounds:
        """Bound contiguous cells (C, 2, 2 D + K); those of a ball are shrunk in place.

        ``roots`` (C,) are the rows of the models to use, ``parents`` (C,) bounds already proved, which the results are not
        below; ``models`` (C,) says what to try, with -1 for both, as without. Cells left out when ``stop[0]`` is set have their
        parents' bounds and a split of -1.
        """
        assert cells.flags.c_contiguous and cells.dtype == np.float64 and stop.dtype == np.int32
        roots, parents = np.ascontiguousarray(roots, dtype=np.int64), np.ascontiguousarray(parents, dtype=np.float64)
        count = len(roots)
        found = CellBounds(
            parents.copy(),
            np.full(count, -1, dtype=np.int64),
            np.full(count, -1, dtype=np.int64) if models is None else np.array(models, dtype=np.int64),
            np.zeros((count, self._size, self._size)),
        )
        threads = num_workers(-(-count // CELLS_PER_TASK))
        # a line of the cache between the rows
        scratch = np.zeros((threads, self._scratch + 8))
        arrays: dict[str, npt.NDArray[Any]] = found._asdict()
        arrays |= {"cells": cells, "roots": roots, "parents": parents, "scratch": scratch, "cancel": stop}
        job = self._job.copy()
        for name, array in arrays.items():
            job[name] = address(array)
        job["num_cells"], job["scratch_stride"] = count, scratch.shape[1]
        with PARALLEL_LOCK:
            status = int(share(_FUNCTIONS, job, threads))
        raise_for_status(status, "bounds of cells")
        return found

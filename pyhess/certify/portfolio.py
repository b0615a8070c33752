"""``certify``: the upper end of the bracket, the best of all methods that apply."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from time import perf_counter

import numpy as np
import numpy.typing as npt

from .._checks import choice
from .._threads import blas_single_thread
from ..errors import InputTypeError, MemoryLimitError
from ..objective import Objective
from ..regions import Ball, Box, Region, as_region
from .allocation import worst_over_ball
from .centre import centre_bounds, centre_of
from .certificate import Certificate, MethodResult
from .dense import dense_cost
from .moment import moment_bound
from .propagate import Cell, ball_cell, point_cell, whole_cell

METHODS = ("moment", "centre")

#: A lower bound of psi over a cell, or None if it was cancelled.
Bound = Callable[[Cell], float | None]

#: ``auto`` computes the centre bound up to this many parameters and multiplications …
_CENTRE_PARAMS, _CENTRE_COST = 2000, 6e10
#: … and asked for by name it is computed up to this many parameters: several dense matrices.
_CENTRE_PARAMS_MAX = 8000
#: Multiplications that cutting a ball into cells may use, and the number of cells.
_CELL_COST, _MAX_CELLS = 4e10, 200

_ROUNDING = (
    "outward: intervals, matrix products with inner-product error bounds, eigenvalues by a Cholesky test; assumes IEEE-754 "
    "doubles and library functions accurate to 4 units of the last place"
)
_WHAT = {
    "moment": "layer-wise norm recursion with the data's second moments, the Gauss–Newton part dropped",
    "centre": "smallest eigenvalue at the region's centre minus a layer-wise bound of the matrix's change",
}


def certify(obj: Objective, region: Region, method: str = "auto", *, cancel: npt.NDArray[np.int32] | None = None) -> Certificate:
    """Prove a lower bound of ``psi = inf over the region of eigval_min(H(theta))``, valid for every theta in it.

    Parameters
    ----------
    obj : Objective
        Network, data and loss. The bound is for real arithmetic, whatever the objective's dtype.
    region : Region
        The convex set of parameters. What is proved on a box or ball that contains it holds on it: intersections are proved on
        their parts, ordered cells on their base, a user's region on its ``enclosure``.
    method : str
        ``"moment"``: a recursion in the layers' norms, with intervals for everything else; any size. ``"centre"``: the matrix
        at the centre minus a bound of its change; small networks, tight on small regions. ``"auto"``: the best of those
        whose cost is reasonable.
    cancel : (1,) int32 array, optional
        Set ``cancel[0] = 1`` from another thread to end early: what has been proved until then is returned.

    Returns
    -------
    Certificate
        With the best bound and a table of all methods.

    Raises
    ------
    InputError, InputTypeError
        If an argument does not fit.
    MemoryLimitError
        If ``"centre"`` is asked for by name and its matrices would be too large.

    Notes
    -----
    With the split H = G + R of the Hessian into the positive semi-definite Gauss–Newton part and the residual part, psi is at
    least the smallest eigenvalue of R anywhere. Every step is rounded outwards: intervals, matrix products with the standard
    inner-product error bound, smallest eigenvalues by a Cholesky test. Assumed are IEEE-754 double arithmetic and library
    functions (exp, tanh, erfc) accurate to a few units of the last place.

    A ball is cut into cells by how its radius is shared out among the layers, and the worst cell counts; ``"auto"`` does so for
    the method that is best on the whole.

    References
    ----------
    S. M. Rump, "Verification of positive definiteness", BIT Numerical Mathematics 46 (2006) 433–452.

    Examples
    --------
    >>> import pyhess as ph
    >>> obj = ph.Objective(ph.MLP([1, 1, 1], activation="identity", bias=False), ph.Dataset([[1.0]], [1.0]))
    >>> certificate = ph.certify(obj, ph.Ball(radius=1.5))
    >>> -8.0 < certificate.psi_lower <= -2.125
    True
    """
    if not isinstance(obj, Objective):
        raise InputTypeError(f"obj is a {type(obj).__name__}; pass a pyhess.Objective (network, data and loss).")
    bound = as_region(region).bind(obj)
    choice("method", method, ("auto", *METHODS))
    stop = np.zeros(1, dtype=np.int32) if cancel is None else cancel
    if obj.net.num_layers == 1:
        return _linear(obj, bound)
    if method == "centre" and obj.num_params > _CENTRE_PARAMS_MAX:
        raise MemoryLimitError(
            f"the centre bound needs several dense matrices of {obj.num_params} x {obj.num_params}; allowed are "
            f"{_CENTRE_PARAMS_MAX} parameters. Use method='moment'."
        )
    if isinstance(bound, Box | Ball):
        return _certify_simple(obj, bound, method, stop)
    found = [
        _certify_simple(obj, enclosure, method, stop) for enclosure in bound.enclosures() if isinstance(enclosure, Box | Ball)
    ]
    if not found:
        statement = "no certificate knows this region, and no box or ball that contains it was given"
        return Certificate("none", -math.inf, {}, _ROUNDING, statement, obj, bound)
    best = max(found, key=lambda certificate: certificate.psi_lower)
    if best.method == "none":
        return replace(best, _region=bound)
    statement = f"{best.statement}; proved on {best._region!r}, which contains the region"
    return replace(best, statement=statement, _region=bound)


def _certify_simple(obj: Objective, region: Box | Ball, method: str, stop: npt.NDArray[np.int32]) -> Certificate:
    run = _Run(obj, region, stop)
    with blas_single_thread(), np.errstate(over="ignore", under="ignore", invalid="ignore"):
        run.work((method,) if method != "auto" else METHODS if run.centre_is_cheap() else ("moment",))
    return run.certificate()


def _linear(obj: Objective, region: Region) -> Certificate:
    """No hidden layer: the loss is convex in theta, and nothing has to be computed."""
    statement = "the network has no hidden layer, so the loss is convex in theta: no Hessian has a negative eigenvalue"
    table = {"linear": MethodResult(0.0, 0.0, 1)}
    return Certificate("linear", 0.0, table, _ROUNDING, statement, obj, region)


class _Run:
    """One certification: the methods' results so far."""

    def __init__(self, obj: Objective, region: Box | Ball, stop: npt.NDArray[np.int32]) -> None:
        self.obj = obj
        self.region = region
        self.stop = stop
        self.whole = whole_cell(obj.net, region)
        self.table: dict[str, MethodResult] = {}

    def work(self, methods: Sequence[str]) -> None:
        """Every method on the region as one cell; the best of them goes on to cut a ball into more."""
        bounds: dict[str, Bound] = {}
        for name in methods:
            self._record(name, lambda name=name: self._whole(name, bounds))  # type: ignore[misc]
        if isinstance(self.region, Ball) and bounds:
            best = max(bounds, key=lambda name: self.table[name].psi_lower)
            self._record(best, lambda: self._over_cells(bounds[best]))

    def _record(self, name: str, method: Callable[[], tuple[float, int] | None]) -> None:
        if self.stop[0]:
            return
        began = perf_counter()
        found = method()
        value, cells = (-math.inf, 0) if found is None else found
        row = MethodResult(-math.inf if math.isnan(value) else float(value), perf_counter() - began, cells)
        before = self.table.get(name)
        if before is not None:
            row = MethodResult(max(row.psi_lower, before.psi_lower), row.seconds + before.seconds, max(row.cells, before.cells))
        self.table[name] = row

    def _whole(self, name: str, bounds: dict[str, Bound]) -> tuple[float, int] | None:
        bound = self._moment if name == "moment" else self._centre()
        value = None if bound is None else bound(self.whole)
        if bound is None or value is None:
            return None
        bounds[name] = bound
        return value, 1

    def _over_cells(self, bound: Bound) -> tuple[float, int] | None:
        net, region = self.obj.net, self.region
        assert isinstance(region, Ball)
        cost = 8.0 * self.obj.data.num_samples * net.num_params
        max_cells = int(np.clip(_CELL_COST / cost, 4, _MAX_CELLS))
        return worst_over_ball(lambda radii: bound(ball_cell(net, region, radii)), net.num_layers, region.radius, max_cells)

    def centre_is_cheap(self) -> bool:
        cost = dense_cost(self.whole, self.obj.data.num_samples)
        return self.obj.num_params <= _CENTRE_PARAMS and cost <= _CENTRE_COST

    def _moment(self, cell: Cell) -> float | None:
        obj = self.obj
        return moment_bound(cell, obj.data, obj.targets, obj.loss, self.stop)

    def _centre(self) -> Bound | None:
        obj, region = self.obj, self.region
        middle = region.center if isinstance(region, Ball) else 0.5 * region.low + 0.5 * region.high
        centre = centre_of(point_cell(obj.net, middle), obj.data, obj.targets, obj.loss, self.stop)
        if centre is None:
            return None

        def bound(cell: Cell) -> float | None:
            found = centre_bounds(cell, centre, obj.data, obj.targets, obj.loss, self.stop)
            return None if found is None else max(found)

        return bound

    def certificate(self) -> Certificate:
        finished = {name: row for name, row in self.table.items() if row.psi_lower > -math.inf}
        if not finished:
            statement = (
                "the bounds overflow on this region"
                if self.table and not self.stop[0]
                else "stopped before any bound was finished"
            )
            return Certificate("none", -math.inf, self.table, _ROUNDING, statement, self.obj, self.region)
        method = max(finished, key=lambda name: finished[name].psi_lower)
        row = finished[method]
        almost = "almost-everywhere " if "relu" in self.obj.net.activations else ""
        cells = f", worst of {row.cells} cells" if row.cells > 1 else ""
        how = f"{_WHAT[method]}{cells}; rounded outwards"
        statement = f"no {almost}Hessian on the region has an eigenvalue below {row.psi_lower:.7g} ({how})"
        return Certificate(method, row.psi_lower, self.table, _ROUNDING, statement, self.obj, self.region)

"""``certify``: the upper end of the bracket, the best of all methods that apply."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from time import monotonic

import numpy as np
import numpy.typing as npt

from .._checks import as_flag, choice, finite_float, positive_float, shown
from .._threads import blas_single_thread
from ..errors import InputTypeError, MemoryLimitError
from ..objective import Objective
from ..regions import Ball, Box, Region, as_region
from .certificate import Certificate, MethodResult
from .portfolio import DENSE_PARAMS_MAX, Run
from .subdivision import Progress
from .texts import ROUNDING, DoesNotApplyError

METHODS = ("moment", "centre", "comparison", "deif", "blocks", "taylor", "slabs", "units", "boxes", "cells", "full", "exact")
#: Share of a time limit that the bounds of the whole region may use where branch and bound goes on from them.
_ROOTS_SHARE = 0.5


def certify(
    obj: Objective,
    region: Region,
    method: str = "auto",
    *,
    time_limit: float | None = None,
    psi_upper: float | None = None,
    progress: Progress | None = None,
    cancel: npt.NDArray[np.int32] | None = None,
) -> Certificate:
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
        at the centre minus a bound of its change; small networks, tight on small regions. ``"comparison"``, ``"deif"``: two
        eigenvalue bounds for an interval enclosure of the residual part; small networks. ``"blocks"``: the residual part's
        block of one unit of a single hidden layer; any number of inputs. ``"taylor"``: the Hessian's Taylor polynomial of the
        third order about a small ball's centre, of the second above 40 parameters or with many data; up to 72 parameters, any
        depth. With one hidden layer and squared error always of the third, up to 320 parameters. ``"slabs"``: ``"taylor"``, then
        the same over slabs of the ball across one direction. ``"units"``: branch and bound over the weights of one unit of a
        single hidden layer, whatever the others do. ``"boxes"``: branch and bound over the parameters of a small network on a
        box. ``"cells"``: branch and bound with the moment bound, for several hidden layers: over the parameters on a box, over
        the output biases and the layers' shares of the radius in a ball.
        ``"full"``: branch and bound to any accuracy for up to 6 parameters.
        ``"exact"``: the closed forms that two-layer linear networks have.
        ``"auto"``: the best of those whose cost is reasonable.
    time_limit : float, optional
        Seconds. The bounds of the whole region have half of them, cheapest first, where branch and bound goes on from there, else
        all; those not finished by then are -inf. The rest is for the branch and bound methods, spent where the bound gains
        fastest, and not if it gains next to nothing. By default these do a fixed amount of work, a second or so.
    psi_upper : float, optional
        An eigenvalue that some Hessian of the region has, such as a witness's: the work ends when the bound reaches it.
    progress : callable, optional
        Called with dictionaries of ``"stage"``, ``"method"``, ``"cells"`` and ``"psi_lower"``.
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
    KeyboardInterrupt
        If Ctrl-C comes before the first bound is finished. Later it ends the work and is not raised: the best bound so far is
        returned, and the statement says that it was interrupted.

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
    limit = None if time_limit is None else positive_float("time_limit", time_limit)
    goal = None if psi_upper is None else finite_float("psi_upper", psi_upper)
    if progress is not None and not callable(progress):
        raise InputTypeError(f"progress is {shown(progress)}; pass a function that takes a dict, or None.")
    stop = as_flag(cancel)
    if obj.net.num_layers == 1:
        return _linear(obj, bound)
    if method in ("centre", "comparison", "deif") and obj.num_params > DENSE_PARAMS_MAX:
        raise MemoryLimitError(
            f"the {method} bound needs several dense matrices of {obj.num_params} x {obj.num_params}; allowed are "
            f"{DENSE_PARAMS_MAX} parameters. Use method='moment'."
        )
    run = Certification(obj, bound, stop, progress)
    try:
        run.proceed(method, limit, goal)
    except KeyboardInterrupt:
        found = run.certificate()
        if found.method == "none":
            raise
        return replace(found, statement=f"{found.statement}; interrupted before all methods were finished")
    return run.certificate()


def fresh_certificate(obj: Objective, region: Region, method: str = "auto") -> Certificate:
    """What `certify` proves without limits. Ctrl-C raises: a part of it would not do."""
    return _linear(obj, region) if obj.net.num_layers == 1 else Certification(obj, region).proceed(method).certificate()


class Certification:
    """A certification that can go on: first the bounds of the whole region, later more of it with what is known by then."""

    def __init__(
        self, obj: Objective, region: Region, stop: npt.NDArray[np.int32] | None = None, progress: Progress | None = None
    ) -> None:
        self._obj, self._region = obj, region
        #: Set ``stop[0] = 1`` to end the work.
        self.stop = np.zeros(1, dtype=np.int32) if stop is None else stop
        simple = (region,) if isinstance(region, Box | Ball) else region.enclosures()
        self._runs = [Run(obj, part, self.stop, progress) for part in simple if isinstance(part, Box | Ball)]

    def proceed(self, method: str = "auto", time_limit: float | None = None, psi_upper: float | None = None) -> Certification:
        """Everything, as `certify` does."""
        if time_limit is None:
            return self.roots(method).refine(method, None, psi_upper)
        began = monotonic()
        self.roots(method, time_limit * (_ROOTS_SHARE if self.can_refine else 1.0))
        return self.refine(method, max(0.0, time_limit - (monotonic() - began)), psi_upper)

    def roots(self, method: str = "auto", time_limit: float | None = None) -> Certification:
        """The bounds of the region as a whole, or over few cells."""
        self._on_each(Run.roots, time_limit, method)
        return self

    def refine(self, method: str = "auto", time_limit: float | None = None, psi_upper: float | None = None) -> Certification:
        """Branch and bound."""
        self._on_each(partial(Run.refine, psi_upper=psi_upper), time_limit, method)
        return self

    def _on_each(self, work: Callable[[Run, str, float | None], None], time_limit: float | None, method: str) -> None:
        """Part by part of an intersection; those that the method does not know are left out, unless it knows none."""
        share = None if time_limit is None else time_limit / max(1, len(self._runs))
        known, refusal = [], None
        for run in self._runs:
            try:
                with blas_single_thread(), np.errstate(over="ignore", under="ignore", invalid="ignore", divide="ignore"):
                    work(run, method, share)
                known.append(run)
            except DoesNotApplyError as error:
                refusal = error
        if refusal is not None and not known:
            raise refusal
        self._runs = known

    @property
    def out_of_time(self) -> bool:
        """Whether a time limit ended some of the work."""
        return any(run.out_of_time for run in self._runs)

    @property
    def can_refine(self) -> bool:
        """Whether branch and bound applies to this problem."""
        return any(run.searches() for run in self._runs)

    def certificate(self) -> Certificate:
        """The best bound so far."""
        if not self._runs:
            statement = "no certificate knows this region, and no box or ball that contains it was given"
            return Certificate("none", -math.inf, {}, ROUNDING, statement, self._obj, self._region)
        best = max((run.certificate() for run in self._runs), key=lambda certificate: certificate.psi_lower)
        if isinstance(self._region, Box | Ball) or best.method == "none":
            return replace(best, _region=self._region)
        statement = f"{best.statement}; proved on {best._region!r}, which contains the region"
        return replace(best, statement=statement, _region=self._region)


def _linear(obj: Objective, region: Region) -> Certificate:
    """No hidden layer: the loss is convex in theta, and nothing has to be computed."""
    statement = "the network has no hidden layer, so the loss is convex in theta: no Hessian has a negative eigenvalue"
    table = {"linear": MethodResult(0.0, 0.0, 1)}
    return Certificate("linear", 0.0, table, ROUNDING, statement, obj, region)

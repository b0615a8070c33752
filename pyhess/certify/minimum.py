"""A certified lower bound of the smallest value of the loss on a region, by way of the convexified loss.

For lam >= lam* the function F(theta) = L(theta) + lam P(theta), with P = |theta - c|² - |r|² on a box of centre c and half widths
r or P = |theta - c|² - R² on a ball, is convex and nowhere above L on the region. Its tangent plane at any point t bounds it:

    L(theta) >= F(theta) >= F(t) + grad F(t) . (theta - t) >= F(t) + min over the region of grad F(t) . (theta - t),

the last minimum in closed form. F(t) and its gradient are enclosed in intervals.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .._checks import as_vector, shown
from .._threads import blas_single_thread
from ..errors import InputError, InputTypeError, NumericalError
from ..objective import Objective
from ..regions import Ball, Box, Region, as_region
from .certificate import Certificate
from .certification import fresh_certificate
from .intervals import TINY, Interval, down, gamma, matmul, norms, up
from .moment import data_blocks
from .propagate import point_cell, propagate
from .ranges import derivative_range

FloatArray = npt.NDArray[np.float64]

_MOST_STEPS, _MEMORY = 500, 10
#: Points of the region from which the upper end is looked for as well: on symmetric regions the convexified loss has its
#: minimiser on a saddle.
_MORE_STARTS, _SEED = 3, 2
#: Relative gap between F(t) and its tangent bound at which t counts as the minimiser.
_ACCURACY = 1e-9


@dataclass(frozen=True)
class GlobalMinimum:
    """Proved ends of the smallest value of the loss on a region.

    Attributes
    ----------
    lower : float
        L is nowhere below this on the region.
    upper : float
        Value of L at ``theta``, rounded up.
    theta : (P,) array
        The best point found.
    lam : float
        The penalty strength of the convexified loss.
    """

    lower: float
    upper: float
    theta: FloatArray
    lam: float

    @property
    def gap(self) -> float:
        """Upper - lower; at most lam |r|² (box) or lam R² (ball), up to the accuracy of the minimisation."""
        return self.upper - self.lower


def certify_minimum(
    obj: Objective, region: Region, certificate: Certificate | None = None, *, start: npt.ArrayLike | None = None
) -> GlobalMinimum:
    """Bound the smallest value of the loss on a box or ball from both sides.

    Parameters
    ----------
    obj : Objective
        Network, data and loss; no ReLU, which the certificate's lam does not convexify.
    region : Region
        A box or a ball.
    certificate : Certificate, optional
        Of this problem; by default ``certify(obj, region)``.
    start : (P,) array, optional
        A point to start from for the upper end, such as trained weights; besides it, or the minimiser of the convexified loss,
        a few points of the region are tried.

    Returns
    -------
    GlobalMinimum

    Raises
    ------
    InputError, InputTypeError
        If the network has ReLU layers, the region is neither box nor ball, or the certificate is none or of another problem.
    NumericalError
        If the certificate has no finite bound, or the loss overflows.

    Notes
    -----
    This is the alpha-BB underestimator (Androulakis, Maranas, Floudas 1995) on the whole region. Its gap grows with the region's
    size squared times the number of parameters: useful on small regions and as a bound in branch and bound.

    Examples
    --------
    >>> import pyhess as ph
    >>> obj = ph.Objective(ph.MLP([1, 1, 1], "identity", bias=False), ph.Dataset([[1.0]], [1.0]))
    >>> found = ph.certify_minimum(obj, ph.Box(-0.5, 0.5))  # 1/2 (v w - 1)² >= 0.28125
    >>> found.lower <= 0.28125 <= found.upper, found.gap < 0.6
    (True, True)
    """
    if not isinstance(obj, Objective):
        raise InputTypeError(f"obj is a {type(obj).__name__}; pass a pyhess.Objective (network, data and loss).")
    part = as_region(region).bind(obj)
    if not isinstance(part, Box | Ball):
        raise InputTypeError(f"region is {part!r}; allowed are Box and Ball. Enclose it in one of them.")
    if not obj.net.is_smooth:
        raise InputError("the network has ReLU layers, whose kinks no penalty makes convex; allowed are smooth activations.")
    if certificate is not None and not isinstance(certificate, Certificate):
        raise InputTypeError(f"certificate is {shown(certificate)}; pass what certify returns, or None.")
    proof = fresh_certificate(obj, part) if certificate is None else certificate
    if proof.region.bind(obj) != part or proof.obj.net != obj.net or proof.obj.loss != obj.loss or not _same_data(proof.obj, obj):
        raise InputError("the certificate is of another problem; pass certify(obj, region) of the same objective and region.")
    lam = proof.lam_upper
    if not math.isfinite(lam):
        raise NumericalError(
            "the certificate has no finite bound on this region, so no penalty is known to make the loss convex."
        )
    centre = 0.5 * part.low + 0.5 * part.high if isinstance(part, Box) else np.array(part.center)

    def convexified(theta: FloatArray) -> tuple[float, FloatArray]:
        offset = theta - centre
        return obj.value(theta) + lam * float(offset @ offset), obj.gradient(theta) + 2.0 * lam * offset

    with blas_single_thread(), np.errstate(over="ignore", under="ignore", invalid="ignore"):
        point = _descend(convexified, part, centre)
        begin = point if start is None else part.project(as_vector("start", start, obj.num_params))
        begins = [begin, *part.sample(_MORE_STARTS, rng=np.random.default_rng(_SEED))]
        ends = [_descend(lambda theta: (obj.value(theta), obj.gradient(theta)), part, theta) for theta in begins]
        lower = max(_tangent_bound(obj, part, centre, lam, point), 0.0)  # no loss is negative
        values = [(float(_loss_and_gradient(obj, theta)[0].hi[()]), theta) for theta in (begin, *ends)]
        upper, best = min(values, key=lambda pair: pair[0])
    if not (math.isfinite(lower) and math.isfinite(upper)):
        raise NumericalError("the loss or its bound overflows on this region.")
    return GlobalMinimum(lower, upper, best, lam)


def _same_data(one: Objective, other: Objective) -> bool:
    return one.data.content_hash == other.data.content_hash


def _descend(function: Callable[[FloatArray], tuple[float, FloatArray]], region: Box | Ball, start: FloatArray) -> FloatArray:
    """Spectral projected gradient (Birgin, Martínez, Raydan 2000): the best point found."""
    theta = region.project(start)
    value, gradient = function(theta)
    recent, best, best_value = [value], theta, value
    step = 1.0 / max(float(np.abs(gradient).max(initial=0.0)), 1e-12)
    for _ in range(_MOST_STEPS):
        direction = region.project(theta - step * gradient) - theta
        slope = float(gradient @ direction)
        if not slope < -_ACCURACY * 1e-3 * (abs(value) + 1e-12):
            break
        t = 1.0
        while t > 1e-12:
            candidate = theta + t * direction
            new_value, new_gradient = function(candidate)
            if new_value <= max(recent[-_MEMORY:]) + 1e-4 * t * slope:
                break
            t *= 0.5
        else:
            break
        moved, turned = candidate - theta, new_gradient - gradient
        product = float(moved @ turned)
        step = min(max(float(moved @ moved) / product, 1e-10), 1e10) if product > 0.0 else 1e10
        theta, value, gradient = candidate, new_value, new_gradient
        recent.append(value)
        if value < best_value:
            best, best_value = theta, value
    return region.project(best)


def _tangent_bound(obj: Objective, region: Box | Ball, centre: FloatArray, lam: float, point: FloatArray) -> float:
    """Lower bound of F's tangent plane at the point over the region, rounded down."""
    value, slope = _loss_and_gradient(obj, point)
    offset = Interval.point(point) - Interval.point(centre)
    least = Interval.point(down(np.minimum(np.abs(offset.lo), np.abs(offset.hi)) ** 2))
    total = _sum(least).lo
    slope = slope + Interval(2.0 * lam * offset.lo, 2.0 * lam * offset.hi).widened(
        2.0**-50 * np.abs(lam * offset.magnitude) + TINY
    )
    if isinstance(region, Box):
        # P <= 0 on the box needs half widths from the rounded centre that are rounded up.
        half = up(np.maximum(region.high - centre, centre - region.low))
        size = _sum(Interval.point(up(half**2))).hi
        ends = [Interval.point(end) - Interval.point(point) for end in (region.low, region.high)]
        products = [slope * end for end in ends]
        change = _sum(Interval(np.minimum(products[0].lo, products[1].lo), np.minimum(products[0].hi, products[1].hi))).lo
    else:
        size = up(np.array(region.radius**2))
        back = _sum(slope * (Interval.point(centre) - Interval.point(point))).lo
        reach = up(np.array(region.radius) * norms(slope.magnitude[None])[0])
        change = down(back - reach)
    shift = down(np.array(lam) * down(np.asarray(total) - size))
    return float(down(down(value.lo + shift) + change))


def _sum(x: Interval) -> Interval:
    """The sum of the entries."""
    room = gamma(x.lo.size + 8)
    return Interval(down(x.lo.sum() - room * np.abs(x.lo).sum() - TINY), up(x.hi.sum() + room * np.abs(x.hi).sum() + TINY))


def _loss_and_gradient(obj: Objective, theta: FloatArray) -> tuple[Interval, Interval]:
    """Enclosures of L (scalar) and its gradient (P,) at a point."""
    cell = point_cell(obj.net, theta)
    net = obj.net
    value = Interval.point(np.zeros(()))
    slope = Interval.point(np.zeros(net.num_params))
    for x, y, w in data_blocks(cell, obj.data, obj.targets):
        mass = Interval(w * (1.0 - gamma(4)), w * (1.0 + gamma(4)))
        bounds = propagate(cell, x, y, obj.loss)
        value = value + _sum(mass * _losses(obj.loss, bounds.s[-1], y))
        parts = []
        for layer, scale in enumerate(net.layer_scales):
            delta = bounds.delta[layer] * mass[:, None]
            factor = Interval(np.array(scale * (1.0 - gamma(4))), np.array(scale * (1.0 + gamma(4))))
            block = matmul(delta.T, bounds.entering[layer]) * factor
            parts.append(block.reshape(-1))
            if net.bias:
                parts.append((matmul(delta.T, Interval.point(np.ones((len(x), 1)))) * factor).reshape(-1))
        joined = Interval(np.concatenate([part.lo for part in parts]), np.concatenate([part.hi for part in parts]))
        slope = slope + joined
    return value, slope


def _losses(loss: str, f: Interval, y: FloatArray) -> Interval:
    """Every datum's loss (n,)."""
    if loss == "squared_error":
        r = f - Interval.point(y)
        least = np.where((r.lo <= 0.0) & (r.hi >= 0.0), 0.0, np.minimum(np.abs(r.lo), np.abs(r.hi)))
        return _row_sums(Interval(0.5 * down(least**2), 0.5 * up(r.magnitude**2)))
    if loss == "logistic":
        column = f[:, 0]
        return derivative_range("softplus", 1.0, 0, column) - column * Interval.point(y[:, 0])
    top = f.hi.max(axis=1)
    # log sum exp is increasing in every output; exp and log are good to a few units, relative to sums that are at least one.
    room = 1e-13 * f.lo.shape[1]
    ends = [top + np.log(np.exp(end - top[:, None]).sum(axis=1)) for end in (f.lo, f.hi)]
    spread = room * (1.0 + np.abs(top) + np.abs(f.lo).max(axis=1))
    total = Interval(down(ends[0] - spread), up(ends[1] + spread))
    return _row_sums(Interval(y, y) * (total[:, None] - f))


def _row_sums(x: Interval) -> Interval:
    room = gamma(x.lo.shape[1] + 8)
    below, above = (room * np.abs(end).sum(axis=1) + TINY for end in (x.lo, x.hi))
    return Interval(down(x.lo.sum(axis=1) - below), up(x.hi.sum(axis=1) + above))

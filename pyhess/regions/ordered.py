"""One permutation cell of a region: hidden units in the order of their biases."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from .._checks import as_vector, shown
from .._region import FloatArray, Region, net_of
from ..errors import InputError, InputTypeError
from ..model import MLP
from ._dykstra import dykstra, isotonic, pulled_inside
from ._walk import walk
from .simple import Ball, Box

_TOL = 1e-14


class Ordered(Region):
    """The part of a box or a ball in which the hidden units of every layer are ordered by bias, b_1 <= b_2 <= … <= b_m.

    Exchanging hidden units changes neither the network nor the spectrum of the Hessian. If the base region is the same after
    such exchanges (:meth:`Region.is_permutation_symmetric`), each of its points has a twin in the cell, so psi over the cell is
    psi over the base. The cell holds one copy of every network in place of m! for each hidden layer of m units.

    Parameters
    ----------
    region : Box or Ball
        The base.
    net : MLP or Objective
        A network with biases.

    Attributes
    ----------
    region : Box or Ball
        The base, bound to the network.
    net : MLP

    Raises
    ------
    InputError
        If the network has no biases, sizes do not fit, or the cell has no interior.
    InputTypeError
        If the base is of another kind, or ``net`` no network.

    Examples
    --------
    >>> import numpy as np, pyhess as ph
    >>> net = ph.MLP([1, 2, 1])  # W1 (2), b1 (2), W2 (2), b2 (1)
    >>> cell = ph.Ordered(ph.Box(-1.0, 1.0), net)
    >>> cell.project([0.5, -0.5, 0.75, 0.25, 0.0, 2.0, 0.0])
    array([ 0.5, -0.5,  0.5,  0.5,  0. ,  1. ,  0. ])
    >>> cell.sort([0.5, -0.5, 0.75, 0.25, 0.0, 1.0, 0.0])
    array([-0.5 ,  0.5 ,  0.25,  0.75,  1.  ,  0.  ,  0.  ])
    """

    kind = "ordered"
    region: Box | Ball
    net: MLP
    _biases: tuple[slice, ...]  # of the hidden layers with two or more units
    _inside: FloatArray

    def __init__(self, region: Region, net: Any) -> None:
        if not isinstance(region, Box | Ball):
            raise InputTypeError(f"region is {shown(region)}; allowed are Box and Ball. Intersect the cell instead.")
        layers = net_of(net)
        if not layers.bias:
            raise InputError(f"{layers!r} has no biases to order units by; allowed are networks with bias=True.")
        base = region.bind(layers)
        assert isinstance(base, Box | Ball)
        biases = tuple(
            bias
            for (_, bias), width in zip(layers.layer_slices[:-1], layers.widths[1:-1], strict=True)
            if bias is not None and width > 1
        )
        self._set(region=base, net=layers, _biases=biases)
        self._set(_inside=_interior_of_cell(base, biases))

    @property
    def size(self) -> int | None:
        return self.net.num_params

    def bind(self, net: Any) -> Region:
        inner = getattr(net, "net", net)
        if isinstance(inner, MLP) and inner.widths != self.net.widths:
            raise InputError(f"the cell orders the units of {self.net!r}, not of {inner!r}; make one for that network.")
        return super().bind(net)

    def to_dict(self) -> dict[str, Any]:
        return {"kind": self.kind, "region": self.region.to_dict(), "widths": list(self.net.widths)}

    def _with_size(self, size: int) -> Region:
        raise AssertionError("an ordered cell knows its size")

    def sort(self, theta: npt.ArrayLike) -> FloatArray:
        """Return theta (P,) with its hidden units sorted by bias: the same network function."""
        point = as_vector("theta", theta, self.net.num_params)
        return permuted(self.net, point, unit_orders(self.net, point))

    def interior_point(self) -> FloatArray:
        return np.array(self._inside)

    def enclosures(self) -> tuple[Region, ...]:
        return (self.region,)

    def _steps(self, theta: FloatArray) -> FloatArray:
        """b_{j+1} - b_j of all layers."""
        return np.concatenate([np.diff(theta[bias]) for bias in self._biases]) if self._biases else np.full(1, np.inf)

    def _slack(self, theta: FloatArray) -> float:
        return min(self.region._slack(theta), float(self._steps(theta).min()) / math.sqrt(2.0))

    def _order(self, theta: FloatArray) -> FloatArray:
        point = theta.copy()
        for bias in self._biases:
            point[bias] = isotonic(theta[bias])
        return point

    def _project(self, theta: FloatArray) -> FloatArray:
        if self._slack(theta) >= 0.0:
            return theta.copy()
        base = self.region
        if self._is_alike():
            # Clipping to equal bounds, and shrinking towards equal biases, keep an order: the projections may follow each other.
            return base._project(self._order(theta))
        scale = max(float(np.abs(theta).max()), 1e-300)
        return pulled_inside(dykstra([base._project, self._order], theta, _TOL * scale), self._inside, self._slack)

    def _is_alike(self) -> bool:
        """Whether the base treats the biases of a layer alike."""
        return all(bool((v[bias] == v[bias][0]).all()) for v in self.region._defining_vectors() for bias in self._biases)

    def _chord(self, theta: FloatArray, direction: FloatArray) -> tuple[float, float]:
        first, last = self.region._chord(theta, direction)
        steps, speeds = self._steps(theta), self._steps(direction)
        with np.errstate(divide="ignore", invalid="ignore"):
            hits = -steps / speeds
        opening, closing = speeds > 0.0, speeds < 0.0
        first = max(first, float(hits[opening].max(initial=-math.inf)))
        return first, min(last, float(hits[closing].min(initial=math.inf)))

    def _sample(self, count: int, rng: np.random.Generator) -> FloatArray:
        if self.region.is_permutation_symmetric(self.net):
            return np.array([self.sort(theta) for theta in self.region._sample(count, rng)])
        return walk(self._inside, self._chord, self._project, count, rng)

    def _defining_vectors(self) -> tuple[FloatArray, ...]:
        return self.region._defining_vectors()

    def _is_even(self) -> npt.NDArray[np.bool_]:
        even = self.region._is_even().copy()
        for bias in self._biases:
            even[bias] = False
        return even

    def is_permutation_symmetric(self, net: Any) -> bool:
        return not self._biases and super().is_permutation_symmetric(net)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Ordered) and self.region == other.region and self.net.widths == other.net.widths

    def __hash__(self) -> int:
        return hash((self.region, self.net.widths))

    def __reduce__(self) -> tuple[Any, ...]:
        return Ordered, (self.region, self.net)

    def __repr__(self) -> str:
        return f"Ordered({self.region!r})"


def unit_orders(net: MLP, theta: FloatArray) -> list[npt.NDArray[np.int64]]:
    """For every hidden layer the order of its units by bias."""
    return [np.argsort(b, kind="stable") for _, b in net.unpack(theta)[:-1] if b is not None]


def permuted(net: MLP, vector: FloatArray, orders: Sequence[npt.NDArray[np.int64]]) -> FloatArray:
    """Return a copy of a vector (P,) with the hidden units of every layer rearranged."""
    copy = vector.copy()
    for (below, above), order in zip(pairwise(net.unpack(copy)), orders, strict=True):
        (w, b), (w_next, _) = below, above
        w[:] = w[order]
        if b is not None:
            b[:] = b[order]
        w_next[:] = w_next[:, order]
    return copy


def _interior_of_cell(base: Box | Ball, biases: tuple[slice, ...]) -> FloatArray:
    """A point strictly inside the base with strictly increasing biases, or an error."""
    point = base.interior_point()
    offsets = [(bias, np.arange(bias.stop - bias.start) + 1.0) for bias in biases]
    if isinstance(base, Box):
        for bias, places in offsets:
            low = np.maximum.accumulate(base.low[bias])
            high = np.minimum.accumulate(base.high[bias][::-1])[::-1]
            point[bias] = low + (places / (places.size + 1.0)) * (high - low)
    else:
        for bias, _ in offsets:
            point[bias] = isotonic(point[bias])
        room = base.radius - float(np.linalg.norm(point - base.center))
        for bias, places in offsets:
            point[bias] += 0.5 * room * (places - places.mean()) / (places.size**1.5 * math.sqrt(len(biases)))
    increasing = all(bool((np.diff(point[bias]) > 0.0).all()) for bias in biases)
    if not (increasing and base._slack(point) > 0.0):
        raise InputError(
            f"no network in {base!r} has the biases of every hidden layer in increasing order, or such networks have no "
            "interior; allowed are regions that reach into the ordered cell. Sort the units of the centre by bias first."
        )
    return point

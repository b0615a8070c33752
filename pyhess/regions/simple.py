"""Boxes and balls."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from .._checks import as_real, check_finite, frozen, positive_float, scalar_or_vector, shown
from .._region import FloatArray, Region, net_of
from ..errors import InputError, InputTypeError
from ..model import MLP


class Box(Region):
    """The box {theta : low <= theta <= high}.

    Parameters
    ----------
    low, high : float or (P,) array_like
        Bounds, finite, low < high in every coordinate.

    Attributes
    ----------
    low, high : (P,) float64, read-only
        Of shape () while the region is given by scalars.

    Raises
    ------
    InputError
        If the box is empty or flat, a bound is not finite, or the shapes disagree.
    InputTypeError
        If a bound is no real number.

    Examples
    --------
    >>> import numpy as np, pyhess as ph
    >>> ph.Box(-0.5, 0.5).contains(np.zeros(3))
    True
    >>> ph.Box(-0.5, 0.5).project([0.2, 3.0])
    array([0.2, 0.5])
    >>> ph.Box.around(np.ones(2), 0.25).low
    array([0.75, 0.75])
    """

    kind = "box"
    low: FloatArray
    high: FloatArray

    def __init__(self, low: npt.ArrayLike, high: npt.ArrayLike) -> None:
        first, second = scalar_or_vector("low", low), scalar_or_vector("high", high)
        if first.ndim == 1 and second.ndim == 1 and first.shape != second.shape:
            raise InputError(f"low has shape {first.shape} and high {second.shape}; allowed are equal shapes.")
        lows, highs = np.broadcast_arrays(first, second)
        if not (lows < highs).all():
            place, where = _first(lows >= highs)
            what = "is empty" if lows[place] > highs[place] else "has an empty interior"
            raise InputError(
                f"the box {what}: low{where} = {float(lows[place])!r}, high{where} = {float(highs[place])!r}"
                "; allowed is low < high in every coordinate. Exchange the bounds or move them apart."
            )
        with np.errstate(over="ignore"):
            too_wide = ~np.isfinite(highs - lows)
        if too_wide.any():
            _, where = _first(too_wide)
            raise InputError(f"high{where} - low{where} overflows; allowed are widths up to 1.8e308. Use a smaller box.")
        self._set(low=frozen(lows), high=frozen(highs))

    @classmethod
    def around(cls, theta0: npt.ArrayLike, radius: npt.ArrayLike) -> Box:
        """Return the box {theta : |theta_i − theta0_i| <= radius_i for all i}.

        Parameters
        ----------
        theta0 : (P,) array_like
            Centre, finite.
        radius : float or (P,) array_like
            Half-width, finite and > 0.

        Raises
        ------
        InputError, InputTypeError
            If a shape does not fit, the radius is not positive, or so small that it is lost in rounding.
        """
        center = as_real("theta0", theta0)
        if center.ndim != 1 or center.size == 0:
            raise InputError(f"theta0 has shape {center.shape}; allowed is (P,). For one bound use Box(low, high).")
        check_finite("theta0", center)
        half = scalar_or_vector("radius", radius)
        if half.ndim == 1 and half.shape != center.shape:
            raise InputError(f"radius has shape {half.shape}; allowed are a number and {center.shape}.")
        if not (half > 0.0).all():
            place, where = _first(half <= 0.0)
            raise InputError(f"radius{where} is {float(half[place])!r}; allowed are numbers > 0.")
        with np.errstate(over="ignore"):  # Box names the bound that overflows
            low, high = center - half, center + half
        if not (low < high).all():
            place, where = _first(low >= high)
            raise InputError(
                f"the radius is lost in the rounding of theta0{where} = {float(center[place])!r}, so the box "
                "would be flat; allowed are radii that change theta0. Use a larger radius."
            )
        return cls(low, high)

    @classmethod
    def per_layer(cls, net: MLP, radii: Sequence[float]) -> Box:
        """Return the box {theta : |theta_i| <= radii[l] for every weight and bias of layer l}.

        Parameters
        ----------
        net : MLP
            The network.
        radii : sequence of float
            One radius > 0 per layer, the output layer included.

        Raises
        ------
        InputError, InputTypeError
            If there is not one positive number per layer.
        """
        layers = net_of(net)
        try:
            values = list(radii)
        except TypeError:
            values = []
        if isinstance(radii, str | bytes) or len(values) != layers.num_layers:
            raise InputError(
                f"radii is {shown(radii)}; allowed is a list with one number > 0 per layer, {layers.num_layers} for {layers!r}."
            )
        half = np.empty(layers.num_params)
        for number, ((weight, bias), radius) in enumerate(zip(layers.layer_slices, values, strict=True)):
            half[weight.start : weight.stop if bias is None else bias.stop] = positive_float(f"radii[{number}]", radius)
        return cls(-half, half)

    @classmethod
    def scaled(cls, net: MLP, c: float = 1.0) -> Box:
        """Return the box {theta : |theta_i| <= c/sqrt(fan_in) for every weight and bias of a layer}.

        These are the bounds that common initialisations draw from, with c = 1, and the scale on which wide networks move.

        Parameters
        ----------
        net : MLP or Objective
            The network; fan_in is the number of inputs of a layer.
        c : float
            Finite and > 0.

        Raises
        ------
        InputError, InputTypeError
            If c is not a positive number or ``net`` has no layers.

        Examples
        --------
        >>> import pyhess as ph
        >>> ph.Box.scaled(ph.MLP([4, 1, 1], bias=False), 2.0).high
        array([1., 1., 1., 1., 2.])
        """
        layers = net_of(net)
        factor = positive_float("c", c)
        return cls.per_layer(layers, [factor / math.sqrt(fan_in) for fan_in in layers.widths[:-1]])

    @property
    def size(self) -> int | None:
        return None if self.low.ndim == 0 else int(self.low.size)

    def to_dict(self) -> dict[str, Any]:
        return {"kind": self.kind, "low": self.low.tolist(), "high": self.high.tolist()}

    def _with_size(self, size: int) -> Box:
        return Box(np.full(size, float(self.low)), np.full(size, float(self.high)))

    def interior_point(self) -> FloatArray:
        return np.array(self.low + 0.5 * (self.high - self.low))

    def enclosures(self) -> tuple[Region, ...]:
        return (self,)

    def _chord(self, theta: FloatArray, direction: FloatArray) -> tuple[float, float]:
        moving = direction != 0.0
        first = (self.low - theta)[moving] / direction[moving]
        second = (self.high - theta)[moving] / direction[moving]
        return float(np.minimum(first, second).max()), float(np.maximum(first, second).min())

    def _slack(self, theta: FloatArray) -> float:
        return float(np.minimum(theta - self.low, self.high - theta).min())

    def _project(self, theta: FloatArray) -> FloatArray:
        clipped: FloatArray = np.clip(theta, self.low, self.high)
        return clipped

    def _sample(self, count: int, rng: np.random.Generator) -> FloatArray:
        # Rounding cannot lead out: u <= 1 - 2^-53, so the rounded (high - low) u is at most the exact width.
        return rng.uniform(self.low, self.high, (count, int(self.low.size)))

    def _defining_vectors(self) -> tuple[FloatArray, ...]:
        return self.low, self.high

    def _is_even(self) -> npt.NDArray[np.bool_]:
        return np.equal(self.low, -self.high)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Box) and np.array_equal(self.low, other.low) and np.array_equal(self.high, other.high)

    def __hash__(self) -> int:
        return hash((self.low.tobytes(), self.high.tobytes()))

    def __reduce__(self) -> tuple[Any, ...]:
        return Box, (self.low, self.high)

    def __repr__(self) -> str:
        of_size = "" if self.size is None else f", P={self.size}"
        if _is_constant(self.low) and _is_constant(self.high):
            return f"Box({float(self.low.flat[0])!r}, {float(self.high.flat[0])!r}{of_size})"
        widths = self.high - self.low
        return f"Box(widths {float(widths.min()):g} to {float(widths.max()):g}{of_size})"


class Ball(Region):
    """The ball {theta : |theta − center| <= radius} in the Euclidean norm.

    Parameters
    ----------
    center : float or (P,) array_like
        Centre, finite; a number stands for that number in every coordinate.
    radius : float
        Finite and > 0.

    Attributes
    ----------
    center : (P,) float64, read-only
        Of shape () while the centre is given by a number.
    radius : float

    Raises
    ------
    InputError
        If the radius is not positive or a value is not finite.
    InputTypeError
        If the radius is missing or no number, or the centre is not real.

    Examples
    --------
    >>> import numpy as np, pyhess as ph
    >>> ph.Ball(radius=2.0).project(np.array([3.0, 4.0]))
    array([1.2, 1.6])
    """

    kind = "ball"
    center: FloatArray
    radius: float

    def __init__(self, center: npt.ArrayLike = 0.0, radius: float | None = None) -> None:
        if radius is None:
            raise InputTypeError("the radius of the ball is missing; pass a number > 0: Ball(center=0.0, radius=2.0).")
        self._set(center=frozen(scalar_or_vector("center", center)), radius=positive_float("radius", radius))

    @property
    def size(self) -> int | None:
        return None if self.center.ndim == 0 else int(self.center.size)

    def to_dict(self) -> dict[str, Any]:
        return {"kind": self.kind, "center": self.center.tolist(), "radius": self.radius}

    def _with_size(self, size: int) -> Ball:
        return Ball(np.full(size, float(self.center)), self.radius)

    def interior_point(self) -> FloatArray:
        return np.array(self.center)

    def enclosures(self) -> tuple[Region, ...]:
        return (self,)

    def box_around(self) -> Box:
        """Return the smallest box that contains the ball, rounded outwards."""
        return Box(np.nextafter(self.center - self.radius, -np.inf), np.nextafter(self.center + self.radius, np.inf))

    def _chord(self, theta: FloatArray, direction: FloatArray) -> tuple[float, float]:
        offset = theta - self.center
        squared, along = float(direction @ direction), float(offset @ direction)
        root = math.sqrt(max(0.0, along**2 + squared * (self.radius**2 - float(offset @ offset))))
        return (-along - root) / squared, (-along + root) / squared

    def _slack(self, theta: FloatArray) -> float:
        with np.errstate(over="ignore"):  # an infinite distance is outside
            return self.radius - _norm(theta - self.center)

    def _project(self, theta: FloatArray) -> FloatArray:
        if self._slack(theta) >= 0.0:
            return theta.copy()
        offset = 0.5 * theta - 0.5 * self.center  # halves, because the difference itself may overflow
        direction = offset / _norm(offset)
        point: FloatArray = self.center + self.radius * direction
        # Rounding may leave the point outside: pull it in, by more each time, since the rounding of a large
        # centre can be as coarse as the radius. At pull = 1 it is the centre.
        pull = 2.0**-52
        while self._slack(point) < 0.0:
            point = self.center + (1.0 - pull) * self.radius * direction
            pull *= 2.0
        return point

    def _sample(self, count: int, rng: np.random.Generator) -> FloatArray:
        size = int(self.center.size)
        direction = rng.standard_normal((count, size))
        # A Gaussian direction is uniform on the sphere, and P(|theta - center| <= r) = (r / radius)^P.
        length = self.radius * rng.random(count) ** (1.0 / size) / np.linalg.norm(direction, axis=1)
        points: FloatArray = self.center + direction * length[:, None]
        for row in points:
            row[:] = self._project(row)  # moves points by rounding errors only
        return points

    def _defining_vectors(self) -> tuple[FloatArray, ...]:
        return (self.center,)

    def _is_even(self) -> npt.NDArray[np.bool_]:
        return np.equal(self.center, 0.0)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Ball) and np.array_equal(self.center, other.center) and self.radius == other.radius

    def __hash__(self) -> int:
        return hash((self.center.tobytes(), self.radius))

    def __reduce__(self) -> tuple[Any, ...]:
        return Ball, (self.center, self.radius)

    def __repr__(self) -> str:
        of_size = "" if self.size is None else f", P={self.size}"
        center = repr(float(self.center.flat[0])) if _is_constant(self.center) else "…"
        return f"Ball(center={center}, radius={self.radius!r}{of_size})"


def _first(bad: npt.NDArray[np.bool_]) -> tuple[tuple[int, ...], str]:
    """Return the index of the first True entry and how to write it behind a name."""
    if bad.ndim == 0:
        return (), ""
    place = int(np.argmax(bad))
    return (place,), f"[{place}]"


def _is_constant(array: FloatArray) -> bool:
    return bool((array == array.flat[0]).all())


def _norm(x: FloatArray) -> float:
    """Return |x| without overflow or underflow of the squares."""
    with np.errstate(over="ignore", under="ignore"):
        plain = float(np.linalg.norm(x))
    if 1e-140 < plain < math.inf:
        return plain
    largest = float(np.abs(x).max())
    if largest == 0.0 or largest == math.inf:
        return largest
    return largest * float(np.linalg.norm(x / largest))

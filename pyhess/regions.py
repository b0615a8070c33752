"""Convex sets of parameters: boxes and balls."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ._checks import as_real, as_rng, as_vector, check_finite, positive_float, positive_int
from .errors import InputError, InputTypeError
from .model import MLP

FloatArray = npt.NDArray[np.float64]

_ODD = ("tanh", "identity")


def _size_of(net: Any) -> int:
    """P of a network, an objective or a plain number."""
    return positive_int("num_params", getattr(net, "num_params", net))


class Region(ABC):
    """A convex set Theta with non-empty interior.

    A region given by scalars fits networks of any size; ``bind`` fixes the size.
    """

    kind: str

    @property
    @abstractmethod
    def size(self) -> int | None:
        """P, or None while the region is given by scalars."""

    @abstractmethod
    def _with_size(self, size: int) -> Region: ...

    @abstractmethod
    def _slack(self, theta: FloatArray) -> float:
        """How far inside theta lies: positive inside, zero on the boundary, negative outside."""

    @abstractmethod
    def _project(self, theta: FloatArray) -> FloatArray: ...

    @abstractmethod
    def _sample(self, count: int, rng: np.random.Generator) -> FloatArray: ...

    @abstractmethod
    def _transformed(self, net: MLP, swap: tuple[int, int, int] | None, flip: tuple[int, int] | None) -> bool: ...

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """A JSON-safe description."""

    def bind(self, net: Any) -> Region:
        """The region for a network, an objective or a number of parameters.

        Raises
        ------
        InputError
            If the region is given by vectors of another length.
        """
        size = _size_of(net)
        if self.size is None:
            return self._with_size(size)
        if self.size != size:
            raise InputError(f"the region has {self.size} coordinates but the network {size} parameters; they must agree.")
        return self

    def _bound_to(self, theta: npt.ArrayLike) -> tuple[Region, FloatArray]:
        flat = as_real("theta", theta)
        if flat.ndim != 1 or flat.size == 0:
            raise InputError(f"theta has shape {flat.shape}; allowed is (P,).")
        region = self.bind(flat.size)
        return region, as_vector("theta", flat, flat.size)

    def contains(self, theta: npt.ArrayLike, *, atol: float = 0.0) -> bool:
        """Is theta (P,) in the set, up to ``atol``?"""
        region, point = self._bound_to(theta)
        return region._slack(point) >= -atol

    def interior_contains(self, theta: npt.ArrayLike) -> bool:
        """Is theta (P,) in the interior?"""
        region, point = self._bound_to(theta)
        return region._slack(point) > 0.0

    def project(self, theta: npt.ArrayLike) -> FloatArray:
        """The point of the set nearest to theta (P,)."""
        region, point = self._bound_to(theta)
        return region._project(point)

    def sample(self, num_samples: int, net: Any = None, *, rng: Any = None) -> FloatArray:
        """Uniform samples (S, P); a region given by scalars needs ``net`` (a network, an objective or P)."""
        count = positive_int("num_samples", num_samples)
        if net is None and self.size is None:
            raise InputError("this region is given by scalars and does not know the number of parameters; use region.sample(S, net).")
        region = self if net is None else self.bind(net)
        return region._sample(count, as_rng(rng))

    def is_permutation_symmetric(self, net: MLP) -> bool:
        """Is the set the same after any exchange of two hidden units of a layer?"""
        region = self.bind(net)
        hidden = enumerate(net.widths[1:-1])
        return all(region._transformed(net, (l, 0, j), None) for l, width in hidden for j in range(1, width))

    def is_sign_symmetric(self, net: MLP) -> bool:
        """Are all hidden activations odd, and is the set the same after flipping the sign of any hidden unit?"""
        if any(a not in _ODD for a in net.activations):
            return False
        region = self.bind(net)
        return all(region._transformed(net, None, (l, j)) for l, width in enumerate(net.widths[1:-1]) for j in range(width))


def _apply(net: MLP, theta: FloatArray, swap: tuple[int, int, int] | None, flip: tuple[int, int] | None) -> FloatArray:
    """theta after exchanging units (layer, i, j) or flipping the sign of unit (layer, j)."""
    out = theta.copy()
    layers = net.unpack(out)
    if swap is not None:
        layer, i, j = swap
        (w, b), (w_next, _) = layers[layer], layers[layer + 1]
        w[[i, j]] = w[[j, i]]
        w_next[:, [i, j]] = w_next[:, [j, i]]
        if b is not None:
            b[[i, j]] = b[[j, i]]
    if flip is not None:
        layer, j = flip
        (w, b), (w_next, _) = layers[layer], layers[layer + 1]
        w[j] *= -1.0
        w_next[:, j] *= -1.0
        if b is not None:
            b[j] *= -1.0
    return out


class Box(Region):
    """{theta : low <= theta <= high}.

    Parameters
    ----------
    low, high : float or (P,) array_like
        Bounds, finite, low < high in every coordinate.

    Examples
    --------
    >>> import numpy as np, pyhess as ph
    >>> ph.Box(-0.5, 0.5).contains(np.zeros(3))
    True
    >>> ph.Box.around(np.ones(2), 0.25).low
    array([0.75, 0.75])
    """

    kind = "box"

    def __init__(self, low: npt.ArrayLike, high: npt.ArrayLike) -> None:
        bounds = []
        for name, value in (("low", low), ("high", high)):
            array = as_real(name, value)
            if array.ndim > 1 or array.size == 0:
                raise InputError(f"{name} has shape {array.shape}; allowed are a number and (P,).")
            check_finite(name, np.atleast_1d(array))
            bounds.append(array)
        if bounds[0].ndim == 1 and bounds[1].ndim == 1 and bounds[0].shape != bounds[1].shape:
            raise InputError(f"low has shape {bounds[0].shape} and high {bounds[1].shape}; they must agree.")
        lows, highs = (np.array(b) for b in np.broadcast_arrays(*bounds))
        if not (lows < highs).all():
            first = int(np.argmax(~(lows < highs).ravel()))
            lo, hi = float(lows.ravel()[first]), float(highs.ravel()[first])
            what = "is empty" if lo > hi else "has an empty interior"
            raise InputError(f"the box {what}: low[{first}] = {lo:g}, high[{first}] = {hi:g}; low < high is needed in every coordinate.")
        for array in (lows, highs):
            array.flags.writeable = False
        self.low: FloatArray = lows
        self.high: FloatArray = highs

    @classmethod
    def around(cls, theta0: npt.ArrayLike, radius: npt.ArrayLike) -> Box:
        """{|theta − theta0| <= radius} coordinate by coordinate; radius a positive number or (P,)."""
        center = as_real("theta0", theta0)
        if center.ndim != 1 or center.size == 0:
            raise InputError(f"theta0 has shape {center.shape}; allowed is (P,).")
        check_finite("theta0", center)
        half = as_real("radius", radius)
        if half.ndim > 1 or (half.ndim == 1 and half.shape != center.shape):
            raise InputError(f"radius has shape {half.shape}; allowed are a number and {center.shape}.")
        check_finite("radius", np.atleast_1d(half))
        if not (half > 0.0).all():
            raise InputError(f"radius is {float(half.min()):g}; allowed are numbers > 0.")
        low, high = center - half, center + half
        if not (low < high).all():
            raise InputError("radius is below the rounding of theta0, so the box would be empty; use a larger radius.")
        return cls(low, high)

    @classmethod
    def per_layer(cls, net: MLP, radii: Sequence[float]) -> Box:
        """{|theta_i| <= radii[l] for every weight and bias of layer l}."""
        values = list(radii)
        if len(values) != net.num_layers:
            raise InputError(f"radii has {len(values)} entries; allowed is one per layer, {net.num_layers}.")
        half = np.empty(net.num_params)
        for number, ((weight, bias), radius) in enumerate(zip(net.layer_slices, values, strict=True)):
            half[weight] = positive_float(f"radii[{number}]", radius)
            if bias is not None:
                half[bias] = half[weight.start]
        return cls(-half, half)

    @property
    def size(self) -> int | None:
        return None if self.low.ndim == 0 else int(self.low.size)

    def _with_size(self, size: int) -> Box:
        return Box(np.full(size, float(self.low)), np.full(size, float(self.high)))

    def _slack(self, theta: FloatArray) -> float:
        return float(np.minimum(theta - self.low, self.high - theta).min())

    def _project(self, theta: FloatArray) -> FloatArray:
        clipped: FloatArray = np.clip(theta, self.low, self.high)
        return clipped

    def _sample(self, count: int, rng: np.random.Generator) -> FloatArray:
        return rng.uniform(self.low, self.high, (count, int(self.low.size)))

    def _transformed(self, net: MLP, swap: tuple[int, int, int] | None, flip: tuple[int, int] | None) -> bool:
        low, high = _apply(net, self.low, swap, flip), _apply(net, self.high, swap, flip)
        return bool((np.minimum(low, high) == self.low).all() and (np.maximum(low, high) == self.high).all())

    def to_dict(self) -> dict[str, Any]:
        return {"kind": self.kind, "low": self.low.tolist(), "high": self.high.tolist()}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Box) and np.array_equal(self.low, other.low) and np.array_equal(self.high, other.high)

    def __hash__(self) -> int:
        return hash((self.low.tobytes(), self.high.tobytes()))

    def __reduce__(self) -> tuple[Any, ...]:
        return Box, (self.low, self.high)

    def __repr__(self) -> str:
        if self.size is None or (np.ptp(self.low) == 0.0 and np.ptp(self.high) == 0.0):
            of_size = "" if self.size is None else f", P={self.size}"
            return f"Box({float(self.low.flat[0]):g}, {float(self.high.flat[0]):g}{of_size})"
        return f"Box(P={self.size}, widths {float((self.high - self.low).min()):g} to {float((self.high - self.low).max()):g})"


class Ball(Region):
    """{theta : |theta − center| <= radius} in the Euclidean norm.

    Parameters
    ----------
    center : float or (P,) array_like
        Centre; a number stands for that number in every coordinate.
    radius : float
        Radius > 0.

    Examples
    --------
    >>> import numpy as np, pyhess as ph
    >>> ph.Ball(radius=2.0).project(np.array([3.0, 4.0]))
    array([1.2, 1.6])
    """

    kind = "ball"

    def __init__(self, center: npt.ArrayLike = 0.0, radius: float | None = None) -> None:
        if radius is None:
            raise InputTypeError("Ball needs a radius: Ball(center=0.0, radius=2.0).")
        array = np.array(as_real("center", center))
        if array.ndim > 1 or array.size == 0:
            raise InputError(f"center has shape {array.shape}; allowed are a number and (P,).")
        check_finite("center", np.atleast_1d(array))
        array.flags.writeable = False
        self.center: FloatArray = array
        self.radius = positive_float("radius", radius)

    @property
    def size(self) -> int | None:
        return None if self.center.ndim == 0 else int(self.center.size)

    def _with_size(self, size: int) -> Ball:
        return Ball(np.full(size, float(self.center)), self.radius)

    def _slack(self, theta: FloatArray) -> float:
        return float(self.radius - np.linalg.norm(theta - self.center))

    def _project(self, theta: FloatArray) -> FloatArray:
        if self._slack(theta) >= 0.0:
            return theta.copy()
        offset = theta - self.center
        point: FloatArray = self.center + offset * (self.radius / np.linalg.norm(offset))
        # Rounding may leave the point an ulp outside; pull it in until it is not.
        shrink = 1.0
        while self._slack(point) < 0.0:
            shrink -= 2.0**-52
            point = self.center + offset * (shrink * self.radius / np.linalg.norm(offset))
        return point

    def _sample(self, count: int, rng: np.random.Generator) -> FloatArray:
        size = int(self.center.size)
        direction = rng.standard_normal((count, size))
        length = self.radius * rng.random(count) ** (1.0 / size) / np.linalg.norm(direction, axis=1)
        points: FloatArray = self.center + direction * length[:, None]
        return np.stack([self._project(point) for point in points])

    def _transformed(self, net: MLP, swap: tuple[int, int, int] | None, flip: tuple[int, int] | None) -> bool:
        return np.array_equal(_apply(net, self.center, swap, flip), self.center)

    def to_dict(self) -> dict[str, Any]:
        return {"kind": self.kind, "center": self.center.tolist(), "radius": self.radius}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Ball) and np.array_equal(self.center, other.center) and self.radius == other.radius

    def __hash__(self) -> int:
        return hash((self.center.tobytes(), self.radius))

    def __reduce__(self) -> tuple[Any, ...]:
        return Ball, (self.center, self.radius)

    def __repr__(self) -> str:
        if self.size is None:
            return f"Ball(center={float(self.center):g}, radius={self.radius:g})"
        center = f"{float(self.center[0]):g}" if np.ptp(self.center) == 0.0 else "…"
        return f"Ball(center={center}, radius={self.radius:g}, P={self.size})"


def as_region(region: object) -> Region:
    """``region`` if it is a convex set that pyhess knows."""
    if not isinstance(region, Region):
        raise InputTypeError(
            f"region is {region!r} ({type(region).__name__}); it must be one convex set: pyhess.Box(low, high) or "
            "pyhess.Ball(center, radius). Unions of sets are not convex; treat their parts one by one."
        )
    return region

"""Convex sets given by the user's own projection."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from .._checks import as_real, as_vector, check_finite, frozen, positive_float, shown
from .._region import FloatArray, Region
from ..errors import InputError, InputTypeError
from ._walk import walk
from .simple import Ball, Box

#: Distances below this share of the region's size count as none: the user's projection rounds too.
_TOL = 1e-9
#: A point is interior if the set still holds it after moving so much further from the centre, relatively.
_MARGIN = 1e-6
_SAMPLES = 24
_BISECTIONS = 30


class Convex(Region):
    """A closed convex set of parameters known by its projection theta -> nearest point.

    The projection is tried on random points around the centre when the region is made: it must return finite vectors, leave
    the centre and points slightly off it alone, be idempotent, ``P(P(x)) = P(x)``, and non-expansive,
    ``|P(x) - P(y)| <= |x - y|``, as every projection onto a convex set is. Such samples can refute, not prove.

    Parameters
    ----------
    project : callable
        Takes theta (P,) and returns the point (P,) of the set nearest to it. It must not keep or change its argument.
    center : (P,) array_like
        A point in the interior.
    size : float
        About the largest distance from the centre to points of the set in a coordinate: the scale of the search's starts.
    enclosure : Box or Ball, optional
        A region that contains the set. Certificates are computed for it; without one there is no upper end of the bracket.

    Raises
    ------
    InputError
        If ``project`` fails one of the tests, which the message names, or an argument does not fit.
    InputTypeError
        If an argument is of another kind.

    Examples
    --------
    The half of a ball with a non-negative first coordinate:

    >>> import numpy as np, pyhess as ph
    >>> ball = ph.Ball(radius=1.0)
    >>> def project(theta):
    ...     return ball.project(np.concatenate([np.maximum(theta[:1], 0.0), theta[1:]]))
    >>> half = ph.Convex(project, center=[0.5, 0.0], size=1.0, enclosure=ball)
    >>> half.contains([0.3, 0.4]), half.contains([-0.3, 0.4])
    (True, False)
    """

    kind = "convex"
    center: FloatArray
    extent: float
    enclosure: Region | None
    _function: Callable[[FloatArray], Any]
    _name: str

    def __init__(
        self,
        project: Callable[[FloatArray], Any],
        center: npt.ArrayLike,
        size: float,
        *,
        enclosure: Region | None = None,
    ) -> None:
        if not callable(project):
            raise InputTypeError(f"project is {shown(project)}; pass a function that maps theta (P,) to the nearest point.")
        middle = as_real("center", center)
        if middle.ndim != 1 or middle.size == 0:
            raise InputError(f"center has shape {middle.shape}; allowed is (P,), a point in the interior.")
        check_finite("center", middle)
        if enclosure is not None and not isinstance(enclosure, Box | Ball):
            raise InputTypeError(f"enclosure is {shown(enclosure)}; allowed are Box, Ball and None.")
        bound = None if enclosure is None else enclosure.bind(middle.size)
        extent = positive_float("size", size)
        name = getattr(project, "__qualname__", type(project).__name__)
        self._set(_function=project, _name=name, center=frozen(middle), extent=extent, enclosure=bound)
        self._try_out()

    @property
    def size(self) -> int | None:
        return int(self.center.size)

    def _with_size(self, size: int) -> Region:
        raise AssertionError("a user's region knows its size")

    def _image(self, theta: FloatArray) -> FloatArray:
        found = as_vector("the result of project", self._function(theta.copy()), self.center.size)
        return np.array(found)

    def _try_out(self) -> None:
        rng = np.random.default_rng(17)
        tol = _TOL * self.extent
        # Points inside, near the boundary and far outside.
        spread = self.extent * 10.0 ** rng.uniform(-1.0, 1.0, (_SAMPLES, 1))
        points = self.center + spread * rng.standard_normal((_SAMPLES, self.center.size)) / math.sqrt(self.center.size) * 2.0
        images = np.array([self._image(point) for point in points])
        for image in images:
            moved = float(np.linalg.norm(self._image(image) - image))
            if moved > tol:
                raise InputError(
                    f"project is not idempotent: applied to a point it returned, it moves it by {moved:.3g}; allowed is a "
                    "function that returns the nearest point of one set, and so leaves points of the set alone."
                )
        for i in range(_SAMPLES):
            for j in range(i):
                given, found = np.linalg.norm(points[i] - points[j]), np.linalg.norm(images[i] - images[j])
                if found > given + tol:
                    raise InputError(
                        f"project is not non-expansive: it takes two points at distance {given:.6g} to points at distance "
                        f"{found:.6g}; allowed is the projection onto a convex set, which never does. Is the set convex, and the "
                        "point returned the nearest?"
                    )
        # The nearest point x* of x satisfies (x - x*)'(y - x*) <= 0 for all y of a convex set.
        for point, image in zip(points, images, strict=True):
            across = float(((images - image) @ (point - image)).max())
            if across > tol * (1.0 + float(np.linalg.norm(point - image))) * 4.0:
                raise InputError(
                    "project does not return the nearest point: another point of the set lies on the given point's side of it; "
                    "allowed is the Euclidean projection onto a convex set."
                )
        for direction in rng.standard_normal((_SAMPLES, self.center.size)):
            nearby = self.center + 1e3 * tol * direction / np.linalg.norm(direction)
            if float(np.linalg.norm(self._image(nearby) - nearby)) > tol:
                raise InputError(
                    "center does not lie in the interior of the set: project moves a point next to it; allowed is a point with "
                    "room on all sides."
                )
        if self.enclosure is not None:
            outside = [image for image in images if not self.enclosure.contains(image, atol=tol)]
            if outside:
                raise InputError(
                    f"{self.enclosure!r} does not contain the set: project returned a point outside of it; allowed are "
                    "enclosures that contain every point of the set."
                )

    def to_dict(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "project": self._name,
            "center": self.center.tolist(),
            "size": self.extent,
            "enclosure": None if self.enclosure is None else self.enclosure.to_dict(),
        }

    def interior_point(self) -> FloatArray:
        return np.array(self.center)

    def enclosures(self) -> tuple[Region, ...]:
        return () if self.enclosure is None else (self.enclosure,)

    def frames(self) -> tuple[Region, ...]:
        return (Box.around(self.center, self.extent), Ball(self.center, self.extent * math.sqrt(self.center.size)))

    def _slack(self, theta: FloatArray) -> float:
        tol = _TOL * self.extent
        distance = float(np.linalg.norm(self._image(theta) - theta))
        if distance > tol:
            return tol - distance
        further = theta + _MARGIN * (theta - self.center)
        if float(np.linalg.norm(self._image(further) - further)) > tol:
            return 0.0
        return max(_MARGIN * float(np.linalg.norm(theta - self.center)), tol)

    def _project(self, theta: FloatArray) -> FloatArray:
        return self._image(theta)

    def _chord(self, theta: FloatArray, direction: FloatArray) -> tuple[float, float]:
        ends = []
        for sign in (-1.0, 1.0):
            inside, outside = 0.0, 4.0 * self.extent * math.sqrt(self.center.size) / float(np.linalg.norm(direction))
            for _ in range(_BISECTIONS):
                middle = 0.5 * (inside + outside)
                point = theta + sign * middle * direction
                held = float(np.linalg.norm(self._image(point) - point)) <= _TOL * self.extent
                inside, outside = (middle, outside) if held else (inside, middle)
            ends.append(sign * inside)
        return ends[0], ends[1]

    def _sample(self, count: int, rng: np.random.Generator) -> FloatArray:
        return walk(self.center, self._chord, self._project, count, rng)

    def _defining_vectors(self) -> tuple[FloatArray, ...]:
        return ()

    def _is_even(self) -> npt.NDArray[np.bool_]:
        return np.zeros(self.center.size, dtype=np.bool_)

    def is_permutation_symmetric(self, net: Any) -> bool:
        """Tell whether the set is known to stay the same when hidden units are exchanged: never, a projection does not tell."""
        self.bind(net)
        return False

    def is_sign_symmetric(self, net: Any) -> bool:
        """Tell whether the set is known to stay the same when hidden units change sign: never, a projection does not tell."""
        self.bind(net)
        return False

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Convex) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def _key(self) -> tuple[Any, ...]:
        return self._function, self.center.tobytes(), self.extent, self.enclosure

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (self._function, self.center, self.extent, self.enclosure)

    def __repr__(self) -> str:
        return f"Convex({self._name}, P={self.center.size})"


class DescribedConvex(Convex):
    """A user's set of which only the description is left, as files keep it; whatever needs its projection raises InputError.

    Parameters
    ----------
    name : str
        Of the projection.
    center, size, enclosure
        As for :class:`Convex`, taken at their word.
    """

    def __init__(self, name: str, center: npt.ArrayLike, size: float, enclosure: Region | None) -> None:
        middle = as_real("center", center)
        if middle.ndim != 1 or middle.size == 0:
            raise InputError(f"center has shape {middle.shape}; allowed is (P,), a point in the interior.")
        check_finite("center", middle)
        if not isinstance(name, str):
            raise InputTypeError(f"project is {shown(name)}; allowed is the name of a function.")
        if enclosure is not None and not isinstance(enclosure, Box | Ball):
            raise InputTypeError(f"enclosure is {shown(enclosure)}; allowed are Box, Ball and None.")
        bound = None if enclosure is None else enclosure.bind(middle.size)
        self._set(_name=name, center=frozen(middle), extent=positive_float("size", size), enclosure=bound)

    def matches(self, region: Region) -> bool:
        """Tell whether a region may be the one described: the same centre, size and enclosure, and a projection."""
        return (
            isinstance(region, Convex)
            and not isinstance(region, DescribedConvex)
            and np.array_equal(region.center, self.center)
            and region.extent == self.extent
            and region.enclosure == self.enclosure
        )

    def may_contain(self, theta: FloatArray) -> bool:
        """Tell whether theta (P,) lies in the enclosure, if there is one, as closely as projections are taken to be."""
        return self.enclosure is None or self.enclosure.contains(theta, atol=_TOL * self.extent)

    def _image(self, theta: FloatArray) -> FloatArray:
        raise InputError(
            f"the projection {self._name!r} of this region is a Python function, which no file can hold; allowed is to make the "
            "region anew and pass it: load_witness(path, region=region)."
        )

    def _key(self) -> tuple[Any, ...]:
        return self._name, self.center.tobytes(), self.extent, self.enclosure

    def __reduce__(self) -> tuple[Any, ...]:
        return DescribedConvex, (self._name, self.center, self.extent, self.enclosure)


def _rebuild(project: Callable[[FloatArray], Any], center: FloatArray, size: float, enclosure: Region | None) -> Convex:
    return Convex(project, center, size, enclosure=enclosure)

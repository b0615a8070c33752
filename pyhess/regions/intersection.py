"""Intersections of regions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from .._checks import shown
from .._region import FloatArray, Region
from ..errors import InputError, InputTypeError
from ._dykstra import dykstra, nearest_in_box_and_ball, pulled_inside
from ._walk import walk
from .ordered import Ordered
from .simple import Ball, Box

#: Dykstra's iterations end when they move by less than this share of the region's size.
_TOL = 1e-14
#: Attempts per point at drawing from a part and keeping what lies in all.
_TRIES = 20


class Intersection(Region):
    """The points that lie in several regions at once.

    ``psi`` over an intersection is at least that over each part, so every certificate of a part is one of the intersection.
    Points are projected by solving one equation for a box and a ball, by Dykstra's algorithm otherwise. Samples are uniform where
    drawing from a part and keeping what lies in all of them succeeds, and come from hit-and-run walks otherwise.

    Parameters
    ----------
    parts : sequence of Box, Ball, Ordered or Intersection
        The regions. Their common points must have an interior, judged by whether one is found.

    Attributes
    ----------
    parts : tuple of Region

    Raises
    ------
    InputError
        If there is no part, sizes disagree, or no interior point is found.
    InputTypeError
        If a part is of another kind.

    Examples
    --------
    >>> import pyhess as ph
    >>> region = ph.Intersection([ph.Box(-1.0, 1.0), ph.Ball(radius=1.25)])
    >>> region.project([3.0, 3.0 / 4.0])
    array([1.  , 0.75])
    """

    kind = "intersection"
    parts: tuple[Region, ...]
    _sets: tuple[Region, ...]  # what is projected onto: one box at most, balls, ordered cells
    _inside: FloatArray | None

    def __init__(self, parts: Sequence[Region]) -> None:
        if isinstance(parts, Region | str) or not isinstance(parts, Sequence):
            raise InputTypeError(f"parts is {shown(parts)}; pass a list of regions, Intersection([first, second]).")
        flat: list[Region] = []
        for number, part in enumerate(parts):
            if isinstance(part, Intersection):
                flat.extend(part.parts)
            elif isinstance(part, Box | Ball | Ordered):
                flat.append(part)
            else:
                raise InputTypeError(f"parts[{number}] is {shown(part)}; allowed are Box, Ball, Ordered and Intersection.")
        if not flat:
            raise InputError("parts is empty; allowed are one or more regions.")
        sizes = sorted({part.size for part in flat if part.size is not None})
        if len(sizes) > 1:
            raise InputError(f"the parts have {sizes} coordinates; allowed are equal numbers. Bind them to one network.")
        if sizes:
            flat = [part.bind(sizes[0]) for part in flat]
        self._set(parts=tuple(flat), _sets=_merged(flat), _inside=None)
        if sizes:
            self._set(_inside=self._find_inside())
        else:
            self._with_size(1)  # parts given by scalars that do not meet in one dimension meet in none

    @property
    def size(self) -> int | None:
        return self.parts[0].size

    def _with_size(self, size: int) -> Intersection:
        return Intersection([part.bind(size) for part in self.parts])

    def to_dict(self) -> dict[str, Any]:
        return {"kind": self.kind, "parts": [part.to_dict() for part in self.parts]}

    def interior_point(self) -> FloatArray:
        assert self._inside is not None, "a bound intersection has an interior point"
        return np.array(self._inside)

    def enclosures(self) -> tuple[Region, ...]:
        found: list[Region] = []
        for part in self._sets:
            found.extend(part.enclosures())
        boxes = [part for part in found if isinstance(part, Box)]
        balls = [part for part in found if isinstance(part, Ball)]
        if boxes and balls:
            # The box around a ball cuts off what the ball does not reach.
            boxes = [_common_box([*boxes, *(ball.box_around() for ball in balls)])]
        return (*boxes, *balls)

    def _find_inside(self) -> FloatArray:
        """A point inside all parts, far from the boundaries if that is easily had."""
        centres = [part.interior_point() for part in self._sets]
        near = self._nearest(np.mean(centres, axis=0))
        # The mean of boundary points on many sides lies inside.
        rng = np.random.default_rng(11)
        reach = max(float(np.abs(part._project(near + 1e3 * np.ones(near.size)) - near).max()) for part in self._sets)
        around = [self._nearest(near + reach * rng.choice([-1.0, 1.0], near.size)) for _ in range(16)]
        opposite = [self._nearest(2.0 * near - point) for point in around]
        candidates = [near, *centres, np.mean([*around, *opposite], axis=0)]
        best = max(candidates, key=self._slack)
        if not self._slack(best) > 0.0:
            raise InputError(
                "the parts have no common interior, or one too thin to be found; allowed are parts that overlap in more than "
                "their boundaries. Enlarge a part or move the parts together."
            )
        return np.array(best)

    def _slack(self, theta: FloatArray) -> float:
        return min(part._slack(theta) for part in self._sets)

    def _nearest(self, theta: FloatArray) -> FloatArray:
        boxes = [part for part in self._sets if isinstance(part, Box)]
        balls = [part for part in self._sets if isinstance(part, Ball)]
        if len(self._sets) == 1:
            return self._sets[0]._project(theta)
        if len(self._sets) == 2 and len(boxes) == len(balls) == 1:
            box, ball = boxes[0], balls[0]
            return nearest_in_box_and_ball(theta, box.low, box.high, ball.center, ball.radius)
        scale = max(float(np.abs(theta).max()), 1e-300)
        return dykstra([part._project for part in self._sets], theta, _TOL * scale)

    def _project(self, theta: FloatArray) -> FloatArray:
        if self._slack(theta) >= 0.0:
            return theta.copy()
        return pulled_inside(self._nearest(theta), self.interior_point(), self._slack)

    def _chord(self, theta: FloatArray, direction: FloatArray) -> tuple[float, float]:
        chords = [part._chord(theta, direction) for part in self._sets]
        return max(first for first, _ in chords), min(last for _, last in chords)

    def _sample(self, count: int, rng: np.random.Generator) -> FloatArray:
        kept: list[FloatArray] = []
        for part in self._sets:
            drawn = part._sample(min(_TRIES * count, 4096), rng)
            found = [theta for theta in drawn if self._slack(theta) >= 0.0]
            if len(found) >= count:
                kept = found[:count]
                break
        if kept:
            return np.array(kept)
        return walk(self.interior_point(), self._chord, self._project, count, rng)

    def _defining_vectors(self) -> tuple[FloatArray, ...]:
        return tuple(vector for part in self.parts for vector in part._defining_vectors())

    def _is_even(self) -> npt.NDArray[np.bool_]:
        even: npt.NDArray[np.bool_] = np.logical_and.reduce([part._is_even() for part in self.parts])
        return even

    def is_permutation_symmetric(self, net: Any) -> bool:
        return all(part.is_permutation_symmetric(net) for part in self.parts)

    def is_sign_symmetric(self, net: Any) -> bool:
        return all(part.is_sign_symmetric(net) for part in self.parts)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Intersection) and self.parts == other.parts

    def __hash__(self) -> int:
        return hash(self.parts)

    def __reduce__(self) -> tuple[Any, ...]:
        return Intersection, (list(self.parts),)

    def __repr__(self) -> str:
        return f"Intersection([{', '.join(repr(part) for part in self.parts)}])"


def _merged(parts: Sequence[Region]) -> tuple[Region, ...]:
    """The parts with all boxes made one."""
    boxes = [part for part in parts if isinstance(part, Box)]
    others = tuple(part for part in parts if not isinstance(part, Box))
    return (_common_box(boxes), *others) if boxes else others


def _common_box(boxes: Sequence[Box]) -> Box:
    low, high = boxes[0].low, boxes[0].high
    for box in boxes[1:]:
        low, high = np.maximum(low, box.low), np.minimum(high, box.high)
    if not (low < high).all():
        place = np.unravel_index(int(np.argmax(low >= high)), low.shape)
        where = f"coordinate {int(place[0])}" if place else "every coordinate"
        raise InputError(
            f"the parts have no common interior: in {where} the largest low is {float(low[place])!r}, the smallest high "
            f"{float(high[place])!r}; allowed are parts that overlap in more than their boundaries. Enlarge a part or move the "
            "parts together."
        )
    return Box(low, high)

"""Search for a concave ReLU kink in the interior of a convex region.

A datum can be put on the kink of a unit by a small change of the unit's own weights, or found on the way from a point
where the pre-activation is positive to one where it is negative. There the unit outputs zero for that datum, so its
outgoing weights do not influence the datum's loss, in a network of any depth. They are free to be chosen against the
loss gradient that arrives from above, which makes the kink as concave as the region allows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from time import monotonic
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from .._threads import blas_single_thread
from ..regions import Box, Region
from .kink_calculus import (
    IndexArray,
    KinkSet,
    jump_along,
    near_kinks,
    output_sensitivities,
    relu_layers,
    row_gradient,
    trace,
    unit_gradient,
)
from .kinks import KinkWitness, differences_confirm, surface_of
from .reference_jet import layer_factors, split
from .roundoff import FloatArray

if TYPE_CHECKING:
    from ..objective import Objective

_DEFAULT_SECONDS = 10.0
_MAX_ROUNDS = 48
#: Pairs of datum and unit still tried after the first verified witness, in the hope of a larger jump.
_EXTRA_TRIES = 24
#: How much larger the jump of a new witness must be to be worth its verification.
_GAIN = 1.05
_RANKED_ROWS = 1024
_PAIRS_PER_RANKING = 3
#: How far boundary points are pulled towards a random interior point.
_PULL = 0.02
#: The same while crossing a kink, which may pass close by the boundary.
_APPROACH = (0.02, 0.02, 1e-3, 1e-6, 1e-10)


def find_kink(
    obj: Objective,
    region: Region,
    *,
    rng: np.random.Generator,
    deadline: float | None = None,
    cancel: npt.NDArray[np.int32] | None = None,
    starts: Sequence[FloatArray] = (),
    on_found: Callable[[KinkWitness], object] | None = None,
) -> KinkWitness | None:
    """Look for a concave kink and return the verified witness with the largest jump found, or None.

    Parameters
    ----------
    obj : Objective
        A network with at least one ReLU layer; for others the result is None at once.
    region : Region
        Bound region.
    rng : numpy.random.Generator
        Source of the points to begin with.
    deadline : float, optional
        Time on `time.monotonic` to stop at; ten seconds from now by default.
    cancel : (1,) int32 array, optional
        Stops the search soon after it becomes non-zero.
    starts : sequence of (P,) arrays
        Points to begin with, besides random ones.
    on_found : callable, optional
        Called with every witness that is better than those before, so that an exception does not lose it.

    Returns
    -------
    KinkWitness or None
        None means that nothing was found with this effort, not that there is nothing.
    """
    if not relu_layers(obj):
        return None
    limit = monotonic() + _DEFAULT_SECONDS if deadline is None else deadline

    def stop() -> bool:
        return monotonic() >= limit or (cancel is not None and bool(cancel[0]))

    with blas_single_thread():
        return _Search(obj, region, rng, stop, on_found).run(starts)


@dataclass(eq=False)
class _Search:
    obj: Objective
    region: Region
    rng: np.random.Generator
    stop: Callable[[], bool]
    on_found: Callable[[KinkWitness], object] | None = None
    best: KinkWitness | None = None
    centre: FloatArray = field(init=False)

    def __post_init__(self) -> None:
        self.centre = self.region.interior_point()

    def run(self, starts: Sequence[FloatArray]) -> KinkWitness | None:
        extra = _EXTRA_TRIES
        for theta in self._points(starts):
            for layer in reversed(relu_layers(self.obj)):
                for datum, unit in self._ranked_pairs(theta, layer):
                    if self.stop() or extra == 0:
                        return self.best
                    self._try(theta, datum, layer, unit)
                    extra -= self.best is not None
        return self.best

    def _points(self, starts: Sequence[FloatArray]) -> Iterator[FloatArray]:
        """Given starts, then in turn: random interior points at several radii, and points with extreme outputs."""
        for start in starts:
            yield self._inside(start)
        for index in range(_MAX_ROUNDS):
            theta = self._random_point((0.9, 0.5, 0.2)[index % 3])
            yield theta
            if index % 2:
                yield self._extreme_output(theta)

    def _random_point(self, radius: float) -> FloatArray:
        sample = self.region.sample(1, rng=self.rng)[0]
        return np.asarray(self.centre + radius * (sample - self.centre))

    def _inside(self, theta: FloatArray, pull: float = _PULL) -> FloatArray:
        """Project, then move a little towards a random interior point: never symmetric, never on the boundary."""
        point = self.region.project(theta)
        return np.asarray(point + pull * (self._random_point(0.5) - point))

    def _boundary(self, theta: FloatArray, direction: FloatArray) -> FloatArray:
        """The boundary point that going from theta very far in a direction and projecting back leads to."""
        length = float(np.linalg.norm(direction))
        if length == 0.0:
            return theta
        reach = 4.0 * float(np.linalg.norm(theta - self.centre)) + 10.0 * self._size()
        # Components much smaller than the largest would not reach a box's faces by projection alone.
        target = np.sign(direction) if isinstance(self.region, Box) else direction / length
        return self.region.project(theta + reach * target)

    def _size(self) -> float:
        if isinstance(self.region, Box):
            return float(np.max(self.region.high - self.region.low))
        return float(np.linalg.norm(self.region.project(self.centre + 1e8) - self.centre))

    def _extreme_output(self, theta: FloatArray) -> FloatArray:
        """Drive one output of one datum up or down: residuals of either sign make concave kinks."""
        net = self.obj.net
        datum = int(self.rng.integers(self.obj.data.num_samples))
        output = int(self.rng.integers(net.widths[-1]))
        sign = float(self.rng.choice((-1.0, 1.0)))
        for _ in range(3):
            uphill = unit_gradient(self.obj, theta, datum, net.num_layers - 1, output)
            theta = self._inside(self._boundary(theta, sign * uphill))
        return theta

    def _ranked_pairs(self, theta: FloatArray, layer: int) -> list[tuple[int, int]]:
        """Choose (datum, unit) pairs near their kink and pairs that promise a large jump."""
        count = self.obj.data.num_samples
        rows = np.arange(count)
        if count > _RANKED_ROWS:
            rows = np.sort(self.rng.choice(count, _RANKED_ROWS, replace=False))
        point = trace(self.obj, theta, rows)
        delta = output_sensitivities(self.obj, theta, rows, point)[layer + 1]
        best_beta = self._lowest_beta(theta, layer, delta) * self.obj.data.normalized_weights[rows, None]
        fed = np.linalg.norm(point.a[layer], axis=1) + (1.0 if self.obj.net.bias else 0.0)
        distance = np.abs(point.s[layer]) / np.maximum(fed, 1e-300)[:, None]
        promise = best_beta * fed[:, None]
        hopeless = fed[:, None] == 0.0
        by_distance = np.where(hopeless | (promise >= 0.0), np.inf, distance)
        by_promise = np.where(hopeless, np.inf, promise)
        balanced = np.where(hopeless, np.inf, promise / (distance + np.median(distance) + 1e-300))
        chosen: dict[tuple[int, int], None] = {}
        for score in (by_distance, balanced, by_promise):
            for flat in np.argsort(score, axis=None)[:_PAIRS_PER_RANKING]:
                row, unit = divmod(int(flat), score.shape[1])
                if np.isfinite(score[row, unit]):
                    chosen[int(rows[row]), unit] = None
        return list(chosen)

    def _lowest_beta(self, theta: FloatArray, layer: int, delta: FloatArray) -> FloatArray:
        """Smallest slope of each datum's loss in each unit's activation over the outgoing weights the region allows."""
        factor = float(layer_factors(self.obj.net, np.float64)[layer + 1])
        if isinstance(self.region, Box):
            low = split(self.obj.net, self.region.low)[layer + 1][0]
            high = split(self.obj.net, self.region.high)[layer + 1][0]
            return np.asarray(factor * (np.maximum(delta, 0.0) @ low + np.minimum(delta, 0.0) @ high))
        room = max(0.0, self._size() - float(np.linalg.norm(theta - self.centre)))
        w = split(self.obj.net, theta)[layer + 1][0]
        return np.asarray(factor * (delta @ w - room * np.linalg.norm(delta, axis=1, keepdims=True)))

    def _try(self, theta: FloatArray, datum: int, layer: int, unit: int) -> None:
        """Put the datum on the kink, choose the outgoing weights, and keep the witness if it is verified and better."""
        placed = self._onto_kink(theta, datum, layer, unit)
        if placed is None:
            return
        data: IndexArray = np.array([datum])
        for _ in range(3):
            for candidate in (*self._with_concave_output(placed, data, layer, unit), placed):
                kinks = near_kinks(self.obj, candidate)
                shared = surface_of(kinks, layer, unit, datum)
                if shared is None:
                    continue
                if len(shared) != len(data):
                    # More data share the surface: choose the outgoing weights for their sum.
                    data, placed = shared, candidate
                    break
                if self._accept(candidate, shared, layer, unit, kinks):
                    return
            else:
                return

    def _accept(self, theta: FloatArray, data: IndexArray, layer: int, unit: int, kinks: list[KinkSet]) -> bool:
        """Choose the steepest of three directions across the kink; keep the witness if differences confirm it."""
        point = trace(self.obj, theta, data)
        own = row_gradient(self.obj, point, 0, layer, unit)
        full = unit_gradient(self.obj, theta, int(data[0]), layer, unit)
        directions = [full, own]
        bias = self.obj.net.layer_slices[layer][1]
        if bias is not None:
            only_bias = np.zeros_like(own)
            only_bias[bias.start + unit] = 1.0
            directions.append(only_bias)
        options = []
        for direction in directions:
            v = direction / np.linalg.norm(direction)
            options.append((jump_along(self.obj, theta, v, data, kinks), v))
        jump, v = min(options, key=lambda option: option[0])
        if not jump < (0.0 if self.best is None else _GAIN * self.best.jump):
            return False
        if not differences_confirm(self.obj, self.region, theta, v, jump, kinks):
            return False
        theta, v = theta.copy(), v.copy()
        theta.setflags(write=False)
        v.setflags(write=False)
        rate = abs(float(full @ v))
        self.best = KinkWitness(theta, tuple(int(i) for i in data), layer, unit, v, jump, jump / rate, self.obj, self.region)
        if self.on_found is not None:
            self.on_found(self.best)
        return True

    def _with_concave_output(self, theta: FloatArray, data: IndexArray, layer: int, unit: int) -> Iterator[FloatArray]:
        """Points whose unit's outgoing weights stand against the loss gradient, the datum still on its kink."""
        point = trace(self.obj, theta, data)
        delta = output_sensitivities(self.obj, theta, data, point)[layer + 1]
        rates = np.linalg.norm(point.a[layer], axis=1) + (1.0 if self.obj.net.bias else 0.0)
        gradient = (self.obj.data.normalized_weights[data] * rates) @ delta
        if not gradient.any():
            return
        weights = self.obj.net.layer_slices[layer + 1][0]
        shape = (self.obj.net.widths[layer + 2], self.obj.net.widths[layer + 1])
        direction = np.zeros(self.obj.num_params)
        direction[weights].reshape(shape)[:, unit] = -gradient
        # Most of the way from an interior point to a point of a convex region is interior.
        ends = [theta + (1.0 - _PULL) * (self._boundary(theta, direction) - theta)]
        if not isinstance(self.region, Box):
            step = self._size() / float(np.linalg.norm(direction))
            ends += [theta + share * step * direction for share in (0.5, 0.2, 0.05, 0.01)]
        for end in ends:
            if self.region.interior_contains(end):
                corrected = self._shift_onto_kink(end, int(data[0]), layer, unit)
                if corrected is not None:
                    yield corrected

    def _onto_kink(self, theta: FloatArray, datum: int, layer: int, unit: int) -> FloatArray | None:
        """Move theta to a point of the interior where the datum is on the unit's kink."""
        placed = self._shift_onto_kink(theta, datum, layer, unit)
        if placed is not None:
            return placed
        here = self._pre_activation(theta, datum, layer, unit)
        other = theta
        for pull in _APPROACH:
            uphill = unit_gradient(self.obj, other, datum, layer, unit)
            other = self._inside(self._boundary(other, -np.sign(here) * uphill), pull)
            if here * self._pre_activation(other, datum, layer, unit) < 0.0:
                break
        else:
            return None
        # The segment between the two points lies in the interior and crosses the kink.
        near, far = 0.0, 1.0
        for _ in range(60):
            share = 0.5 * (near + far)
            value = self._pre_activation(theta + share * (other - theta), datum, layer, unit)
            near, far = (share, far) if here * value > 0.0 else (near, share)
        return self._shift_onto_kink(theta + near * (other - theta), datum, layer, unit)

    def _shift_onto_kink(self, theta: FloatArray, datum: int, layer: int, unit: int) -> FloatArray | None:
        """Change the unit's own weights and bias, or its bias alone, as little as possible; None if that leaves the interior."""
        point = trace(self.obj, theta, np.array([datum]), layer)
        own = row_gradient(self.obj, point, 0, layer, unit)
        directions = [own]
        bias = self.obj.net.layer_slices[layer][1]
        if bias is not None:
            directions.append(np.where(np.arange(own.size) == bias.start + unit, own, 0.0))
        for direction in directions:
            squared = float(direction @ direction)
            moved = theta
            for _ in range(3):  # the later passes remove the rounding error of the first
                if squared > 0.0:
                    s = self._pre_activation(moved, datum, layer, unit)
                    moved = moved - (s / squared) * direction
            if squared > 0.0 and self.region.interior_contains(moved):
                return moved
        return None

    def _pre_activation(self, theta: FloatArray, datum: int, layer: int, unit: int) -> float:
        return float(trace(self.obj, theta, np.array([datum]), layer).s[layer][0, unit])

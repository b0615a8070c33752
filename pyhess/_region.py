"""What every convex set of parameters can do."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from ._checks import Immutable, as_real, as_rng, as_vector, positive_float, positive_int, shown
from .errors import InputError, InputTypeError
from .model import MLP

FloatArray = npt.NDArray[np.float64]

#: Hidden activations with phi(−s) = −phi(s).
_ODD = ("tanh", "identity")


def size_of(net: Any) -> int:
    """Return P of a network, an objective or a plain number."""
    size = getattr(net, "num_params", net)
    if not isinstance(size, int | np.integer):
        raise InputTypeError(f"net is {shown(net)}; pass an MLP, an Objective or the number of parameters.")
    return positive_int("num_params", size)


def net_of(net: Any) -> MLP:
    """Return the network itself, or that of an objective."""
    inner = getattr(net, "net", net)
    if not isinstance(inner, MLP):
        raise InputTypeError(f"net is {shown(net)}; pass an MLP or an Objective, which know their layers.")
    return inner


def hidden_units(net: MLP, array: npt.NDArray[Any]) -> Iterator[npt.NDArray[Any]]:
    """Yield, for every hidden layer, the entries of array (P,) that belong to its units, one row per unit.

    A unit's row holds its row of W^l, its bias b^l and its column of W^{l+1}.
    """
    places = zip(net.layer_slices[:-1], net.layer_slices[1:], net.widths[1:-1], strict=True)
    for (weight, bias), (next_weight, _), width in places:
        parts = [array[weight].reshape(width, -1), array[next_weight].reshape(-1, width).T]
        if bias is not None:
            parts.append(array[bias].reshape(width, 1))
        yield np.hstack(parts)


def units_agree(net: MLP, vectors: Iterable[npt.NDArray[Any]]) -> bool:
    """Tell whether the hidden units of a layer have the same entries in each of the vectors (P,)."""
    return all(bool((units == units[:1]).all()) for vector in vectors for units in hidden_units(net, vector))


def holds_for_units(net: MLP, flags: npt.NDArray[np.bool_]) -> bool:
    """Tell whether the flags (P,) are true for everything that belongs to hidden units."""
    return all(bool(units.all()) for units in hidden_units(net, flags))


class Region(Immutable, ABC):
    """A convex set of parameters theta (P,) with a non-empty interior.

    A region given by scalars fits networks of any size; :meth:`bind` fixes the size. Regions are immutable
    and hashable. Methods that take theta bind a region given by scalars to theta's length.
    """

    kind: str

    @property
    @abstractmethod
    def size(self) -> int | None:
        """P, or None while the region is given by scalars."""

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-safe description, which `pyhess.regions.region_from_dict` reads."""

    @abstractmethod
    def _with_size(self, size: int) -> Region: ...

    @abstractmethod
    def _slack(self, theta: FloatArray) -> float:
        """Return how far inside theta lies: positive inside, zero on the boundary, negative outside."""

    @abstractmethod
    def _project(self, theta: FloatArray) -> FloatArray: ...

    @abstractmethod
    def _sample(self, count: int, rng: np.random.Generator) -> FloatArray: ...

    @abstractmethod
    def _defining_vectors(self) -> tuple[FloatArray, ...]:
        """Return the vectors (P,) whose permutation permutes the set."""

    @abstractmethod
    def _is_even(self) -> npt.NDArray[np.bool_]:
        """Return for each coordinate (P,) whether the set is the same after a change of its sign."""

    @abstractmethod
    def interior_point(self) -> FloatArray:
        """Return a point (P,) in the interior of a region that knows P: its centre, where it has one."""

    def enclosures(self) -> tuple[Region, ...]:
        """Return boxes and balls that contain the region, for which certificates can be computed; none where none is known.

        What holds for every theta of one of them holds for every theta of the region.
        """
        return ()

    def frames(self) -> tuple[Region, ...]:
        """Boxes and balls about the size of the region, from which starts are projected into it."""
        return self.enclosures()

    @abstractmethod
    def _chord(self, theta: FloatArray, direction: FloatArray) -> tuple[float, float]:
        """Return (t0, t1), t0 <= 0 <= t1 up to rounding, with theta + t direction in the set for t between, theta in it."""

    def bind(self, net: Any) -> Region:
        """Return the region with its arrays at full length P.

        Parameters
        ----------
        net : MLP, Objective or int
            What has P parameters, or P.

        Returns
        -------
        Region

        Raises
        ------
        InputError
            If the region is given by vectors of another length.
        InputTypeError
            If ``net`` does not tell a number of parameters.
        """
        size = size_of(net)
        if self.size is None:
            return self._with_size(size)
        if self.size != size:
            raise InputError(
                f"the region has {self.size} coordinates but {size} parameters are asked for; allowed are "
                "equal numbers. Give the region by scalars, or by vectors of the network's num_params."
            )
        return self

    def _bound_to(self, theta: npt.ArrayLike) -> tuple[Region, FloatArray]:
        flat = as_real("theta", theta)
        if flat.ndim != 1 or flat.size == 0:
            raise InputError(f"theta has shape {flat.shape}; allowed is (P,), one flat vector per call.")
        return self.bind(flat.size), as_vector("theta", flat, flat.size)

    def contains(self, theta: npt.ArrayLike, *, atol: float = 0.0) -> bool:
        """Tell whether theta (P,) lies in the set, its boundary included, or within ``atol`` of it.

        For a box, ``atol`` counts in each coordinate; for a ball, as Euclidean distance.

        Raises
        ------
        InputError
            If theta has another shape, a NaN or an infinity, or ``atol`` is negative or not finite.
        """
        margin = positive_float("atol", atol) if atol else 0.0
        region, point = self._bound_to(theta)
        return region._slack(point) >= -margin

    def interior_contains(self, theta: npt.ArrayLike) -> bool:
        """Tell whether theta (P,) lies strictly inside the set."""
        region, point = self._bound_to(theta)
        return region._slack(point) > 0.0

    def project(self, theta: npt.ArrayLike) -> FloatArray:
        """Return the point (P,) of the set nearest to theta (P,), which ``contains`` accepts."""
        region, point = self._bound_to(theta)
        return region._project(point)

    def sample(self, num_samples: int, net: Any = None, *, rng: Any = None) -> FloatArray:
        """Draw points independently and uniformly from the set.

        Parameters
        ----------
        num_samples : int
            S.
        net : MLP, Objective or int, optional
            Needed if the region is given by scalars and so does not know P.
        rng : None, int, SeedSequence or Generator
            Source of randomness.

        Returns
        -------
        thetas : (S, P) float64

        Raises
        ------
        InputError, InputTypeError
            If P is unknown or does not fit, S < 1, or ``rng`` is of another kind.
        """
        count = positive_int("num_samples", num_samples)
        if net is None and self.size is None:
            raise InputError(
                f"{self!r} is given by scalars and does not know the number of parameters; pass the network, "
                "region.sample(S, net), or bind it first, region.bind(net)."
            )
        region = self if net is None else self.bind(net)
        return region._sample(count, as_rng(rng))

    def is_permutation_symmetric(self, net: Any) -> bool:
        """Tell whether the set stays the same when any two hidden units of a layer are exchanged.

        Parameters
        ----------
        net : MLP or Objective
            A unit takes its row of W^l, its bias and its column of W^{l+1} along.
        """
        layers = net_of(net)
        return units_agree(layers, self.bind(layers)._defining_vectors())

    def is_sign_symmetric(self, net: Any) -> bool:
        """Tell whether the sign of any hidden unit can be flipped without changing the set or the function.

        That takes odd activations (tanh, identity) in all hidden layers, and a set that stays the same when
        the unit's row of W^l, its bias and its column of W^{l+1} change sign.

        Parameters
        ----------
        net : MLP or Objective
        """
        layers = net_of(net)
        region = self.bind(layers)
        if any(activation not in _ODD for activation in layers.activations):
            return False
        return holds_for_units(layers, region._is_even())

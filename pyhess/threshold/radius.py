"""How the threshold grows with the region: one bracket per radius, each search started from its neighbours' witnesses."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from time import monotonic
from typing import Any

import numpy as np
import numpy.typing as npt

from .._checks import as_real, as_rng, as_vector, choice, positive_float, positive_int, scalar_or_vector, shown
from ..errors import InputError, InputTypeError, NumericalError
from ..objective import Objective
from ..penalties import L2, Penalty, as_penalty
from ..regions import Ball, Box
from .bracket import Progress, lambda_threshold, status_of
from .radius_table import RadiusPath
from .result import ThresholdResult
from .search import search
from .status import Status
from .warm import CheckedPairs
from .witness import make_witness

FloatArray = npt.NDArray[np.float64]

#: Share of a time limit for the way up; the rest is for the way down.
_UP_SHARE = 0.8
#: Starts of a search on the way down, besides the neighbour's witness.
_DOWN_STARTS = 2
#: Relative gain below which a witness from above is no better.
_SAME = 1e-9


def radius_path(
    obj: Objective,
    radii: Sequence[float] | npt.ArrayLike,
    shape: str = "box",
    *,
    center: npt.ArrayLike = 0.0,
    penalty: Penalty = L2(),  # noqa: B008 - immutable
    rng: Any = None,
    time_limit: float | None = None,
    certificate: str | None = "auto",
    starts: int | None = None,
    progress: Progress | None = None,
) -> RadiusPath:
    """Bracket the threshold on concentric boxes or balls of growing radius.

    ``lam*(r) = max(0, -psi(r)/2)`` with psi(r) the smallest Hessian eigenvalue on ``{|theta_i - center_i| <= r for all i}``
    (``shape="box"``) or ``{|theta - center| <= r}`` (``"ball"``). It never falls as r grows, and without a bound on theta there
    may be no finite threshold: for ½(v w x - y)² on a ball ``lam* = (x² r²/2 + |x y|)/2``.

    Parameters
    ----------
    obj : Objective
        Network, data and loss.
    radii : (R,) array_like
        Radii r > 0, ascending.
    shape : str
        ``"box"`` or ``"ball"``.
    center : float or (P,) array_like
        Common centre; a number stands for that number in every coordinate.
    penalty : Penalty
        As in `lambda_threshold`.
    rng : None, int, numpy.random.SeedSequence or numpy.random.Generator
        Randomness; the same seed gives the same path unless a time limit cuts it short.
    time_limit : float, optional
        Seconds for the whole path. Each radius gets an equal share of what is left.
    certificate : str or None
        Method of `certify` at each radius, None for no upper ends.
    starts : int, optional
        Starts of each search, by default chosen from the cost of an evaluation.
    progress : callable, optional
        Called with the dictionaries of `lambda_threshold`, with ``"radius"``, ``"radii_done"`` and ``"radii_total"`` added.

    Returns
    -------
    RadiusPath
        Ctrl-C does not raise: the radii done so far are returned, ``interrupted`` says so.

    Raises
    ------
    InputError, InputTypeError
        If the radii are not positive, finite and ascending, or another argument does not fit.
    NumericalError
        If certificates and witnesses contradict each other, which would be an error in pyhess.

    Notes
    -----
    On the way up each search starts, besides its own starts, from the witness of the radius before: as it is, which is a point
    of every larger region and makes ``lam_lower`` monotone, and scaled about the centre. On the way down a short search starts
    from the witness of the radius above, scaled and projected; what it finds replaces a worse witness.

    Examples
    --------
    >>> import numpy as np, pyhess as ph
    >>> net = ph.MLP([1, 1, 1], activation="identity", bias=False)
    >>> obj = ph.Objective(net, ph.Dataset(np.array([[1.0]]), np.array([1.0])))
    >>> path = ph.radius_path(obj, [1.0, 2.0, 4.0, 8.0], "ball", rng=7)
    >>> path.lam_lower.round(6)
    array([ 0.75,  1.5 ,  4.5 , 16.5 ])
    >>> path.exponents().round(3)
    array([1.   , 1.585, 1.874])
    """
    if not isinstance(obj, Objective):
        raise InputTypeError(f"obj is a {type(obj).__name__}; pass a pyhess.Objective (network, data and loss).")
    steps = _as_radii(radii)
    kind = choice("shape", shape, ("box", "ball"))
    middle = scalar_or_vector("center", center)
    middle = np.full(obj.num_params, float(middle)) if middle.ndim == 0 else as_vector("center", middle, obj.num_params)
    if progress is not None and not callable(progress):
        raise InputTypeError(f"progress is a {type(progress).__name__}; pass a function that takes a dict, or None.")
    limit = math.inf if time_limit is None else positive_float("time_limit", time_limit)
    path = _Path(
        obj=obj,
        center=middle,
        radii=steps,
        regions=[Box.around(middle, r) if kind == "box" else Ball(middle, r) for r in steps.tolist()],
        penalty=as_penalty(penalty).bind(obj),
        options={"certificate": certificate, "starts": None if starts is None else positive_int("starts", starts)},
        rngs=as_rng(rng).spawn(2 * steps.size),
        limit=limit,
        progress=progress,
    )
    try:
        path.upwards()
        path.downwards()
    except KeyboardInterrupt:
        path.interrupted = True
    return path.table(kind)


def _as_radii(radii: Any) -> FloatArray:
    values = np.array(as_real("radii", radii), dtype=np.float64)
    if values.ndim != 1 or values.size == 0:
        raise InputError(f"radii has shape {values.shape}; allowed is a list of one or more numbers > 0, ascending.")
    for i, value in enumerate(values.tolist()):
        positive_float(f"radii[{i}]", value)
        if i and not value > values[i - 1]:
            raise InputError(
                f"radii[{i}] = {value!r} does not exceed radii[{i - 1}] = {float(values[i - 1])!r}; sort {shown(radii)}."
            )
    values.setflags(write=False)
    return values


@dataclass(eq=False)
class _Path:
    """The state of one path; every step leaves its result here, so that an interrupt loses nothing."""

    obj: Objective
    center: FloatArray
    radii: FloatArray
    regions: list[Box | Ball]
    penalty: Penalty
    options: dict[str, Any]
    rngs: list[np.random.Generator]
    limit: float
    progress: Callable[[dict[str, Any]], object] | None
    began: float = field(default_factory=monotonic)
    results: list[ThresholdResult] = field(default_factory=list)
    interrupted: bool = False

    @property
    def _left(self) -> float:
        return self.limit - (monotonic() - self.began)

    def upwards(self) -> None:
        """A bracket at every radius."""
        total = self.radii.size
        for i, region in enumerate(self.regions):
            share = math.inf
            if math.isfinite(self.limit):
                share = (self._left - (1.0 - _UP_SHARE) * self.limit) / (total - i)
                if share <= 0.0:
                    self.interrupted = True
                    return
            began = monotonic()
            result = lambda_threshold(
                self.obj,
                region,
                self.penalty,
                rng=self.rngs[i],
                time_limit=None if math.isinf(share) else share,
                progress=self._reporter(i),
                warm=self._warm_from_below(i),
                **self.options,
            )
            self.results.append(self._inheriting(result, i))
            if result.stats["interrupted"]:
                self.interrupted = True
                if monotonic() - began < share:  # not its share of the time but Ctrl-C
                    raise KeyboardInterrupt

    def _reporter(self, i: int) -> Progress | None:
        tell = self.progress
        if tell is None:
            return None
        where = {"radius": float(self.radii[i]), "radii_done": i, "radii_total": self.radii.size}
        return lambda state: tell({**state, **where})

    def _warm_from_below(self, i: int) -> CheckedPairs:
        witness = self.results[i - 1].witness if i else None
        if witness is None:
            return []
        pairs: CheckedPairs = [(witness.theta, witness.v), (self._scaled(witness.theta, i - 1, i), witness.v)]
        kink = self.results[i - 1].kink
        return pairs if kink is None else [*pairs, (kink.theta, kink.v)]

    def _scaled(self, theta: FloatArray, i: int, j: int) -> FloatArray:
        moved: FloatArray = self.center + (self.radii[j] / self.radii[i]) * (theta - self.center)
        return moved

    def _inheriting(self, result: ThresholdResult, i: int) -> ThresholdResult:
        """Keep what the smaller region proved, where the larger one's search, cut short or by rounding, fell behind."""
        before = self.results[i - 1] if i else None
        if before is None:
            return result
        if before.kink is not None and result.kink is None and before.kink.verify(self.obj, self.regions[i]):
            result = replace(result, kink=before.kink, lam_lower=math.inf, status=Status.INFINITE)
        if before.witness is None or (result.witness is not None and result.witness.lam_lower >= before.witness.lam_lower):
            return result
        return self._with_witness(result, i, before.witness.theta, before.witness.v)

    def _with_witness(
        self, result: ThresholdResult, i: int, theta: FloatArray, v: FloatArray, gain: float = 0.0
    ) -> ThresholdResult:
        """The result with this pair as its witness, if that proves more, by a relative gain at least."""
        witness = make_witness(self.obj, self.regions[i].bind(self.obj), theta, v, self.penalty)
        if result.witness is not None and not witness.lam_lower > result.witness.lam_lower * (1.0 + gain):
            return result
        lam_lower = max(result.lam_lower, witness.lam_lower)
        return replace(
            result,
            witness=witness,
            psi_upper=witness.eigval,
            lam_lower=lam_lower,
            status=status_of(lam_lower, result.lam_upper, bool(result.stats["interrupted"])),
            stats={**result.stats, "best_family": "neighbouring radius"},
        )

    def downwards(self) -> None:
        """The larger regions' witnesses, brought into the smaller ones, and short searches from there while there is time."""
        for i in range(len(self.results) - 2, -1, -1):
            witness = self.results[i + 1].witness
            if witness is None or self.obj.net.num_layers == 1:
                continue
            pairs: CheckedPairs = [(self._scaled(witness.theta, i + 1, i), witness.v), (witness.theta, witness.v)]
            for theta, _ in pairs:
                self.results[i] = self._with_witness(self.results[i], i, theta, witness.v, _SAME)
            left = self._left
            if left <= 0.0:
                self.interrupted = True
                continue
            found = search(
                self.obj,
                self.regions[i],
                penalty=self.penalty,
                rng=self.rngs[self.radii.size + i],
                time_limit=None if math.isinf(left) else left,
                starts=_DOWN_STARTS,
                warm=pairs,
            )
            self.results[i] = self._with_witness(self.results[i], i, found.theta, found.v, _SAME)
            if found.interrupted:
                self.interrupted = True
                if self._left > 0.0:  # not the time limit but Ctrl-C
                    raise KeyboardInterrupt

    def table(self, shape: str) -> RadiusPath:
        """The path as arrays."""
        for i in range(1, len(self.results)):  # the way down may have found something at a smaller radius
            self.results[i] = self._inheriting(self.results[i], i)
        results = tuple(self.results)
        columns = {
            name: np.array([getattr(result, name) for result in results], dtype=np.float64)
            for name in ("lam_lower", "lam_upper", "psi_upper", "psi_lower")
        }
        # What holds on a region holds on all smaller ones.
        columns["lam_lower"] = np.maximum.accumulate(columns["lam_lower"])
        columns["lam_upper"] = np.minimum.accumulate(columns["lam_upper"][::-1])[::-1]
        columns["psi_upper"] = np.minimum.accumulate(columns["psi_upper"])
        columns["psi_lower"] = np.maximum.accumulate(columns["psi_lower"][::-1])[::-1]
        if (columns["lam_lower"] > columns["lam_upper"]).any():
            i = int(np.argmax(columns["lam_lower"] > columns["lam_upper"]))
            low, high = float(columns["lam_lower"][i]), float(columns["lam_upper"][i])
            raise NumericalError(
                f"at radius {float(self.radii[i])!r} a witness breaks convexity up to lam = {low!r}, but a certificate of this "
                f"or a larger radius claims it from lam = {high!r} on. One of them is wrong: please report this with the problem "
                f"({self.obj!r}, {shape}, radii {self.radii.tolist()})."
            )
        for column in columns.values():
            column.setflags(write=False)
        return RadiusPath(
            radii=self.radii[: len(results)],
            results=results,
            shape=shape,
            interrupted=self.interrupted,
            seconds=monotonic() - self.began,
            **columns,
        )

"""The public question: between which penalty strengths does the objective become convex?"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

import numpy as np

from .._checks import as_rng, positive_float
from .._threads import num_workers
from ..certify import METHODS, Certificate, Certification, StrengthBound, certify, relu_kink_status, strength_bound
from ..certify.limits import raised_after
from ..errors import InputTypeError, NumericalError
from ..objective import Objective
from ..penalties import L2, Penalty, as_penalty
from ..regions import Region, as_region
from .description import describe_problem, describe_rng
from .kink_search import find_kink
from .kinks import KinkWitness
from .linear_models import linear_witness
from .result import ThresholdResult
from .search import SearchResult, search
from .status import Status
from .warm import CheckedPairs, Warm, as_warm
from .witness import Witness, make_witness

Progress = Callable[[dict[str, Any]], object]

#: Relative width of the bracket at which the threshold counts as known.
EXACT_TOLERANCE = 1e-6
#: What allowances for underflow leave of a threshold of zero, with room to spare.
_ZERO = 1e-290
#: Shares of a time limit that the stages before the search may use up.
_KINK_SHARE = 0.25
_CERTIFICATE_SHARE = 0.5
#: Share of the time left that the search may use where branch and bound can improve the upper end afterwards.
_SEARCH_SHARE = 0.5
#: Seconds of a search whose time is over before it begins, with pairs to look at that were brought along.
_LEAST_SECONDS = 1e-3


def lambda_threshold(
    obj: Objective,
    region: Region,
    penalty: Penalty = L2(),  # noqa: B008 - immutable
    *,
    rng: Any = None,
    time_limit: float | None = None,
    certificate: str | None = "auto",
    progress: Progress | None = None,
    starts: int | None = None,
    warm: Warm | None = None,
) -> ThresholdResult:
    """Bracket the smallest lam from which on ``L(theta) + P(theta; lam)`` is convex on a region.

    For the penalties `L2` and `ShiftedL2`, ``lam* = max(0, -psi/2)`` with ``psi = inf over the region of eigval_min(H(theta))``;
    in general ``lam* = inf {lam : H(theta) + diag c(lam) >= 0 for all theta}`` with the penalty's curvature c(lam). The lower end
    comes from a search for a point and direction of the most negative curvature, the upper end from a certified bound of psi
    that holds for every theta of the region.

    Parameters
    ----------
    obj : Objective
        Network, data and loss.
    region : Region
        Convex set of parameters: `Box`, `Ball`, `Ordered`, `Intersection` or `Convex`.
    penalty : Penalty
        `L2` (|theta|² by default, or without biases), `ShiftedL2`, `WeightedL2` or `GeometricL2`.
    rng : None, int, numpy.random.SeedSequence or numpy.random.Generator
        Randomness of the search; the same seed gives the same result unless a time limit cuts it short.
    time_limit : float, optional
        Seconds after which the best result so far is returned (status INTERRUPTED).
    certificate : str or None
        Method of `certify`; ``"auto"`` takes the best of those that apply, None computes no upper end.
    progress : callable, optional
        Called with dictionaries that have a ``"stage"`` key ("kinks", "certificate", "search", "witness") and, during the
        search, its counters.
    starts : int, optional
        Number of starts of the search; by default chosen from the cost of an evaluation.
    warm : (theta, v) or sequence of such pairs, optional
        Starts of the search besides its own, see `search`; for ReLU the search for kinks begins at these points as well.

    Returns
    -------
    ThresholdResult

    Raises
    ------
    InputError, InputTypeError
        If an argument does not fit.
    NumericalError
        If a certificate and a witness contradict each other, which would be an error in pyhess.

    Notes
    -----
    Ctrl-C does not raise: it ends the computation with status INTERRUPTED. The work is ordered so that such a run has as much
    as possible: kinks first (seconds at most), then the certificate, then the search, whose best point so far becomes the
    witness. What was not reached is missing: no certificate means ``lam_upper = inf``, no search ``lam_lower = 0``.
    A result that is settled all the same (INFINITE, EXACT) keeps that status; ``stats["interrupted"]`` tells.

    Examples
    --------
    >>> import numpy as np, pyhess as ph
    >>> net = ph.MLP([1, 1, 1], activation="identity", bias=False)
    >>> obj = ph.Objective(net, ph.Dataset(np.array([[1.0]]), np.array([1.0])))
    >>> t = ph.lambda_threshold(obj, ph.Ball(0.0, 1.5), rng=7)
    >>> round(t.lam_lower, 5)
    1.0625
    >>> t.lam_upper >= t.lam_lower
    True
    """
    if not isinstance(obj, Objective):
        raise InputTypeError(f"obj is a {type(obj).__name__}; pass a pyhess.Objective (network, data and loss).")
    bound = as_region(region).bind(obj)
    asked = as_penalty(penalty).bind(obj)
    limit = None if time_limit is None else positive_float("time_limit", time_limit)
    if certificate is not None and not isinstance(certificate, str):
        raise InputTypeError(f"certificate is {certificate!r}; pass 'auto', the name of a method, or None for no upper end.")
    if progress is not None and not callable(progress):
        raise InputTypeError(f"progress is a {type(progress).__name__}; pass a function that takes a dict, or None.")
    generator = as_rng(rng)
    pairs = as_warm(warm, obj.num_params)
    run = _Run(obj, bound, asked, generator, describe_rng(generator), limit, certificate, progress, starts, pairs)
    if obj.net.num_layers == 1:
        return run.linear_model()
    run.work()
    return run.result()


@dataclass(eq=False)
class _Run:
    """The state of one computation; every stage leaves its finding here, so that an interrupt loses nothing."""

    obj: Objective
    region: Region
    penalty: Penalty
    rng: np.random.Generator
    seed: Any
    time_limit: float | None
    method: str | None
    progress: Progress | None
    starts: int | None
    warm: CheckedPairs
    began: float = field(default_factory=monotonic)
    interrupted: bool = False
    time_limited: bool = False
    relu_kinks: str = "no_relu"
    kink: KinkWitness | None = None
    certification: Certification | None = None
    certificate: Certificate | None = None
    upper: StrengthBound | None = None
    found: SearchResult | None = None
    witness: Witness | None = None
    problem: dict[str, Any] | None = None
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def remaining(self) -> float | None:
        """Seconds left of the time limit."""
        return None if self.time_limit is None else self.time_limit - (monotonic() - self.began)

    def work(self) -> None:
        """Go through the stages; Ctrl-C ends this early but never escapes."""
        try:
            self.problem = describe_problem(self.obj, self.region, self.penalty)
            self._look_for_kinks()
            self._certify()
            self._search()
            self._make_witness()
            self._refine()
        except KeyboardInterrupt:
            self.interrupted = True
            try:
                self._make_witness()
            except KeyboardInterrupt:
                # A second Ctrl-C: the search's point is left without a rigorous evaluation, hence unused.
                self.witness = None

    @contextmanager
    def _stage(self, name: str) -> Iterator[None]:
        if self.progress is not None:
            self.progress({"stage": name})
        start = monotonic()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + monotonic() - start

    def _look_for_kinks(self) -> None:
        if "relu" not in self.obj.net.activations:
            return
        with self._stage("kinks"):
            self.relu_kinks = relu_kink_status(self.obj.net, self.obj.data, self.obj.loss, self.region)[0]
            if self.relu_kinks == "possible":
                deadline = None if self.remaining is None else monotonic() + _KINK_SHARE * self.remaining
                rng = self.rng.spawn(1)[0]
                thetas = [theta for theta, _ in self.warm]
                self.kink = find_kink(self.obj, self.region, rng=rng, deadline=deadline, starts=thetas, on_found=self._keep_kink)

    def _keep_kink(self, kink: KinkWitness) -> None:
        self.kink = kink

    def _certify(self) -> None:
        if self.method is None:
            return
        limit = None if self.remaining is None else _CERTIFICATE_SHARE * self.remaining
        began = monotonic()
        with self._stage("certificate"):
            cancel = np.zeros(1, dtype=np.int32)
            if self.obj.net.num_layers == 1 or self.method not in ("auto", *METHODS):
                self.certificate = certify(self.obj, self.region, method=self.method)
            else:
                self.certification = Certification(self.obj, self.region, cancel, self.progress).roots(self.method, limit)
                self.certificate = self.certification.certificate()
            psi_lower = self.certificate.psi_lower
            with raised_after(cancel, None if limit is None else limit - (monotonic() - began)) as late:
                self.upper = strength_bound(self.obj, self.region, self.penalty, psi_lower, cancel=cancel)
            self.time_limited |= bool(late[0])

    def _refine(self) -> None:
        """Branch and bound for the upper end, now that the witness says how far it can get."""
        left = self.remaining
        if self.certification is None or not self.certification.can_refine or (left is not None and left <= 0.0):
            return
        assert self.method is not None
        psi_upper = None if self.witness is None else self.witness.eigval
        with self._stage("certificate"):
            try:
                self.certification.refine(self.method, left, psi_upper)
            finally:  # Ctrl-C keeps what is proved
                self._take(self.certification.certificate())

    def _take(self, certificate: Certificate) -> None:
        self.certificate = certificate
        better = StrengthBound(self.penalty.sufficient(-certificate.psi_lower), self.penalty.upper_rule)
        if self.upper is None or better.lam_upper < self.upper.lam_upper:
            self.upper = better

    def _search(self) -> None:
        left = self.remaining
        if left is not None and left <= 0.0:
            self.interrupted = True
            if not self.warm:
                return
            left = _LEAST_SECONDS
        elif left is not None and self.certification is not None and self.certification.can_refine:
            left *= _SEARCH_SHARE
        with self._stage("search"):
            self.found = search(
                self.obj,
                self.region,
                penalty=self.penalty,
                rng=self.rng,
                time_limit=left,
                starts=self.starts,
                warm=self.warm or None,
                progress=self._report_search if self.progress is not None else None,
            )
        self.interrupted |= self.found.interrupted

    def _report_search(self, counters: Mapping[str, Any]) -> None:
        assert self.progress is not None
        self.progress({"stage": "search", **counters})

    def _make_witness(self) -> None:
        if self.found is None or self.witness is not None:
            return
        with self._stage("witness"):
            self.witness = make_witness(self.obj, self.region, self.found.theta, self.found.v, self.penalty)

    def linear_model(self) -> ThresholdResult:
        """No hidden layer: the loss is convex in theta, so the threshold is zero."""
        with self._stage("witness"):
            self.witness = linear_witness(self.obj, self.region, self.penalty)
        self._certify()
        return self.result()

    def result(self) -> ThresholdResult:
        """Combine what the stages found."""
        psi_upper = math.inf if self.witness is None else self.witness.eigval
        psi_lower = -math.inf if self.certificate is None else self.certificate.psi_lower
        if self.obj.net.num_layers == 1:
            psi_lower = max(0.0, psi_lower)
        if psi_lower > psi_upper:
            assert self.certificate is not None
            raise NumericalError(
                f"the certificate {self.certificate.method!r} claims that no Hessian on the region has an eigenvalue below "
                f"{psi_lower!r}, but the witness has {psi_upper!r}. One of them is wrong: please report this with the "
                f"problem ({self.obj!r}, {self.region!r}, seed {self.seed!r})."
            )
        kinks_open = self.relu_kinks == "possible"
        lam_lower = 0.0 if self.witness is None else self.witness.lam_lower
        lam_upper = self.penalty.sufficient(-psi_lower)
        if self.upper is not None:
            lam_upper = min(lam_upper, self.upper.lam_upper)
        if lam_lower > lam_upper:
            assert self.upper is not None
            raise NumericalError(
                f"it was proved that {self.penalty!r} makes the objective convex from lam = {lam_upper!r} on "
                f"({self.upper.statement}), but the witness breaks convexity up to {lam_lower!r}. One of them is wrong: please "
                f"report this with the problem ({self.obj!r}, {self.region!r}, seed {self.seed!r})."
            )
        if kinks_open:
            lam_upper = math.inf
        if self.kink is not None:
            lam_lower = math.inf
        return ThresholdResult(
            lam_lower=lam_lower,
            lam_upper=lam_upper,
            psi_upper=psi_upper,
            psi_lower=psi_lower,
            status=status_of(lam_lower, lam_upper, self.interrupted),
            scope="almost everywhere" if kinks_open else "global",
            witness=self.witness,
            kink=self.kink,
            certificate=self.certificate,
            stats=self._stats(),
            problem=self.problem or describe_problem(self.obj, self.region, self.penalty),
        )

    def _stats(self) -> dict[str, Any]:
        stats: dict[str, Any] = {
            "seconds": {**self.seconds, "total": monotonic() - self.began},
            "seed": self.seed,
            "interrupted": self.interrupted,
            "time_limited": self.time_limited or (self.certification is not None and self.certification.out_of_time),
            "relu_kinks": self.relu_kinks,
            "upper_end": "" if self.upper is None else self.upper.statement,
            "num_matvecs": 0,
            "num_jets": 0,
            "num_starts": 0,
        }
        if self.found is not None:
            stats["num_matvecs"] = int(self.found.num_matvecs)
            stats["num_jets"] = int(self.found.num_jets)
            stats["num_starts"] = int(self.found.num_starts)
            stats["threads"] = num_workers(self.found.num_starts)
            stats["best_family"] = self.found.best_family
            stats["families"] = self.found.families
        return stats


def status_of(lam_lower: float, lam_upper: float, interrupted: bool) -> Status:
    """The status of a bracket."""
    if math.isinf(lam_lower):
        return Status.INFINITE
    if lam_upper - lam_lower <= max(EXACT_TOLERANCE * lam_upper, _ZERO) and math.isfinite(lam_upper):
        return Status.EXACT
    if interrupted:
        return Status.INTERRUPTED
    return Status.UNDECIDED if math.isinf(lam_upper) else Status.BRACKETED

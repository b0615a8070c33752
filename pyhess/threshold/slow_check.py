"""Checking a certificate: its bound is proved anew by independent code, and attacked by sampling and by the joint search."""

from __future__ import annotations

import math
from time import monotonic

import numpy as np

from .._claims import Check, Outcome
from ..certify import Certificate, prove
from ..errors import NumericalError, PyhessError
from ..objective import Objective
from ..regions import Ball, Box, Region
from ..regions.convex import DescribedConvex
from .roundoff import FloatArray
from .search import search
from .witness import Witness, make_witness

#: Seconds for the whole check.
DEFAULT_TIME_LIMIT = 60.0
#: Share of the time for the attack, at most so many seconds; parameters up to which Hessians are written out, points tried.
_ATTACK_SHARE, _ATTACK_SECONDS, _DENSE, _POINTS = 0.1, 5.0, 300, 200
_SEED = 20263


def certificate_checks(certificate: Certificate, time_limit: float) -> tuple[tuple[Check, ...], Witness | None]:
    """The checks "attack" and "proof", and the counterexample, if there is one."""
    attack, counterexample = _attack(certificate, min(_ATTACK_SECONDS, _ATTACK_SHARE * time_limit))
    if counterexample is not None:
        return (attack,), counterexample
    return (attack, _proof(certificate, time_limit)), None


def _proof(certificate: Certificate, time_limit: float) -> Check:
    if certificate.psi_lower == -math.inf:
        return Check("proof", Outcome.OPEN, "no bound was finished, so there is nothing to prove")
    row = certificate.table.get(certificate.method)
    found = (None, None, None) if row is None else (row.cover, row.leaves, row.multipliers)
    claim = (certificate.obj, certificate.region, certificate.method, certificate.psi_lower)
    proof = prove(*claim, *found, time_limit=time_limit)
    if proof.proved:
        return Check("proof", Outcome.HOLDS, proof.detail)
    if proof.broken:
        return Check("proof", Outcome.FAILS, proof.detail)
    try:
        certificate.verify()
    except PyhessError as error:
        return Check("proof", Outcome.FAILS, f"{error} (independent check: {proof.detail})")
    detail = f"could not be checked independently: {proof.detail}; recomputed with the fast code, which gives the same bound"
    return Check("proof", Outcome.OPEN, detail)


def _attack(certificate: Certificate, seconds: float) -> tuple[Check, Witness | None]:
    obj, region, claim = certificate.obj, certificate.region, certificate.psi_lower
    parts: tuple[Region, ...] = (region,)
    if isinstance(region, DescribedConvex):
        parts = ()  # its points are not known: there is nothing to attack
    tried, best = 0, math.inf
    for part in parts:
        for witness in _candidates(obj, part, seconds):
            tried += 1
            best = min(best, witness.eigval)
            # A witness's eigval is above the true one by its rounding allowance: below the claim it is a proof.
            if witness.eigval < claim:
                where = np.array2string(witness.theta, threshold=2000, max_line_width=10**6, precision=17, separator=", ")
                detail = f"v'Hv <= {witness.eigval!r} at the point theta = {where} of the region, below {claim!r}"
                return Check("attack", Outcome.FAILS, detail), witness
    if not tried:
        return Check("attack", Outcome.OPEN, "no points of the region could be drawn"), None
    return Check(
        "attack", Outcome.HOLDS, f"the smallest eigenvalue found in {seconds:.3g} s is {best!r}, not below the claim"
    ), None


def _candidates(obj: Objective, region: Region, seconds: float) -> list[Witness]:
    """The worst of the sampled points and corners, and what the joint search finds."""
    rng = np.random.default_rng(_SEED)
    plain = obj if obj.dtype == "float64" else Objective(obj.net, obj.data, loss=obj.loss)
    found = []
    began = monotonic()
    if obj.num_params <= _DENSE:
        lowest: tuple[float, FloatArray, FloatArray] | None = None
        for theta in _points(region, rng):
            if monotonic() - began > 0.5 * seconds:
                break
            try:
                values, vectors = np.linalg.eigh(plain.hessian(theta).to_dense())
            except (NumericalError, np.linalg.LinAlgError):
                continue
            if lowest is None or values[0] < lowest[0]:
                lowest = float(values[0]), theta, vectors[:, 0]
        if lowest is not None:
            found.append((lowest[1], lowest[2]))
    try:
        result = search(plain, region, rng=rng, time_limit=seconds)
        found.append((result.theta, result.v))
    except NumericalError:
        pass  # overflow everywhere: the samples have to do
    witnesses = []
    for theta, v in found:
        try:
            witnesses.append(make_witness(plain, region, theta, v))
        except NumericalError:
            continue
    return witnesses


def _points(region: Region, rng: np.random.Generator) -> list[FloatArray]:
    """Points inside and, for boxes and balls, at corners and on the sphere."""
    points = [region.interior_point(), *region.sample(_POINTS // 2, rng=rng)]
    if isinstance(region, Box):
        corners = np.where(rng.random((_POINTS // 2, region.low.size)) < 0.5, region.low, region.high)
        points += list(corners)
    elif isinstance(region, Ball):
        directions = rng.standard_normal((_POINTS // 2, region.center.size))
        points += [region.project(region.center + 2.0 * region.radius * d / np.linalg.norm(d)) for d in directions]
    order = rng.permutation(len(points))
    return [points[i] for i in order]

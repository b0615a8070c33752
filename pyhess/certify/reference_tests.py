"""Tests that a symmetric matrix, known entry by entry, has no eigenvalue below a number; for checking certificates.

A test that succeeds is a proof in interval arithmetic; NumPy's eigensolvers only guess the vectors that it needs.

    comparison   N_ij >= |A_ij|, N_ii >= -A_ii, d > 0 and N d <= -claim d: then v'Av >= -|v|'N|v| >= claim |v|²;
    middle       A = C ± rad, d > 0, q_i = (rad d)_i / d_i: v'Av >= v'(C - diag q)v, and C - diag q - claim I has positive pivots.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from .reference_interval import Range, Wide, down, up, wide

Flags = npt.NDArray[np.bool_]

_REWEIGHTINGS = 3


def not_below(matrix: Range, claim: float) -> Flags:
    """For matrices (B, P, P): whether it is proved of each that no eigenvalue is below the claim."""
    minus = _comparison(matrix)
    proved: Any = _by_comparison(minus, claim)
    rest = np.flatnonzero(~proved)
    if rest.size:
        proved[rest] = _by_middle(matrix[rest], minus[rest], claim)
    return np.asarray(proved)


def _comparison(matrix: Range) -> Wide:
    """N (B, P, P)."""
    size: Any = np.maximum(matrix.size(), np.swapaxes(matrix.size(), 1, 2))
    places = np.arange(size.shape[-1])
    size[:, places, places] = -matrix.lo[:, places, places]
    return wide(size)


def _by_comparison(minus: Wide, claim: float) -> Flags:
    usable: Any = np.isfinite(minus).all(axis=(1, 2))
    plain = np.where(usable[:, None, None], minus, 0.0).astype(np.float64)
    unit = np.eye(plain.shape[-1])
    proved = np.zeros(len(plain), dtype=np.bool_)
    try:
        # If -claim is above N's largest eigenvalue, (-claim I - N)^-1 has no negative entries, and N d = -claim d - 1.
        d = np.linalg.solve(-claim * unit - plain, np.ones((*plain.shape[:2], 1)))[..., 0]
    except np.linalg.LinAlgError:
        return proved
    positive = usable & np.isfinite(d).all(axis=1) & (d > 0.0).all(axis=1)
    chosen = np.flatnonzero(positive)
    if chosen.size:
        weights = Range(wide(d[chosen]))
        product = (Range(minus[chosen]) * weights[:, None, :]).sum(-1)
        limit = Range(wide(-claim)) * weights
        proved[chosen] = (product.hi <= limit.lo).all(axis=1)
    return proved


def _by_middle(matrix: Range, minus: Wide, claim: float) -> Flags:
    proved = np.zeros(len(minus), dtype=np.bool_)
    usable = np.flatnonzero(np.isfinite(minus).all(axis=(1, 2)) & np.isfinite(matrix.size()).all(axis=(1, 2)))
    if not usable.size:
        return proved
    lo, hi = matrix.lo[usable], matrix.hi[usable]
    middle = 0.25 * (lo + hi + np.swapaxes(lo + hi, 1, 2))
    radius = np.maximum(up(hi - middle), up(middle - lo))
    radius = np.maximum(radius, np.swapaxes(radius, 1, 2))
    guide = -minus[usable].astype(np.float64)
    places = np.arange(guide.shape[-1])
    for _ in range(_REWEIGHTINGS):
        vectors = np.abs(np.linalg.eigh(guide)[1][:, :, 0])
        d = wide(np.maximum(vectors, 1e-9 * vectors.max(axis=1, keepdims=True)))
        taken = up((Range(radius) * Range(d)[:, None, :]).sum(-1).hi / d)
        reduced = Range(middle.copy(), middle.copy())
        reduced.lo[:, places, places] = down(middle[:, places, places] - taken)
        reduced.hi[:, places, places] = reduced.lo[:, places, places]
        proved[usable] |= positive_pivots(reduced, wide(claim))
        if proved[usable].all():
            break
        guide = reduced.lo.astype(np.float64)
    return proved


def positive_pivots(matrix: Range, claim: Any) -> Flags:
    """Whether A - claim I is positive definite for every symmetric A (B, P, P) in the range: elimination with positive pivots."""
    lo, hi = matrix.lo.copy(), matrix.hi.copy()
    places = np.arange(lo.shape[-1])
    shift = np.broadcast_to(wide(claim), lo.shape[:1])[:, None]
    lo[:, places, places], hi[:, places, places] = down(lo[:, places, places] - shift), up(hi[:, places, places] - shift)
    good = np.isfinite(lo).all(axis=(1, 2)) & np.isfinite(hi).all(axis=(1, 2))
    for k in range(lo.shape[-1]):
        good &= lo[:, k, k] > 0.0
        pivot = Range(np.where(good, lo[:, k, k], 1.0), np.where(good, hi[:, k, k], 1.0))[:, None, None]
        column = Range(lo[:, k + 1 :, k], hi[:, k + 1 :, k])
        rest = Range(lo[:, k + 1 :, k + 1 :], hi[:, k + 1 :, k + 1 :]) - column[:, :, None] * column[:, None, :] / pivot
        lo[:, k + 1 :, k + 1 :], hi[:, k + 1 :, k + 1 :] = rest.lo, rest.hi
    return np.asarray(good)


def largest_eigenvalue(matrix: Range) -> Wide:
    """Upper bound of the largest eigenvalue of a symmetric matrix (P, P), infinite if none was proved."""
    middle = (0.5 * (matrix.lo + matrix.hi)).astype(np.float64)
    if not np.isfinite(middle).all():
        return wide(np.inf)
    scale = float(np.abs(middle).sum(axis=1).max(initial=0.0))
    top = float(np.linalg.eigvalsh(0.5 * (middle + middle.T))[-1])
    spread = float(np.max(matrix.hi - matrix.lo, initial=0.0)) * len(middle)
    for step in (1e-13, 1e-11, 1e-9, 1e-6, 1e-3, 1.0):
        guess = wide(top + step * scale + 2.0 * spread + 1e-290)
        if positive_pivots(Range(-matrix.hi[None], -matrix.lo[None]), -guess)[0]:
            return guess
    return wide(np.inf)

"""Slabs of balls for the independent check, with multipliers that are found without any care."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np

import pyhess as ph
from pyhess.certify.reference_changes import Changes
from pyhess.certify.reference_slabs import changes_of
from pyhess.certify.slab_multipliers import Slab, SlabMultipliers
from pyhess.certify.taylor_multipliers import TaylorMultipliers

from .slow_taylor_cases import Array, forms, nothing_lowered, symmetric, tensor

_PARTS = ("head", "half", "tail")


def unit(direction: Array) -> Array:
    """Longer than one by less than 1e-12."""
    return direction / np.linalg.norm(direction) * (1.0 + 1e-14)


def corners(rng: np.random.Generator, changes: Changes, size: int, count: int) -> Array:
    """Changes on the rim: s = ±along and |y| = across."""
    found = rng.standard_normal((count, size))
    if changes.axis is None:
        return float(changes.across) * found / np.linalg.norm(found, axis=1)[:, None]
    d = changes.axis
    if size == 1:
        return float(changes.along) * np.sign(found) * d
    for _ in range(2):  # the second time for what the first has rounded
        found -= np.outer(found @ d, d) / (d @ d)
        found *= float(changes.across) / np.linalg.norm(found, axis=1)[:, None]
    return found + float(changes.along) * np.outer(rng.choice([-1.0, 1.0], count), d)


def narrowed(rows: Array, size: int, d: Array, omega: float) -> Array:
    """M^ (P², P³), with B on l and m."""
    b = np.eye(size) - (1.0 - omega) * np.outer(d, d) / (d @ d)
    return np.einsum("rlmb,lp,mq->rpqb", rows.reshape(-1, size, size, size), b, b, optimize=True).reshape(len(rows), -1)


def own_multipliers(
    obj: ph.Objective,
    centre: Array,
    changes: Changes,
    radius: float,
    share: float,
    lowered: Array | None = None,
    order: int = 3,
) -> tuple[float, Slab]:
    """What some multiples of the identity prove, by dense matrices, and these; without the slab's place."""
    size, d = obj.num_params, changes.axis
    h, rho = float(changes.along), float(changes.across)
    lowered = nothing_lowered(obj) if lowered is None else lowered
    whole, squares = forms(obj, centre, changes, lowered, order=order)
    rows = tensor(whole).transpose(0, 3, 1, 2, 4).reshape(size * size, -1) if order == 3 else np.zeros((size * size, size**3))
    omega, onto, chi = 1.0, np.zeros((size, size)), rho**2
    if d is not None:
        omega = float(np.clip(np.sqrt(0.3 * h / rho), 1e-3, 1.0))
        rows, onto, chi = narrowed(rows, size, d, omega), np.outer(d, d) / (d @ d), rho**2 + h**2 / omega**2
    tau = chi / np.hypot(h, rho) / max(float(np.linalg.norm(rows, 2)), 1e-12)
    kept = (1.0 - share, 1.0 - share, 1.0 - share * (4 - order))
    head, half, tail = (
        (getattr(whole, name) + part * getattr(squares, name)).astype(np.float64) for name, part in zip(_PARTS, kept, strict=True)
    )
    flat = radius**2 * (symmetric(tail.reshape(size * size, -1)) - 0.5 * tau * rows @ rows.T)
    into = radius * half.reshape(size * size, size)
    least, norm = max(0.0, -float(np.linalg.eigvalsh(flat)[0])), float(np.linalg.norm(into, 2)) + 1e-12
    top = symmetric(head) - np.diag((whole.rest + squares.rest / share).sum(axis=1).astype(np.float64))
    found = []
    for lam in least + np.geomspace(0.1, 10.0, 6) * norm:
        for along in (lam,) if d is None else least + np.geomspace(0.3, 100.0, 6) * norm:
            inner = flat + np.kron(lam * (np.eye(size) - onto) + along * onto, np.eye(size))
            floor = (rho / radius) ** 2 * lam + (h / radius) ** 2 * along + (order == 3) * chi**2 / (2.0 * tau)
            schur = top - floor * np.eye(size) - into.T @ np.linalg.solve(inner, into)
            found.append((float(np.linalg.eigvalsh(schur)[0]), lam, along))
    value, lam, along = max(found)
    eye = np.eye(size)
    nothing = np.zeros((size,) * 3)
    taylor = TaylorMultipliers(
        lam * eye, nothing, share, tau if order == 3 else None, np.ones(size), lowered, np.ones(obj.data.num_samples)
    )
    return value, Slab(-1.0, 1.0, along * eye, omega, taylor)


def own_slabs(
    obj: ph.Objective,
    region: ph.Ball,
    direction: Array,
    cuts: Array,
    share: float,
    lowered: Array | None = None,
    order: int = 3,
) -> tuple[Array, SlabMultipliers]:
    """What is proved on each slab (S,), and the multipliers."""
    values, slabs = [], []
    for low, high in pairwise(cuts.tolist()):
        bare = Slab(low, high, np.zeros((0, 0)), 1.0, TaylorMultipliers(*(np.zeros(0),) * 2, 1.0, 1.0, *(np.zeros(0),) * 3))
        centre, changes = changes_of(region, SlabMultipliers(direction, ()), bare)
        value, slab = own_multipliers(obj, centre, changes, float(region.radius), share, lowered, order)
        values.append(value)
        slabs.append(replace(slab, low=low, high=high))
    return np.array(values), SlabMultipliers(direction, tuple(slabs))


def steepest(obj: ph.Objective, centre: Array) -> Array:
    """The direction that the smallest eigenvalue falls fastest in."""
    v = np.linalg.eigh(obj.hessian(centre).to_dense())[1][:, 0]
    step = 1e-5 * np.eye(len(centre))
    slopes = [v @ (obj.hessian(centre + e).to_dense() - obj.hessian(centre - e).to_dense()) @ v for e in step]
    return unit(np.array(slopes))

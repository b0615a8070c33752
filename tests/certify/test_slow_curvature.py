"""The slow check of small boxes with few parameters: its derivatives are right, and it proves what is true and nothing else."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest

import pyhess as ph
from pyhess.certify import certify, prove
from pyhess.certify.reference_curvature import Quadratic, curved_boxes, not_negative
from pyhess.certify.reference_hessian import Problem
from pyhess.certify.reference_interval import Range, wide
from pyhess.certify.reference_jets import derivatives
from pyhess.certify.reference_taylor import small_boxes

Array = Any

#: Widths, activations, loss, biases, parametrisation: every activation and loss, with and without biases.
CASES = [
    ([1, 1, 1], ["tanh"], "squared_error", True, "standard"),
    ([2, 1, 2], ["sigmoid"], "squared_error", False, "ntk"),
    ([1, 2, 1], ["softplus"], "squared_error", False, "standard"),
    ([1, 1, 1, 1], ["gelu", "tanh"], "logistic", True, "ntk"),
    ([3, 1, 1], ["tanh"], "logistic", False, "standard"),
    ([1, 1, 2], ["identity"], "cross_entropy", True, "standard"),
    ([2, 1, 3], ["softplus"], "cross_entropy", False, "standard"),
]


def _objective(case: tuple[list[int], list[str], str, bool, str]) -> ph.Objective:
    widths, names, loss, bias, parametrization = case
    rng = np.random.default_rng(3301)
    y: Any = rng.standard_normal((4, widths[-1])) if loss == "squared_error" else rng.integers(0, max(2, widths[-1]), 4)
    if widths[-1] == 3:
        y = rng.dirichlet(np.ones(3), 4)
    data = ph.Dataset(rng.standard_normal((4, widths[0])), y, rng.uniform(0.5, 2.0, 4))
    return ph.Objective(ph.MLP(widths, names, beta=1.7, bias=bias, parametrization=parametrization), data, loss=loss)


def _along(obj: ph.Objective, theta: Array, u: Array) -> Array:
    """The first two derivatives of H(theta + t u) at t = 0, from its values at Chebyshev's nodes."""
    nodes = np.cos(np.pi * (np.arange(12) + 0.5) / 12)
    values = [obj.hessian(theta + 0.1 * t * u).to_dense().ravel() for t in nodes]
    found = np.linalg.solve(np.vander(nodes, increasing=True), values)
    return (found[1] / 0.1).reshape(theta.size, -1), (2.0 * found[2] / 0.01).reshape(theta.size, -1)


@pytest.mark.parametrize("case", CASES)
def test_derivatives_are_those_of_the_hessian(case: tuple[list[int], list[str], str, bool, str]) -> None:
    obj = _objective(case)
    rng = np.random.default_rng(3307)
    theta = rng.standard_normal(obj.num_params)
    found = derivatives(Problem.of(obj), wide(theta)[None], wide(theta)[None], (2, 3, 4))
    assert max(float((x.hi - x.lo).max()) for x in found) < 1e-15
    second, third, fourth = (x.lo[0].astype(float) for x in found)
    assert second == pytest.approx(obj.hessian(theta).to_dense(), abs=1e-14)
    for axes in ((0, 2, 1, 3), (2, 3, 0, 1)):
        assert np.array_equal(fourth, fourth.transpose(axes))
    for _ in range(6):
        u = rng.standard_normal(theta.size)
        u /= np.linalg.norm(u)
        slope, bend = _along(obj, theta, u)
        assert np.tensordot(u, third, 1) == pytest.approx(slope, abs=1e-9)
        assert np.einsum("k,l,klij->ij", u, u, fourth) == pytest.approx(bend, abs=1e-8)


@pytest.mark.parametrize("case", CASES)
def test_ranges_hold_the_derivatives_and_shrink_with_the_box(case: tuple[list[int], list[str], str, bool, str]) -> None:
    obj = _objective(case)
    problem, rng = Problem.of(obj), np.random.default_rng(3313)
    centre, h = rng.standard_normal((3, obj.num_params)), 0.05 * rng.uniform(0.2, 1.0, obj.num_params)
    orders = (2, 3, 4)
    found = derivatives(problem, wide(centre - h), wide(centre + h), orders)
    signs = np.concatenate([rng.uniform(-1.0, 1.0, (15, *centre.shape)), rng.choice([-1.0, 1.0], (15, *centre.shape))])
    points = wide((centre + h * signs).reshape(-1, obj.num_params))
    for outer, inner in zip(found, derivatives(problem, points, points, orders), strict=True):
        lo, hi = (x.reshape(30, *outer.lo.shape) for x in (inner.lo, inner.hi))
        assert (outer.lo <= hi).all() and (lo <= outer.hi).all()
    for outer, inner in zip(found, derivatives(problem, wide(centre - 0.5 * h), wide(centre + 0.5 * h), orders), strict=True):
        assert float((inner.hi - inner.lo).sum()) <= 0.6 * float((outer.hi - outer.lo).sum())


def _drawn(
    rng: np.random.Generator, size: int, count: int, blur: float, convex: bool
) -> tuple[tuple[Array, ...], tuple[Array, ...]]:
    """Matrix polynomials H + delta_k T_k + delta_k delta_l F_kl / 2 about H's eigenvectors, turned, and the radii of H, T, F.

    Their parts are left out or large at random, so that each decides somewhere; ``convex`` bends the smallest eigenvalue upwards.
    """
    parts = np.array(
        [[0 if i == j == 0 else 1 if i == 0 or j == 0 else 2 if i == j else 3 for j in range(size)] for i in range(size)]
    )
    strengths = rng.choice([0.0, 0.0, 1.0, 4.0], (2, count, 4))
    slope = rng.standard_normal((count, size, size, size)) * strengths[0][:, parts][:, None]
    bend = rng.standard_normal((count, size, size, size, size)) * strengths[1][:, parts][:, None, None]
    slope, bend = slope + np.swapaxes(slope, 2, 3), bend + np.swapaxes(bend, 3, 4)
    bend = bend + np.swapaxes(bend, 1, 2)
    if convex:
        slope, bend = 0.25 * slope, 0.25 * bend
        bend[:, range(size), range(size), 0, 0] += 30.0
    head = np.zeros((count, size, size))
    head[:, range(1, size), range(1, size)] = rng.uniform(1.0, 4.0, (count, size - 1))
    turn = np.linalg.qr(rng.standard_normal((count, size, size)))[0]
    turned = [
        np.swapaxes(turn, 1, 2)[(slice(None), *(None,) * k)] @ x @ turn[(slice(None), *(None,) * k)]
        for k, x in enumerate((head, slope, bend))
    ]
    which = rng.choice(4, (count, 1))
    radii = [blur * (which[:, 0] == k).reshape(-1, *(1,) * (k + 2)) * np.abs(x) for k, x in enumerate(turned)]
    return tuple(0.5 * (x + np.swapaxes(x, -1, -2)) for x in turned), tuple(radii)


def _lowest(parts: tuple[Array, ...], c: Array, h: Array, radius: float | None, rng: np.random.Generator) -> Array:
    """The smallest eigenvalue met in every box c ± h, and in the ball about zero."""
    head, slope, bend = parts
    size = c.shape[1]
    axes = np.stack(np.meshgrid(*[np.linspace(-1.0, 1.0, 21 if size == 2 else 7)] * size), axis=-1).reshape(-1, size)
    unit = np.concatenate([axes, rng.uniform(-1.0, 1.0, (60, size))])
    delta = h[:, None] * unit
    if radius is not None:
        # The sphere's points above the grid's, in every coordinate's direction.
        points = c[:, None] + delta
        for k in range(size):
            left = radius**2 - (points**2).sum(axis=2) + points[..., k] ** 2
            for sign in (-1.0, 1.0):
                moved = delta[:, : points.shape[1]].copy()
                moved[..., k] = sign * np.sqrt(np.maximum(left, 0.0)) * (1.0 - 1e-12) - c[:, None, k]
                delta = np.concatenate([delta, moved], axis=1)
    values = np.linalg.eigvalsh(
        head[:, None]
        + np.einsum("bnk,bkij->bnij", delta, slope)
        + 0.5 * np.einsum("bnk,bnl,bklij->bnij", delta, delta, bend, optimize=True)
    )[:, :, 0]
    meant = (np.abs(delta) <= h[:, None]).all(axis=2)
    if radius is not None:
        meant &= np.linalg.norm(c[:, None] + delta, axis=2) <= radius
    return np.where(meant, values, np.inf).min(axis=1)


def _posed(seed: int, size: int, count: int, widths: tuple[float, float], radius: float | None,
           blur: float = 0.0, convex: bool = False) -> tuple[Any, ...]:  # fmt: skip
    """Arguments of `curved_boxes` for polynomials whose smallest eigenvalue is zero at most, but for the claim and the ball."""
    rng = np.random.default_rng(seed)
    middle, radii = _drawn(rng, size, count, blur, convex)
    h = np.exp(rng.uniform(*np.log(widths), (count, 1))) * rng.uniform(0.2, 1.0, (count, size))
    c = np.zeros((count, size))
    if radius is not None:
        direction = rng.standard_normal((count, size))
        direction /= np.linalg.norm(direction, axis=1, keepdims=True)
        c = direction * (radius + 0.8 * h.min(axis=1, keepdims=True) * rng.uniform(-1.0, 1.0, (count, 1)))
    true = tuple(x + sign * r for x, r, sign in zip(middle, radii, rng.choice([-1.0, 1.0], 3), strict=True))
    least = _lowest(true, c, h, radius, rng)
    chosen = np.isfinite(least)
    shift = least[:, None, None] * np.eye(size)
    ranges = [(x - r, x + r) for x, r in zip(middle, radii, strict=True)]
    ranges[0] = (ranges[0][0] - shift, ranges[0][1] - shift)
    return tuple(Range(wide(lo[chosen]), wide(hi[chosen])) for lo, hi in ranges), wide(c[chosen]), wide(h[chosen])


@pytest.mark.parametrize(
    ("radius", "arithmetic"),
    [(None, "long doubles"), (None, "balls"), (1.3, "long doubles"), (1.3, "doubles"), (1.3, "balls")],
)
def test_nothing_false_is_proved(radius: float | None, arithmetic: str, request: pytest.FixtureRequest) -> None:
    context: Any = nullcontext()
    if arithmetic == "doubles":
        request.getfixturevalue("doubles")
    if arithmetic == "balls":
        context = pytest.importorskip("pyhess.certify.reference_arb", exc_type=ImportError).in_balls()
    count = {"balls": 12, "doubles": 150}.get(arithmetic, 400)
    with context, np.errstate(all="ignore"):
        for seed, size, blur, convex in (
            (3319, 2, 0.0, False),
            (3323, 2, 0.1, False),
            (3329, 3, 0.0, False),
            (3359, 2, 0.0, True),
        ):
            posed = _posed(seed, size, count, (0.03, 0.7), radius, blur, convex)
            assert not curved_boxes(*posed, 1e-9, _ball(size, radius)).any()


def _ball(size: int, radius: float | None) -> Any:
    return None if radius is None else (wide(np.zeros(size)), wide(radius))


def test_bad_guesses_prove_nothing_false() -> None:
    """Quadratic functions whose least value is -1e-9 or less, with strengths, convex parts and tangents' points of all kinds."""
    rng, count = np.random.default_rng(3371), 4000
    k, g = rng.standard_normal((count, 2, 2)), rng.standard_normal((count, 2)) * rng.choice([0.1, 1.0, 3.0], (count, 1))
    k = k + np.swapaxes(k, 1, 2)
    h, offset = rng.uniform(0.2, 1.0, (count, 2)), rng.uniform(-1.0, 1.0, (count, 2))
    delta = h[:, None] * np.stack(np.meshgrid(*[np.linspace(-1.0, 1.0, 21)] * 2), axis=-1).reshape(-1, 2)
    values = (delta * g[:, None]).sum(axis=2) + 0.5 * np.einsum("bni,bij,bnj->bn", delta, k, delta)
    radius = rng.uniform(0.3, 2.0, count)
    values = np.where(np.linalg.norm(offset[:, None] + delta, axis=2) <= radius[:, None], values, np.inf)
    least, lowest = values.min(axis=1), delta[np.arange(count), values.argmin(axis=1)]
    lam = np.abs(rng.standard_normal(count)) * rng.choice([0.0, 0.0, 1.0, -1.0], count)
    # What K + 2 lam lacks to be positive definite, nothing, or less than nothing where there is too much of it.
    needed = 1e-6 - np.linalg.eigvalsh(k)[:, 0] - 2.0 * lam
    extra = np.where(needed > 0.0, rng.choice([0.0, 1.0, 1.0], count), rng.choice([0.0, 0.5], count))[:, None] * needed[:, None]
    extra = extra * np.ones(2)
    stationary = -np.linalg.solve(k, g[:, :, None])[:, :, 0]
    point = np.where(rng.random((count, 1)) < 0.5, lowest, 1.2 * h * rng.uniform(-1.0, 1.0, (count, 2)))
    point = np.where((rng.random((count, 1)) < 0.3) & (np.abs(stationary) < h).all(axis=1, keepdims=True), stationary, point)
    gap = Range(wide(offset)).square().sum(1) - Range(wide(radius)).square()

    def proved(const: Array, *guess: Array) -> Array:
        q = Quadratic(Range(wide(const)), Range(wide(g)), Range(wide(k)), wide(h))
        return not_negative(q, Range(wide(offset)), gap, *(wide(x) for x in guess))[np.isfinite(least)]

    const = np.where(np.isfinite(least), -least - 1e-9, 0.0)
    assert not proved(const, lam, extra, point).any()
    assert np.mean(proved(const + 2.0, np.zeros(count), np.maximum(extra, 0.0), lowest)) > 0.3


def test_unknown_entries_beside_the_diagonal_count() -> None:
    """What is left are matrices diag(0, 1, 1.2, …) with any entries up to 0.3 beside the diagonal, whose lowest is known."""
    for size in (2, 3, 4):
        middle, beside = np.diag([0.0, 1.0, 1.2, 1.5][:size]), 0.3 * (1.0 - np.eye(size))
        signs = -np.ones((size, size))
        signs[0, 1:] = signs[1:, 0] = 1.0
        least = np.linalg.eigvalsh(middle + signs * beside)[0]
        zeros = [Range(wide(np.zeros((1,) + (size,) * order))) for order in (3, 4)]
        posed = (Range(wide((middle - beside)[None]), wide((middle + beside)[None])), *zeros)
        corner = wide(np.zeros((1, size))), wide(np.full((1, size), 0.1))
        assert not curved_boxes(posed, *corner, least + 1e-9, None)[0]
        assert curved_boxes(posed, *corner, least - (1e-9 if size == 2 else 0.2), None)[0]


@pytest.mark.parametrize("radius", [None, 1.3])
def test_what_is_true_is_proved_up_to_the_third_order(radius: float | None) -> None:
    with np.errstate(all="ignore"):
        for seed, size in ((3331, 2), (3343, 3)):
            for width in (0.04, 0.01):
                posed = _posed(seed, size, 200, (width, width), radius, convex=True)
                proved = [np.mean(curved_boxes(*posed, -factor * width**3, _ball(size, radius))) for factor in (10.0, 100.0)]
                assert proved[0] > (0.97 if size == 2 else 0.85)
                assert proved[1] > 0.97
                # Where the smallest eigenvalue bends downwards, up to the second.
                posed = _posed(seed, size, 200, (width, width), radius)
                assert np.mean(curved_boxes(*posed, -40.0 * width**2, _ball(size, radius))) > 0.9


@pytest.mark.parametrize(("case", "factor"), list(zip(CASES, (600.0, 14.0, 20.0, 1000.0, 80.0, 800.0, 600.0), strict=True)))
def test_boxes_of_networks(case: tuple[list[int], list[str], str, bool, str], factor: float) -> None:
    obj = _objective(case)
    problem, rng, size = Problem.of(obj), np.random.default_rng(3347), obj.num_params
    centre = rng.standard_normal(size)
    corners = np.stack(np.meshgrid(*[(-1.0, 0.0, 1.0)] * size), axis=-1).reshape(-1, size)
    for h in (0.02, 0.005):
        low, high = wide(centre - h)[None], wide(centre + h)[None]
        least = min(np.linalg.eigvalsh(obj.hessian(centre + h * unit).to_dense())[0] for unit in corners)
        assert not small_boxes(problem, low, high, least + 1e-9, None)[0]
        assert small_boxes(problem, low, high, least - factor * h**3, None)[0]


@pytest.mark.usefixtures("long_doubles")
@pytest.mark.parametrize(("hidden", "region"), [(2, ph.Box(-np.ones(4), np.ones(4))), (1, ph.Ball(np.zeros(2), 1.5))])
def test_the_boxes_of_a_certificate_are_hardly_cut(hidden: int, region: ph.Region) -> None:
    rng = np.random.default_rng(5)
    x = rng.standard_normal((5, 1))
    data = ph.Dataset(x, np.tanh(2.0 * x[:, 0]) + 0.3 * rng.standard_normal(5))
    obj = ph.Objective(ph.MLP([1, hidden, 1], bias=False), data)
    upper = ph.search(obj, region, rng=3).psi_upper
    certificate = certify(obj, region, "full", time_limit=60.0, psi_upper=upper)
    cover = certificate.table["full"].cover
    assert cover is not None
    assert certificate.psi_lower > upper - 1e-5
    found = prove(obj, region, "full", certificate.psi_lower, cover)
    assert found.proved
    assert int(found.detail.split(": ")[1].split(" box")[0]) <= 1.2 * len(cover.low)
    assert not prove(obj, region, "full", upper + 1e-7, cover, time_limit=1.0).proved

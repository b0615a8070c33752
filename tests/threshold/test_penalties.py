"""Thresholds of other penalties than |theta|²: dense eigenvalues, grids and closed forms as oracles."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from scipy.optimize import brentq, minimize

import pyhess as ph
from pyhess.errors import InputError
from pyhess.threshold import Status


def dense(obj: ph.Objective, theta: np.ndarray) -> np.ndarray:
    return obj.hessian(theta).to_dense()


def needed(obj: ph.Objective, theta: np.ndarray, penalty: ph.Penalty) -> float:
    """The strength one theta asks for: where the smallest eigenvalue of H + diag c(lam) vanishes, by bisection."""
    h = dense(obj, theta)

    def smallest(lam: float) -> float:
        c = penalty.curvature(lam, obj)
        scale = 1.0 / np.sqrt(np.maximum(c, 1.0))  # congruence, for the signs alone
        return float(np.linalg.eigvalsh(scale[:, None] * (h + np.diag(c)) * scale)[0])

    if smallest(0.0) >= 0.0:
        return 0.0
    high = 1.0
    while smallest(high) < 0.0:
        high *= 2.0
        if high > 1e9:
            return math.inf
    return float(brentq(smallest, 0.0, high, xtol=1e-13, rtol=1e-13))


def best_of_sampling(obj: ph.Objective, region: ph.Region, penalty: ph.Penalty, count: int, polished: int) -> float:
    """Many points and vertices, the best of them improved by a derivative-free method: independent of the package's search."""
    bound = region.bind(obj)
    thetas = [*bound.sample(count, rng=101)]
    if isinstance(bound, ph.Box):
        bits = np.random.default_rng(103).random((count, obj.num_params)) < 0.5
        thetas += [*np.where(bits, bound.low, bound.high)]
    values = np.array([needed(obj, theta, penalty) for theta in thetas])
    best = float(values.max())
    for k in np.argsort(values)[::-1][:polished]:
        found = minimize(
            lambda x: -needed(obj, bound.project(x), penalty), thetas[k], method="Powell", options={"xtol": 1e-7, "maxfev": 3000}
        )
        best = max(best, -float(found.fun))
    return best


TINY = ph.MLP([1, 1, 1], "tanh")


def tiny_problem() -> ph.Objective:
    rng = np.random.default_rng(3)
    return ph.Objective(TINY, ph.Dataset(rng.standard_normal((5, 1)), rng.standard_normal(5)))


def product_problem(x: float, y: float) -> ph.Objective:
    """L = (x w v - y)²/2 with theta = (w, v): H = [[x² v², 2 x² v w - x y], [., x² w²]]."""
    return ph.Objective(ph.MLP([1, 1, 1], "identity", bias=False), ph.Dataset([[x]], [y]))


# --- shifted -------------------------------------------------------------------------------------------------------------


def test_a_shift_changes_nothing(problem: Any) -> None:
    obj = problem([2, 3, 1], "tanh", "squared_error")
    eps = np.random.default_rng(5).standard_normal(obj.num_params)
    plain = ph.lambda_threshold(obj, ph.Box(-0.6, 0.6), rng=7)
    shifted = ph.lambda_threshold(obj, ph.Box(-0.6, 0.6), ph.ShiftedL2(eps), rng=7)
    assert (shifted.lam_lower, shifted.lam_upper) == (plain.lam_lower, plain.lam_upper)
    assert shifted.witness is not None
    lam = 0.95 * shifted.lam_lower
    first, second, t, violation = shifted.witness.segment(lam)

    def f(theta: np.ndarray) -> float:
        return obj.value(theta) + ph.ShiftedL2(eps).value(theta, lam)

    direct = f(t * first + (1 - t) * second) - t * f(first) - (1 - t) * f(second)
    assert direct == pytest.approx(violation, rel=1e-4, abs=1e-13) and violation > 0.0
    # The minimiser near eps need not be symmetric.
    assert "single minimiser" in str(shifted) and "theta - eps" in str(shifted)
    assert "constant predictor" in str(plain) and "constant predictor" not in str(shifted)


# --- weighted ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("x", "y", "w"), [(1.0, 1.0, (1.0, 4.0)), (0.7, -0.4, (3.0, 0.2))])
@pytest.mark.parametrize("region", [ph.Ball(radius=1.5), ph.Box(-1.3, 0.9)])
def test_weighted_two_parameter_problems(x: float, y: float, w: tuple[float, float], region: ph.Region) -> None:
    """The 2 x 2 eigenvalue of D^(-1/2) H D^(-1/2) on a fine grid of the region, improved at the best point."""
    obj = product_problem(x, y)
    t = ph.lambda_threshold(obj, region, ph.WeightedL2(w), rng=7)

    def lam(theta: np.ndarray) -> np.ndarray:
        a, c = (x * theta[..., 1]) ** 2 / w[0], (x * theta[..., 0]) ** 2 / w[1]
        b = (2 * x**2 * theta[..., 0] * theta[..., 1] - x * y) / math.sqrt(w[0] * w[1])
        return -0.5 * (0.5 * (a + c) - np.sqrt(0.25 * (a - c) ** 2 + b**2))

    axis = np.linspace(-1.5, 1.5, 201)
    grid = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1).reshape(-1, 2)
    bound = region.bind(2)
    grid = np.array([bound.project(theta) for theta in grid])
    start = grid[int(np.argmax(lam(grid)))]
    best = -minimize(
        lambda z: -float(lam(bound.project(z))), start, method="Nelder-Mead", options={"xatol": 1e-11, "fatol": 1e-14}
    ).fun
    assert t.lam_lower == pytest.approx(best, rel=1e-8)
    assert t.lam_lower <= best * (1.0 + 1e-9) and best <= t.lam_upper
    assert t.status is Status.BRACKETED and t.witness is not None and t.witness.check()


@pytest.mark.parametrize("region", [ph.Box(-0.7, 0.5), ph.Ball(radius=1.2)])
def test_weighted_against_dense_eigenvalues(problem: Any, region: ph.Region) -> None:
    obj = problem([2, 3, 1], "tanh", "squared_error")
    w = np.exp(np.random.default_rng(11).uniform(-1.5, 1.5, obj.num_params))
    t = ph.lambda_threshold(obj, region, ph.WeightedL2(w), rng=7)
    assert t.witness is not None
    scale = 1.0 / np.sqrt(w)
    smallest = np.linalg.eigvalsh(scale[:, None] * dense(obj, t.witness.theta) * scale)[0]
    assert t.lam_lower == pytest.approx(-0.5 * smallest, rel=1e-9)
    assert t.lam_lower >= 0.9999 * best_of_sampling(obj, region, ph.WeightedL2(w), 400, 0)
    assert t.lam_lower <= t.lam_upper < math.inf
    assert "psi" in str(t) and "w_i" in str(t) and "upper end" in str(t)
    json.dumps(t.to_dict(), allow_nan=False)


def test_weighted_finds_the_optimum_of_an_independent_search() -> None:
    obj = tiny_problem()
    penalty = ph.WeightedL2([0.3, 2.0, 1.0, 0.5])
    for region in (ph.Box(-1.0, 1.2), ph.Ball(0.1, 1.4)):
        found = ph.search(obj, region, penalty=penalty, rng=7)
        assert found.lam_lower >= best_of_sampling(obj, region, penalty, 150, 3) * (1.0 - 1e-7)


def test_equal_weights_are_a_factor(problem: Any) -> None:
    obj = problem([2, 3, 1], "tanh", "squared_error")
    plain = ph.lambda_threshold(obj, ph.Box(-0.6, 0.6), rng=7)
    halved = ph.lambda_threshold(obj, ph.Box(-0.6, 0.6), ph.WeightedL2(4.0), rng=7)
    assert halved.lam_lower == pytest.approx(0.25 * plain.lam_lower, rel=1e-8)
    assert halved.lam_upper == pytest.approx(0.25 * plain.lam_upper, rel=1e-12)


@pytest.mark.parametrize("penalty", [ph.WeightedL2(np.linspace(0.2, 3.0, 13)), ph.GeometricL2(), ph.L2(penalize="weights")])
def test_segments_break_convexity_of_the_penalised_objective(problem: Any, penalty: ph.Penalty) -> None:
    obj = problem([2, 3, 1], "tanh", "squared_error")
    t = ph.lambda_threshold(obj, ph.Box(-0.7, 0.5), penalty, rng=7, certificate=None)
    assert t.witness is not None
    top = t.lam_lower if math.isfinite(t.lam_lower) else 100.0
    for share in (0.0, 0.6, 0.97):
        lam = share * top
        first, second, s, violation = segment = t.witness.segment(lam)

        def f(theta: np.ndarray, lam: float = lam) -> float:
            return obj.value(theta) + penalty.bind(obj).value(theta, lam)

        direct = f(s * first + (1 - s) * second) - s * f(first) - (1 - s) * f(second)
        assert violation > segment.rounding_error
        assert direct == pytest.approx(violation, rel=1e-4, abs=1e-13 * (1.0 + top))
    if math.isfinite(t.lam_lower):
        with pytest.raises(InputError, match="lam_lower"):
            t.witness.segment(top)


# --- geometric -----------------------------------------------------------------------------------------------------------


def test_geometric_closed_form() -> None:
    """(v w - 1)²/2 on the ball of radius 1.5 with powers (lam, lam²)."""
    t = ph.lambda_threshold(product_problem(1.0, 1.0), ph.Ball(radius=1.5), ph.GeometricL2(), rng=7)
    assert t.lam_lower == pytest.approx(1.04121465, abs=5e-9)
    assert t.lam_lower <= t.lam_upper and t.status is Status.BRACKETED


@pytest.mark.parametrize("region", [ph.Box(-1.0, 1.2), ph.Ball(0.1, 1.4), ph.Box(-0.2, 0.3)])
def test_geometric_against_an_independent_search(region: ph.Region) -> None:
    obj = tiny_problem()
    found = ph.search(obj, region, penalty=ph.GeometricL2(), rng=7)
    assert found.lam_lower >= best_of_sampling(obj, region, ph.GeometricL2(), 150, 3) * (1.0 - 1e-7)
    assert needed(obj, found.theta, ph.GeometricL2()) == pytest.approx(found.lam_lower, rel=1e-8)


@pytest.mark.parametrize("region", [ph.Box(-0.7, 0.5), ph.Ball(radius=0.5)])
def test_geometric_lies_between_one_and_the_plain_threshold(problem: Any, region: ph.Region) -> None:
    obj = problem([2, 3, 1], "tanh", "squared_error")
    plain = ph.lambda_threshold(obj, region, rng=7, certificate=None).lam_lower
    t = ph.lambda_threshold(obj, region, ph.GeometricL2(), rng=7)
    assert min(1.0, plain) <= t.lam_lower <= max(1.0, plain)
    assert t.lam_lower >= best_of_sampling(obj, region, ph.GeometricL2(), 300, 0) * (1.0 - 1e-7)
    assert "lam^i" in str(t)


def test_geometric_with_800_parameters_does_not_overflow() -> None:
    """Curvatures so large that the threshold lies above one: lam^P is far beyond the range of numbers."""
    rng = np.random.default_rng(13)
    net = ph.MLP([20, 25, 11])
    assert net.num_params == 811
    # The first weights meet a large input, so that small powers of lam must hold against a large curvature.
    x = rng.standard_normal((12, 20))
    x[:, 0] *= 4.0
    obj = ph.Objective(net, ph.Dataset(x, 10.0 * rng.standard_normal((12, 11))))
    region = ph.Box.per_layer(net, [0.1, 0.1])
    with np.errstate(over="raise", invalid="raise"):
        t = ph.lambda_threshold(obj, region, ph.GeometricL2(), rng=7, starts=8)
    assert 1.5 < t.lam_lower <= t.lam_upper < math.inf
    assert t.lam_lower > 2.5  # 2.5^811 is beyond the range of numbers
    assert t.witness is not None and t.witness.check()
    # Congruence with min(1, lam^(-i/2)) keeps all numbers between 0 and 1.
    for factor, sign in ((1.0 - 1e-6, -1), (1.0 + 1e-6, 1)):
        mu = math.log(factor * needed_by_congruence(obj, t.witness.theta))
        assert np.sign(smallest_by_congruence(obj, t.witness.theta, mu)) == sign
    assert needed_by_congruence(obj, t.witness.theta) == pytest.approx(t.lam_lower, rel=1e-7)


def smallest_by_congruence(obj: ph.Objective, theta: np.ndarray, mu: float) -> float:
    i = np.arange(1, obj.num_params + 1)
    scale = np.exp(-0.5 * np.maximum(0.0, i * mu))
    whole = scale[:, None] * dense(obj, theta) * scale + 2.0 * np.diag(np.exp(np.minimum(0.0, i * mu)))
    return float(np.linalg.eigvalsh(whole)[0])


def needed_by_congruence(obj: ph.Objective, theta: np.ndarray) -> float:
    return math.exp(brentq(lambda mu: smallest_by_congruence(obj, theta, mu), math.log(0.5), math.log(50.0), xtol=1e-12))


# --- biases left out -----------------------------------------------------------------------------------------------------

FIT = np.array([1.2, 0.3, 0.9, -0.2])  # w, b, v, c


def nearly_fitted() -> ph.Objective:
    x = np.linspace(-1.5, 1.5, 7)[:, None]
    y = FIT[2] * np.tanh(FIT[0] * x[:, 0] + FIT[1]) + FIT[3] + 0.05 * np.cos(5.0 * x[:, 0])
    return ph.Objective(TINY, ph.Dataset(x, y))


def schur_strength(obj: ph.Objective, theta: np.ndarray) -> float:
    h = dense(obj, theta)
    w, b = [0, 2], [1, 3]
    if np.linalg.eigvalsh(h[np.ix_(b, b)])[0] <= 0.0:
        return math.inf
    complement = h[np.ix_(w, w)] - h[np.ix_(w, b)] @ np.linalg.solve(h[np.ix_(b, b)], h[np.ix_(b, w)])
    return max(0.0, -0.5 * float(np.linalg.eigvalsh(complement)[0]))


@pytest.mark.parametrize("radius", [0.1, 0.3])
def test_definite_biases_give_the_schur_value(radius: float) -> None:
    obj, region = nearly_fitted(), ph.Box.around(FIT, radius)
    t = ph.lambda_threshold(obj, region, ph.L2(penalize="weights"), rng=7)
    corners = FIT + radius * np.array(np.meshgrid(*[[-1, 1]] * 4)).reshape(4, -1).T
    thetas = np.vstack([corners, region.sample(400, rng=17)])
    values = np.array([schur_strength(obj, theta) for theta in thetas])
    assert np.isfinite(values).all()  # the bias block is definite wherever one looks
    best = float(values.max())
    for k in np.argsort(values)[::-1][:6]:
        bounds = list(zip(region.low, region.high, strict=True))
        found = minimize(lambda z: -schur_strength(obj, z), thetas[k], bounds=bounds, options={"ftol": 1e-15, "gtol": 1e-11})
        best = max(best, -float(found.fun))
    assert t.lam_lower == pytest.approx(best, rel=1e-8)
    assert t.witness is not None and t.witness.check()
    assert schur_strength(obj, t.witness.theta) >= t.lam_lower * (1.0 - 1e-12)
    assert t.lam_lower < t.lam_upper
    assert "biases unpenalised" in str(t)


def test_indefinite_biases_make_it_infinite(problem: Any) -> None:
    obj = problem([2, 3, 2], "tanh", "squared_error")
    t = ph.lambda_threshold(obj, ph.Box(-0.7, 0.5), ph.L2(penalize="weights"), rng=7)
    assert t.status is Status.INFINITE and t.kink is None and t.scope == "global"
    assert math.isinf(t.lam_lower) and math.isinf(t.lam_upper)
    assert t.witness is not None and t.witness.check()
    biases = [bias for _, bias in obj.net.layer_slices]
    outside = np.delete(t.witness.v, np.r_[tuple(biases)])
    assert not outside.any()
    assert t.witness.v @ dense(obj, t.witness.theta) @ t.witness.v == pytest.approx(t.psi_upper, rel=1e-9)
    block = dense(obj, t.witness.theta)[np.ix_(np.r_[tuple(biases)], np.r_[tuple(biases)])]
    assert t.psi_upper == pytest.approx(np.linalg.eigvalsh(block)[0], rel=1e-7)
    assert "biases" in str(t) and "kink" not in str(t).split("next")[0]
    content = json.loads(json.dumps(t.to_dict(), allow_nan=False))
    assert content["status"] == "infinite" and content["lam_lower"] is None
    for lam in (0.0, 10.0, 1e6):  # no strength helps
        assert t.witness.segment(lam).violation > 0.0


def test_a_flat_bias_direction_is_not_called_infinite() -> None:
    """Linear nets: the bias block is singular and coupled, so lam* is infinite, but no curvature in it is negative."""
    obj = ph.Objective(ph.MLP([1, 1, 1], "identity"), ph.Dataset([[1.0], [0.5]], [1.0, 0.3]))
    t = ph.lambda_threshold(obj, ph.Box(-1.0, 1.0), ph.L2(penalize="weights"), rng=7)
    assert t.status is Status.UNDECIDED and math.isinf(t.lam_upper)
    assert t.lam_lower > 100.0 and t.witness is not None and t.witness.check()


def test_without_biases_all_weights_are_penalised(problem: Any) -> None:
    obj = problem([2, 3, 1], "tanh", "squared_error", bias=False)
    plain = ph.lambda_threshold(obj, ph.Box(-0.6, 0.6), rng=7)
    weights = ph.lambda_threshold(obj, ph.Box(-0.6, 0.6), ph.L2(penalize="weights"), rng=7)
    assert weights.lam_lower == pytest.approx(plain.lam_lower, rel=1e-12)
    assert weights.lam_upper == plain.lam_upper


@pytest.mark.parametrize("penalty", [ph.L2(), ph.ShiftedL2(0.1), ph.WeightedL2(3.0), ph.GeometricL2(), ph.L2("weights")])
def test_linear_models_need_no_penalty(penalty: ph.Penalty, problem: Any) -> None:
    t = ph.lambda_threshold(problem([3, 2], "tanh", "cross_entropy"), ph.Ball(radius=2.0), penalty, rng=7)
    assert (t.lam_lower, t.lam_upper, t.status) == (0.0, 0.0, Status.EXACT)


def test_relu_kinks_beat_every_penalty(problem: Any) -> None:
    obj = problem([3, 4, 1], "relu", "squared_error")
    penalty = ph.WeightedL2(np.linspace(0.5, 2.0, obj.num_params))
    t = ph.lambda_threshold(obj, ph.Box(-0.5, 0.5), penalty, rng=7, starts=8)
    assert t.status is Status.INFINITE and t.kink is not None
    segment = t.kink.segment(obj, ph.Box(-0.5, 0.5), 3.0, penalty)

    def f(theta: np.ndarray) -> float:
        return obj.value(theta) + penalty.value(theta, 3.0)

    middle = 0.5 * (segment.theta_1 + segment.theta_2)
    direct = f(middle) - 0.5 * (f(segment.theta_1) + f(segment.theta_2))
    assert direct == pytest.approx(segment.violation, rel=1e-3, abs=1e-14)


@pytest.mark.parametrize("penalty", [ph.WeightedL2(np.linspace(0.2, 3.0, 13)), ph.GeometricL2(), ph.L2(penalize="weights")])
def test_same_seed_same_bits(problem: Any, penalty: ph.Penalty) -> None:
    obj = problem([2, 3, 1], "tanh", "squared_error")
    one, two = (ph.search(obj, ph.Box(-0.3, 0.4), penalty=penalty, rng=19, starts=12) for _ in range(2))
    assert one.psi_upper == two.psi_upper and one.lam_lower == two.lam_lower
    assert np.array_equal(one.theta, two.theta) and np.array_equal(one.v, two.v)


def test_time_limits_are_kept(problem: Any) -> None:
    obj = problem([30, 60, 40, 10], "tanh", "cross_entropy", samples=400)
    for penalty in (ph.GeometricL2(), ph.L2(penalize="weights"), ph.WeightedL2(np.linspace(0.5, 2.0, obj.num_params))):
        t = ph.lambda_threshold(obj, ph.Box(-0.5, 0.5), penalty, rng=7, time_limit=1.0)
        assert t.stats["interrupted"] and t.stats["seconds"]["total"] < 10.0
        assert t.witness is not None and t.lam_lower >= 0.0


@pytest.mark.parametrize("decades", [6.0, 100.0, 300.0])
def test_weights_may_differ_by_hundreds_of_decades(problem: Any, decades: float) -> None:
    obj = problem([2, 3, 1], "tanh", "squared_error")
    w = 10.0 ** np.random.default_rng(29).uniform(-decades, decades, obj.num_params)
    t = ph.lambda_threshold(obj, ph.Box(-0.7, 0.5), ph.WeightedL2(w), rng=7)
    assert 0.0 < t.lam_lower <= t.lam_upper < math.inf
    assert t.witness is not None and t.witness.check()
    # The lightest coordinate alone asks for at least this much, at any theta.
    lightest = int(np.argmin(w))
    entries = [dense(obj, theta)[lightest, lightest] for theta in ph.Box(-0.7, 0.5).sample(50, obj, rng=31)]
    assert t.lam_lower >= -0.5 * min(entries) / w[lightest] * (1.0 - 1e-9)

"""Cells with the quadratic form in a direction's units and with the outputs' slopes: above everything in the cell, and sharp."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import pyhess as ph
from pyhess.certify.boxes import cell_subdivision
from pyhess.certify.middles import middles
from pyhess.certify.moment import moment_bounds
from pyhess.certify.propagate import BallCells, Cell, box_cells, propagate
from pyhess.certify.quadratic import quadratic_bounds, quadratic_knows
from pyhess.certify.quadratic_form import Form, form_of
from pyhess.certify.reference_cells import prove_cells
from pyhess.certify.reference_hessian import Cells, Problem, ball_cells, passes
from pyhess.certify.reference_hessian import box_cells as slow_boxes
from pyhess.certify.reference_interval import wide
from pyhess.certify.reference_moment import with_norms
from pyhess.certify.reference_quadratic import _Numbers, _Pieces, quadratic_proves
from pyhess.certify.subdivision import Cover

from .conftest import small_objective

pytestmark = pytest.mark.usefixtures("long_doubles")

#: Widths, loss, activation, options.
NETWORKS = [
    ([2, 3, 2, 1], "squared_error", "tanh", {}),
    ([2, 2, 3, 2], "squared_error", "softplus", {"parametrization": "ntk"}),
    ([3, 2, 2, 3], "cross_entropy", "sigmoid", {}),
    ([2, 3, 3, 1], "logistic", "gelu", {"bias": False}),
    ([1, 2, 1, 1], "squared_error", "tanh", {"bias": False, "parametrization": "ntk"}),
]


def _order(net: ph.MLP) -> Any:
    """The parameters as the form has them: (W, b) unit by unit of the first two layers, the output weights."""
    found = []
    for layer in range(2):
        weight, bias = net.layer_slices[layer]
        rows = np.arange(weight.start, weight.stop).reshape(net.widths[layer + 1], -1)
        parts = [rows] if bias is None else [rows, np.arange(bias.start, bias.stop)[:, None]]
        found.append(np.concatenate(parts, axis=1).ravel())
    return np.concatenate([*found, np.arange(net.layer_slices[2][0].start, net.layer_slices[2][0].stop)])


def _residual(obj: ph.Objective, theta: Any) -> Any:
    order = _order(obj.net)
    return (obj.hessian(theta).to_dense() - obj.gauss_newton(theta).to_dense())[np.ix_(order, order)]


def _inside(obj: ph.Objective, middle: Any, radii: Any, rng: np.random.Generator, *, box: bool) -> Any:
    """A point whose layers are anywhere in their balls, mostly at the boundary, or a point of the box."""
    if box:
        return middle + radii[0] * rng.choice([-1.0, 1.0, rng.uniform(-1.0, 1.0)], middle.size)
    theta = middle.copy()
    for (weight, bias), radius in zip(obj.net.layer_slices, radii, strict=True):
        part = slice(weight.start, weight.stop if bias is None else bias.stop)
        step = rng.standard_normal(part.stop - part.start)
        theta[part] += step * (radius * rng.choice([1.0, rng.random()]) / np.linalg.norm(step))
    return theta


def _cell(obj: ph.Objective, middle: Any, radii: Any, *, box: bool) -> Cell:
    if box:
        return box_cells(obj.net, middle[None] - radii[0], middle[None] + radii[0])
    return BallCells(obj.net, ph.Ball(middle, 1.0).bind(obj))(radii[None])


def _slow_cell(obj: ph.Objective, middle: Any, radii: Any, *, box: bool) -> tuple[Problem, Cells]:
    problem = Problem.of(obj)
    if box:
        cells = slow_boxes(problem, wide(middle - radii[0])[None], wide(middle + radii[0])[None])
    else:
        cells = ball_cells(problem, wide(middle), wide(radii)[None])
    return problem, with_norms(problem, cells)


def _form(obj: ph.Objective, cell: Cell) -> Form:
    x = obj.data.X
    bounds = propagate(cell, x, obj.targets, obj.loss)
    return form_of(cell, bounds, middles(cell, bounds, x), x, obj.data.normalized_weights, 1)


def _slow_matrix(obj: ph.Objective, problem: Problem, cells: Cells, rng: np.random.Generator) -> Any:
    pieces = _Pieces(problem, cells, passes(problem, cells, problem.x, problem.y))
    p = rng.dirichlet(np.ones(4)) + 1e-3
    e = np.exp(rng.standard_normal((2, obj.net.widths[1])))
    t = np.exp(rng.standard_normal(len(pieces.pairs) + 1))
    return np.asarray(pieces.matrix(_Numbers(p / p.sum(), (e[0], e[1]), t)).hi, dtype=np.float64)


def _worst(least: Callable[[Any], float], draw: Callable[[], Any], rng: np.random.Generator) -> float:
    """The smallest value at points of the cell, and between the best of them."""
    points = sorted((draw() for _ in range(60)), key=least)
    mixed = [w * points[i] + (1.0 - w) * points[j] for i, j in ((0, 1), (0, 2), (1, 2)) for w in (0.3, 0.7)]
    return min(least(theta) for theta in [points[0], *mixed])


@pytest.mark.parametrize("slow", [False, True])
@pytest.mark.parametrize(("widths", "loss", "activation", "options"), NETWORKS)
def test_the_form_is_above_minus_the_residual_part_anywhere_in_the_cell_for_all_multipliers(
    slow: bool, widths: list[int], loss: str, activation: Any, options: dict[str, Any]
) -> None:
    rng = np.random.default_rng(4201)
    obj = small_objective(4211, 5, widths, loss, activation, **options)
    for turn in range(6):
        box, middle = turn % 3 == 2, 0.8 * rng.standard_normal(obj.num_params)
        radii = rng.choice([0.05, 0.4, 1.0]) * rng.dirichlet(np.ones(3) * 0.7) ** 0.5
        if slow:
            matrix = _slow_matrix(obj, *_slow_cell(obj, middle, radii, box=box), rng)
        else:
            form = _form(obj, _cell(obj, middle, radii, box=box))
            root = rng.standard_normal(form.linear.shape[-2:])
            matrix = form.matrix((root @ root.T / np.sum(root**2))[None])[0][0]

        def least(theta: Any, matrix: Any = matrix) -> float:
            return float(np.linalg.eigvalsh(matrix + _residual(obj, theta))[0])

        def draw(middle: Any = middle, radii: Any = radii, box: bool = box) -> Any:
            return _inside(obj, middle, radii, rng, box=box)

        assert _worst(least, draw, rng) >= -1e-10 * np.abs(matrix).max()


@pytest.mark.parametrize("network", range(6))
def test_the_check_agrees_and_nothing_is_lost_on_tiny_cells_if_only_the_first_layer_is_curved(network: int) -> None:
    rng = np.random.default_rng(4217)
    flat: Any = ([2, 3, 2, 2], "squared_error", ["tanh", "identity"], {"parametrization": "ntk"})
    widths, loss, activation, options = [*NETWORKS, flat][network]
    obj = small_objective(4219, 6, widths, loss, activation, **options)
    for turn in range(4):
        box, radius = turn % 2 == 1, (1e-7, 0.1)[turn // 2]
        middle, radii = 0.8 * rng.standard_normal(obj.num_params), np.full(3, radius)
        x, cell = obj.data.X, _cell(obj, middle, radii, box=box)
        bounds = propagate(cell, x, obj.targets, obj.loss)
        nothing = np.array([-np.inf])
        found = quadratic_bounds(cell, bounds, middles(cell, bounds, x), x, obj.data.normalized_weights, nothing)[0]
        problem, cells = _slow_cell(obj, middle, radii, box=box)
        along = passes(problem, cells, problem.x, problem.y)
        assert quadratic_proves(problem, cells, along, float(found))
        joint = widths[-1] == 1 and loss == "squared_error"  # whose pieces are finer in the check
        assert not quadratic_proves(problem, cells, along, float(found * (0.9 if joint else 0.97)))
        if activation == ["tanh", "identity"] and radius < 1e-6:
            exact = np.linalg.eigvalsh(_residual(obj, middle))[0]
            assert 1.01 * exact <= found <= exact


def test_cells_of_a_stack_have_the_forms_that_each_has_and_no_other_cell_gets_worse() -> None:
    rng = np.random.default_rng(4229)
    go_on = np.zeros(1, dtype=np.int32)
    obj = small_objective(4231, 7, [2, 3, 2, 1])
    make = BallCells(obj.net, ph.Ball(rng.standard_normal(obj.num_params), 1.0).bind(obj))
    radii = rng.random((5, 3)) * np.array([[0.05], [0.3], [1e-8], [3.0], [1e150]])
    with np.errstate(all="ignore"):
        plain = moment_bounds(make(radii), obj.data, obj.targets, obj.loss, go_on)
        together = moment_bounds(make(radii), obj.data, obj.targets, obj.loss, go_on, quadratic=True)
        assert plain is not None and together is not None
        for at in range(5):
            alone = moment_bounds(make(radii[at]), obj.data, obj.targets, obj.loss, go_on, quadratic=True)
            assert alone == pytest.approx(together[at], rel=1e-9)
    assert (together >= plain).all() and (together[:3] >= 0.8 * plain[:3]).all()
    assert quadratic_knows(obj.net, 7) and not quadratic_knows(obj.net, 10**6) and not quadratic_knows(ph.MLP([2, 3, 1]), 7)


def test_data_in_several_blocks_all_count(monkeypatch: pytest.MonkeyPatch) -> None:
    go_on = np.zeros(1, dtype=np.int32)
    obj = small_objective(4273, 40, [2, 2, 2, 1])
    cell = _cell(obj, 0.7 * np.random.default_rng(4283).standard_normal(obj.num_params), np.full(3, 0.01), box=False)
    plain, whole = (moment_bounds(cell, obj.data, obj.targets, obj.loss, go_on, quadratic=form) for form in (False, True))
    monkeypatch.setattr("pyhess.certify.moment._BLOCK_ROWS", 16)
    parts = moment_bounds(cell, obj.data, obj.targets, obj.loss, go_on, quadratic=True)
    assert plain is not None and whole is not None and parts is not None
    assert 1.5 * whole[0] > plain[0] >= parts[0]


def test_a_ball_about_random_weights_has_a_bound_a_fifth_closer_which_the_check_proves(monkeypatch: pytest.MonkeyPatch) -> None:
    obj = small_objective(4241, 6, [2, 3, 3, 1])
    region = ph.Ball(0.7 * np.random.default_rng(4243).standard_normal(obj.num_params), 0.1).bind(obj)
    search = cell_subdivision(obj, region)
    with monkeypatch.context() as patch:
        patch.setattr("pyhess.certify.moment.quadratic_knows", lambda *_: False)
        assert search.psi_lower > 0.8 * cell_subdivision(obj, region).psi_lower
    cover: Cover = search.cover()
    claim = search.psi_lower * (1.0 + 1e-9)
    found = prove_cells(obj.net, Problem.of(obj), region, claim, cover, np.inf)
    assert found.proved, found.detail
    assert not prove_cells(obj.net, Problem.of(obj), region, 0.8 * claim, cover, np.inf).proved


@pytest.mark.parametrize("slow", [False, True])
@pytest.mark.parametrize(
    ("widths", "loss", "activation"),
    [
        ([2, 3, 2, 1], "squared_error", "tanh"),
        ([2, 2, 3, 2, 2], "squared_error", "relu"),
        ([2, 3, 2, 3], "cross_entropy", "gelu"),
    ],
)
def test_outputs_and_their_gradients_stay_in_their_ranges(slow: bool, widths: list[int], loss: str, activation: str) -> None:
    rng = np.random.default_rng(4253)
    obj = small_objective(4259, 4, widths, loss, activation)
    layers = len(widths) - 1
    for radius in (0.02, 0.3, 1.0):
        middle = 0.8 * rng.standard_normal(obj.num_params)
        radii = radius * rng.dirichlet(np.ones(layers)) ** 0.5
        if slow:
            problem, cells = _slow_cell(obj, middle, radii, box=False)
            along: Any = passes(problem, cells, problem.x, problem.y)
        else:
            along = propagate(_cell(obj, middle, radii, box=False), obj.data.X, obj.targets, obj.loss)
        for _ in range(40):
            theta = _inside(obj, middle, radii, rng, box=False)
            outputs, gradients = _gradients(obj, theta)
            for x, exact in zip([along.s[-1], *along.bar], [outputs, *gradients], strict=True):
                lo, hi = (np.asarray(end, dtype=np.float64).reshape(exact.shape) for end in (x.lo, x.hi))
                assert (lo <= exact + 1e-12).all() and (exact <= hi + 1e-12).all()


@pytest.mark.parametrize("slow", [False, True])
def test_outputs_move_by_no_more_than_their_gradient_allows_where_the_cell_is_small(slow: bool) -> None:
    """With sup |f - f(c)| = sum_l rho_l |grad_l f| for small radii; norms of the layers' matrices would make it much more."""
    rng = np.random.default_rng(4261)
    obj = small_objective(4271, 5, [2, 4, 4, 4, 1])
    middle, radii = rng.standard_normal(obj.num_params), np.array([3e-7, 1e-7, 2e-7, 1e-7])
    if slow:
        problem, cells = _slow_cell(obj, middle, radii, box=False)
        along: Any = passes(problem, cells, problem.x, problem.y)
    else:
        along = propagate(_cell(obj, middle, radii, box=False), obj.data.X, obj.targets, obj.loss)
    width = np.asarray(along.s[-1].hi - along.s[-1].lo, dtype=np.float64).reshape(5)
    for i in range(5):
        one = ph.Objective(obj.net, ph.Dataset(obj.data.X[i : i + 1], [[0.0]]))
        value, slope = _gradients(one, middle)[0][0, 0], one.gradient(middle)
        sizes = [np.linalg.norm(slope[w.start : b.stop]) / abs(value) for w, b in obj.net.layer_slices if b is not None]
        assert width[i] == pytest.approx(2.0 * float(np.dot(sizes, radii)), rel=1e-4)


def _gradients(obj: ph.Objective, theta: Any) -> tuple[Any, list[Any]]:
    """The outputs (n, K), and dL/da of every hidden layer by differences of the biases that would move them."""
    net, activations, found = obj.net, [obj.data.X], []
    layers = [(theta[w].reshape(net.widths[i + 1], -1), theta[b]) for i, (w, b) in enumerate(net.layer_slices) if b is not None]
    for at, (w, b) in enumerate(layers):
        s = activations[-1] @ w.T + b
        activations.append(_value(net.activations[at], s) if at < len(layers) - 1 else s)
    outputs = activations.pop()
    residual = outputs - obj.targets
    if obj.loss == "cross_entropy":
        p = np.exp(outputs - outputs.max(axis=1, keepdims=True))
        residual = p / p.sum(axis=1, keepdims=True) - obj.targets
    delta = residual
    for at in range(len(layers) - 1, 0, -1):
        bar = delta @ layers[at][0]
        found.insert(0, bar)
        s = activations[at - 1] @ layers[at - 1][0].T + layers[at - 1][1]
        step = 1e-6
        slope = (_value(net.activations[at - 1], s + step) - _value(net.activations[at - 1], s - step)) / (2.0 * step)
        if net.activations[at - 1] == "relu":
            slope = (s > 0.0).astype(float)
        delta = bar * slope
    return outputs, found


def _value(name: str, s: Any) -> Any:
    from scipy.special import ndtr

    return {"tanh": np.tanh, "relu": lambda x: np.maximum(x, 0.0), "gelu": lambda x: x * ndtr(x)}[name](s)

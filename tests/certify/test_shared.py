"""Sums over units that share one radius, against networks of the ball: the fast bounds and the slow ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import pyhess as ph
from pyhess.certify import reference_shared
from pyhess.certify.intervals import Interval
from pyhess.certify.joint import _cut, _stacked
from pyhess.certify.propagate import BallCells, _BallMoves, propagate
from pyhess.certify.ranges import derivative_range
from pyhess.certify.reference_interval import Range, wide
from pyhess.certify.reference_joint import pieces
from pyhess.certify.reference_ranges import activation
from pyhess.certify.shared import Below, shared_bounds

pytestmark = pytest.mark.usefixtures("long_doubles")

NAMES = ["tanh", "sigmoid", "softplus", "gelu"]


class Layer:
    """One datum: s of the units is in ``at`` ± (move + e S), v about ``v``, and r = shift ± known + sum v phi(s)."""

    def __init__(self, rng: np.random.Generator, units: int) -> None:
        self.name = str(rng.choice(NAMES))
        self.bias = bool(rng.integers(0, 2))
        self.at, self.move = rng.standard_normal(units), rng.random(units) * float(rng.choice([0.0, 1.5]))
        self.v, self.rows = rng.standard_normal(units) * float(rng.choice([0.0, 1.0])), rng.random(units)
        self.rho_v, self.rho_w = float(rng.choice([0.05, 0.5, 2.0])), float(rng.choice([0.05, 0.5, 2.0]))
        self.entering = 1.0 + float(rng.random())
        self.shift, self.known = float(rng.standard_normal()), float(rng.random() * 0.3)
        reach = self.move + self.rho_w * self.entering
        self.low, self.high = self.at - reach, self.at + reach

    def fast(self) -> Any:
        s = _stacked(_cut(Interval(self.low[None], self.high[None]), 24))
        phi = tuple(derivative_range(self.name, 1.0, order, s) for order in range(3))
        below = Below(
            self.rows[None], np.array([self.rho_w]), np.array([self.entering]), Interval.point(self.at[None]), self.move[None]
        )
        constant = Interval(np.array([[self.shift - self.known]]), np.array([[self.shift + self.known]]))
        found = shared_bounds(
            below, s, Interval.point(self.v), constant, np.array([self.rho_v]), self.bias, phi, np.array([np.inf])
        )
        return np.concatenate(found)

    def slow(self) -> Any:
        s = pieces(Range(self.low[None], self.high[None]), 48)
        phi = tuple(activation(self.name, 1.0, order, s) for order in range(3))
        below = reference_shared.Rows(
            wide(self.rows[None]), wide([self.rho_w]), wide([self.entering]), Range(self.at[None]), wide(self.move[None])
        )
        constant = Range(np.array([[self.shift - self.known]]), np.array([[self.shift + self.known]]))
        found = reference_shared.shared_bounds(below, s, Range(self.v[None]), constant, wide([self.rho_v]), self.bias, phi)
        return np.concatenate(found).astype(float)

    def values(self, x: Any) -> Any:
        """The three sums (k, 3) at points (k, 4 m + 2), of which the radii are scaled down to what there is."""
        m = self.v.size
        d, e, turn, near, known, bias = x[:, :m], x[:, m : 2 * m], x[:, 2 * m : 3 * m], x[:, 3 * m : 4 * m], x[:, -2], x[:, -1]
        all_d = np.concatenate([d, bias[:, None] * self.bias], axis=1)
        all_d = all_d * np.minimum(1.0, self.rho_v / np.maximum(np.linalg.norm(all_d, axis=1), 1e-300))[:, None]
        e = np.abs(e) * np.minimum(1.0, self.rho_w / np.maximum(np.linalg.norm(e, axis=1), 1e-300))[:, None]
        s = self.at + np.clip(turn, -1.0, 1.0) * e * self.entering + np.clip(near, -1.0, 1.0) * self.move
        phi, slope, bend = (derivative_range(self.name, 1.0, order, Interval.point(s)).middle for order in range(3))
        v, w = self.v + all_d[:, :m], self.rows + e
        r = self.shift + np.clip(known, -1.0, 1.0) * self.known + all_d[:, m] + (v * phi).sum(axis=1)
        bent = (np.maximum(0.0, -r[:, None] * v * bend) * w**2).sum(axis=1)
        sums = [np.abs(r) * np.linalg.norm(v * slope, axis=1), bent, np.abs(r) * np.linalg.norm(slope * w, axis=1)]
        return np.stack(sums, axis=1)

    def largest(self, rng: np.random.Generator) -> Any:
        """The largest values (3,) that a search finds."""
        m, size = self.v.size, 4 * self.v.size + 2
        best = np.zeros(3)
        scale = np.r_[np.full(m, self.rho_v), np.full(m, self.rho_w), np.ones(2 * m + 1), self.rho_v]
        for kind in range(3):
            x = rng.standard_normal((400, size)) * scale
            for step in np.geomspace(1.0, 1e-3, 25):
                values = self.values(x)[:, kind]
                top = x[np.argsort(values)[-20:]]
                x = np.concatenate([top, np.repeat(top, 8, axis=0) + step * scale * rng.standard_normal((160, size))])
            best[kind] = self.values(x)[:, kind].max()
        return best


def test_above_every_network_and_near_the_largest_of_a_single_unit() -> None:
    rng = np.random.default_rng(2711)
    ratios = []
    for turn in range(18):
        layer = Layer(rng, 1 + turn % 3)
        found, fast, slow = layer.largest(rng), layer.fast(), layer.slow()
        assert (found <= fast * (1.0 + 1e-12)).all() and (found <= slow * (1.0 + 1e-12)).all()
        # The slow bounds have to prove what the fast ones claim.
        assert (slow[[0, 2]] <= fast[[0, 2]]).all() and slow[1] <= 1.02 * fast[1]
        if turn % 3 == 0:
            ratios.append(np.maximum(fast, 1e-9) / np.maximum(found, 1e-9))
    assert np.median(np.array(ratios), axis=0).max() < 1.3


@pytest.mark.parametrize("cut", [None, 0.3])
def test_above_every_network_of_a_cell(cut: float | None) -> None:
    rng = np.random.default_rng(2713)
    for turn in range(8):
        widths = [2, 3, 2 + turn % 2, 1] if turn % 4 else [2, 2, 2, 3, 1]
        data = ph.Dataset(rng.standard_normal((4, 2)), rng.standard_normal(4))
        net = ph.MLP(widths, parametrization="ntk" if turn % 2 else "standard", bias=cut is not None or turn % 3 > 0)
        obj = ph.Objective(net, data)
        centre = rng.standard_normal(obj.num_params) * float(rng.choice([0.0, 0.7]))
        radius = float(rng.choice([0.3, 1.0, 3.0]))
        shares = rng.dirichlet(np.ones(net.num_layers))
        bias = None if cut is None else Interval(centre[-1:] - cut, centre[-1:] + cut)
        cell = BallCells(net, ph.Ball(centre, radius).bind(obj))(radius * np.sqrt(shares), bias)
        bounds = propagate(cell, data.X, obj.targets, obj.loss)
        last = bounds.joint
        assert last is not None and last.relative
        relative = bounds.slope[-2].magnitude / bounds.slope[-2].magnitude.max(axis=1, keepdims=True)
        for _ in range(150):
            change = rng.standard_normal(obj.num_params) * (rng.random(obj.num_params) < rng.choice([0.3, 1.0]))
            for (weight, offset), share in zip(net.layer_slices, shares, strict=True):
                own = slice(weight.start, weight.stop if offset is None or (cut and offset.stop == change.size) else offset.stop)
                change[own] *= radius * np.sqrt(share) / max(float(np.linalg.norm(change[own])), 1e-300)
            if cut is not None:
                change[-1] = cut * rng.choice([-1.0, 1.0])
            theta = centre + change
            a, w = data.X, None
            for layer, (weight, offset) in enumerate(net.layer_slices):
                below, w = w, net.layer_scales[layer] * theta[weight].reshape(net.widths[layer + 1], -1)
                s = a @ w.T + (0.0 if offset is None else net.layer_scales[layer] * theta[offset])
                if layer < net.num_layers - 1:
                    a = np.tanh(s)
            r, slope = (s - obj.targets)[:, 0], 1.0 - a**2
            assert below is not None and w is not None
            rows = np.linalg.norm(below[None] * relative[:, None, :], axis=2)
            kappa = np.maximum(0.0, 2.0 * r[:, None] * w[0] * a * slope)
            assert (np.abs(r) * np.linalg.norm(w[0] * slope, axis=1) <= last.delta_norm * (1 + 1e-12)).all()
            assert ((kappa * rows**2).sum(axis=1) <= last.bent * (1 + 1e-12)).all()
            assert (np.abs(r) * np.linalg.norm(slope * rows, axis=1) <= last.steep * (1 + 1e-12)).all()


@pytest.mark.usefixtures("few_cells")
def test_tighter_in_balls(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(2719)
    x = rng.standard_normal((8, 2))
    for widths, gain in (([2, 3, 3, 1], 0.93), ([2, 3, 3, 3, 1], 0.97)):
        obj = ph.Objective(ph.MLP(widths), ph.Dataset(x, np.sin(x[:, 0])))
        region = ph.Ball(radius=2.0).bind(obj)
        sharp = ph.certify(obj, region, "moment").psi_lower
        with monkeypatch.context() as patch:
            patch.setattr(_BallMoves, "below", lambda *_: None)
            plain = ph.certify(obj, region, "moment").psi_lower
        assert gain * plain <= sharp < 0.0

"""The independent check of the bound by Taylor polynomials over slabs of a ball: nothing false is proved."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.optimize import minimize

import pyhess as ph
from pyhess.certify import Certificate, prove
from pyhess.certify.certificate import MethodResult
from pyhess.certify.reference_changes import Changes
from pyhess.certify.reference_definite import not_negative
from pyhess.certify.slab_multipliers import Slab, SlabMultipliers
from pyhess.threshold import verify_file

from .conftest import trained
from .slow_slab_cases import own_multipliers, own_slabs, steepest, unit
from .slow_taylor_cases import CASES, Array, Case, nothing_lowered, problem

pytestmark = pytest.mark.usefixtures("long_doubles")

_RADIUS, _CUTS = 0.2, np.array([-1.0, -0.85, -0.7, -0.5, -0.2, 0.1, 0.5, 0.8, 1.0])


def _elongated() -> tuple[ph.Objective, ph.Ball]:
    """Where the Hessian changes along one direction above all."""
    rng = np.random.default_rng(2111)
    x = rng.standard_normal((5, 1))
    obj = ph.Objective(ph.MLP([1, 2, 1]), ph.Dataset(x, np.tanh(2.0 * x[:, 0]) + 0.1 * rng.standard_normal(5)))
    return obj, ph.Ball(trained(obj, rng), _RADIUS).bind(obj)


@pytest.fixture(scope="module")
def case() -> tuple[ph.Objective, ph.Ball, Array, SlabMultipliers]:
    """The problem, and what is proved on its slabs."""
    with np.errstate(all="ignore"):
        obj, ball = _elongated()
        return obj, ball, *own_slabs(obj, ball, -steepest(obj, ball.center), _CUTS, 0.1)


def _lowest(obj: ph.Objective, ball: ph.Ball, direction: Array, low: float, high: float, rng: np.random.Generator) -> float:
    """The smallest eigenvalue found in a slab, its rim included, by descent from the lowest of many points."""
    size, radius, d = obj.num_params, float(ball.radius), direction

    def point(x: Array) -> Array:
        t = np.clip(x[0], low, high)
        y = x[1:] - (x[1:] @ d) / (d @ d) * d
        room = np.sqrt(max(0.0, 1.0 - t * t * (d @ d)))
        return np.asarray(ball.center + radius * (t * d + y * min(1.0, room / max(float(np.linalg.norm(y)), 1e-300))))

    def value(x: Array) -> float:
        return float(np.linalg.eigvalsh(obj.hessian(point(x)).to_dense())[0])

    starts = np.column_stack([rng.choice([low, high, 0.5 * (low + high)], 60), 3.0 * rng.standard_normal((60, size))])
    best = min(starts, key=value)
    return min(value(best), float(minimize(value, best, method="Powell", options={"maxfev": 400}).fun))


def _proof(case: tuple[ph.Objective, ph.Ball, Array, SlabMultipliers], claim: float, **change: Any) -> Any:
    obj, ball, _, multipliers = case
    return prove(obj, ball, "slabs", claim, multipliers=replace(multipliers, **change))


def _with(slabs: tuple[Slab, ...], place: int, **change: Any) -> tuple[Slab, ...]:
    return (*slabs[:place], replace(slabs[place], **change), *slabs[place + 1 :])


def _above(value: float, by: float) -> float:
    return value + by * abs(value)


def test_slabs_prove_more_than_the_ball_and_nothing_above_an_eigenvalue(case: Any) -> None:
    obj, ball, values, multipliers = case
    rng = np.random.default_rng(2161)
    value = float(values.min())
    assert _proof(case, _above(value, -1e-9)).proved and not _proof(case, _above(value, 1e-7)).proved
    lowest = [_lowest(obj, ball, multipliers.direction, low, high, rng) for low, high in pairwise(_CUTS)]
    assert (values <= np.array(lowest)).all()
    with np.errstate(all="ignore"):
        whole = own_multipliers(obj, ball.center, Changes.ball(_RADIUS), _RADIUS, 0.1)[0]
    # Of what the ball loses the slabs lose less than a third.
    assert min(lowest) - value < 0.33 * (min(lowest) - whole)
    assert not _proof(case, _above(min(lowest), 1e-7)).proved


@pytest.mark.parametrize("order", [2, 3])
@pytest.mark.parametrize("case", [case for case in CASES if problem(case).num_params <= 10])
def test_what_the_multipliers_give_is_proved_for_every_loss_and_no_more(case: Case, order: int) -> None:
    obj = problem(case)
    rng = np.random.default_rng(2179)
    for radius, cuts in ((1e-9, [-1.0, 0.3, 1.0]), (0.05, [-1.0, -0.2, 0.7, 1.0])):
        ball = ph.Ball(0.7 * rng.standard_normal(obj.num_params), radius).bind(obj)
        direction = unit(rng.standard_normal(obj.num_params))
        # Any numbers may be taken off the curvature.
        lowered = 0.1 * radius**2 * rng.uniform(0.0, 1.0, nothing_lowered(obj).shape)
        with np.errstate(all="ignore"):
            share = 0.1 if radius > 1e-6 else 1e-7
            values, multipliers = own_slabs(obj, ball, direction, np.array(cuts), share, lowered, order)
        value = float(values.min())
        proof = partial(prove, obj, ball, "slabs", multipliers=multipliers)
        assert proof(_above(value, -1e-9)).proved and not proof(_above(value, 1e-7)).proved
        points = (ball.center, *ball.sample(20, rng=rng), *(ball.center + t * radius * direction for t in cuts))
        lowest = min(float(np.linalg.eigvalsh(obj.hessian(theta).to_dense())[0]) for theta in points)
        assert value < lowest and not proof(_above(lowest, 1e-7)).proved
        assert radius > 1e-6 or value > lowest - 1e-6


def test_slabs_that_are_not_all_of_the_ball_are_refused(case: Any) -> None:
    obj, _, values, multipliers = case
    value = _above(float(values.min()), -1e-3)
    slabs, d = multipliers.slabs, multipliers.direction
    nearly = float(np.nextafter(_CUTS[2], -1.0))
    refused: list[tuple[dict[str, Any], str]] = [
        ({"slabs": ()}, "do not go from -1 to 1"),
        ({"slabs": slabs[1:]}, "do not go from -1 to 1"),
        ({"slabs": slabs[:-1]}, "do not go from -1 to 1"),
        ({"slabs": _with(slabs, 0, low=-1.5)}, "do not go from -1 to 1"),
        ({"slabs": (*slabs[:2], *slabs[3:])}, "a slab ends at -0.7, and the next begins at -0.5"),
        ({"slabs": (*slabs[:2], slabs[3], slabs[2], *slabs[4:])}, "a slab ends at -0.7, and the next begins at -0.5"),
        ({"slabs": _with(slabs, 1, high=nearly)}, "and the next begins at -0.7"),
        ({"slabs": (slabs[0], replace(slabs[0], low=-0.85, high=-1.0), *slabs)}, "a slab ends before it begins"),
        ({"slabs": _with(_with(slabs, 1, high=float("nan")), 2, low=float("nan"))}, "a slab ends before it begins"),
        ({"direction": d / np.linalg.norm(d) * (1.0 - 1e-15)}, "which is not from 1 to"),
        ({"direction": 1.00001 * d}, "the slabs' direction has the length 1.00001"),
        ({"direction": 0.5 * d}, "the slabs' direction has the length 0.5"),
        ({"direction": np.full_like(d, np.nan)}, f"needed are {obj.num_params} finite numbers"),
        ({"direction": d[:-1]}, f"needed are {obj.num_params} finite numbers"),
    ]
    for change, why in refused:
        proof = _proof(case, value, **change)
        assert not proof.proved and proof.broken and why in proof.detail, (proof.detail, why)
    assert _proof(case, value).proved and not _proof(case, value).broken
    # A direction of length one to the last bit.
    axis = np.eye(obj.num_params)[2]
    assert "is less" in _proof(case, value, direction=axis).detail
    assert _proof(case, -1e3, direction=axis).proved


def test_multipliers_that_prove_less_are_refused(case: Any) -> None:
    obj, ball, values, multipliers = case
    value = _above(float(values.min()), -1e-9)
    worst = int(values.argmin())
    slabs, slab = multipliers.slabs, multipliers.slabs[worst]
    eye, taylor = np.eye(obj.num_params), slab.taylor
    skew = np.diag(np.r_[slab.along[0, 0], -slab.along[0, 0], np.full(obj.num_params - 2, slab.along[0, 0])])
    refused: list[tuple[dict[str, Any], str]] = [
        ({"along": 3.0 * slab.along}, "is less"),
        ({"along": 0.1 * slab.along}, "is less"),
        ({"along": 0.0 * eye}, "the multiplier S is not shown to be positive semi-definite"),
        ({"along": -slab.along}, "the multiplier S is not shown to be positive semi-definite"),
        ({"along": skew}, "the multiplier S is not shown to be positive semi-definite"),
        ({"along": np.full_like(eye, np.nan)}, "the multiplier S is not shown to be positive semi-definite"),
        ({"taylor": replace(taylor, lam=skew)}, "the multiplier Lambda is not shown to be positive semi-definite"),
        ({"taylor": replace(taylor, lam=1.5 * taylor.lam)}, "is less"),
        ({"taylor": replace(taylor, tau=30.0 * taylor.tau)}, "is less"),
        ({"taylor": replace(taylor, tau=taylor.tau / 30.0)}, "is less"),
        ({"taylor": replace(taylor, tau=0.0)}, "tau 0.0 is not positive"),
        ({"taylor": replace(taylor, share=0.0)}, "share 0.0 is not in"),
        ({"narrow": 0.3 * slab.narrow}, "is less"),
        ({"narrow": 1e-12}, "is less"),
        ({"narrow": 0.0}, "omega 0.0 is not in (0, 1]"),
        ({"narrow": 1.5}, "omega 1.5 is not in (0, 1]"),
        ({"narrow": -slab.narrow}, "is not in (0, 1]"),
        ({"narrow": float("nan")}, "omega nan is not in (0, 1]"),
    ]
    where = f"slab {worst + 1} of {len(slabs)}, {slab.low!r} <= t <= {slab.high!r}: "
    for change, why in refused:
        proof = _proof(case, value, slabs=_with(slabs, worst, **change))
        assert not proof.proved and not proof.broken and where in proof.detail and why in proof.detail, (proof.detail, why)
    assert _proof(case, value).proved
    for place in (3, len(slabs) - 1):
        proof = _proof(case, value, slabs=_with(slabs, place, along=0.0 * eye))
        assert not proof.proved and f"slab {place + 1} of {len(slabs)}" in proof.detail
    # The multipliers of another place do not prove it there.
    other = 4
    swapped = _with(slabs, worst, along=slabs[other].along, narrow=slabs[other].narrow, taylor=slabs[other].taylor)
    assert not _proof(case, value, slabs=swapped).proved
    assert "does not bring the multipliers along" in prove(obj, ball, "slabs", value).detail
    assert "does not bring the multipliers along" in prove(obj, ball, "slabs", value, multipliers=taylor).detail
    assert "is for balls and smooth activations" in prove(obj, ball.box_around(), "slabs", value, multipliers=multipliers).detail


def test_rounding_is_made_up_for_changes_longer_than_the_radius(case: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    obj, ball, _, _ = case
    with np.errstate(all="ignore"):
        values, multipliers = own_slabs(obj, ball, steepest(obj, ball.center), np.array([-1.0, 1.0]), 0.1)
    longest = []

    def spy(*given: Any) -> bool:
        longest.append(float(given[3]) if len(given) > 3 else 1.0)
        return not_negative(*given)

    monkeypatch.setattr("pyhess.certify.reference_cubic_ways.not_negative", spy)
    assert prove(obj, ball, "slabs", _above(float(values.min()), -1e-9), multipliers=multipliers).proved
    assert longest[-1] == pytest.approx(np.sqrt(2.0), rel=1e-9)


def test_time_is_looked_at(case: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    obj, ball, values, multipliers = case
    found = prove(obj, ball, "slabs", float(values.min()), multipliers=multipliers, time_limit=1e-3)
    assert "too large for the independent check" in found.detail and "for 8 slabs" in found.detail
    monkeypatch.setattr("pyhess.certify.reference_slabs.cubic_seconds", lambda *_: 0.0)
    found = prove(obj, ball, "slabs", float(values.min()), multipliers=multipliers, time_limit=1e-3)
    assert not found.proved and "time ran out before" in found.detail


def _certificate(case: tuple[ph.Objective, ph.Ball, Array, SlabMultipliers]) -> Certificate:
    obj, ball, values, multipliers = case
    claim = float(values.min())
    row = MethodResult(claim, 1.0, len(values), multipliers=multipliers)
    return Certificate("slabs", claim, {"slabs": row}, "none", "a bound", obj, ball)


def test_verified_from_the_file_alone(case: Any, tmp_path: Path) -> None:
    path = _certificate(case).save(tmp_path / "c.npz")
    again, multipliers = ph.load_certificate(path).table["slabs"].multipliers, case[3]
    assert isinstance(again, SlabMultipliers) and np.array_equal(again.direction, multipliers.direction)
    assert len(again.slabs) == len(multipliers.slabs)
    for one, other in zip(again.slabs, multipliers.slabs, strict=True):
        assert (one.low, one.high, one.narrow) == (other.low, other.high, other.narrow)
        assert np.array_equal(one.along, other.along)
        for name, value in vars(other.taylor).items():
            assert np.array_equal(getattr(one.taylor, name), value), name
    found = verify_file(path, time_limit=10.0)
    assert found.verdict == "verified" and "centres of 8 slabs of the ball" in found.checks[-1].detail, found.checks
    # A gap refutes it.
    gap = replace(multipliers, slabs=multipliers.slabs[1:])
    altered = _certificate((*case[:3], gap)).save(tmp_path / "gap.npz")
    found = verify_file(altered, time_limit=2.0)
    assert found.verdict == "refuted" and "do not go from -1 to 1" in found.checks[-1].detail


def test_files_with_wrong_slabs(case: Any, tmp_path: Path) -> None:
    size = case[0].num_params
    path = _certificate(case).save(tmp_path / "c.npz")
    with np.load(path) as content:
        arrays = dict(content)
    text = str(arrays["description"])

    def refused(why: str, change: Any = None, **others: Array) -> None:
        described = json.loads(text)
        if change is not None:
            change(described["multipliers"])
        named = {name.replace("__", "."): value for name, value in others.items()}
        np.savez(tmp_path / "other.npz", **{**arrays, **named, "description": np.array(json.dumps(described))})
        with pytest.raises(ph.errors.FileError, match=why):
            ph.load_certificate(tmp_path / "other.npz")

    refused("multipliers has the unknown tau", lambda m: m.update(tau=1.0))
    refused("multipliers.slabs.2 has the unknown tau", lambda m: m["slabs"][2].update(tau=1.0))
    refused("multipliers.slabs.1 lacks narrow", lambda m: m["slabs"][1].pop("narrow"))
    refused("multipliers.slabs.1.taylor lacks tau", lambda m: m["slabs"][1]["taylor"].pop("tau"))
    refused("multipliers.slabs.1.taylor.share is 2.0", lambda m: m["slabs"][1]["taylor"].update(share=2.0))
    refused("multipliers.slabs.0 goes from -1.5 to -0.85; allowed are -1 <=", lambda m: m["slabs"][0].update(low=-1.5))
    refused("multipliers.slabs.7 goes from 0.8 to 1.5", lambda m: m["slabs"][7].update(high=1.5))
    refused("goes from -0.85 to -0.85", lambda m: m["slabs"][1].update(high=-0.85))
    refused("low is None; allowed is a number", lambda m: m["slabs"][1].update(low=None))
    for narrow in (0.0, -0.5, 1.5):
        refused(
            f"slabs.3.narrow is {narrow}; allowed are numbers above 0 and at most 1",
            lambda m, narrow=narrow: m["slabs"][3].update(narrow=narrow),
        )
    refused(r"multipliers.direction has the shape", multipliers__direction=np.full(size, np.inf))
    refused(rf"slabs.4.along has the shape \({size}, {size}\)", multipliers__slabs__4__along=np.full((size, size), np.nan))
    refused("multipliers.slabs.4.taylor.weights has", multipliers__slabs__4__taylor__weights=-np.ones(size))

    def shorter(m: Any) -> None:
        m["slabs"][2]["along"]["shape"] = [1, size]

    refused(rf"slabs.2.along has the shape \(1, {size}\)", shorter, multipliers__slabs__2__along=np.ones((1, size)))
    arrays = {name: value for name, value in arrays.items() if "slabs" not in name}
    for slabs in ([], 3):
        refused(r"slabs is .*allowed is a list of at least one slab", lambda m, slabs=slabs: m.update(slabs=slabs))

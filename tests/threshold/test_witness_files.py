"""Witnesses in files: they come back bit for bit, and what is wrong with a file is found and named."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pyhess as ph
from pyhess.errors import FileError, InputError
from pyhess.threshold import verify_file
from pyhess.threshold.kink_search import find_kink
from pyhess.threshold.kinks import KinkWitness
from pyhess.threshold.witness import Witness, make_witness

from ..regions_penalties import NET, PENALTIES, REGIONS, P, cap, not_negative


def objective(loss: str = "squared_error", **options: Any) -> ph.Objective:
    rng = np.random.default_rng(61)
    x = rng.standard_normal((7, 2))
    y = rng.integers(0, 2, 7) if loss == "logistic" else 3.0 * rng.standard_normal(7)
    return ph.Objective(NET, ph.Dataset(x, y, rng.random(7), name="seven"), loss=loss, **options)


def witness_on(region: ph.Region, penalty: ph.Penalty | None = None, obj: ph.Objective | None = None) -> Witness:
    """A witness of negative curvature at a random point of the region."""
    obj = objective() if obj is None else obj
    bound = region.bind(obj)
    thetas = 2.0 * np.random.default_rng(67).standard_normal((40, obj.num_params))
    points = [bound.project(theta) for theta in thetas]
    theta = min(points, key=lambda point: np.linalg.eigvalsh(obj.hessian(point).to_dense())[0])
    v = np.linalg.eigh(obj.hessian(theta).to_dense())[1][:, 0]
    return make_witness(obj, bound, theta, v, None if penalty is None else penalty.bind(obj))


def kink_on(region: ph.Region) -> KinkWitness:
    rng = np.random.default_rng(71)
    net = ph.MLP([2, 3, 1], "relu")
    obj = ph.Objective(net, ph.Dataset(rng.standard_normal((5, 2)), rng.standard_normal(5)))
    kink = find_kink(obj, region.bind(obj), rng=rng)
    assert kink is not None
    return kink


def failing(path: Path) -> set[str]:
    return {check.name for check in verify_file(path).checks if check.outcome.name == "FAILS"}


def open_checks(path: Path) -> set[str]:
    return {check.name for check in verify_file(path).checks if check.outcome.name == "OPEN"}


@pytest.fixture
def saved(tmp_path: Path) -> tuple[Witness, Path]:
    witness = witness_on(ph.Box(-0.7, 0.9))
    return witness, witness.save(tmp_path / "w.npz")


@pytest.fixture
def saved_kink(tmp_path: Path) -> tuple[KinkWitness, Path]:
    kink = kink_on(ph.Box(-1.0, 1.0))
    return kink, kink.save(tmp_path / "k.npz")


# --- they come back ---------------------------------------------------------------------------------------------------------


def same_objective(first: ph.Objective, second: ph.Objective) -> bool:
    return (
        first.net == second.net
        and first.data == second.data
        and first.data.name == second.data.name
        and (first.loss, first.dtype) == (second.loss, second.dtype)
    )


@pytest.mark.parametrize("name", REGIONS)
def test_every_region_comes_back_bit_for_bit(name: str, tmp_path: Path) -> None:
    witness = witness_on(REGIONS[name]())
    assert witness.lam_lower > 0.0
    path = witness.save(tmp_path / "w.npz")
    again = ph.load_witness(path)
    assert isinstance(again, Witness)
    assert again.region == witness.region and type(again.region) is type(witness.region)
    assert again.theta.tobytes() == witness.theta.tobytes() and again.v.tobytes() == witness.v.tobytes()
    assert (again.eigval, again.allowance, again.lam_lower) == (witness.eigval, witness.allowance, witness.lam_lower)
    assert same_objective(again.obj, witness.obj)
    assert again.check()
    found = verify_file(path)
    assert found.verdict == "verified", found
    assert "segment" in {check.name for check in found.checks}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["w.json", "w.npz"]


@pytest.mark.parametrize("name", PENALTIES)
def test_every_penalty_comes_back_bit_for_bit(name: str, tmp_path: Path) -> None:
    witness = witness_on(ph.Ball(radius=1.5), PENALTIES[name]())
    again = ph.load_witness(witness.save(tmp_path / "w.npz"))
    assert isinstance(again, Witness)
    assert again.penalty == witness.penalty
    assert again.lam_lower == witness.lam_lower > 0.0
    assert verify_file(tmp_path / "w.npz").verdict == "verified"


def test_an_infinite_lower_end_comes_back(tmp_path: Path) -> None:
    obj = objective("logistic")
    region, penalty = ph.Box(-3.0, 3.0).bind(obj), ph.L2(penalize="weights").bind(obj)
    biases = np.flatnonzero(penalty.leaves_out(P))
    rng = np.random.default_rng(73)
    best = (math.inf, np.zeros(P), np.zeros(P))
    for theta in rng.uniform(-3.0, 3.0, (60, P)):
        values, vectors = np.linalg.eigh(obj.hessian(theta).to_dense()[np.ix_(biases, biases)])
        v = np.zeros(P)
        v[biases] = vectors[:, 0]
        best = min(best, (values[0], theta, v), key=lambda entry: entry[0])
    witness = make_witness(obj, region, best[1], best[2], penalty)
    assert math.isinf(witness.lam_lower)
    path = witness.save(tmp_path / "w.npz")
    assert ph.load_witness(path).lam_lower == math.inf  # type: ignore[union-attr]
    assert verify_file(path).verdict == "verified"
    json.loads(path.with_suffix(".json").read_text(), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


@pytest.mark.parametrize("options", [{"dtype": "float32"}, {"loss": "logistic"}])
def test_loss_and_dtype_come_back(options: dict[str, str], tmp_path: Path) -> None:
    witness = witness_on(ph.Box(-1.5, 1.5), obj=objective(**options))
    again = ph.load_witness(witness.save(tmp_path / "w.npz"))
    assert again.obj is not None and same_objective(again.obj, witness.obj)
    assert verify_file(tmp_path / "w.npz").verdict == "verified"


def test_every_property_of_a_network_comes_back(tmp_path: Path) -> None:
    rng = np.random.default_rng(79)
    net = ph.MLP([2, 3, 2, 2], ["softplus", "gelu"], beta=[2.5, 1.0], bias=False, parametrization="ntk")
    obj = ph.Objective(net, ph.Dataset(rng.standard_normal((4, 2)), rng.integers(0, 2, 4)), loss="cross_entropy")
    witness = witness_on(ph.Box(-2.0, 2.0), obj=obj)
    again = ph.load_witness(witness.save(tmp_path / "w.npz"))
    assert again.obj is not None and same_objective(again.obj, obj) and again.obj.data.is_labels


def test_nothing_claimed_is_verified_as_such(tmp_path: Path) -> None:
    obj = objective()
    witness = make_witness(obj, ph.Box(-1.0, 1.0).bind(obj), np.zeros(P), np.eye(P)[-1])
    assert witness.lam_lower == 0.0
    found = verify_file(witness.save(tmp_path / "w.npz"))
    assert found.verdict == "verified" and found.claim.startswith("nothing")


def test_the_description_beside_it_is_that_of_the_archive(saved: tuple[Witness, Path]) -> None:
    witness, path = saved
    text = path.with_suffix(".json").read_text()
    with np.load(path) as content:
        assert str(content["description"]) == text
    described = json.loads(text)
    assert described["kind"] == "witness" and described["schema_version"] == 8
    assert repr(witness.lam_lower) in described["text"]["claim"]
    assert "2-3-1 tanh" in described["text"]["network"] and "seven" in described["text"]["data"]
    assert described["objective"]["data"]["content_hash"] == witness.obj.data.content_hash
    assert described["eigval"] == witness.eigval


def test_kinks_come_back(saved_kink: tuple[KinkWitness, Path]) -> None:
    kink, path = saved_kink
    again = ph.load_witness(path)
    assert isinstance(again, KinkWitness)
    assert again.theta.tobytes() == kink.theta.tobytes() and again.v.tobytes() == kink.v.tobytes()
    assert (again.datum, again.layer, again.unit, again.jump, again.beta) == (
        kink.datum, kink.layer, kink.unit, kink.jump, kink.beta,
    )  # fmt: skip
    assert again.obj is not None and kink.obj is not None and same_objective(again.obj, kink.obj)
    assert again.region == kink.region
    assert again.verify() and verify_file(path).verdict == "verified"
    bare = KinkWitness(kink.theta, kink.datum, kink.layer, kink.unit, kink.v, kink.jump, kink.beta)
    with pytest.raises(InputError, match="objective and its region"):
        bare.save(path)
    assert bare.save(path, kink.obj, ph.Box(-2.0, 2.0)) == path
    assert ph.load_witness(path).region == ph.Box(-2.0, 2.0).bind(kink.obj)


# --- a user's region cannot be stored ---------------------------------------------------------------------------------------


def test_membership_in_a_users_region_is_not_claimed(altered: Any, tmp_path: Path) -> None:
    region = cap()
    witness = witness_on(region)
    path = witness.save(tmp_path / "w.npz")
    assert "not" in json.loads(path.with_suffix(".json").read_text())["text"]["not_stored"]
    found = verify_file(path)
    assert found.verdict == "incomplete" and open_checks(path) == {"point", "segment"} and not failing(path)
    point = next(check for check in found.checks if check.name == "point")
    assert "not re-checked" in point.detail and "lies in its enclosure Ball" in point.detail

    alone = ph.load_witness(path)
    with pytest.raises(InputError, match=r"load_witness\(path, region=region\)"):
        alone.check()  # type: ignore[union-attr]
    with pytest.raises(InputError, match=r"not_negative.*load_witness"):
        alone.region.contains(alone.theta)  # type: ignore[union-attr]
    given = ph.load_witness(path, region=region)
    assert isinstance(given, Witness) and given.check() and given.region == region
    assert all(check.outcome.name == "HOLDS" for check in given.checks())

    outside = altered(path, tmp_path / "outside.npz", theta=np.full(P, 0.9))
    assert "point" in failing(outside)


def test_another_region_than_the_one_in_the_file_is_refused(saved: tuple[Witness, Path], tmp_path: Path) -> None:
    _, path = saved
    assert ph.load_witness(path, region=ph.Box(-0.7, 0.9)).region == ph.Box(-0.7, 0.9).bind(NET)
    for other in (ph.Box(-0.7, 0.91), ph.Ball(radius=9.0), cap()):
        with pytest.raises(InputError, match="not the one"):
            ph.load_witness(path, region=other)
    theirs = witness_on(cap()).save(tmp_path / "cap.npz")
    moved = ph.Convex(not_negative, np.full(P, 0.1), 1.0, enclosure=ph.Ball(radius=1.0))
    for other in (moved, ph.Ball(radius=1.0), ph.load_witness(theirs).region):
        with pytest.raises(InputError, match="not the one"):
            ph.load_witness(theirs, region=other)


def test_kinks_in_a_users_region_are_checked_as_far_as_possible(tmp_path: Path) -> None:
    kink = kink_on(ph.Ball(radius=1.0))
    assert kink.obj is not None
    size = kink.obj.num_params
    whole = ph.Convex(lambda theta: ph.Ball(radius=1.0).project(theta), np.zeros(size), 1.0)
    path = kink.save(tmp_path / "k.npz", kink.obj, whole)
    assert verify_file(path).verdict == "incomplete" and open_checks(path) == {"point"}
    with pytest.raises(InputError, match="load_witness"):
        ph.load_witness(path).verify()  # type: ignore[union-attr]
    assert ph.load_witness(path, region=whole).verify()  # type: ignore[union-attr]


# --- altered files are caught -----------------------------------------------------------------------------------------------


def test_each_alteration_is_caught_by_its_own_check(altered: Any, saved: tuple[Witness, Path], tmp_path: Path) -> None:
    witness, path = saved
    with np.load(path) as content:
        high, x = content["region.high"].copy(), content["objective.data.X"]
    place = int(np.argmax(witness.theta))
    high[place] = math.nextafter(witness.theta[place], -math.inf)
    assert failing(altered(path, tmp_path / "a.npz", region__high=high)) == {"point"}

    smaller = 1.001 * witness.eigval
    claimed = {"eigval": smaller, "lam_lower": witness.penalty.strength(smaller, witness.v)}
    assert failing(altered(path, tmp_path / "b.npz", **claimed)) == {"curvature"}
    assert failing(altered(path, tmp_path / "c.npz", v=(1.0 + 1e-10) * witness.v)) == {"direction"}
    assert failing(altered(path, tmp_path / "d.npz", lam_lower=1.001 * witness.lam_lower)) == {"lower end"}
    assert failing(altered(path, tmp_path / "e.npz", lam_lower=None)) == {"lower end"}

    # Data that are a little off leave a valid witness of another problem; its name is what is wrong.
    assert "data" in failing(altered(path, tmp_path / "f.npz", objective__data__X=(1.0 + 1e-9) * x))
    other = ph.Dataset(0.5 * x, witness.obj.data.y, witness.obj.data.weights)
    forged = altered(path, tmp_path / "g.npz", objective__data__X=other.X, objective__data__content_hash=other.content_hash)
    assert failing(forged) == {"curvature"}

    outside = witness.theta.copy()
    outside[place] = 1.5
    assert "point" in failing(altered(path, tmp_path / "h.npz", theta=outside))
    assert verify_file(tmp_path / "h.npz").verdict == "refuted"
    assert failing(altered(path, tmp_path / "i.npz", theta=1e200 * witness.theta)) >= {"point", "curvature"}


def test_loading_refuses_what_does_not_agree_with_itself(altered: Any, saved: tuple[Witness, Path], tmp_path: Path) -> None:
    witness, path = saved
    with pytest.raises(FileError, match=r"altered.*lam_lower"):
        ph.load_witness(altered(path, tmp_path / "a.npz", lam_lower=2.0 * witness.lam_lower))
    with pytest.raises(FileError, match=r"altered.*SHA-256"):
        ph.load_witness(altered(path, tmp_path / "b.npz", objective__data__content_hash="0" * 64))


def test_a_core_that_disagrees_is_reported(saved: tuple[Witness, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    _, path = saved
    honest = ph.Objective.curvature
    monkeypatch.setattr(ph.Objective, "curvature", lambda *given: honest(*given)._replace(q=-7.0))
    assert failing(path) == {"core"}


def test_a_segment_that_cannot_be_resolved_is_not_called_verified(
    saved: tuple[Witness, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, path = saved
    monkeypatch.setattr("pyhess.threshold.witness.find_segment", lambda *_: None)
    assert open_checks(path) == {"segment"} and verify_file(path).verdict == "incomplete"


def test_alterations_of_kinks_are_caught(altered: Any, saved_kink: tuple[KinkWitness, Path], tmp_path: Path) -> None:
    kink, path = saved_kink
    with np.load(path) as content:
        high = content["region.high"]
    face = high.copy()
    place = int(np.argmax(kink.theta))
    face[place] = kink.theta[place]
    assert "point" in failing(altered(path, tmp_path / "a.npz", region__high=face))
    assert "direction" in failing(altered(path, tmp_path / "b.npz", v=(1.0 + 1e-11) * kink.v))
    assert failing(altered(path, tmp_path / "c.npz", beta=1.001 * kink.beta)) == {"slope"}
    steeper = {"jump": 1.5 * kink.jump, "beta": 1.5 * kink.beta}
    assert failing(altered(path, tmp_path / "d.npz", **steeper)) == {"jump", "differences"}
    upwards = {"jump": -kink.jump, "beta": -kink.beta}
    assert failing(altered(path, tmp_path / "e.npz", **upwards)) >= {"jump", "differences"}
    other = next(i for i in range(5) if i not in kink.datum)
    assert failing(altered(path, tmp_path / "f.npz", datum=[other])) == {"kink"}
    assert failing(altered(path, tmp_path / "g.npz", unit=(kink.unit + 1) % 3)) == {"kink"}
    shifted = kink.theta.copy()
    shifted[:9] += 1e-6
    assert failing(altered(path, tmp_path / "h.npz", theta=shifted)) == {"kink"}
    assert kink.obj is not None
    x = kink.obj.data.X.copy()
    x[other] *= 3.0
    assert "data" in failing(altered(path, tmp_path / "i.npz", objective__data__X=x))

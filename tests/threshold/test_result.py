"""The card and the JSON form of results, and what they say about different networks."""

from __future__ import annotations

import dataclasses
import enum
import json
import math
import pickle
from typing import Any

import numpy as np
import pytest

import pyhess as ph
from pyhess.threshold import Status, ThresholdResult
from pyhess.threshold.description import describe_problem, describe_rng, shared_symmetry
from pyhess.threshold.result import json_safe
from pyhess.threshold.witness import make_witness


def result(obj: ph.Objective, region: Any, **changes: Any) -> ThresholdResult:
    bound = region.bind(obj)
    rng = np.random.default_rng(3)
    witness = make_witness(obj, bound, bound.sample(1, rng=rng)[0], rng.standard_normal(obj.num_params))
    values: dict[str, Any] = {
        "lam_lower": 0.25,
        "lam_upper": 0.75,
        "psi_upper": -0.5,
        "psi_lower": -1.5,
        "status": Status.BRACKETED,
        "scope": "global",
        "witness": witness,
        "kink": None,
        "certificate": None,
        "stats": {"seconds": {"total": 1.5}, "seed": 7, "interrupted": False, "relu_kinks": "no_relu", "num_starts": 12},
        "problem": describe_problem(obj, bound, ph.L2()),
    }
    return ThresholdResult(**{**values, **changes})


def test_every_status_has_its_own_advice() -> None:
    assert len({status.advice for status in Status}) == len(Status) == 5
    assert str(Status.BRACKETED) == "bracketed" == Status.BRACKETED
    assert pickle.loads(pickle.dumps(Status.EXACT)) is Status.EXACT
    assert json.dumps(Status.EXACT) == '"exact"'


@pytest.mark.parametrize(
    ("activation", "region", "said"),
    [
        ("tanh", ph.Box(-0.5, 0.5), "constant predictor"),
        ("tanh", ph.Ball(0.0, 2.0), "constant predictor"),
        ("identity", ph.Box(-0.5, 0.5), "constant predictor"),
        ("tanh", ph.Box(-0.5, 0.6), "units of a layer to be identical"),
        ("tanh", ph.Ball(0.1, 2.0), "units of a layer to be identical"),
        ("gelu", ph.Box(-0.5, 0.5), "units of a layer to be identical"),
        ("softplus", ph.Ball(0.0, 2.0), "units of a layer to be identical"),
        ("tanh", ph.Box.around(np.arange(26.0), 0.5), "not symmetric"),
    ],
)
def test_the_meaning_depends_on_the_symmetry(problem: Any, activation: str, region: Any, said: str) -> None:
    card = " ".join(str(result(problem([3, 4, 2], activation, "squared_error"), region)).split())
    for phrase in ("constant predictor", "units of a layer to be identical", "not symmetric"):
        assert (phrase in card) == (phrase == said), phrase
    assert "between 0.25 and 0.75" in card and "upper/lower = 3" in card
    assert "1.50 s, 12 starts, seed 7" in card


def test_symmetry_shortcuts_agree_with_the_region_methods(problem: Any) -> None:
    net = problem([3, 4, 2], "tanh", "squared_error").net
    # The output bias may have any bounds: neither exchanges nor sign flips touch it.
    low = np.full(net.num_params, -0.5)
    low[-1] = -3.0
    assert shared_symmetry(net, ph.Box(low, -np.full(net.num_params, -0.5))) == "sign"
    assert shared_symmetry(net, ph.Box(-0.5, 0.5).bind(net)) == "sign"
    assert shared_symmetry(ph.MLP([3, 1, 2], "gelu"), ph.Box(-0.5, 0.5).bind(10)) == "single units"
    mixed = ph.MLP([3, 4, 4, 2], ["tanh", "gelu"])
    assert shared_symmetry(mixed, ph.Ball(0.0, 1.0).bind(mixed)) == "permutation"


def test_infinite_card(problem: Any) -> None:
    from pyhess.threshold.kinks import KinkWitness

    obj = problem([3, 4, 2], "relu", "squared_error")
    kink = KinkWitness(np.zeros(26), (3, 5), 0, 2, np.eye(26)[0], -0.5, -0.25)
    t = result(
        obj,
        ph.Box(-1.0, 1.0),
        lam_lower=math.inf,
        lam_upper=math.inf,
        status=Status.INFINITE,
        scope="almost everywhere",
        kink=kink,
    )
    card = " ".join(str(t).split())
    for phrase in ("infinite (INFINITE)", "necessary, not sufficient", "datum 3, 5 at hidden layer 0, unit 2", "lam >= 25"):
        assert phrase in card
    assert t.ratio == 1.0
    content = json.loads(json.dumps(t.to_dict(), allow_nan=False))
    assert content["lam_lower"] is None and content["lam_upper"] is None and content["status"] == "infinite"
    assert content["kink"]["datum"] == [3, 5]


def test_dictionary_describes_the_problem(problem: Any) -> None:
    obj = problem([3, 4, 2], "softplus", "cross_entropy", beta=2.0, weighted=True, parametrization="ntk")
    t = result(obj, ph.Ball(0.0, 2.0), psi_lower=-math.inf, lam_upper=math.inf, status=Status.UNDECIDED)
    content = json.loads(json.dumps(t.to_dict(), allow_nan=False))
    assert content["schema_version"] == 1
    assert content["psi_lower"] is None and content["ratio"] is None
    assert content["problem"]["net"]["betas"] == [2.0]
    assert content["problem"]["data"]["content_hash"] == obj.data.content_hash
    assert content["problem"]["region"]["radius"] == 2.0
    assert content["problem"]["loss"] == "cross_entropy"
    card = str(t)
    assert "softplus (beta 2)" in card and "NTK" in card and "weighted mean" in card


def test_results_are_frozen_and_survive_pickling(problem: Any) -> None:
    t = result(problem([3, 4, 2], "tanh", "squared_error"), ph.Box(-0.5, 0.5))
    with pytest.raises(dataclasses.FrozenInstanceError):
        t.lam_lower = 0.0  # type: ignore[misc]
    copy = pickle.loads(pickle.dumps(t))
    assert copy.to_dict() == t.to_dict()
    assert copy.witness is not None and copy.witness.check()


def test_json_safe_leaves_no_foreign_types() -> None:
    class Colour(enum.Enum):
        RED = "red"

    value = {
        "a": np.float32(0.5),
        "b": np.array([[1.0, np.nan], [np.inf, 2.0]]),
        "c": (np.int64(3), np.bool_(True), None, Colour.RED),
        4: {"nested": [math.inf, -math.inf, {"deep": np.array([1, 2])}]},
    }
    assert json.loads(json.dumps(json_safe(value), allow_nan=False)) == {
        "a": 0.5,
        "b": [[1.0, None], [None, 2.0]],
        "c": [3, True, None, "red"],
        "4": {"nested": [None, None, {"deep": [1, 2]}]},
    }


def test_seed_descriptions() -> None:
    assert describe_rng(np.random.default_rng(12)) == 12
    assert describe_rng(np.random.default_rng(2**80)) == f"entropy {2**80}"
    child = np.random.default_rng(12).spawn(2)[1]
    assert describe_rng(child) == "entropy 12, spawn key (1,)"

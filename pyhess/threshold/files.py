"""Witnesses in files that can be checked without the session that wrote them."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from .._checks import as_vector, exact_keys, shown
from .._claims import Check, judged, refuse_altered
from .._files import read_result, write_result
from .._problems import HEAD, described_problem, finite_number, objective_from, reading
from ..errors import FileError, InputError, InputTypeError
from ..objective import Objective
from ..penalties import Penalty, penalty_from_dict
from ..regions import Region, as_region, region_from_dict
from ..regions.convex import DescribedConvex
from .kinks import KinkWitness
from .roundoff import FloatArray
from .witness import Witness

_WITNESS = (*HEAD, "penalty", "theta", "v", "eigval", "allowance", "lam_lower")
_KINK = (*HEAD, "theta", "v", "datum", "layer", "unit", "jump", "beta")
#: Relative difference of lam_lower that the exponentials of another platform may make.
_SAME = 1e-12


@dataclass(frozen=True, eq=False)
class Stored:
    """What a file holds: a witness bound to its problem, and whether the file agrees with itself."""

    kind: str
    pyhess_version: str
    witness: Witness | KinkWitness
    claim: str
    checks: tuple[Check, ...]


# --- writing ----------------------------------------------------------------------------------------------------------------


def save_witness(witness: Witness, path: str | os.PathLike[str]) -> Path:
    """See `Witness.save`."""
    content = {
        **described_problem(witness.obj, witness.region, witness_claim(witness)),
        "penalty": witness.penalty.to_dict(),
        "theta": witness.theta,
        "v": witness.v,
        "eigval": witness.eigval,
        "allowance": witness.allowance,
        "lam_lower": witness.lam_lower if math.isfinite(witness.lam_lower) else None,
    }
    return write_result(path, "witness", content)


def save_kink(kink: KinkWitness, path: str | os.PathLike[str]) -> Path:
    """See `KinkWitness.save`; the kink knows its objective and region."""
    assert kink.obj is not None and kink.region is not None
    content = {
        **described_problem(kink.obj, kink.region, kink_claim(kink)),
        "theta": kink.theta,
        "v": kink.v,
        "datum": list(kink.datum),
        "layer": kink.layer,
        "unit": kink.unit,
        "jump": kink.jump,
        "beta": kink.beta,
    }
    return write_result(path, "kink_witness", content)


def witness_claim(witness: Witness) -> str:
    """What a witness proves, in a line."""
    limit, where = witness.lam_lower, f"on {witness.region!r}"
    if limit == 0.0:
        return f"nothing: no direction of negative curvature {where}, so lam* >= 0"
    what = f"L(theta) + {witness.penalty.formula}"
    if math.isinf(limit):
        return f"no lam makes {what} convex {where}"
    return f"{what} is not convex {where} for any lam < {limit!r}"


def kink_claim(kink: KinkWitness) -> str:
    """What a kink proves, in a line."""
    return (
        f"no quadratic penalty, however strong, makes the loss convex on {kink.region!r}: a kink in its interior bends downwards"
    )


# --- reading ----------------------------------------------------------------------------------------------------------------


def load_witness(path: str | os.PathLike[str], *, region: Region | None = None) -> Witness | KinkWitness:
    """Read a witness back, bound to the objective and the region it is about.

    Parameters
    ----------
    path : str or path-like
        A file that `Witness.save` or `KinkWitness.save` wrote.
    region : Region, optional
        The region, made anew. Needed where it is a user's `Convex` set and more than its centre, size and enclosure is asked for:
        files cannot hold the projection.

    Returns
    -------
    Witness or KinkWitness
        As saved; ``check()`` or ``verify()`` re-evaluates it.

    Raises
    ------
    FileError
        If the file cannot be read, is damaged or altered, holds something else, or was written by a newer pyhess.
    InputError
        If ``region`` is not the one in the file.

    Examples
    --------
    >>> import tempfile, pyhess as ph
    >>> obj = ph.Objective(ph.MLP([1, 1, 1], "identity", bias=False), ph.Dataset([[1.0]], [1.0]))
    >>> witness = ph.lambda_threshold(obj, ph.Ball(radius=1.5), rng=7).witness
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     again = ph.load_witness(witness.save(f"{folder}/w.npz"))
    >>> again.check(), again.lam_lower == witness.lam_lower, again.region
    (True, True, Ball(center=0.0, radius=1.5, P=2))
    """
    stored = stored_witness(read_result(path), path)
    refuse_altered(path, stored.checks)
    witness = stored.witness
    if region is None:
        return witness
    assert witness.region is not None and witness.obj is not None
    given = as_region(region).bind(witness.obj)
    recorded = witness.region
    if not (recorded.matches(given) if isinstance(recorded, DescribedConvex) else given == recorded):
        raise InputError(f"the region given, {given!r}, is not the one in {path}, {recorded!r}; allowed is the same region.")
    return replace(witness, region=given)


def stored_witness(content: dict[str, Any], path: str | os.PathLike[str]) -> Stored:
    """Return the witness that the content of a result file describes.

    Raises
    ------
    FileError
        If it describes none.
    """
    kind = content.get("kind")
    if not isinstance(kind, str) or kind not in READERS:
        raise FileError(f"{path} holds {shown(kind)}; allowed are the kinds {', '.join(READERS)}.")
    with reading(path, kind.replace("_", " ")):
        return READERS[kind](content)


def _read_witness(content: dict[str, Any]) -> Stored:
    exact_keys("the file", content, _WITNESS)
    obj, data_check = objective_from(content["objective"])
    region = region_from_dict(content["region"], obj.net).bind(obj)
    penalty: Penalty = penalty_from_dict(content["penalty"]).bind(obj)
    theta, v = _vectors(content, obj)
    witness = Witness(theta, v, finite_number(content, "eigval"), finite_number(content, "allowance"), obj, region, penalty)
    recorded = math.inf if content["lam_lower"] is None else finite_number(content, "lam_lower")
    follows = witness.lam_lower
    same = recorded == follows or abs(recorded - follows) <= _SAME * follows
    lower_end = judged(
        "lower end",
        same,
        f"eigval {witness.eigval!r} and {penalty!r} give lam_lower = {follows!r}; recorded is {recorded!r}",
    )
    return _stored(content, witness, witness_claim(witness), (data_check, lower_end))


def _read_kink(content: dict[str, Any]) -> Stored:
    exact_keys("the file", content, _KINK)
    obj, data_check = objective_from(content["objective"])
    region = region_from_dict(content["region"], obj.net).bind(obj)
    theta, v = _vectors(content, obj)
    count = obj.data.num_samples
    datum = content["datum"]
    if not isinstance(datum, list) or not datum:
        raise InputTypeError(f"datum is {shown(datum)}; allowed is a list of one or more numbers of data.")
    layer = _place("layer", content["layer"], obj.net.num_layers - 1)
    kink = KinkWitness(
        theta,
        tuple(_place("datum", i, count) for i in datum),
        layer,
        _place("unit", content["unit"], obj.net.widths[layer + 1]),
        v,
        finite_number(content, "jump"),
        finite_number(content, "beta"),
        obj,
        region,
    )
    return _stored(content, kink, kink_claim(kink), (data_check,))


#: How the content of a file of each kind is read.
READERS: dict[str, Callable[[dict[str, Any]], Stored]] = {"witness": _read_witness, "kink_witness": _read_kink}


def _stored(content: dict[str, Any], witness: Witness | KinkWitness, claim: str, checks: tuple[Check, ...]) -> Stored:
    return Stored(content["kind"], str(content["pyhess_version"]), witness, claim, checks)


def _vectors(content: dict[str, Any], obj: Objective) -> tuple[FloatArray, FloatArray]:
    vectors = [np.array(as_vector(name, content[name], obj.num_params)) for name in ("theta", "v")]
    for vector in vectors:
        vector.setflags(write=False)
    return vectors[0], vectors[1]


def _place(name: str, value: Any, count: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise InputTypeError(f"{name} is {shown(value)}; allowed is an integer.")
    if not 0 <= value < count:
        raise InputError(f"{name} is {value}; allowed are 0 … {count - 1}.")
    return value

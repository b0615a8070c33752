"""The problem behind a result (network, data, loss, region) in files: how it is written and read back."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from typing import Any

from ._checks import exact_keys, shown
from ._claims import Check, judged
from .data import Dataset
from .errors import FileError, InputError, InputTypeError, MemoryLimitError, PyhessError
from .model import MLP
from .objective import Objective
from .regions import Region
from .regions.convex import Convex

#: What every file starts with: the head that `_files.write_result` adds, and `described_problem`.
HEAD = ("format", "schema_version", "kind", "pyhess_version", "text", "objective", "region")


def network_fields(net: MLP) -> dict[str, Any]:
    """What makes the network, JSON-safe: the arguments of `MLP`."""
    return {
        "widths": list(net.widths),
        "activations": list(net.activations),
        "betas": list(net.betas),
        "bias": net.bias,
        "parametrization": net.parametrization,
    }


def network_text(net: MLP) -> str:
    """The network in a few words."""
    names = list(dict.fromkeys(net.activations))
    if not names:
        kind = "linear model"
    elif len(names) == 1:
        kind = names[0]
    else:
        kind = "+".join(net.activations)
    betas = sorted({beta for beta, name in zip(net.betas, net.activations, strict=True) if name == "softplus"})
    if betas and betas != [1.0]:
        kind += f" (beta {', '.join(f'{beta:g}' for beta in betas)})"
    parts = ["-".join(str(width) for width in net.widths) + f" {kind}"]
    parts.append("with biases" if net.bias else "without biases")
    if net.parametrization == "ntk":
        parts.append("NTK parametrisation")
    return ", ".join([*parts, f"{net.num_params} parameters"])


def described_problem(obj: Objective, region: Region, claim: str) -> dict[str, Any]:
    """The entries ``text``, ``objective`` and ``region`` of a file."""
    net, data, bound = obj.net, obj.data, region.bind(obj)
    return {
        "text": {
            "claim": claim,
            "network": network_text(net),
            "data": repr(data),
            "region": repr(bound),
            "not_stored": (
                "the projection of the user's region, so that membership in it cannot be re-checked from this file alone"
                if isinstance(bound, Convex)
                else None
            ),
        },
        "objective": {
            "net": network_fields(net),
            "data": {"name": data.name, "content_hash": data.content_hash, "X": data.X, "y": data.y, "weights": data.weights},
            "loss": obj.loss,
            "dtype": obj.dtype,
        },
        "region": bound.to_dict(),
    }


@contextmanager
def reading(path: str | PathLike[str], what: str) -> Iterator[None]:
    """Inside, whatever does not fit is an error of the file: it does not describe a ``what``. A lack of memory stays one."""
    try:
        yield
    except MemoryLimitError:
        raise
    except PyhessError as error:
        raise FileError(f"{path} does not describe a {what}: {error}") from error


def objective_from(content: Any) -> tuple[Objective, Check]:
    """The objective that the entry ``objective`` describes, and whether its data are those recorded.

    Raises
    ------
    InputError, InputTypeError
        If it describes none.
    """
    fields = exact_keys("objective", content, ("net", "data", "loss", "dtype"))
    described = exact_keys("net", fields["net"], ("widths", "activations", "betas", "bias", "parametrization"))
    stored = exact_keys("data", fields["data"], ("name", "content_hash", "X", "y", "weights"))
    net = MLP(
        described["widths"],
        described["activations"],
        beta=described["betas"],
        bias=described["bias"],
        parametrization=described["parametrization"],
    )
    data = Dataset(stored["X"], stored["y"], stored["weights"], name=stored["name"])
    same = data.content_hash == stored["content_hash"]
    check = judged(
        "data", same, f"the data {'have' if same else 'do not have'} the recorded SHA-256 {shown(stored['content_hash'])}"
    )
    return Objective(net, data, loss=fields["loss"], dtype=fields["dtype"]), check


def finite_number(content: dict[str, Any], name: str) -> float:
    """The entry of that name, which must be a finite number.

    Raises
    ------
    InputError, InputTypeError
        If it is not.
    """
    value = content[name]
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputTypeError(f"{name} is {shown(value)}; allowed is a number.")
    if not math.isfinite(value):
        raise InputError(f"{name} is {value!r}; allowed are finite numbers.")
    return float(value)

"""Certificates in files that can be checked without the session that wrote them."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .._checks import as_real, exact_keys, shown
from .._claims import Check, Outcome, judged, refuse_altered
from .._files import read_result, write_result
from .._problems import HEAD, described_problem, finite_number, objective_from, reading
from ..errors import FileError, InputError, InputTypeError
from ..objective import Objective
from ..regions import region_from_dict
from ..regions.convex import Convex
from .certificate import Certificate, MethodResult
from .certification import METHODS
from .multiplier_files import multipliers_content, read_multipliers
from .subdivision import Cover
from .unit_cover import UnitLeaves

_ENTRIES = (*HEAD, "method", "psi_lower", "statement", "rounding", "table", "cover", "leaves", "multipliers")
#: Entries that came with the layouts 2 and 3.
_LATER = ("leaves", "multipliers")
#: Cells of a unit's weights that a file holds at most: no check could look at more.
_MOST_LEAVES = 200_000


@dataclass(frozen=True, eq=False)
class StoredCertificate:
    """What a file holds: a certificate bound to its problem, and whether the file agrees with itself."""

    pyhess_version: str
    certificate: Certificate
    claim: str
    checks: tuple[Check, ...]


def save_certificate(certificate: Certificate, path: str | os.PathLike[str]) -> Path:
    """See `Certificate.save`."""
    row = certificate.table.get(certificate.method)
    cover, leaves, multipliers = (None, None, None) if row is None else (row.cover, row.leaves, row.multipliers)
    if leaves is not None and len(leaves.cells) > _MOST_LEAVES:
        leaves = None
    told = certificate.to_dict()
    del told["lam_upper"]  # follows from psi_lower
    content = {
        **described_problem(certificate.obj, certificate.region, claim_of(certificate)),
        **told,
        "cover": None if cover is None else _cover_content(cover),
        "leaves": None if leaves is None else _leaves_content(leaves),
        "multipliers": None if multipliers is None else multipliers_content(multipliers),
    }
    return write_result(path, "certificate", content)


def _cover_content(cover: Cover) -> dict[str, Any]:
    keys = [list(key) for key in cover.keys]
    return {"low": cover.low, "high": cover.high, "bound": cover.bound, "keys": keys}


def _leaves_content(leaves: UnitLeaves) -> dict[str, Any]:
    return {
        "cells": leaves.cells,
        "bound": leaves.bound,
        "root": leaves.root,
        "unit": leaves.unit,
        "twins": leaves.twins.astype(np.int64),
        "amplitude": leaves.amplitude,
        "offset": leaves.offset,
    }


def claim_of(certificate: Certificate) -> str:
    """What a certificate proves, in a line."""
    if certificate.psi_lower == -math.inf:
        return "nothing: no bound was finished"
    almost = "almost-everywhere " if not certificate.obj.net.is_smooth else ""
    where = repr(certificate.region.bind(certificate.obj))
    return f"no {almost}Hessian of the loss on {where} has an eigenvalue below {certificate.psi_lower!r}" + (
        "" if almost else f", so L(theta) + lam |theta|² is convex there for every lam >= {certificate.lam_upper!r}"
    )


def load_certificate(path: str | os.PathLike[str]) -> Certificate:
    """Read a certificate back, bound to the objective and the region it is about.

    Parameters
    ----------
    path : str or path-like
        A file that `Certificate.save` wrote.

    Returns
    -------
    Certificate
        As saved; of the branch and bound methods the best one's boxes. ``verify()`` computes its bound afresh.

    Raises
    ------
    FileError
        If the file cannot be read, is damaged or altered, holds something else, or was written by a newer pyhess.

    Examples
    --------
    >>> import tempfile, pyhess as ph
    >>> obj = ph.Objective(ph.MLP([1, 1, 1], "identity", bias=False), ph.Dataset([[1.0]], [1.0]))
    >>> certificate = ph.certify(obj, ph.Ball(radius=1.5), "moment")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     again = ph.load_certificate(certificate.save(f"{folder}/c.npz"))
    >>> again.psi_lower == certificate.psi_lower, again.verify(), again.region
    (True, True, Ball(center=0.0, radius=1.5, P=2))
    """
    stored = stored_certificate(read_result(path), path)
    refuse_altered(path, stored.checks)
    return stored.certificate


def stored_certificate(content: dict[str, Any], path: str | os.PathLike[str]) -> StoredCertificate:
    """Return the certificate that the content of a result file describes.

    Raises
    ------
    FileError
        If it describes none.
    """
    if content.get("kind") != "certificate":
        raise FileError(f"{path} holds {shown(content.get('kind'))}; allowed is the kind certificate.")
    with reading(path, "certificate"):
        return _read(content)


def _read(content: dict[str, Any]) -> StoredCertificate:
    # What older layouts did not have yet.
    content = {**dict.fromkeys(_LATER[content["schema_version"] - 1 :]), **content}
    exact_keys("the file", content, _ENTRIES)
    obj, data_check = objective_from(content["objective"])
    region = region_from_dict(content["region"], obj.net).bind(obj)
    method, statement, rounding = _method(content), _text(content, "statement"), _text(content, "rounding")
    psi_lower = _bound(content)
    sizes = [obj.num_params, *([_ball_size(obj)] if method == "cells" else [])]
    cover = None if content["cover"] is None else _read_cover(content["cover"], sizes)
    leaves = None if content["leaves"] is None else _read_leaves(content["leaves"], obj)
    given = content["multipliers"]
    multipliers = None if given is None else read_multipliers(given, method, obj, content["schema_version"])
    entries = content["table"]
    if not isinstance(entries, dict):
        raise InputTypeError(f"table is {shown(entries)}; allowed is a mapping from methods to what they found.")
    table = {}
    for name, entry in entries.items():
        exact_keys(f"table.{name}", entry, ("psi_lower", "seconds", "cells"))
        own = (cover, leaves, multipliers) if name == method else (None, None, None)
        table[name] = MethodResult(_bound(entry), finite_number(entry, "seconds"), int(finite_number(entry, "cells")), *own)
    certificate = Certificate(method, psi_lower, table, rounding, statement, obj, region)
    checks = [data_check]
    row = table.get(method)
    if row is not None:
        same = row.psi_lower == psi_lower
        checks.append(judged("table", same, f"the table gives {row.psi_lower!r} for {method!r}; the claim is {psi_lower!r}"))
    elif psi_lower > -math.inf:
        checks.append(judged("table", False, f"the table has no entry for {method!r}, which the claim is from"))
    if cover is not None:
        least = float(np.min(cover.bound))
        detail = f"the least of the bounds of {len(cover.bound)} boxes is {least!r}; the claim is {psi_lower!r}"
        checks.append(judged("boxes", least >= psi_lower, detail))
    if leaves is not None:
        least = min(0.0, float(np.min(leaves.bound)))
        detail = f"the least of the bounds of {len(leaves.bound)} cells is {least!r}; the claim is {psi_lower!r}"
        checks.append(judged("cells", least >= psi_lower, detail))
    if isinstance(region, Convex):
        detail = f"that {region!r} lies in its enclosure was not re-checked: no file can hold its projection"
        checks.append(Check("region", Outcome.OPEN, detail))
    return StoredCertificate(str(content["pyhess_version"]), certificate, claim_of(certificate), tuple(checks))


def _method(content: dict[str, Any]) -> str:
    """The method that the claim is from. Of others the table has plain numbers, whatever their names."""
    method, known = _text(content, "method"), (*METHODS, "linear", "none")
    if method not in known:
        raise InputError(
            f"method is {shown(method)}, which this pyhess does not know; allowed are {', '.join(known)}. Older versions had "
            "'third', whose place 'taylor' has taken: make such a certificate anew, with pyhess.certify or `pyhess "
            "threshold --save-certificate`."
        )
    return method


def _ball_size(obj: Objective) -> int:
    """Coordinates of a ball's cells: the output biases' offsets and the layers' shares."""
    return obj.net.num_layers + (obj.net.widths[-1] if obj.net.bias else 0)


def _read_cover(content: Any, sizes: list[int]) -> Cover:
    fields = exact_keys("cover", content, ("low", "high", "bound", "keys"))
    low, high, bound = (as_real(f"cover.{name}", fields[name]) for name in ("low", "high", "bound"))
    fits = low.ndim == 2 and low.shape == high.shape and bound.shape == low.shape[:1] and bound.size > 0
    if not fits or low.shape[1] not in sizes or not (low <= high).all() or np.isnan(bound).any():
        raise InputError(
            f"cover has arrays of the shapes {low.shape}, {high.shape} and {bound.shape}; allowed are "
            f"(M, {' or '.join(map(str, sizes))}), the same and (M,), low <= high, and no NaN."
        )
    keys = fields["keys"]
    places = isinstance(keys, list) and all(
        isinstance(key, list) and all(type(k) is int and 0 <= k < sizes[0] for k in key) for key in keys
    )
    if not places:
        raise InputTypeError(f"cover.keys is {shown(keys)}; allowed is a list of lists of parameters 0 … {sizes[0] - 1}.")
    return Cover(low, high, bound, tuple(tuple(key) for key in keys))


def _read_leaves(content: Any, obj: Objective) -> UnitLeaves:
    names = ("cells", "bound", "root", "unit", "twins", "amplitude", "offset")
    fields = exact_keys("leaves", content, names)
    net = obj.net
    cells, bound, amplitude, offset = (
        as_real(f"leaves.{name}", fields[name]) for name in ("cells", "bound", "amplitude", "offset")
    )
    root, unit, twins = (_indices(f"leaves.{name}", fields[name]) for name in ("root", "unit", "twins"))
    dim, outputs = net.widths[0] + int(net.bias), net.widths[-1]
    shapes = [x.shape for x in (cells, bound, root, unit, twins, amplitude, offset)]
    count, roots = len(bound), len(unit)
    fits = shapes == [(count, 2, 2 * dim + outputs), (count,), (count,), (roots,), (roots,), (roots, outputs), (roots, outputs)]
    if not (fits and count and (cells[:, 0] <= cells[:, 1]).all() and not np.isnan(bound).any()):
        raise InputError(
            f"leaves has arrays of the shapes {', '.join(map(str, shapes))}; allowed are cells (C, 2, "
            f"{2 * dim + outputs}) with low <= high, bound and root (C,), unit and twins (R,), amplitude and offset "
            f"(R, {outputs}), and no NaN."
        )
    for name, x, limit in (("root", root, roots), ("unit", unit, net.widths[1]), ("twins", twins, 2)):
        if not ((x >= 0) & (x < limit)).all():
            raise InputError(f"leaves.{name} has numbers from {x.min()} to {x.max()}; allowed are 0 … {limit - 1}.")
    return UnitLeaves(cells, bound, root, unit, twins.astype(np.bool_), amplitude, offset)


def _indices(name: str, value: Any) -> npt.NDArray[np.int64]:
    array = np.asarray(value)
    if array.dtype.kind not in "iu" or array.ndim != 1:
        raise InputTypeError(f"{name} is {shown(value)}; allowed is a vector of integers.")
    return array.astype(np.int64)


def _bound(content: dict[str, Any]) -> float:
    return -math.inf if content["psi_lower"] is None else finite_number(content, "psi_lower")


def _text(content: dict[str, Any], name: str) -> str:
    value = content[name]
    if not isinstance(value, str):
        raise InputTypeError(f"{name} is {shown(value)}; allowed is a string.")
    return value

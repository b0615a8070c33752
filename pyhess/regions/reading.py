"""Regions from the descriptions that ``Region.to_dict`` gives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .._checks import described_kind, exact_keys, shown
from .._region import Region
from ..errors import InputError, InputTypeError
from ..model import MLP
from .convex import DescribedConvex
from .intersection import Intersection
from .ordered import Ordered
from .simple import Ball, Box


def region_from_dict(content: Any, net: MLP | None = None) -> Region:
    """Return the region that a dictionary of ``Region.to_dict`` describes, bit for bit.

    Parameters
    ----------
    content : dict
        With the keys of its kind and no others. Vectors may be lists or arrays.
    net : MLP, optional
        Needed by ordered cells, which order the units of a network.

    Returns
    -------
    Region
        For a user's `Convex` set its description alone: a region that knows its centre, size and enclosure, and that raises
        InputError where the projection would be needed.

    Raises
    ------
    InputError, InputTypeError
        If the kind is unknown, keys are missing or unknown, or a value does not fit.

    Examples
    --------
    >>> import pyhess as ph
    >>> from pyhess.regions import region_from_dict
    >>> region = ph.Intersection([ph.Box(-1.0, 1.0), ph.Ball(radius=1.25)])
    >>> region_from_dict(region.to_dict()) == region
    True
    """
    kind = described_kind("region", "Region.to_dict", content, _READERS)
    return _READERS[kind](content, net)


def _fields(content: dict[str, Any], *names: str) -> list[Any]:
    exact_keys(f"the region of kind {content['kind']!r}", content, ("kind", *names))
    return [content[name] for name in names]


def _box(content: dict[str, Any], _net: MLP | None) -> Region:
    return Box(*_fields(content, "low", "high"))


def _ball(content: dict[str, Any], _net: MLP | None) -> Region:
    return Ball(*_fields(content, "center", "radius"))


def _ordered(content: dict[str, Any], net: MLP | None) -> Region:
    base, widths = _fields(content, "region", "widths")
    if net is None:
        raise InputError("the region is an ordered cell, which orders the units of a network; pass the network as well.")
    if widths != list(net.widths):
        raise InputError(f"the cell orders the units of a network of widths {shown(widths)}, not those of {net!r}.")
    return Ordered(region_from_dict(base, net), net)


def _intersection(content: dict[str, Any], net: MLP | None) -> Region:
    (parts,) = _fields(content, "parts")
    if not isinstance(parts, list):
        raise InputTypeError(f"parts is {shown(parts)}; allowed is a list of regions.")
    return Intersection([region_from_dict(part, net) for part in parts])


def _convex(content: dict[str, Any], net: MLP | None) -> Region:
    name, center, size, enclosure = _fields(content, "project", "center", "size", "enclosure")
    return DescribedConvex(name, center, size, None if enclosure is None else region_from_dict(enclosure, net))


_READERS: dict[str, Callable[[dict[str, Any], MLP | None], Region]] = {
    "box": _box,
    "ball": _ball,
    "ordered": _ordered,
    "intersection": _intersection,
    "convex": _convex,
}

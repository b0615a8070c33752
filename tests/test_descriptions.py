"""Regions and penalties from their descriptions: bit for bit, and strictly."""

from __future__ import annotations

import json
from typing import Any

import pytest

import pyhess as ph
from pyhess.errors import InputError
from pyhess.penalties import penalty_from_dict
from pyhess.regions import region_from_dict

from .regions_penalties import NET, PENALTIES, REGIONS, P, cap


@pytest.mark.parametrize("name", REGIONS)
def test_regions_survive_json(name: str) -> None:
    region = REGIONS[name]()
    again = region_from_dict(json.loads(json.dumps(region.to_dict())), NET)
    assert again == region and again.bind(NET) == region.bind(NET)


@pytest.mark.parametrize("name", PENALTIES)
def test_penalties_survive_json(name: str) -> None:
    penalty = PENALTIES[name]()
    again = penalty_from_dict(json.loads(json.dumps(penalty.to_dict())))
    assert again == penalty and again.bind(NET) == penalty.bind(NET)


def test_what_is_left_of_a_users_region() -> None:
    region = cap()
    left = region_from_dict(json.loads(json.dumps(region.to_dict())))
    assert left.to_dict() == region.to_dict() and repr(left) == repr(region) and left != region
    assert left.size == P and left.enclosures() == region.enclosures()


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ([], "dictionary"),
        ({}, "kind"),
        ({"kind": "sphere"}, "allowed: box, ball, ordered, intersection, convex"),
        ({"kind": "box", "low": 0.0}, "lacks high"),
        ({"kind": "box", "low": 0.0, "high": 1.0, "mid": 0.5}, "unknown mid"),
        ({"kind": "ball", "center": 0.0, "radius": -1.0}, "radius"),
        ({"kind": "ordered", "region": {"kind": "box", "low": 0.0, "high": 1.0}, "widths": [2, 4, 1]}, "widths"),
        ({"kind": "intersection", "parts": {}}, "list of regions"),
        ({"kind": "convex", "project": 3, "center": [0.0], "size": 1.0, "enclosure": None}, "name of a function"),
        ({"kind": "convex", "project": "f", "center": [], "size": 1.0, "enclosure": None}, "center"),
        (
            {"kind": "convex", "project": "f", "center": [0.0], "size": 1.0, "enclosure": {"kind": "intersection", "parts": []}},
            "parts",
        ),
    ],
)
def test_bad_descriptions_of_regions_are_named(content: Any, text: str) -> None:
    with pytest.raises(ph.PyhessError) as error:
        region_from_dict(content, NET)
    assert text in str(error.value)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (None, "dictionary"),
        ({"kind": "l1"}, "allowed: l2, shifted_l2, weighted_l2, geometric_l2"),
        ({"kind": "l2"}, "lacks penalize"),
        ({"kind": "geometric_l2", "w": 1.0}, "unknown w"),
        ({"kind": "weighted_l2", "w": [1.0, -1.0]}, "-1.0"),
    ],
)
def test_bad_descriptions_of_penalties_are_named(content: Any, text: str) -> None:
    with pytest.raises(ph.PyhessError) as error:
        penalty_from_dict(content)
    assert text in str(error.value)


def test_an_ordered_cell_needs_its_network() -> None:
    with pytest.raises(InputError, match="pass the network"):
        region_from_dict(REGIONS["ordered"]().to_dict())

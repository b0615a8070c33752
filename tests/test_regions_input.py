"""Boxes and balls: what they refuse, and what they say then."""

import numpy as np
import pytest

from pyhess.errors import InputError, InputTypeError
from pyhess.model import MLP
from pyhess.regions import Ball, Box, Region, as_region

NET = MLP([2, 3, 2])  # P = 17


def test_empty_and_flat_boxes():
    with pytest.raises(InputError, match=r"the box is empty: low = 1.0, high = 0.0; allowed is low < high"):
        Box(1.0, 0.0)
    with pytest.raises(InputError, match=r"the box has an empty interior: low = 0.5, high = 0.5"):
        Box(0.5, 0.5)
    with pytest.raises(InputError, match=r"the box is empty: low\[1\] = 2.0, high\[1\] = 1.0"):
        Box([0.0, 2.0, 3.0], 1.0)
    with pytest.raises(InputError, match=r"the box has an empty interior: low\[2\] = 1.0, high\[2\] = 1.0"):
        Box([0.0, 0.0, 1.0], [1.0, 1.0, 1.0])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_bounds_and_centres_must_be_finite(bad):
    with pytest.raises(InputError, match=rf"low is {bad}; allowed are finite numbers"):
        Box(bad, 1.0)
    with pytest.raises(InputError, match=rf"high\[1\] is {bad}"):
        Box(0.0, [1.0, bad, bad])
    with pytest.raises(InputError, match=rf"center is {bad}"):
        Ball(bad, 1.0)
    with pytest.raises(InputError, match=rf"center\[0\] is {bad}"):
        Ball([bad, 0.0], 1.0)
    with pytest.raises(InputError, match=rf"theta0\[1\] is {bad}"):
        Box.around([0.0, bad], 1.0)


def test_boxes_whose_width_overflows():
    with pytest.raises(InputError, match=r"high - low overflows.*smaller box"):
        Box(-1e308, 1e308)
    with pytest.raises(InputError, match=r"high\[1\] - low\[1\] overflows"):
        Box([-1.0, -1e308], 1e308)


def test_shapes_of_bounds_and_centres():
    with pytest.raises(InputError, match=r"low has shape \(2,\) and high \(3,\); allowed are equal shapes"):
        Box(np.zeros(2), np.ones(3))
    with pytest.raises(InputError, match=r"low has shape \(1,\) and high \(3,\)"):
        Box(np.zeros(1), np.ones(3))
    for shape in [(2, 2), (0,)]:
        with pytest.raises(InputError, match=r"high has shape .*allowed are a number and a vector \(P,\)"):
            Box(-1.0, np.ones(shape))
        with pytest.raises(InputError, match=r"center has shape"):
            Ball(np.ones(shape), 1.0)


@pytest.mark.parametrize("bad", ["x", None, 1j, [None], [[1.0], [2.0, 3.0]]])
def test_bounds_and_centres_of_other_kinds(bad):
    makers = {"low": lambda: Box(bad, 1.0), "high": lambda: Box(0.0, bad), "center": lambda: Ball(bad, 1.0)}
    for name, make in makers.items():
        with pytest.raises(InputTypeError, match=rf"{name} (has dtype|cannot be turned)"):
            make()


@pytest.mark.parametrize("radius", [0.0, -1.0, -0.0, np.nan, np.inf, -np.inf, 10**400])
def test_radii_must_be_positive_and_finite(radius):
    with pytest.raises(InputError, match=r"radius is .*allowed are finite numbers > 0"):
        Ball(0.0, radius)
    with pytest.raises(InputError, match=r"radii\[1\] is .*allowed are finite numbers > 0"):
        Box.per_layer(NET, [1.0, radius])


@pytest.mark.parametrize("radius", [True, "2", 2j, [2.0], np.ones(1), object()])
def test_radii_must_be_numbers(radius):
    with pytest.raises(InputTypeError, match=r"radius is .*pass a positive number"):
        Ball(0.0, radius)


def test_a_ball_without_radius():
    with pytest.raises(InputTypeError, match=r"the radius of the ball is missing.*Ball\(center=0.0, radius=2.0\)"):
        Ball(2.0)


def test_boxes_around_bad_points():
    with pytest.raises(InputError, match=r"theta0 has shape \(\).*Box\(low, high\)"):
        Box.around(1.0, 0.5)
    with pytest.raises(InputError, match=r"theta0 has shape \(2, 2\); allowed is \(P,\)"):
        Box.around(np.ones((2, 2)), 0.5)
    with pytest.raises(InputError, match=r"theta0 has shape \(0,\)"):
        Box.around([], 0.5)
    with pytest.raises(InputError, match=r"radius has shape \(3,\); allowed are a number and \(2,\)"):
        Box.around([1.0, 2.0], np.ones(3))
    for radius in (0.0, -0.5):
        with pytest.raises(InputError, match=rf"radius is {radius}; allowed are numbers > 0"):
            Box.around([1.0, 2.0], radius)
    with pytest.raises(InputError, match=r"radius\[1\] is -1.0"):
        Box.around([1.0, 2.0], [1.0, -1.0])
    with pytest.raises(InputError, match=r"radius\[1\] is nan; allowed are finite numbers"):
        Box.around([1.0, 2.0], [1.0, np.nan])
    with pytest.raises(InputError, match=r"lost in the rounding of theta0\[1\] = 1e\+20.*larger radius"):
        Box.around([1.0, 1e20], 1.0)
    with pytest.raises(InputError, match=r"high\[1\] is inf"):
        Box.around([1.0, 1e308], 1e308)


@pytest.mark.parametrize("radii", [[], [1.0], [1.0, 2.0, 3.0], 1.0, "12", None])
def test_per_layer_takes_one_radius_per_layer(radii):
    with pytest.raises(InputError, match=r"radii is .*one number > 0 per layer, 2 for MLP\(\[2, 3, 2\]"):
        Box.per_layer(NET, radii)


def test_per_layer_takes_a_network():
    with pytest.raises(InputTypeError, match=r"net is 17; pass an MLP or an Objective"):
        Box.per_layer(17, [1.0, 1.0])


@pytest.mark.parametrize("region", [Box(-1.0, 1.0), Ball(0.0, 1.0)])
@pytest.mark.parametrize("net", ["NET", None, 17.0, True, [17]])
def test_binding_to_other_things(region, net):
    with pytest.raises(InputTypeError, match=r"is .*(an MLP, an Objective or the number of parameters|integer)"):
        region.bind(net)


@pytest.mark.parametrize("region", [Box(-1.0, 1.0), Ball(0.0, 1.0)])
def test_binding_to_no_parameters(region):
    with pytest.raises(InputError, match=r"num_params is 0"):
        region.bind(0)


@pytest.mark.parametrize("region", [Box(-np.ones(5), 1.0), Ball(np.ones(5), 1.0)])
def test_vectors_must_fit_the_network(region):
    message = "the region has 5 coordinates but 17 parameters are asked for"
    with pytest.raises(InputError, match=message):
        region.bind(NET)
    for method in (region.contains, region.interior_contains, region.project):
        with pytest.raises(InputError, match=message):
            method(np.zeros(17))
    with pytest.raises(InputError, match=message):
        region.sample(3, NET, rng=7)
    for method in (region.is_permutation_symmetric, region.is_sign_symmetric):
        with pytest.raises(InputError, match=message):
            method(NET)


@pytest.mark.parametrize("region", [Box(-1.0, 1.0), Ball(0.0, 1.0), Box(-1.0, 1.0).bind(3)])
def test_points_must_be_finite_vectors(region):
    for method in (region.contains, region.interior_contains, region.project):
        for shape in [(), (0,), (2, 3), (3, 1)]:
            with pytest.raises(InputError, match=r"theta has shape .*allowed is \(P,\)"):
                method(np.zeros(shape))
        for bad in (np.nan, np.inf):
            with pytest.raises(InputError, match=rf"theta\[2\] is {bad}"):
                method([0.0, 0.0, bad])
        with pytest.raises(InputTypeError, match=r"theta has dtype"):
            method(["a", "b", "c"])


@pytest.mark.parametrize("atol", [-1e-9, np.nan, np.inf])
def test_tolerances_must_be_non_negative(atol):
    with pytest.raises(InputError, match=r"atol is"):
        Box(-1.0, 1.0).contains([2.0], atol=atol)


@pytest.mark.parametrize("region", [Box(-1.0, 1.0), Ball(0.0, 1.0)])
def test_sampling_checks_its_arguments(region):
    with pytest.raises(InputError, match=r"does not know the number of parameters; .*region.sample\(S, net\)"):
        region.sample(5)
    with pytest.raises(InputError, match=r"num_samples is 0"):
        region.sample(0, NET)
    for count in (2.0, True, "3", None):
        with pytest.raises(InputTypeError, match=r"num_samples is"):
            region.sample(count, NET)
    with pytest.raises(InputTypeError, match=r"rng is 'seven'"):
        region.sample(5, NET, rng="seven")
    with pytest.raises(InputError, match=r"rng is -7"):
        region.sample(5, NET, rng=-7)


@pytest.mark.parametrize("net", [17, None, "NET"])
def test_symmetry_takes_a_network(net):
    for method in (Box(-1.0, 1.0).is_permutation_symmetric, Ball(0.0, 1.0).is_sign_symmetric):
        with pytest.raises(InputTypeError, match=r"net is .*pass an MLP or an Objective"):
            method(net)


@pytest.mark.parametrize(
    "region",
    [[Box(0.0, 1.0), Box(2.0, 3.0)], (-0.5, 0.5), {Ball(0.0, 1.0)}, 0.5, "box", None, Box, np.ones(3), NET],
)
def test_other_things_are_no_regions(region):
    with pytest.raises(InputTypeError, match=r"region is .*one convex set.*Box\(low, high\).*Ball\(.*union.*not convex"):
        as_region(region)


def test_a_region_of_ones_own_needs_the_whole_interface():
    with pytest.raises(TypeError, match=r"abstract"):
        Region()

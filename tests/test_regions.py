"""Boxes and balls: geometry, sampling, symmetry and value semantics."""

import copy
import json
import pickle
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from pyhess.model import MLP
from pyhess.regions import Ball, Box, as_region

NET = MLP([2, 3, 2])  # P = 17


class HasNet:
    """Stands for an Objective: something with a network and a number of parameters."""

    net = NET
    num_params = NET.num_params


def random_region(kind, size, rng):
    center = rng.normal(size=size)
    if kind == "box":
        half = rng.uniform(0.1, 2.0, size)
        return Box(center - half, center + half)
    return Ball(center, rng.uniform(0.1, 3.0))


cases = st.tuples(st.sampled_from(["box", "ball"]), st.integers(1, 12), st.integers(2, 10**6))

# --- membership -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("region", [Box(-1.0, 2.0), Box([-1.0] * 3, 2.0), Box(-1.0, 2.0).bind(3)])
def test_membership_in_a_box(region):
    assert region.contains([-1.0, 0.0, 2.0])
    assert not region.interior_contains([-1.0, 0.0, 0.0])
    assert not region.interior_contains([0.0, 0.0, 2.0])
    assert region.interior_contains([np.nextafter(-1.0, 0.0), 0.0, np.nextafter(2.0, 0.0)])
    assert not region.contains([0.0, 0.0, np.nextafter(2.0, 3.0)])
    assert region.contains([0.0, 0.0, 2.25], atol=0.25)
    assert not region.contains([0.0, 0.0, 2.26], atol=0.25)


@pytest.mark.parametrize("region", [Ball(1.0, 5.0), Ball([1.0, 1.0], 5.0), Ball(1.0, 5.0).bind(2)])
def test_membership_in_a_ball(region):
    assert region.contains([4.0, 5.0])
    assert not region.interior_contains([4.0, 5.0])
    assert region.interior_contains([3.9, 5.0])
    assert not region.contains([4.0, 5.1])
    assert region.contains([4.0, 5.1], atol=0.1)
    assert not region.interior_contains([9.0, 9.0])


def test_balls_measure_distances_without_overflow_or_underflow():
    assert not Ball(0.0, 1.0).contains([1e200, 0.0])
    assert Ball(0.0, 1e200).contains([3e199, 4e199])
    assert not Ball(0.0, 1e200).contains([1e200, 1e200])
    assert not Ball(0.0, 1e-200).contains([1e-200, 1e-200])
    assert Ball(0.0, 1e-200).interior_contains([3e-201, 4e-201])
    assert not Ball(-1e308, 1.0).contains([1e308])


# --- projection -----------------------------------------------------------------------------------------


@settings(max_examples=100, deadline=None)
@given(cases)
def test_projection_is_the_nearest_point(case):
    kind, size, seed = case
    rng = np.random.default_rng(seed)
    region = random_region(kind, size, rng)
    theta = rng.normal(scale=4.0, size=size)
    point = region.project(theta)
    assert region.contains(point)
    np.testing.assert_array_equal(region.project(point), point)
    if region.contains(theta):
        np.testing.assert_array_equal(point, theta)
    # A point of a convex set is nearest iff no other point of the set lies on theta's side of it.
    others = region.sample(50, rng=rng)
    assert ((others - point) @ (theta - point)).max() <= 1e-12 * (1.0 + theta @ theta)


def test_projections_written_out():
    np.testing.assert_array_equal(Box(-0.5, [0.5, 1.0, 2.0]).project([3.0, 0.2, -4.0]), [0.5, 0.2, -0.5])
    np.testing.assert_allclose(Ball(1.0, 5.0).project([7.0, 9.0]), [4.0, 5.0], rtol=1e-15)
    np.testing.assert_allclose(Ball(0.0, 1.0).project([3e200, 4e200]), [0.6, 0.8], rtol=1e-15)
    np.testing.assert_allclose(Ball(-1e308, 1e300).project([1e308]), [-1e308], rtol=1e-7)


def test_projection_gives_a_new_array():
    theta = np.zeros(3)
    for region in (Box(-1.0, 1.0), Ball(0.0, 1.0)):
        assert not np.shares_memory(region.project(theta), theta)


@pytest.mark.parametrize("radius", [1e-3, 1e-6, 1e-12])
def test_projection_ends_inside_where_rounding_is_as_coarse_as_the_radius(radius):
    rng = np.random.default_rng(17)
    for _ in range(50):
        ball = Ball(rng.normal(scale=1e9, size=6), radius)
        point = ball.project(rng.normal(scale=1e9, size=6))
        assert ball.contains(point)


# --- sampling -------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(cases)
def test_samples_lie_in_the_region(case):
    kind, size, seed = case
    region = random_region(kind, size, np.random.default_rng(seed))
    thetas = region.sample(20, rng=seed)
    assert thetas.shape == (20, size)
    assert all(region.contains(theta) for theta in thetas)
    np.testing.assert_array_equal(thetas, region.sample(20, rng=np.random.default_rng(seed)))


def test_box_samples_are_uniform():
    low, high = np.array([-1.0, 2.0]), np.array([3.0, 2.5])
    thetas = Box(low, high).sample(4000, rng=23)
    for i in range(2):
        assert stats.kstest(thetas[:, i], stats.uniform(low[i], high[i] - low[i]).cdf).pvalue > 1e-3
    assert abs(np.corrcoef(thetas.T)[0, 1]) < 0.06


@pytest.mark.parametrize("size", [1, 2, 5])
def test_ball_samples_are_uniform(size):
    radius = 2.5
    center = np.arange(1.0, size + 1.0)
    offsets = Ball(center, radius).sample(4000, rng=29) - center
    distance = np.linalg.norm(offsets, axis=1)
    # The share of the volume within r is (r / radius)^P; a projection of the direction has a Beta law.
    assert stats.kstest((distance / radius) ** size, "uniform").pvalue > 1e-3
    share = (offsets[:, 0] / distance + 1.0) / 2.0
    if size > 1:
        assert stats.kstest(share, stats.beta((size - 1) / 2, (size - 1) / 2).cdf).pvalue > 1e-3
    else:
        assert abs(share.mean() - 0.5) < 0.04


def test_the_narrowest_box_is_sampled_within_its_bounds():
    low = 1.0
    box = Box(low, np.nextafter(low, 2.0))
    thetas = box.sample(500, 3, rng=31)
    assert set(thetas.ravel()) <= {1.0, np.nextafter(low, 2.0)}


def test_sampling_takes_its_size_from_a_network_an_objective_or_a_number():
    for region in (Box(-1.0, 1.0), Ball(0.0, 2.0)):
        expected = region.sample(4, 17, rng=13)
        assert expected.shape == (4, 17)
        for net in (NET, HasNet(), np.int64(17)):
            np.testing.assert_array_equal(region.sample(4, net, rng=13), expected)
        np.testing.assert_array_equal(region.bind(NET).sample(4, rng=13), expected)


# --- binding --------------------------------------------------------------------------------------------


def test_binding_makes_full_read_only_vectors():
    box, ball = Box(-1.0, 2.0), Ball(0.5, 2.0)
    assert box.size is None
    assert ball.size is None
    bound_box, bound_ball = box.bind(NET), ball.bind(HasNet())
    assert bound_box.size == bound_ball.size == 17
    np.testing.assert_array_equal(bound_box.low, np.full(17, -1.0))
    np.testing.assert_array_equal(bound_box.high, np.full(17, 2.0))
    np.testing.assert_array_equal(bound_ball.center, np.full(17, 0.5))
    assert bound_ball.radius == 2.0
    assert bound_box.bind(17) is bound_box
    for array in (bound_box.low, bound_box.high, bound_ball.center):
        assert array.flags.c_contiguous
        with pytest.raises(ValueError, match=r"read-only"):
            array[0] = 7.0


def test_one_bound_may_be_a_vector():
    box = Box(-1.0, [0.5, 1.0])
    assert box.size == 2
    np.testing.assert_array_equal(box.low, [-1.0, -1.0])


def test_bounds_are_copied():
    low, center = -np.ones(3), np.zeros(3)
    box, ball = Box(low, 1.0), Ball(center, 1.0)
    low[0] = center[0] = 9.0
    assert box.low[0] == -1.0
    assert ball.center[0] == 0.0


def test_box_around_a_point():
    box = Box.around([1.0, -2.0], 0.25)
    np.testing.assert_array_equal(box.low, [0.75, -2.25])
    np.testing.assert_array_equal(box.high, [1.25, -1.75])
    box = Box.around([1.0, -2.0], [0.5, 1.0])
    np.testing.assert_array_equal(box.high, [1.5, -1.0])


def test_box_per_layer():
    for net in (NET, HasNet()):
        box = Box.per_layer(net, [0.5, 2.0])
        np.testing.assert_array_equal(box.high, [0.5] * 9 + [2.0] * 8)
        np.testing.assert_array_equal(box.low, -box.high)
    no_bias = MLP([2, 3, 2], bias=False)
    np.testing.assert_array_equal(Box.per_layer(no_bias, (0.5, 2)).high, [0.5] * 6 + [2.0] * 6)


# --- symmetry -------------------------------------------------------------------------------------------


def unit_images(net, theta, layer, order, signs):
    """theta after reordering and flipping the units of a hidden layer."""
    layers = [(w.copy(), None if b is None else b.copy()) for w, b in net.unpack(theta)]
    (w, b), (w_next, b_next) = layers[layer], layers[layer + 1]
    rows = list(order)
    layers[layer] = (w[rows] * signs[:, None], None if b is None else b[rows] * signs)
    layers[layer + 1] = (w_next[:, rows] * signs, b_next)
    return net.pack(layers)


def image(net, region, layer, order, signs):
    """The region after the same."""
    if isinstance(region, Ball):
        return Ball(unit_images(net, region.center, layer, order, signs), region.radius)
    corners = [unit_images(net, bound, layer, order, signs) for bound in (region.low, region.high)]
    return Box(np.minimum(*corners), np.maximum(*corners))


def truly_permutation_symmetric(net, region):
    return all(
        image(net, region, layer, order, np.ones(width)) == region
        for layer, width in enumerate(net.widths[1:-1])
        for order in permutations(range(width))
    )


def truly_sign_symmetric(net, region):
    return all(
        image(net, region, layer, range(width), np.where(np.arange(width) == j, -1.0, 1.0)) == region
        for layer, width in enumerate(net.widths[1:-1])
        for j in range(width)
    )


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.integers(1, 3), min_size=2, max_size=4),
    st.booleans(),
    st.sampled_from(["box", "ball"]),
    st.sampled_from(["plain", "layers", "shifted"]),
    st.integers(-1, 10**6),
)
def test_symmetry_agrees_with_moving_the_whole_region(widths, bias, kind, start, place):
    net = MLP(widths, bias=bias)
    size = net.num_params
    middle = np.zeros(size)
    half = np.ones(size)
    if start == "layers":
        half = np.array(Box.per_layer(net, np.arange(1.0, net.num_layers + 1)).high)
    if start == "shifted":
        middle += 0.25
    if place >= 0:  # disturb one coordinate
        middle[place % size] += 0.5
    region = Box(middle - half, middle + half) if kind == "box" else Ball(middle, 2.0)
    assert region.is_permutation_symmetric(net) is truly_permutation_symmetric(net, region)
    assert region.is_sign_symmetric(net) is truly_sign_symmetric(net, region)


def test_symmetry_of_the_usual_regions():
    for region in (Box(-0.5, 0.5), Ball(0.0, 2.0), Box.per_layer(NET, [0.5, 1.0])):
        assert region.is_permutation_symmetric(NET)
        assert region.is_sign_symmetric(NET)
        assert region.is_permutation_symmetric(HasNet())
        assert region.is_sign_symmetric(HasNet())
    for region in (Box(-0.5, 1.0), Ball(0.25, 2.0)):
        assert region.is_permutation_symmetric(NET)
        assert not region.is_sign_symmetric(NET)
    theta0 = NET.init(rng=7)
    for region in (Box.around(theta0, 0.5), Ball(theta0, 0.5)):
        assert not region.is_permutation_symmetric(NET)
        assert not region.is_sign_symmetric(NET)


def test_the_output_bias_and_the_input_side_do_not_matter():
    high = np.ones(17)
    high[15:] = [2.0, 3.0]  # b2
    high[[0, 2, 4]] = 5.0  # the first input, alike for all units
    high[9:12] = 4.0  # the first output, alike for all units
    low = -high
    low[15] = -0.5
    region = Box(low, high)
    assert region.is_permutation_symmetric(NET)
    assert region.is_sign_symmetric(NET)


@pytest.mark.parametrize("place", [3, 7, 10, 13])
def test_both_bounds_of_a_box_count(place):
    for sign in (1.0, -1.0):
        bounds = np.full(17, -1.0), np.ones(17)
        bounds[0 if sign < 0 else 1][place] += sign
        assert not Box(*bounds).is_permutation_symmetric(NET)
        assert not Box(*bounds).is_sign_symmetric(NET)


@pytest.mark.parametrize(
    ("activation", "odd"),
    [("tanh", True), ("identity", True), (["tanh", "identity"], True)]
    + [(a, False) for a in ("relu", "softplus", "sigmoid", "gelu", ["tanh", "gelu"], ["relu", "tanh"])],
)
def test_sign_symmetry_takes_odd_activations_in_every_hidden_layer(activation, odd):
    assert Box(-0.5, 0.5).is_sign_symmetric(MLP([2, 3, 3, 1], activation)) is odd
    assert Box(-0.5, 0.5).is_permutation_symmetric(MLP([2, 3, 3, 1], activation))


def test_without_hidden_units_every_region_is_symmetric():
    net = MLP([3, 2])
    region = Ball(np.arange(8.0), 1.0)
    assert region.is_permutation_symmetric(net)
    assert region.is_sign_symmetric(net)


# --- value semantics ------------------------------------------------------------------------------------

REGIONS = [
    Box(-0.5, 0.5),
    Box(-0.5, 0.5).bind(3),
    Box([-1.0, -2.0], [1.0, 0.5]),
    Ball(0.0, 2.0),
    Ball(0.0, 2.0).bind(3),
    Ball([1.0, 2.0], 0.5),
]


@pytest.mark.parametrize("region", REGIONS, ids=repr)
def test_regions_are_values(region):
    for other in (pickle.loads(pickle.dumps(region)), copy.copy(region), copy.deepcopy(region)):
        assert other == region
        assert hash(other) == hash(region)
        assert repr(other) == repr(region)
    assert as_region(region) is region
    assert sum(other == region for other in REGIONS) == 1


def test_zero_and_minus_zero_are_the_same_bound():
    for one, other in [(Box(-0.0, 1.0), Box(0.0, 1.0)), (Ball(-0.0, 1.0), Ball(0.0, 1.0))]:
        assert one == other
        assert hash(one) == hash(other)
        assert repr(one) == repr(other)


def test_regions_of_other_kinds_differ():
    assert Box(-1.0, 1.0) != Ball(0.0, 1.0)
    assert Ball(0.0, 1.0) != 1.0
    assert Ball(0.0, 1.0) != Ball(0.0, 1.5)
    assert Box(-1.0, 1.0) != Box(-1.0, 1.5)


def test_reprs():
    assert repr(Box(-0.5, 0.123456789)) == "Box(-0.5, 0.123456789)"
    assert repr(Box(-0.5, 0.5).bind(17)) == "Box(-0.5, 0.5, P=17)"
    assert repr(Box([0.0, 0.0], [1.0, 2.0])) == "Box(widths 1 to 2, P=2)"
    assert repr(Ball(radius=2)) == "Ball(center=0.0, radius=2.0)"
    assert repr(Ball(1.0, 2.0).bind(17)) == "Ball(center=1.0, radius=2.0, P=17)"
    assert repr(Ball([1.0, 2.0], 2.0)) == "Ball(center=…, radius=2.0, P=2)"


@pytest.mark.parametrize("region", REGIONS, ids=repr)
def test_dictionaries_survive_json(region):
    back = json.loads(json.dumps(region.to_dict()))
    kind = {"box": Box, "ball": Ball}[back.pop("kind")]
    assert kind(**back) == region
    assert region.kind == kind.kind


def test_regions_are_immutable():
    with pytest.raises(AttributeError, match=r"Box is immutable.*instead of setting low"):
        Box(-1.0, 1.0).low = 5.0
    with pytest.raises(AttributeError, match=r"Ball is immutable"):
        Ball(0.0, 1.0).radius = -1.0

"""MLP: layout, initialisation, value semantics, and what it refuses."""

import copy
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyhess.errors import InputError, InputTypeError
from pyhess.model import ACTIVATIONS, MLP

NETS = [
    MLP([3, 2]),
    MLP([3, 2], bias=False),
    MLP([4, 5, 3, 2], activation=["tanh", "relu"]),
    MLP([4, 5, 3, 2], activation=["softplus", "tanh"], beta=[4.0, 3.0], bias=False),
    MLP([2, 7, 1], activation="softplus", beta=2.5, parametrization="ntk"),
]

nets = st.builds(
    MLP,
    st.lists(st.integers(1, 6), min_size=2, max_size=5),
    activation=st.sampled_from(ACTIVATIONS),
    bias=st.booleans(),
    parametrization=st.sampled_from(["standard", "ntk"]),
)


def test_layout_of_a_small_network_written_out():
    net = MLP([2, 3, 1])
    assert net.num_params == 13
    assert net.num_layers == 2
    assert net.layer_slices == ((slice(0, 6), slice(6, 9)), (slice(9, 12), slice(12, 13)))
    (w1, b1), (w2, b2) = net.unpack(np.arange(13.0))
    np.testing.assert_array_equal(w1, [[0, 1], [2, 3], [4, 5]])
    np.testing.assert_array_equal(b1, [6, 7, 8])
    np.testing.assert_array_equal(w2, [[9, 10, 11]])
    np.testing.assert_array_equal(b2, [12])


def test_layout_without_biases():
    net = MLP([2, 3, 1], bias=False)
    assert net.num_params == 9
    assert net.layer_slices == ((slice(0, 6), None), (slice(6, 9), None))
    assert [b for _, b in net.unpack(np.zeros(9))] == [None, None]


def test_per_layer_settings():
    net = MLP([4, 5, 3, 2], activation=["softplus", "tanh"], beta=[4.0, 3.0], parametrization="ntk")
    assert net.activations == ("softplus", "tanh")
    assert net.betas == (4.0, 1.0)  # tanh has no beta
    np.testing.assert_allclose(net.layer_scales, [4**-0.5, 5**-0.5, 3**-0.5], rtol=1e-15)
    assert MLP([4, 5, 3, 2], "softplus", beta=np.array(2.0)).betas == (2.0, 2.0)
    assert MLP([4, 5, 3, 2], ("relu", "gelu")).activations == ("relu", "gelu")
    assert MLP([4, 5, 2]).layer_scales == (1.0, 1.0)


def test_a_network_without_hidden_layers_has_no_activations():
    net = MLP([3, 2], activation="relu")
    assert net.activations == ()
    assert net.betas == ()
    assert net.is_smooth
    assert net == MLP([3, 2], activation=[])


@pytest.mark.parametrize(("activation", "smooth"), [(a, a != "relu") for a in ACTIVATIONS])
def test_only_relu_is_not_smooth(activation, smooth):
    assert MLP([2, 3, 3, 1], activation=["tanh", activation]).is_smooth is smooth


@settings(max_examples=50, deadline=None)
@given(nets, st.integers(2, 10**6))
def test_pack_inverts_unpack_and_slices_cover_theta_once(net, seed):
    theta = np.random.default_rng(seed).standard_normal(net.num_params)
    layers = net.unpack(theta)
    assert [w.shape for w, _ in layers] == list(zip(net.widths[1:], net.widths[:-1], strict=True))
    np.testing.assert_array_equal(net.pack(layers), theta)
    hits = np.zeros(net.num_params, dtype=int)
    for pair in net.layer_slices:
        for part in pair:
            if part is not None:
                hits[part] += 1
    assert (hits == 1).all()


def test_unpack_gives_views_and_pack_a_new_vector():
    net = MLP([2, 3, 1])
    theta = np.zeros(13)
    layers = net.unpack(theta)
    layers[1][0][0, 2] = 5.0
    assert theta[11] == 5.0
    assert not np.shares_memory(net.pack(layers), theta)


def test_init_is_reproducible_and_has_the_stated_variance():
    net = MLP([300, 200, 100])
    theta = net.init(rng=7)
    np.testing.assert_array_equal(theta, net.init(rng=np.random.default_rng(7)))
    assert (theta != net.init(rng=8)).any()
    for (w, b), fan_in, fan_out in zip(net.unpack(theta), [300, 200], [200, 100], strict=True):
        assert w.std() == pytest.approx((2 / (fan_in + fan_out)) ** 0.5, rel=0.03)
        assert abs(w.mean()) < 0.002
        assert not b.any()
    ntk = MLP([300, 200, 100], parametrization="ntk")
    assert [w.std() for w, _ in ntk.unpack(ntk.init(rng=7))] == pytest.approx([1.0, 1.0], rel=0.03)


@pytest.mark.parametrize("net", NETS, ids=repr)
def test_networks_are_values(net):
    for other in (pickle.loads(pickle.dumps(net)), copy.copy(net), copy.deepcopy(net), eval(repr(net))):
        assert other == net
        assert hash(other) == hash(net)
        for name in MLP.__slots__:
            assert getattr(other, name) == getattr(net, name)


def test_networks_differ_in_every_argument():
    different = [
        MLP([2, 3, 1], "softplus"),
        MLP([2, 4, 1], "softplus"),
        MLP([2, 3, 1], "sigmoid"),
        MLP([2, 3, 1], "softplus", beta=2.0),
        MLP([2, 3, 1], "softplus", bias=False),
        MLP([2, 3, 1], "softplus", parametrization="ntk"),
    ]
    assert len(set(different)) == len(different)
    assert MLP([2, 3, 1]) != "MLP([2, 3, 1])"


def test_networks_are_immutable():
    net = MLP([2, 3, 1])
    with pytest.raises(AttributeError, match=r"MLP is immutable.*instead of setting widths"):
        net.widths = (2, 4, 1)
    with pytest.raises(AttributeError, match=r"immutable"):
        net.note = "new"
    with pytest.raises(AttributeError, match=r"immutable; bias cannot be deleted"):
        del net.bias


def test_numpy_integers_and_generators_are_fine_as_widths():
    assert MLP(np.array([2, 3, 1])) == MLP([2, 3, 1])
    assert MLP(w for w in (2, 3, 1)) == MLP([2, 3, 1])
    assert all(type(w) is int for w in MLP(np.array([2, 3, 1])).widths)


# --- bad input ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("widths", [None, 5, "2,3", b"23", np.array(5)])
def test_widths_must_be_a_list(widths):
    with pytest.raises(InputTypeError, match=r"widths is .*pass a list \[d_in"):
        MLP(widths)


@pytest.mark.parametrize("widths", [[], [3]])
def test_widths_must_have_two_entries(widths):
    with pytest.raises(InputError, match=r"allowed are two or more entries"):
        MLP(widths)


@pytest.mark.parametrize("bad", [True, np.True_, 2.0, "2", None, [2]])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_widths_must_be_integers(bad, place):
    widths = [2, 3, 1]
    widths[place] = bad
    with pytest.raises(InputTypeError, match=rf"widths\[{place}\] is .*integer >= 1"):
        MLP(widths)


@pytest.mark.parametrize("bad", [0, -3])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_widths_must_be_positive(bad, place):
    widths = [2, 3, 1]
    widths[place] = bad
    with pytest.raises(InputError, match=rf"widths\[{place}\] is {bad}; allowed are integers >= 1"):
        MLP(widths)


def test_networks_that_no_memory_can_hold():
    with pytest.raises(InputError, match=r"the network has .* parameters; allowed are at most .*smaller widths"):
        MLP([10**10, 10**10])


def test_unknown_activations():
    with pytest.raises(InputError, match=r"activation='tahn' is not known; allowed: tanh, relu.*Did you mean 'tanh'\?"):
        MLP([2, 3, 1], "tahn")
    with pytest.raises(InputError, match=r"Did you mean 'relu'"):
        MLP([2, 3, 1], "ReLU")
    with pytest.raises(InputError, match=r"activation\[1\]='sigmiod'.*Did you mean 'sigmoid'"):
        MLP([2, 3, 3, 1], ["tanh", "sigmiod"])
    with pytest.raises(InputError, match=r"activation='tahn'"):
        MLP([2, 1], "tahn")  # checked even where no hidden layer uses it
    with pytest.raises(InputTypeError, match=r"activation is .*tanh"):
        MLP([2, 3, 1], np.tanh)
    with pytest.raises(InputTypeError, match=r"activation\[0\] is None"):
        MLP([2, 3, 1], [None])


@pytest.mark.parametrize(("activation", "count"), [([], 0), (["tanh"], 1), (["tanh"] * 3, 3)])
def test_one_activation_per_hidden_layer(activation, count):
    with pytest.raises(InputError, match=rf"activation has {count} entries; .*one per hidden layer \(2\)"):
        MLP([2, 3, 3, 1], activation)


def test_beta():
    for bad in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(InputError, match=r"beta is .*finite numbers > 0"):
            MLP([2, 3, 1], "softplus", beta=bad)
    with pytest.raises(InputError, match=r"beta is -1"):
        MLP([2, 1], beta=-1.0)
    with pytest.raises(InputError, match=r"beta\[1\] is -2.0"):
        MLP([2, 3, 3, 1], "softplus", beta=[1.0, -2.0])
    with pytest.raises(InputError, match=r"beta has 1 entries; .*\(2\)"):
        MLP([2, 3, 3, 1], "softplus", beta=[1.0])
    for wrong in (True, "2", None):
        with pytest.raises(InputTypeError, match=r"beta is .*positive number"):
            MLP([2, 3, 1], "softplus", beta=wrong)


def test_bias_and_parametrization():
    for wrong in (1, None, "yes"):
        with pytest.raises(InputTypeError, match=r"bias is .*True or False"):
            MLP([2, 3, 1], bias=wrong)
    with pytest.raises(InputError, match=r"parametrization='NTK'.*standard, ntk.*Did you mean 'ntk'\?"):
        MLP([2, 3, 1], parametrization="NTK")
    with pytest.raises(InputTypeError, match=r"parametrization is None"):
        MLP([2, 3, 1], parametrization=None)


def test_init_checks_its_rng():
    with pytest.raises(InputTypeError, match=r"rng is 'seven'"):
        MLP([2, 1]).init(rng="seven")
    with pytest.raises(InputError, match=r"rng is -7"):
        MLP([2, 1]).init(rng=-7)


def test_unpack_checks_theta():
    net = MLP([2, 3, 1])
    for shape in [(12,), (14,), (13, 1), (1, 13), ()]:
        with pytest.raises(InputError, match=r"theta has shape .*allowed is \(13,\)"):
            net.unpack(np.zeros(shape))
    with pytest.raises(InputTypeError, match=r"theta has dtype complex128"):
        net.unpack(np.zeros(13, dtype=complex))


def test_pack_checks_its_layers():
    net = MLP([2, 3, 1])
    w1, b1, w2, b2 = np.ones((3, 2)), np.ones(3), np.ones((1, 3)), np.ones(1)
    assert net.pack([[w1, b1], (w2, b2)]).shape == (13,)
    for wrong in (None, 5, "layers"):
        with pytest.raises(InputTypeError, match=r"layers is .*list of pairs"):
            net.pack(wrong)
    with pytest.raises(InputError, match=r"layers has 1 entries; allowed is one .* per layer, 2"):
        net.pack([(w1, b1)])
    for wrong in (w2, (w2,), (w2, b2, b2), None):
        with pytest.raises(InputTypeError, match=r"layers\[1\] is .*pass a pair"):
            net.pack([(w1, b1), wrong])
    with pytest.raises(InputError, match=r"W1 has shape \(2, 3\); allowed is \(3, 2\) \(out, in\). Transpose it"):
        net.pack([(w1.T, b1), (w2, b2)])
    with pytest.raises(InputError, match=r"W2 has shape \(3,\); allowed is \(1, 3\)"):
        net.pack([(w1, b1), (w2[0], b2)])
    with pytest.raises(InputError, match=r"b2 has shape \(3,\); allowed is \(1,\)"):
        net.pack([(w1, b1), (w2, b1)])
    with pytest.raises(InputError, match=r"b1 is missing"):
        net.pack([(w1, None), (w2, b2)])
    with pytest.raises(InputError, match=r"b1 was given to a network without biases"):
        MLP([2, 3, 1], bias=False).pack([(w1, b1), (w2, None)])
    with pytest.raises(InputTypeError, match=r"W1 has dtype"):
        net.pack([(w1 * 1j, b1), (w2, b2)])

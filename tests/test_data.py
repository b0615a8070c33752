"""Dataset and resolve_targets: what is kept, what is derived, what is refused."""

import copy
import pickle
from pathlib import Path

import numpy as np
import pytest

import pyhess as ph
from pyhess.data import LOSSES, Dataset, resolve_targets
from pyhess.errors import InputError, InputTypeError

X3 = np.array([[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]])


def test_labels_and_targets_are_told_apart_by_dtype_and_shape():
    for labels in ([0, 2, 1], np.array([0, 2, 1], np.uint8), np.array([False, True, True])):
        data = Dataset(X3, labels)
        assert data.is_labels
        assert data.y.shape == (3,)
        assert data.y.dtype == np.int64
        np.testing.assert_array_equal(data.y, labels)
    for targets, width in [
        ([0.0, 2.0, 1.0], 1),
        ([[0], [2], [1]], 1),
        (np.ones((3, 4), np.float32), 4),
        (np.eye(3, dtype=int), 3),
    ]:
        data = Dataset(X3, targets)
        assert not data.is_labels
        assert data.y.shape == (3, width)
        assert data.y.dtype == np.float64


def test_sizes_name_and_repr():
    data = Dataset(X3, [0, 2, 1], weights=[1, 2, 3], name="three points")
    assert (data.num_samples, data.num_features, data.name) == (3, 2, "three points")
    assert repr(data) == "Dataset('three points', N=3, d=2, labels, weighted)"
    assert repr(Dataset(X3, np.ones((3, 4)))) == "Dataset(N=3, d=2, K=4)"


def test_arrays_are_contiguous_read_only_copies():
    x, y, w = np.asfortranarray(X3), np.ones(3), np.ones(3)
    data = Dataset(x, y, w)
    x[0, 0] = y[0] = w[0] = 9.0
    assert (data.X[0, 0], data.y[0, 0], data.weights[0]) == (0.0, 1.0, 1.0)
    for array in (data.X, data.y, data.weights):
        assert array.flags.c_contiguous
        with pytest.raises(ValueError, match=r"read-only"):
            array[0] = 7.0


def test_data_sets_are_immutable():
    data = Dataset(X3, [0, 2, 1])
    with pytest.raises(AttributeError, match=r"Dataset is immutable.*instead of setting X"):
        data.X = X3
    with pytest.raises(AttributeError, match=r"immutable"):
        del data.y


def test_normalized_weights():
    np.testing.assert_allclose(Dataset(X3, [0, 1, 2]).normalized_weights, [1 / 3] * 3, rtol=1e-15)
    weighted = Dataset(X3, [0, 1, 2], weights=[1, 0, 3])
    np.testing.assert_allclose(weighted.normalized_weights, [0.25, 0.0, 0.75], rtol=1e-15)
    for extreme in (1e308, 5e-324):  # the sum overflows, or is denormal
        data = Dataset(X3, [0, 1, 2], weights=[extreme] * 3)
        np.testing.assert_allclose(data.normalized_weights, [1 / 3] * 3, rtol=1e-15)


def test_equality_hash_and_pickle_go_by_content():
    data = Dataset(X3, [0, 2, 1], weights=[1.0, 2.0, 3.0], name="a")
    for other in (pickle.loads(pickle.dumps(data)), copy.copy(data), copy.deepcopy(data)):
        assert other == data
        assert hash(other) == hash(data)
        assert other.name == "a"
        assert other.is_labels
        assert not other.X.flags.writeable
    assert Dataset(X3, [0, 2, 1], weights=[1, 2, 3], name="b") == data
    assert Dataset(X3.astype(np.float32), np.array([0, 2, 1], np.int8), [1, 2, 3]) == data
    assert data != "a"


def test_content_hash_sees_every_value_shape_and_kind():
    variants = [
        Dataset(X3, [0, 2, 1]),
        Dataset(X3, [0.0, 2.0, 1.0]),
        Dataset(X3, [0, 2, 2]),
        Dataset(X3 + 1e-15, [0, 2, 1]),
        Dataset(X3, [0, 2, 1], weights=[1, 1, 1]),
        Dataset(X3, [0, 2, 1], weights=[1, 1, 2]),
        Dataset(np.zeros((3, 4)), np.zeros((3, 1))),
        Dataset(np.zeros((3, 1)), np.zeros((3, 4))),
    ]
    assert len({d.content_hash for d in variants}) == len(variants)
    assert len(set(variants)) == len(variants)


def test_content_hash_is_the_same_in_every_process_and_release():
    digest = "3d12506f73795c9cff80f1288255428a47aedef4ec40a1065e968d3cd73fdd79"
    assert Dataset(X3, [0, 2, 1], weights=[1, 2, 3]).content_hash == digest


# --- bad input ------------------------------------------------------------------------------------------


def test_empty_data():
    for shape in [(0, 2), (3, 0), (0, 0)]:
        with pytest.raises(InputError, match=r"X has shape .* and is empty"):
            Dataset(np.empty(shape), np.empty(shape[0]))
    with pytest.raises(InputError, match=r"X has shape \(0,\)"):
        Dataset([], [])


def test_inputs_must_be_a_matrix():
    with pytest.raises(InputError, match=r"X has shape \(3,\).*X.reshape\(-1, 1\).*X.reshape\(1, -1\)"):
        Dataset(np.ones(3), np.ones(3))
    with pytest.raises(InputError, match=r"X has 3 dimensions.*X.reshape\(len\(X\), -1\)"):
        Dataset(np.ones((3, 8, 8)), np.ones(3))
    with pytest.raises(InputError, match=r"X has 0 dimensions"):
        Dataset(1.0, 1.0)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_the_first_non_finite_value_is_named(bad):
    x = X3.copy()
    x[1, 0] = x[2, 1] = bad
    with pytest.raises(InputError, match=rf"X\[1, 0\] is {bad}.*\(2 in all\)"):
        Dataset(x, [0, 1, 2])
    with pytest.raises(InputError, match=rf"y\[2\] is {bad}"):
        Dataset(X3, [0.0, 1.0, bad])
    with pytest.raises(InputError, match=rf"y\[1, 1\] is {bad}"):
        Dataset(X3, [[0.0, 1.0], [1.0, bad], [0.0, 0.0]])
    with pytest.raises(InputError, match=rf"weights\[0\] is {bad}"):
        Dataset(X3, [0, 1, 2], weights=[bad, 1.0, 1.0])


@pytest.mark.parametrize("shape", [(2,), (4,), (), (1, 3), (3, 0), (3, 1, 1), (0,)])
def test_targets_must_fit_the_inputs(shape):
    with pytest.raises(InputError, match=r"y has shape .* but X has 3 rows; allowed are \(3,\) and \(3, K\)"):
        Dataset(X3, np.ones(shape))


def test_targets_of_other_kinds():
    for y in (["a", "b", "a"], np.array(["a", "b", "a"], dtype=object), None):
        with pytest.raises(InputTypeError, match=r"y has dtype .*np.unique\(y, return_inverse=True\)"):
            Dataset(X3, y)
    with pytest.raises(InputTypeError, match=r"y has dtype complex128"):
        Dataset(X3, [1j, 2j, 3j])
    with pytest.raises(InputTypeError, match=r"y cannot be turned into an array"):
        Dataset(X3, [[1.0], [2.0, 3.0], [4.0]])
    with pytest.raises(InputError, match=r"y\[1\] is 18446744073709551615; allowed are labels up to"):
        Dataset(X3, np.array([0, 2**64 - 1, 1], dtype=np.uint64))


@pytest.mark.parametrize("x", [X3.astype(complex), X3.astype(object), X3.astype(str), None, {"a": 1}])
def test_inputs_of_other_kinds(x):
    with pytest.raises(InputTypeError, match=r"X has dtype .*allowed are real numbers"):
        Dataset(x, [0, 1, 2])


def test_masked_data_are_refused():
    with pytest.raises(InputError, match=r"X has 1 masked entries"):
        Dataset(np.ma.array(X3, mask=X3 == 3.0), [0, 1, 2])
    with pytest.raises(InputError, match=r"y has 1 masked entries"):
        Dataset(X3, np.ma.array([0, 1, 2], mask=[0, 0, 1]))


def test_weights():
    for wrong in (np.ones(2), np.ones((3, 1)), 1.0, []):
        with pytest.raises(InputError, match=r"weights has shape .*allowed is \(3,\)"):
            Dataset(X3, [0, 1, 2], weights=wrong)
    with pytest.raises(InputError, match=r"weights\[1\] is -0.5; allowed are weights >= 0"):
        Dataset(X3, [0, 1, 2], weights=[1.0, -0.5, -1.0])
    with pytest.raises(InputError, match=r"all 3 weights are zero; .*at least one"):
        Dataset(X3, [0, 1, 2], weights=[0, 0, 0])
    with pytest.raises(InputTypeError, match=r"weights has dtype"):
        Dataset(X3, [0, 1, 2], weights=["a", "b", "c"])


@pytest.mark.parametrize("name", [5, b"x", ["x"]])
def test_names_are_strings(name):
    with pytest.raises(InputTypeError, match=r"name is .*string or None"):
        Dataset(X3, [0, 1, 2], name=name)


# --- targets of a loss ----------------------------------------------------------------------------------


def check(targets, expected):
    assert targets.dtype == np.float64
    assert targets.flags.c_contiguous
    np.testing.assert_array_equal(targets, expected)


def test_squared_error_takes_real_targets():
    check(resolve_targets(Dataset(X3, [0, 2, 1]), "squared_error", 1), [[0.0], [2.0], [1.0]])
    check(resolve_targets(Dataset(X3, [0.5, 2.0, 1.0]), "squared_error", 1), [[0.5], [2.0], [1.0]])
    check(resolve_targets(Dataset(X3, -X3), "squared_error", 2), -X3)


def test_squared_error_needs_one_target_per_output():
    with pytest.raises(InputError, match=r"2 targets per datum but the network has 3 outputs.*network with 2 outputs"):
        resolve_targets(Dataset(X3, X3), "squared_error", 3)
    with pytest.raises(InputError, match=r"1 target per datum but the network has 2 outputs"):
        resolve_targets(Dataset(X3, [0.0, 1.0, 2.0]), "squared_error", 2)
    with pytest.raises(InputError, match=r"one-hot rows \(N, 3\), or use loss='cross_entropy'"):
        resolve_targets(Dataset(X3, [0, 1, 2]), "squared_error", 3)


def test_cross_entropy_turns_labels_into_rows():
    check(resolve_targets(Dataset(X3, [0, 2, 1]), "cross_entropy", 3), np.eye(3)[[0, 2, 1]])
    check(resolve_targets(Dataset(X3, [0, 2, 1]), "cross_entropy", 4), np.eye(4)[[0, 2, 1]])
    check(resolve_targets(Dataset(X3, [False, True, True]), "cross_entropy", 2), np.eye(2)[[0, 1, 1]])


def test_cross_entropy_takes_probability_rows():
    rows = np.array([[0.25, 0.75], [1.0, 0.0], [0.5, 0.5 + 9e-10]])
    check(resolve_targets(Dataset(X3, rows), "cross_entropy", 2), rows)


@pytest.mark.parametrize(("labels", "place", "value"), [([0, 3, 4], 1, 3), ([2, 1, -1], 2, -1)])
def test_cross_entropy_names_the_first_label_out_of_range(labels, place, value):
    with pytest.raises(InputError, match=rf"y\[{place}\] is {value}; allowed for 3 outputs are labels 0 … 2\."):
        resolve_targets(Dataset(X3, labels), "cross_entropy", 3)


@pytest.mark.parametrize("row", [[0.5, 0.5 + 2e-9], [-0.1, 1.1], [0.0, 0.0], [2.0, -1.0], [0.5, 0.4]])
def test_cross_entropy_names_the_first_row_that_is_no_distribution(row):
    with pytest.raises(InputError, match=r"row 1 of y has smallest entry .* and sum .*Divide each row by its sum"):
        resolve_targets(Dataset(X3, [[0.5, 0.5], row, row]), "cross_entropy", 2)


def test_cross_entropy_needs_fitting_columns_and_two_outputs():
    with pytest.raises(InputError, match=r"y has 2 columns but the network 3 outputs.*integer labels \(N,\)"):
        resolve_targets(Dataset(X3, [[0.5, 0.5]] * 3), "cross_entropy", 3)
    with pytest.raises(InputError, match=r"y has 1 column but .*y.ravel\(\).astype\(int\)"):
        resolve_targets(Dataset(X3, [0.0, 1.0, 2.0]), "cross_entropy", 3)
    with pytest.raises(InputError, match=r"the network has 1 output; .*loss='logistic'"):
        resolve_targets(Dataset(X3, [0, 1, 0]), "cross_entropy", 1)


@pytest.mark.parametrize("y", [[0, 1, 1], [0.0, 1.0, 1.0], [[0.0], [1.0], [1.0]], [False, True, True]])
def test_logistic_takes_zeros_and_ones(y):
    check(resolve_targets(Dataset(X3, y), "logistic", 1), [[0.0], [1.0], [1.0]])


@pytest.mark.parametrize("y", [[0, 1, -1], [1.0, 0.0, 0.5], [0, 1, 2]])
def test_logistic_names_the_first_other_target(y):
    with pytest.raises(InputError, match=r"y\[2\] is .*; allowed for logistic are 0 and 1"):
        resolve_targets(Dataset(X3, y), "logistic", 1)


def test_logistic_needs_one_output_and_one_target():
    with pytest.raises(InputError, match=r"network has 2 outputs and y 1 column; .*loss='cross_entropy'"):
        resolve_targets(Dataset(X3, [0, 1, 1]), "logistic", 2)
    with pytest.raises(InputError, match=r"network has 1 output and y 2 columns"):
        resolve_targets(Dataset(X3, [[0.0, 1.0]] * 3), "logistic", 1)


def test_unknown_losses():
    with pytest.raises(InputError, match=r"Did you mean 'squared_error'"):
        resolve_targets(Dataset(X3, [0, 1, 2]), "square_error", 1)
    with pytest.raises(InputTypeError, match=r"loss is None"):
        resolve_targets(Dataset(X3, [0, 1, 2]), None, 1)
    assert LOSSES == ("squared_error", "cross_entropy", "logistic")


def test_files_make_the_data_set_that_their_arrays_make(tmp_path: Path) -> None:
    rng = np.random.default_rng(43)
    X, y, weights = rng.standard_normal((9, 3)), rng.integers(0, 3, 9), rng.uniform(0.5, 2.0, 9)
    X[:, 1] = 4.0
    path = tmp_path / "mine.npz"
    np.savez(path, X=X, y=y, weights=weights)
    assert ph.datasets.load_file(path) == ph.Dataset(X, y, weights)
    scaled = np.stack(
        [(X[:, 0] - X[:, 0].mean()) / X[:, 0].std(), np.zeros(9), (X[:, 2] - X[:, 2].mean()) / X[:, 2].std()], axis=1
    )
    part = ph.datasets.load_file(path, n=5, standardize=True)
    assert part.name == "mine" and np.allclose(part.X, scaled[:5], rtol=1e-14, atol=0.0)
    assert np.array_equal(part.y, y[:5]) and part.weights is not None and np.array_equal(part.weights, weights[:5])
    with pytest.raises(ph.InputError, match="n is 10 but mine has 9 rows; use n <= 9"):
        ph.datasets.load_file(path, n=10)
    np.savez(path, X=X)
    with pytest.raises(ph.FileError, match=r"no array 'y'.*numpy\.savez"):
        ph.datasets.load_file(path)
    with pytest.raises(ph.FileError, match=r"missing\.npz"):
        ph.datasets.load_file(tmp_path / "missing.npz")

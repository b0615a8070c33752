"""Errors: one family, each also the built-in error that fits, all able to cross process borders."""

import copy
import pickle

import numpy as np
import pytest

from pyhess import _checks, errors
from pyhess.errors import InputError, InputTypeError, NotConvergedError, PyhessError
from pyhess.penalties import L2, as_penalty

FAMILY = {
    errors.InputError: ValueError,
    errors.InputTypeError: TypeError,
    errors.MemoryLimitError: MemoryError,
    errors.NumericalError: RuntimeError,
    errors.NonFiniteError: RuntimeError,
    errors.NotConvergedError: RuntimeError,
    errors.FileError: OSError,
    errors.StoreError: OSError,
    errors.MissingDependencyError: ImportError,
}


def test_every_error_of_the_module_is_in_the_table():
    defined = {e for e in vars(errors).values() if isinstance(e, type) and issubclass(e, PyhessError)}
    assert defined == {PyhessError, *FAMILY}


@pytest.mark.parametrize(("kind", "builtin"), FAMILY.items())
def test_each_error_is_caught_as_ours_and_as_the_builtin(kind, builtin):
    assert issubclass(kind, PyhessError)
    assert issubclass(kind, builtin)


@pytest.mark.parametrize("kind", [PyhessError, *FAMILY])
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_errors_survive_pickling(kind, protocol):
    back = pickle.loads(pickle.dumps(kind("three is too many"), protocol))
    assert type(back) is kind
    assert str(back) == "three is too many"


def test_not_converged_keeps_its_result():
    error = NotConvergedError("stopped at step 7", result={"eigval": -0.25})
    for back in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert str(back) == "stopped at step 7"
        assert back.result == {"eigval": -0.25}
    assert NotConvergedError("stopped").result is None


# --- the validators -------------------------------------------------------------------------------------


def test_choice_names_what_is_allowed_and_the_nearest_name():
    assert _checks.choice("loss", "logistic", ["squared_error", "logistic"]) == "logistic"
    with pytest.raises(InputError, match=r"loss='logistics'.*squared_error, logistic.*Did you mean 'logistic'\?"):
        _checks.choice("loss", "logistics", ["squared_error", "logistic"])
    with pytest.raises(InputError, match=r"Did you mean 'squared_error'"):
        _checks.choice("loss", "Squared-Error", ["squared_error", "logistic"])
    with pytest.raises(InputError) as far:
        _checks.choice("loss", "zzz", ["squared_error", "logistic"])
    assert "Did you mean" not in str(far.value)


@pytest.mark.parametrize("value", [None, 3, b"logistic", ["logistic"]])
def test_choice_takes_strings_only(value):
    with pytest.raises(InputTypeError, match=r"loss is .*pass one of the strings"):
        _checks.choice("loss", value, ["logistic"])


@pytest.mark.parametrize("value", [5, np.int32(5), np.uint8(5), np.array(5)])
def test_positive_int_accepts_all_integers(value):
    number = _checks.positive_int("n", value)
    assert number == 5
    assert type(number) is int


@pytest.mark.parametrize("value", [True, np.True_, 2.0, np.float64(2.0), "2", None, [2], np.array([2, 3])])
def test_positive_int_refuses_other_kinds(value):
    with pytest.raises(InputTypeError, match=r"n is .*pass an integer >= 1"):
        _checks.positive_int("n", value)


@pytest.mark.parametrize("value", [0, -3])
def test_positive_int_refuses_other_values(value):
    with pytest.raises(InputError, match=rf"n is {value}; allowed are integers >= 1"):
        _checks.positive_int("n", value)


@pytest.mark.parametrize("value", [2, 2.0, np.float32(2.0), np.int64(2), np.array(2.0)])
def test_positive_float_accepts_real_numbers(value):
    number = _checks.positive_float("r", value)
    assert number == 2.0
    assert type(number) is float


@pytest.mark.parametrize("value", [True, np.True_, "2", b"2", None, 2j, [2.0], np.array([2.0]), object()])
def test_positive_float_refuses_other_kinds(value):
    with pytest.raises(InputTypeError, match=r"r is .*pass a positive number"):
        _checks.positive_float("r", value)


@pytest.mark.parametrize("value", [0, -0.0, -1.5, float("nan"), float("inf"), -np.inf, 10**400])
def test_positive_float_refuses_other_values(value):
    with pytest.raises(InputError, match=r"r is .*allowed are finite numbers > 0"):
        _checks.positive_float("r", value)


@pytest.mark.parametrize("value", [["a"], [1j], [None], [object()], np.array(["2020-03-05"], "M8[D]"), {"a": 2}, 10**30])
def test_arrays_of_other_things_than_real_numbers(value):
    with pytest.raises(InputTypeError, match=r"x has dtype .*allowed are real numbers.*Convert it"):
        _checks.as_real("x", value)


def test_ragged_lists():
    with pytest.raises(InputTypeError, match=r"x cannot be turned into an array.*rows of equal length"):
        _checks.as_real("x", [[1.0, 2.0], [3.0]])


def test_masked_entries_are_not_silently_unmasked():
    with pytest.raises(InputError, match=r"x has 2 masked entries"):
        _checks.as_real("x", np.ma.array([1.0, 2.0, 3.0], mask=[True, False, True]))
    nothing_masked = np.ma.array([1.0, 2.0], mask=[False, False])
    np.testing.assert_array_equal(_checks.as_real("x", nothing_masked), [1.0, 2.0])


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "g", "i1", "u8", "?", ">f8", ">i4"])
def test_all_real_dtypes_become_native_float64(dtype):
    array = _checks.as_vector("x", np.array([1, 0, 1], dtype=dtype), 3)
    assert array.dtype == np.float64
    assert array.dtype.isnative
    np.testing.assert_array_equal(array, [1.0, 0.0, 1.0])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_the_first_bad_entry_is_named(bad):
    array = np.ones((3, 4))
    array[1, 2] = array[2, 0] = bad
    with pytest.raises(InputError, match=rf"A\[1, 2\] is {bad}; allowed are finite numbers.*\(2 in all\)"):
        _checks.as_matrix("A", array)
    with pytest.raises(InputError, match=rf"b\[3\] is {bad}"):
        _checks.as_vector("b", [1.0, 2.0, 3.0, bad], 4)
    with pytest.raises(InputError, match=rf"c is {bad}"):
        _checks.check_finite("c", np.array(bad))


def test_a_long_double_beyond_float64_counts_as_infinite():
    if np.finfo(np.longdouble).max <= np.finfo(np.float64).max:
        pytest.skip("long double is float64 here")
    with pytest.raises(InputError, match=r"x\[1\] is inf"):
        _checks.as_vector("x", np.array(["1", "1e400"], dtype=np.longdouble), 2)


def test_shapes_of_vectors_and_matrices():
    with pytest.raises(InputError, match=r"x has shape \(3,\); allowed is \(4,\)"):
        _checks.as_vector("x", np.ones(3), 4)
    with pytest.raises(InputError, match=r"x has shape \(2, 2\); allowed is \(4,\). Flatten"):
        _checks.as_vector("x", np.ones((2, 2)), 4)
    with pytest.raises(InputError, match=r"x has shape \(\)"):
        _checks.as_vector("x", 3.0, 4)
    with pytest.raises(InputError, match=r"A has shape \(3,\).*A.reshape\(-1, 1\).*A.reshape\(1, -1\)"):
        _checks.as_matrix("A", np.ones(3))
    with pytest.raises(InputError, match=r"A has 3 dimensions.*flatten each sample"):
        _checks.as_matrix("A", np.ones((2, 2, 2)))
    with pytest.raises(InputError, match=r"A has 0 dimensions"):
        _checks.as_matrix("A", 5.0)
    for shape in [(0, 3), (3, 0)]:
        with pytest.raises(InputError, match=r"is empty; pass at least one row"):
            _checks.as_matrix("A", np.empty(shape))


def test_vectors_and_matrices_come_back_contiguous():
    matrix = _checks.as_matrix("A", np.arange(12.0).reshape(3, 4).T)
    assert matrix.flags.c_contiguous
    np.testing.assert_array_equal(matrix, np.arange(12.0).reshape(3, 4).T)
    assert _checks.as_vector("x", np.arange(8.0)[::2], 4).flags.c_contiguous


def test_rng_from_a_seed_is_numpys_own():
    expected = np.random.default_rng(11).random(3)
    for rng in (11, np.int64(11), np.random.SeedSequence(11), np.random.default_rng(11)):
        np.testing.assert_array_equal(_checks.as_rng(rng).random(3), expected)


def test_rng_passes_a_generator_through_and_none_is_fresh():
    generator = np.random.default_rng(5)
    assert _checks.as_rng(generator) is generator
    assert _checks.as_rng(None).random() != _checks.as_rng(None).random()


@pytest.mark.parametrize("rng", [True, np.True_, 1.5, np.float64(2.0), "7", {}, object(), np.random, np.random.RandomState(7)])
def test_rng_of_the_wrong_kind(rng):
    with pytest.raises(InputTypeError, match=r"rng is .*allowed are None.*SeedSequence.*default_rng"):
        _checks.as_rng(rng)


def test_rng_with_a_negative_seed():
    with pytest.raises(InputError, match=r"rng is -4; .*Pass a seed >= 0"):
        _checks.as_rng(-4)


def test_long_values_are_cut_in_messages():
    with pytest.raises(InputError) as error:
        _checks.choice("loss", "x" * 100_000, ["logistic"])
    assert len(str(error.value)) < 300
    with pytest.raises(InputTypeError) as type_error:
        _checks.positive_int("n", list(range(100_000)))
    assert len(str(type_error.value)) < 300


# --- penalties ------------------------------------------------------------------------------------------


def test_the_l2_penalty_is_a_value():
    penalty = L2()
    assert as_penalty(penalty) is penalty
    assert penalty == L2()
    assert hash(penalty) == hash(L2())
    assert pickle.loads(pickle.dumps(penalty)) == penalty
    assert repr(penalty) == "L2()"


@pytest.mark.parametrize("penalty", [L2, "l2", None, 0.5, object()])
def test_other_penalties(penalty):
    with pytest.raises(InputTypeError, match=r"penalty is .*allowed are .*pyhess\.L2\(\)"):
        as_penalty(penalty)

"""Networks of other libraries compute the same here."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LinearRegression
from sklearn.neural_network import MLPClassifier, MLPRegressor

import pyhess as ph

Array = np.ndarray[Any, Any]


def outputs(net: ph.MLP, theta: Array, x: Array) -> Array:
    functions = {
        "tanh": np.tanh,
        "relu": lambda z: np.maximum(z, 0.0),
        "sigmoid": lambda z: 1.0 / (1.0 + np.exp(-z)),
        "identity": lambda z: z,
    }
    a = x
    for number, (weight, bias) in enumerate(net.unpack(theta)):
        a = a @ weight.T + (0.0 if bias is None else bias)
        if number < len(net.activations):
            a = functions[net.activations[number]](a)
    return a


@pytest.mark.parametrize("activation", ["identity", "logistic", "tanh", "relu"])
def test_scikit_learn(activation: str) -> None:
    rng = np.random.default_rng(20263301)
    x, y = rng.standard_normal((30, 3)), rng.standard_normal((30, 2))
    names = np.array(["one", "three", "two"])[rng.integers(0, 3, 30)]
    options: dict[str, Any] = {"activation": activation, "max_iter": 20, "random_state": 7}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        regressor = MLPRegressor(hidden_layer_sizes=[4, 5], solver="lbfgs", **options).fit(x, y)
        binary = MLPClassifier([4], solver="lbfgs", alpha=0.3, **options).fit(x, names == "two")
        several = MLPClassifier([4], solver="lbfgs", alpha=0.3, **options).fit(x, names)
    net, theta = ph.from_sklearn(regressor)
    assert net.widths == (3, 4, 5, 2) and np.allclose(outputs(net, theta, x), regressor.predict(x), rtol=1e-12, atol=1e-12)
    for model, labels, loss in (
        (binary, names == "two", "logistic"),
        (several, np.searchsorted(several.classes_, names), "cross_entropy"),
    ):
        net, theta = ph.from_sklearn(model)
        obj = ph.Objective(net, ph.Dataset(x, labels), loss=loss)
        # scikit-learn's own loss has the penalty in it.
        total = obj.value(theta) + ph.L2("weights").bind(net).value(theta, 0.3 / (2.0 * len(x)))
        assert total == pytest.approx(model.loss_, rel=1e-6)


def test_estimators_that_are_refused() -> None:
    for estimator in (LinearRegression(), 3, None):
        with pytest.raises(ph.InputTypeError, match="allowed are scikit-learn's MLPClassifier and MLPRegressor"):
            ph.from_sklearn(estimator)
    with pytest.raises(ph.InputError, match=r"call estimator.fit\(X, y\) first"):
        ph.from_sklearn(MLPRegressor())


@pytest.mark.skipif("loss" not in MLPRegressor().get_params(), reason="needs scikit-learn 1.7")
def test_outputs_that_are_no_network_s_are_refused() -> None:
    rng = np.random.default_rng(20263303)
    poisson = MLPRegressor(loss="poisson", max_iter=2, random_state=7)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        poisson.fit(rng.standard_normal((10, 2)), rng.random(10))
    with pytest.raises(ph.InputError, match="Poisson"):
        ph.from_sklearn(poisson)


class Tensor:
    """As much of a tensor as is asked for."""

    def __init__(self, values: Array) -> None:
        self._values = values

    def detach(self) -> Tensor:
        return self

    cpu = double = detach

    def numpy(self) -> Array:
        return self._values


def stub(kind: str, *parts: Any, **attributes: Any) -> Any:
    made = type(kind, (tuple,), {"__module__": "torch.nn.modules", **attributes})
    return made(parts)


def linear(fan_in: int, fan_out: int, *, bias: bool = True) -> Any:
    rng = np.random.default_rng([20263302, fan_in, fan_out])
    b = Tensor(rng.standard_normal(fan_out)) if bias else None
    return stub("Linear", weight=Tensor(rng.standard_normal((fan_out, fan_in))), bias=b)


def test_modules_by_their_names() -> None:
    first, second, third = linear(3, 4), linear(4, 5), linear(5, 2)
    inner = stub("Sequential", stub("Tanh"), second)
    net, theta = ph.from_torch(stub("Sequential", stub("Flatten"), first, inner, stub("Softplus", beta=2.0), third))
    assert net == ph.MLP([3, 4, 5, 2], ["tanh", "softplus"], beta=[1.0, 2.0])
    flat = [x for layer in (first, second, third) for x in (layer.weight.numpy().ravel(), layer.bias.numpy())]
    assert np.array_equal(theta, np.concatenate(flat))
    assert ph.from_torch(linear(3, 4, bias=False))[0] == ph.MLP([3, 4], bias=False)
    assert ph.from_torch(stub("Sequential", first, second))[0].activations == ("identity",)


@pytest.mark.parametrize(
    ("module", "error", "text"),
    [
        (3, ph.InputTypeError, "module is a int; allowed are torch.nn.Linear"),
        (stub("Conv2d"), ph.InputTypeError, "module is a Conv2d; allowed are"),
        (stub("Sequential"), ph.InputError, "no linear layer"),
        (stub("Sequential", linear(2, 3), stub("Softmax")), ph.InputTypeError, "belongs to the loss 'cross_entropy'"),
        (stub("Sequential", linear(2, 3), stub("Tanh")), ph.InputError, "ends in the activation tanh"),
        (stub("Sequential", stub("Tanh"), linear(2, 3)), ph.InputError, "has Tanh where a linear layer has to come"),
        (stub("Sequential", linear(2, 3), stub("Tanh"), stub("ReLU"), linear(3, 1)), ph.InputError, "has ReLU where"),
        (stub("Sequential", linear(2, 3), linear(3, 1, bias=False)), ph.InputError, "all or none of them"),
        (stub("Sequential", linear(2, 3), linear(4, 1)), ph.InputError, "has 3 outputs and the next 4 inputs"),
        (stub("Sequential", linear(2, 3), stub("GELU", approximate="tanh"), linear(3, 1)), ph.InputError, "approximate='tanh'"),
    ],
)
def test_modules_that_are_refused(module: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        ph.from_torch(module)

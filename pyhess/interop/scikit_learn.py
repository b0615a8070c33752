"""scikit-learn's multi-layer perceptrons."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from .._checks import choice, shown
from ..errors import InputError, InputTypeError
from ..model import MLP

FloatArray = npt.NDArray[np.float64]

_ACTIVATIONS = {"identity": "identity", "logistic": "sigmoid", "tanh": "tanh", "relu": "relu"}


def from_sklearn(estimator: Any) -> tuple[MLP, FloatArray]:
    """Return the network of a fitted ``MLPClassifier`` or ``MLPRegressor`` and its parameters.

    Parameters
    ----------
    estimator : MLPClassifier or MLPRegressor
        Fitted.

    Returns
    -------
    net : MLP
        Its outputs are those before the classifier's softmax or logistic function, which belong to the loss.
    theta : (P,) float64
        W1, b1, W2, b2, …; scikit-learn keeps W transposed.

    Raises
    ------
    InputError
        If the estimator is not fitted, or its activation or loss is not known.
    InputTypeError
        If it is no such estimator; the last step of a pipeline has to be taken out.

    Notes
    -----
    Classifiers count classes in the order of ``estimator.classes_``: pass ``np.searchsorted(estimator.classes_, y)`` as labels.
    With two classes there is one output and the loss is ``"logistic"``, with more ``"cross_entropy"``. A regressor's loss is
    the squared error over the number of outputs. ``alpha`` leaves the biases out: for the solver ``"lbfgs"`` it is the penalty
    ``L2(penalize="weights")`` with ``lam = alpha / (2 N)``, for the others with the size of a batch in place of N.

    Examples
    --------
    >>> import numpy as np, pyhess as ph
    >>> from sklearn.neural_network import MLPRegressor
    >>> X = np.linspace(-1.0, 1.0, 20).reshape(-1, 1)
    >>> model = MLPRegressor(hidden_layer_sizes=[3], activation="tanh", solver="lbfgs", random_state=5).fit(X, X[:, 0] ** 2)
    >>> net, theta = ph.from_sklearn(model)
    >>> obj = ph.Objective(net, ph.Dataset(X, model.predict(X)))
    >>> net, obj.value(theta) < 1e-30
    (MLP([1, 3, 1], activation='tanh'), True)
    """
    if type(estimator).__name__ not in ("MLPClassifier", "MLPRegressor") and not hasattr(estimator, "coefs_"):
        raise InputTypeError(
            f"estimator is {shown(estimator)}; allowed are scikit-learn's MLPClassifier and MLPRegressor. Of a pipeline pass the "
            "last step, pipeline[-1]."
        )
    if not hasattr(estimator, "coefs_"):
        raise InputError(f"{shown(estimator)} has no parameters yet; call estimator.fit(X, y) first.")
    if estimator.out_activation_ == "exp":
        raise InputError(f"{shown(estimator)} has the Poisson loss; allowed are the squared error and classifiers.")
    activation = _ACTIVATIONS[choice("estimator.activation", estimator.activation, _ACTIVATIONS)]
    weights = [np.asarray(weight, dtype=np.float64) for weight in estimator.coefs_]
    net = MLP([weights[0].shape[0], *(weight.shape[1] for weight in weights)], activation=activation)
    return net, net.pack([(weight.T, bias) for weight, bias in zip(weights, estimator.intercepts_, strict=True)])

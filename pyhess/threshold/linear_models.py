"""Networks without hidden layers: convex losses of a linear map, whose threshold is zero."""

from __future__ import annotations

import numpy as np

from ..objective import Objective
from ..penalties import Penalty
from ..regions import Region
from .reference_jet import layer_factors, split
from .roundoff import FloatArray
from .witness import Witness, make_witness


def linear_witness(obj: Objective, region: Region, penalty: Penalty | None = None) -> Witness:
    """A point and a direction of small curvature, exact for the squared error and the cross-entropy.

    With ``f = k (W x + b)`` the Hessian is ``k² mean_i A_i (x) z_i z_i'`` where ``z_i = (x_i, 1)`` and A_i is the
    Hessian of the loss in f: the identity for the squared error (so the smallest eigenvalue of the Gram matrix of z
    counts, the same for every theta), singular along the vector of ones for the cross-entropy, p(1-p) for the logistic loss.
    """
    theta = region.interior_point()
    outputs = obj.net.widths[-1]
    z = obj.data.X
    if obj.net.bias:
        z = np.hstack([z, np.ones((obj.data.num_samples, 1))])
    mass = obj.data.normalized_weights
    along = np.zeros(outputs)
    along[0] = 1.0
    if obj.loss == "cross_entropy":
        along[:] = 1.0
    elif obj.loss == "logistic":
        w, b = split(obj.net, theta)[0]
        f = float(layer_factors(obj.net, np.float64)[0]) * (obj.data.X @ w[0] + (0.0 if b is None else b[0]))
        mass = mass / (4.0 * np.cosh(0.5 * np.clip(f, -600.0, 600.0)) ** 2)
    _, vectors = np.linalg.eigh((z * mass[:, None]).T @ z)
    return make_witness(obj, region, theta, _spread(obj, np.outer(along, vectors[:, 0])), penalty)


def _spread(obj: Objective, blocks: FloatArray) -> FloatArray:
    """Order a matrix (outputs, inputs and bias) like theta."""
    weights, bias = obj.net.layer_slices[0]
    v = np.zeros(obj.num_params)
    fan_in = obj.net.widths[0]
    v[weights] = blocks[:, :fan_in].ravel()
    if bias is not None:
        v[bias] = blocks[:, fan_in]
    return v

"""From a narrow network to a wide one that computes the same: hidden units are duplicated."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from .._checks import as_vector
from ..errors import InputError, InputTypeError
from ..model import MLP

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


def widen(
    net_small: MLP, net_large: MLP, theta: npt.ArrayLike, v: npt.ArrayLike | None = None
) -> tuple[FloatArray, FloatArray | None]:
    """Carry a point and a direction over to a wider network that computes the same function.

    Unit j of a wide layer copies unit j mod m of the narrow one, and the weights out of it are divided by the number n of its
    copies:

        W_large[j, i] = s W_small[j mod m, i mod m'] / n(i),   b_large[j] = s b_small[j mod m],   s = κ_small / κ_large

    with the scales κ of the layer in both networks, so s = 1 for ``"standard"`` and s = sqrt(M'/m') for ``"ntk"``, m' and M' the
    layer's numbers of inputs. Every pre-activation is that of the copied unit. The map T is linear, so with ``theta_large =
    T theta``, ``v_large = T v``

        f_large(T theta + t T v) = f_small(theta + t v)   for all t,

    hence value, slope and curvature along the direction are the same: ``(Tv)'H_large Tv = v'H_small v``. The Rayleigh quotient
    is not, since ``|Tv|`` differs from ``|v|``.

    Parameters
    ----------
    net_small, net_large : MLP
        Networks that differ in the widths of their hidden layers alone, none of them narrower in ``net_large``.
    theta : (P_small,) array_like
        Parameters of ``net_small``.
    v : (P_small,) array_like, optional
        A direction.

    Returns
    -------
    theta_large : (P_large,) float64
    v_large : (P_large,) float64 or None

    Raises
    ------
    InputError, InputTypeError
        If the networks do not fit together, or a vector has the wrong length or is not finite.

    Notes
    -----
    As a start of `search` the pair need not lie in the region, into which it is projected. In ``"standard"`` parametrisation
    no entry grows, so a box |theta_i| <= r is never left. In ``"ntk"`` entries are multiplied by s/n(i): for weights sqrt(m'/M')
    when all units have equally many copies, but biases above the first layer grow by s.

    Examples
    --------
    >>> import numpy as np, pyhess as ph
    >>> narrow, wide = ph.MLP([2, 3, 1]), ph.MLP([2, 8, 1])
    >>> data = ph.Dataset(np.array([[1.0, 0.5], [-1.0, 2.0]]), np.array([1.0, -1.0]))
    >>> found = ph.search(ph.Objective(narrow, data), ph.Box(-1.0, 1.0), rng=7)
    >>> pair = ph.widen(narrow, wide, found.theta, found.v)
    >>> wider = ph.search(ph.Objective(wide, data), ph.Box(-1.0, 1.0), rng=7, starts=8, warm=pair)
    >>> wider.psi_upper < found.psi_upper
    True
    """
    _check_nets(net_small, net_large)
    narrow = as_vector("theta", theta, net_small.num_params)
    direction = None if v is None else as_vector("v", v, net_small.num_params)
    return carried(net_small, net_large, narrow), None if direction is None else carried(net_small, net_large, direction)


def even_copies(narrow: int, wide: int) -> IntArray:
    """The narrow layer's unit that each unit of the wide one copies: unit j mod m."""
    return np.arange(wide) % narrow


def lone_copies(narrow: int, wide: int) -> IntArray:
    """All but the last are copied once, and the last one by all the others."""
    return np.minimum(np.arange(wide), narrow - 1)


def carried(small: MLP, large: MLP, vector: FloatArray, copied: Callable[[int, int], IntArray] = even_copies) -> FloatArray:
    """T vector, without checks."""
    layers = []
    # Inputs and outputs stay.
    sources = [copied(narrow, wide) for narrow, wide in zip(small.widths, large.widths, strict=True)]
    for (weights, bias), scale_small, scale_large, (inputs, outputs) in zip(
        small.unpack(vector), small.layer_scales, large.layer_scales, pairwise(sources), strict=True
    ):
        factor = scale_small / scale_large
        copies = np.bincount(inputs)[inputs]
        layers.append((factor * weights[np.ix_(outputs, inputs)] / copies, None if bias is None else factor * bias[outputs]))
    return large.pack(layers)


def _check_nets(small: MLP, large: MLP) -> None:
    for name, net in (("net_small", small), ("net_large", large)):
        if not isinstance(net, MLP):
            raise InputTypeError(f"{name} is a {type(net).__name__}; pass a pyhess.MLP.")
    for name in ("num_layers", "activations", "betas", "bias", "parametrization"):
        first, second = getattr(small, name), getattr(large, name)
        if first != second:
            raise InputError(
                f"net_small has {name} = {first!r} and net_large {second!r}; allowed are networks that differ in the widths of "
                "their hidden layers alone."
            )
    if small.widths[0] != large.widths[0] or small.widths[-1] != large.widths[-1]:
        raise InputError(
            f"net_small has widths {list(small.widths)} and net_large {list(large.widths)}; allowed are equal numbers of "
            "inputs and of outputs."
        )
    if any(wide < narrow for narrow, wide in zip(small.widths, large.widths, strict=True)):
        raise InputError(
            f"net_small has widths {list(small.widths)} and net_large {list(large.widths)}; allowed are hidden layers at "
            "least as wide in net_large. Exchange the networks?"
        )


def padded(small: MLP, large: MLP, vector: FloatArray) -> FloatArray:
    """The vector of ``large`` with the entries of ``small``, its new units zero; weights are divided by the layers' scales.

    Where the scales are equal, as in ``"standard"`` parametrisation, the loss along such vectors is the narrow network's,
    gradient and Hessian included, and so is every length: over a box or ball around zero psi cannot rise with the widths.
    """
    layers = []
    for (weights, bias), scale_small, scale_large, (inputs, outputs) in zip(
        small.unpack(vector), small.layer_scales, large.layer_scales, pairwise(large.widths), strict=True
    ):
        factor = scale_small / scale_large
        wide = np.zeros((outputs, inputs))
        wide[: weights.shape[0], : weights.shape[1]] = factor * weights
        layers.append((wide, None if bias is None else np.pad(factor * bias, (0, outputs - bias.size))))
    return large.pack(layers)

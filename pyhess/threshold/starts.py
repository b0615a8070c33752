"""Where the joint search starts: families of points of the region (math: the optimum likes vertices and twin units)."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from ..model import MLP
from ..objective import Objective

FloatArray = npt.NDArray[np.float64]
Generator = np.random.Generator

# A start is made in the normalised cube [-1, 1]^P and mapped into the region by the caller: onto the box, or radially into
# the ball. Families that arrange layers work on views of that vector.


def interior(net: MLP, obj: Objective, rng: Generator) -> FloatArray:
    """Uniform in the cube."""
    return rng.uniform(-1.0, 1.0, net.num_params)


def vertex(net: MLP, obj: Objective, rng: Generator) -> FloatArray:
    """A random vertex of the cube."""
    return rng.choice([-1.0, 1.0], net.num_params)


def _signs(rng: Generator, size: int) -> FloatArray:
    return rng.choice([-1.0, 1.0], size)


def _input_direction(obj: Objective, rng: Generator) -> FloatArray:
    """Signs of a random projection's correlation with the inputs: units that respond alike to many data."""
    x = obj.data.X
    datum = x[rng.integers(x.shape[0])] if rng.random() < 0.5 else x.T @ rng.standard_normal(x.shape[0])
    signs = np.sign(datum)
    return np.where(signs == 0.0, _signs(rng, signs.size), signs)


def rank_one(net: MLP, obj: Objective, rng: Generator) -> FloatArray:
    """Every layer's weights are an outer product of signs, so all units of a layer agree up to sign.

    The network then acts like one with a single unit per layer. Layers are full-size or scaled down by a random power of
    ten, because the sharpest curvature of a deep chain sits where its first layers are nearly linear; the biases of a layer
    share one random size.
    """
    z = np.empty(net.num_params)
    signs = _input_direction(obj, rng)
    for (weight, bias), fan_in, fan_out in zip(net.layer_slices, net.widths[:-1], net.widths[1:], strict=True):
        out = np.ones(fan_out) if rng.random() < 0.5 else _signs(rng, fan_out)
        scale = 1.0 if rng.random() < 0.5 else 10.0 ** rng.uniform(-3.0, 0.0)
        z[weight] = scale * np.outer(out, signs[:fan_in]).ravel()
        if bias is not None:
            z[bias] = out * (_signs(rng, 1) if rng.random() < 0.3 else rng.uniform(-1.0, 1.0))
        signs = out
    return z


def twin_units(net: MLP, obj: Objective, rng: Generator) -> FloatArray:
    """A random vertex in which, layer by layer, pairs of hidden units have the same weights in and out."""
    z = rank_one(net, obj, rng) if rng.random() < 0.5 else vertex(net, obj, rng)
    layers = net.unpack(z)
    for below, above in pairwise(layers):
        units = rng.permutation(below[0].shape[0])
        for first, second in zip(units[0::2], units[1::2], strict=False):
            below[0][second] = below[0][first]
            if below[1] is not None:
                below[1][second] = below[1][first]
            above[0][:, second] = above[0][:, first]
    return z


def dead_unit(net: MLP, obj: Objective, rng: Generator) -> FloatArray:
    """Units with zero weights in and out in every hidden layer, the rest arranged for a large residual."""
    z = rank_one(net, obj, rng)
    layers = net.unpack(z)
    for below, above in pairwise(layers):
        units = rng.permutation(below[0].shape[0])[: min(2, below[0].shape[0])]
        below[0][units] = 0.0
        if below[1] is not None:
            below[1][units] = 0.0
        above[0][:, units] = 0.0
    return z


def into_ball(obj: Objective, z: FloatArray, rng: Generator) -> FloatArray:
    """A point of the unit ball with z's signs: the budget is shared out among layers, and sometimes among few units."""
    x = z.copy()
    for weight, bias in obj.net.layer_slices:
        factor = np.exp(rng.standard_normal())
        x[weight] *= factor
        if bias is not None:
            x[bias] *= factor * rng.uniform()
    if rng.random() < 0.5:
        x *= rng.random(x.size) < rng.uniform(0.1, 1.0)
    norm = float(np.linalg.norm(x))
    if norm == 0.0:
        x[:] = z
        norm = float(np.linalg.norm(x))
    scaled: FloatArray = x / max(norm, 1e-300) * (1.0 if rng.random() < 0.7 else rng.uniform())
    return scaled


def copied(net: MLP, x: FloatArray, rng: Generator) -> FloatArray:
    """A copy of x (P,) in which some units of a hidden layer have the weights of another one, in and out, or their negatives."""
    y = x.copy()
    layers = net.unpack(y)
    layer = int(rng.integers(len(layers) - 1))
    (w, b), (w_next, _) = layers[layer], layers[layer + 1]
    source, sign = rng.integers(w.shape[0]), float(_signs(rng, 1)[0])
    for target in rng.permutation(w.shape[0])[: rng.integers(1, w.shape[0] + 1)]:
        w[target] = sign * w[source]
        w_next[:, target] = sign * w_next[:, source]
        if b is not None:
            b[target] = sign * b[source]
    return y


def changed(net: MLP, x: FloatArray, rng: Generator) -> FloatArray:
    """A copy of x (P,) with one random change: a unit copied over another, a layer rescaled, or some signs flipped."""
    kind = rng.integers(3)
    if kind == 0 and net.num_layers > 1:
        return copied(net, x, rng)
    y = x.copy()
    if kind == 1:
        layers = net.unpack(y)
        w, b = layers[int(rng.integers(len(layers)))]
        factor = 10.0 ** rng.uniform(-1.0, 1.0)
        w *= factor
        if b is not None and rng.random() < 0.5:
            b *= factor
    else:
        y[rng.random(y.size) < rng.uniform(0.02, 0.3)] *= -1.0
    return y


FAMILIES: dict[str, Callable[[MLP, Objective, Generator], FloatArray]] = {
    "interior": interior,
    "vertex": vertex,
    "rank_one": rank_one,
    "twin_units": twin_units,
    "dead_unit": dead_unit,
}


def sow(
    obj: Objective, count: int, ball: bool, rng: Generator, room: FloatArray | None = None,
    stopped: Callable[[], bool] = lambda: False,
) -> tuple[FloatArray, list[str]]:  # fmt: skip
    """So many starts (x, u) of all families in turn, one per row, and their families; x in the cube or the unit ball.

    The rows are those of ``room`` where it is given. Fewer starts, one at least, mean that ``stopped`` said so meanwhile, or that
    Ctrl-C was pressed.
    """
    size = obj.num_params
    names = [list(FAMILIES)[i % len(FAMILIES)] for i in range(count)]
    zs = np.empty((count, 2 * size)) if room is None else room

    def make(z: FloatArray, name: str) -> None:
        x = FAMILIES[name](obj.net, obj, rng)
        z[:size] = into_ball(obj, x, rng) if ball else x
        u = rng.standard_normal(size)
        z[size:] = u / np.linalg.norm(u)

    made = 0
    try:
        while made < count and not (made > 0 and stopped()):
            make(zs[made], names[made])
            made += 1
    except KeyboardInterrupt:
        if made == 0:
            make(zs[0], names[0])
            made = 1
    return zs[:made], names[:made]

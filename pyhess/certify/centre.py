"""The centre bound: the matrix at the centre of the region, minus a bound of its change.

    eigval_min(H(theta)) >= eigval_min(R(c)) - eigval_max(E)   and   >= eigval_min(H(c)) - eigval_max(E'),

E bounding the change of the residual part R and E' that of the Gauss–Newton part as well. Both are forms in the sizes t_l of the
direction's blocks, like those of the moment bound, from a recursion in the differences to the centre:

    |sdot^l - sdot^l_c| <= Q_l . t,   Q_l = |W^l| (g Q_{l-1} + |dphi'| Pc_{l-1}) + |dW^l| g_c Pc_{l-1} + |da^{l-1}| e_l,
    E = sum_{l>=2} [|ddelta^l| g P_{l-1} + |delta^l_c| (g Q_{l-1} + |dphi'| Pc_{l-1})] e_l  (symmetrised)
        + sum_{l<D} max_j (w_c - w)_j P_l P_l' + max_j |w_c,j| (P_l + Pc_l) Q_l'  (symmetrised),   w = bar phi'',
    E' = E + sup |A| (Pc_D Q_D' + Q_D Pc_D') + sup |A - A_c| Pc_D Pc_D'.

P and Pc are the moment bound's tangent forms on the cell and at the centre. The bound becomes exact as the cell shrinks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..data import Dataset
from .dense import dense_enclosures
from .forms import FormSum
from .intervals import TINY, Interval, gamma, norms
from .moment import data_blocks, tangent_forms
from .parts import Parts
from .propagate import Block, Cell, Propagation, propagate
from .spectral import eigval_min_bound, norm_bound

FloatArray = npt.NDArray[np.float64]

#: sup |A|, and the Lipschitz constant of the output Hessian A = d²l/df² in f: a softmax's third cumulant is at most
#: range³/(6 sqrt 3), and the range of <u, e_k> is at most sqrt 2 |u|; the cubic form's norm is that of the trilinear form.
_OUTPUT = {
    "squared_error": (1.0, 0.0),
    "logistic": (0.25, 0.0962250449),
    "cross_entropy": (0.5, 0.2721655270),
}


@dataclass(frozen=True)
class Centre:
    """The centre of a region and the proved smallest eigenvalues there."""

    cell: Cell
    eigval_residual: float  # of R(c)
    eigval_hessian: float  # of H(c)


def centre_of(cell: Cell, data: Dataset, targets: FloatArray, loss: str, cancelled: npt.NDArray[np.int32]) -> Centre | None:
    """Enclose R and H at the point ``cell`` and bound their smallest eigenvalues from below; None if cancelled."""
    matrices = dense_enclosures(cell, data, targets, loss, cancelled)
    if matrices is None or cancelled[0]:
        return None
    residual, gauss = matrices
    own = _smallest(residual)
    return None if cancelled[0] else Centre(cell, own, _smallest(residual + gauss))


def _smallest(matrix: Interval) -> float:
    """Lower bound of the eigenvalues of every symmetric matrix in the enclosure."""
    middle = 0.5 * (matrix.middle + matrix.middle.T)
    radius = matrix.radius + np.abs(matrix.middle - middle)
    size = middle.shape[0]
    return eigval_min_bound(middle) - norm_bound(radius) * (1.0 + gamma(size + 8)) - TINY


def centre_bounds(
    cell: Cell, centre: Centre, data: Dataset, targets: FloatArray, loss: str, cancelled: npt.NDArray[np.int32]
) -> tuple[float, float] | None:
    """Lower bounds of psi over the cell from R(c) and from H(c); None if cancelled."""
    net = cell.net
    moves = [_Move.of(block, point) for block, point in zip(cell.blocks, centre.cell.blocks, strict=True)]
    residual, whole = (FormSum(net.num_layers, net.widths[0], net.bias) for _ in range(2))
    for x, y, w in data_blocks(cell, data, targets):
        if cancelled[0]:
            return None
        change, gauss = _deviation_forms(
            cell, propagate(cell, x, y, loss), centre.cell, propagate(centre.cell, x, y, loss), moves, y, loss
        )
        residual.add(change, x, w)
        whole.add(change + gauss, x, w)
    scales = np.array(net.layer_scales) * (1.0 + gamma(4))
    return centre.eigval_residual - residual.bound(scales), centre.eigval_hessian - whole.bound(scales)


@dataclass(frozen=True)
class _Move:
    """How far a layer's block can be from the centre's: spectral norms of W - W_c and of (W, b) - (W_c, b_c)."""

    weight: float
    affine: float

    @staticmethod
    def of(block: Block, point: Block) -> _Move:
        w, b = block.weight.distance(point.weight), block.bias.distance(point.bias)
        weight, both = norm_bound(w), norm_bound(np.concatenate([w, b[:, None]], axis=1))
        rho = float(block.rho[0])
        return _Move((weight + rho) * (1.0 + gamma(4)), (both + rho) * (1.0 + gamma(4)))


@dataclass(frozen=True)
class _Changes:
    """Bounds (n,) of the differences to the centre: da entering each layer, df, ddelta of each layer."""

    entering: list[FloatArray]
    output: FloatArray
    delta: list[FloatArray]


def _steepest(bounds: Propagation, layer: int) -> FloatArray:
    steepest: FloatArray = bounds.slope[layer].magnitude.max(axis=1)
    return steepest


def _changes(
    cell: Cell, bounds: Propagation, point: Cell, at_point: Propagation, moves: list[_Move], mass: FloatArray, loss: str
) -> _Changes:
    last = cell.net.num_layers - 1
    room = 1.0 + gamma(16)
    entering = [np.zeros(mass.shape[0])]
    output = entering[0]
    for layer in range(last + 1):
        recursion = (moves[layer].affine * bounds.entering_norm[layer] + point.blocks[layer].spectral * entering[layer]) * room
        output = np.minimum(norms(bounds.s[layer].distance(at_point.s[layer])), recursion)
        if layer < last:
            direct = norms(bounds.entering[layer + 1].distance(at_point.entering[layer + 1]))
            entering.append(np.minimum(direct, _steepest(bounds, layer) * output * room))
    lipschitz = mass * _OUTPUT[loss][0]
    delta = [np.minimum(norms(bounds.delta[last].distance(at_point.delta[last])), lipschitz * output * room)]
    for layer in range(last - 1, -1, -1):
        recursion = (cell.blocks[layer + 1].spectral * delta[0] + moves[layer + 1].weight * at_point.delta_norm[layer + 1]) * room
        bar = np.minimum(norms(bounds.bar[layer].distance(at_point.bar[layer])), recursion)
        turned = norms(bounds.slope[layer].distance(at_point.slope[layer]) * at_point.bar[layer].magnitude)
        direct = norms(bounds.delta[layer].distance(at_point.delta[layer]))
        delta.insert(0, np.minimum(direct, (_steepest(bounds, layer) * bar + turned) * room))
    return _Changes(entering, output, delta)


def _outer(a: FloatArray, b: FloatArray) -> FloatArray:
    """(a b' + b a') / 2 for every datum."""
    product = a[:, :, None] * b[:, None, :]
    symmetric: FloatArray = 0.5 * (product + product.transpose(0, 2, 1))
    return symmetric


def _deviation_forms(
    cell: Cell, bounds: Propagation, point: Cell, at_point: Propagation, moves: list[_Move], targets: FloatArray, loss: str
) -> tuple[FloatArray, FloatArray]:
    """E and E' - E (n, D, D) for a block of data."""
    layers = cell.net.num_layers
    mass = targets.sum(axis=1) * (1.0 + gamma(targets.shape[1])) if loss == "cross_entropy" else np.ones(targets.shape[0])
    changes = _changes(cell, bounds, point, at_point, moves, mass, loss)
    parts = Parts.of(cell.net, apart=False)
    tangent, fixed = tangent_forms(cell, bounds, parts), tangent_forms(point, at_point, parts)
    shift = [np.zeros_like(tangent[0])]  # Q: the first layer's tangent V x does not depend on theta
    turned: list[FloatArray] = []  # bounds of |adot - adot_c|
    for layer in range(1, layers):
        bent = bounds.slope[layer - 1].distance(at_point.slope[layer - 1]).max(axis=1)
        turned.append(_steepest(bounds, layer - 1)[:, None] * shift[-1] + bent[:, None] * fixed[layer - 1])
        form = cell.blocks[layer].spectral * turned[-1]
        form = form + (moves[layer].weight * _steepest(at_point, layer - 1))[:, None] * fixed[layer - 1]
        form[:, layer] += changes.entering[layer]
        shift.append(form * (1.0 + gamma(8)))
    total = np.zeros((mass.size, layers, layers))
    for layer in range(1, layers):
        row = (changes.delta[layer] * _steepest(bounds, layer - 1))[:, None] * tangent[layer - 1]
        row = row + at_point.delta_norm[layer][:, None] * turned[layer - 1]
        total[:, layer, :] += row
        total[:, :, layer] += row
    for layer in range(layers - 1):
        now, then = bounds.curved[layer], at_point.curved[layer]
        drop = np.maximum(0.0, then.hi - now.lo).max(axis=1)[:, None, None]
        sharp = then.magnitude.max(axis=1)[:, None, None]
        total += drop * _outer(tangent[layer], tangent[layer]) + sharp * _outer(tangent[layer] + fixed[layer], shift[layer])
    largest, lipschitz = (mass * constant for constant in _OUTPUT[loss])
    bend = np.minimum(largest, lipschitz * changes.output * (1.0 + gamma(8)))
    gauss = 2.0 * largest[:, None, None] * _outer(fixed[-1], shift[-1]) + bend[:, None, None] * _outer(fixed[-1], fixed[-1])
    room = 1.0 + gamma(8 * layers + 32)
    return total * room, gauss * room

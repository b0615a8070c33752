"""Two hidden layers: the residual part over a cell as one quadratic form in a direction's units, not in its blocks' norms.

Let v_k be a direction's rows of the first layer (with the bias), u_j and b_j its rows and biases of the second, and w_oj its
output weights; z_ik = v_k . x~_i, x~ = (x, 1), g = phi' of the first layer in m ± h; a^c the activations and C the weights at
the middle of the cell. Then

    sdot_ij = S_ij + u_j . (a_i - a^c_i) + sum_k (W - C)_jk g_ik z_ik + sum_k C_jk (g_ik - m_ik) z_ik,
    S_ij = u_j . a^c_i + b_j + sum_k C_jk m_ik z_ik,

and for any c_ij >= 0 the weighted sums of the squares of the other three terms are at most

    alpha(c) = sum_j |u_j|² d_1² eigval_max(sum_i c_ij G_i² x~_i x~_i'),    G_i the largest |g_ik|,
    beta(c)  = d_2² sum_ik max_j c_ij sup g_ik² z_ik²,
    gamma(c) = sum_ikl e_l/e_k |sum_j C_jk c_ij C_jl| h_ik h_il z_ik²    for any e > 0,

d_1 and d_2 the distances of the blocks from the middle. With kap_ij >= -bar_ij phi''(s_ij) in the second layer, delta_ij g_ik in
om ± rad, r_io phi'_ij in eta ± err and q = |eta| + err, minus the residual part is at most the mean of

    - sum_ik inf bar_ik phi''(s_ik) z_ik²  - 2 sum om_ijk u_jk z_ik + sum rad_ijk (u_jk²/mu_jk + mu_jk z_ik²)
    - 2 sum eta_ioj w_oj S_ij + sum err_ioj (w_oj²/nu_j + nu_j S_ij²)
    + sum q_ioj w_oj² (1/t_j + 1/t' + 1/t'') + alpha(t c) + beta(t' c) + gamma(t'' c),    c = sum_o q_ioj,
    + sum kap_ij S_ij²/p_0 + alpha(kap)/p_1 + beta(kap)/p_2 + gamma(kap)/p_3,    sum p = 1,

whatever the multipliers mu, nu, t, p > 0. So psi is at least minus that matrix's largest eigenvalue. Signs cancel over the data,
and every unit counts with its own. For a density matrix the best multipliers are known, and the form's product with it, at
these, is concave in the density: steps of Frank and Wolfe towards the maximum lead to good multipliers.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ..model import MLP
from .middles import Middles
from .propagate import Cell, Propagation
from .quadratic_form import Form, form_of
from .spectral import eigvals_max_bound

FloatArray = npt.NDArray[np.float64]

#: Most parameters, and most multiplications for one cell's sums over the data.
_PARAMS, _WORK = 64, 5e6
#: Steps towards good multipliers at most, and how close to the best they need to come.
_STEPS, _CLOSE = 20, 0.002
#: Eigenvectors count in a step as far as this, over the number of steps, from the top; in parts of the top.
_SHARPNESS = 0.4
#: Where numbers are beyond these, the form is left alone.
_LARGEST, _LEAST = 1e100, 1e-25
#: What is left to a check of a certificate, which looks for multipliers of its own.
_ROOM = 0.005


def quadratic_knows(net: MLP, num_samples: int) -> bool:
    """Whether the form is for this network, and cheap."""
    small = net.num_layers == 3 and net.num_params <= _PARAMS
    return small and num_samples * net.widths[2] * float(net.num_params) ** 2 <= _WORK


def quadratic_bounds(
    cell: Cell, bounds: Propagation, middle: Middles, x: FloatArray, weights: FloatArray, known: FloatArray
) -> FloatArray:
    """Lower bounds (...) of psi over the cells, for all data x (n, d), where above what is ``known`` (...); else that."""
    values = np.array(known.reshape(-1))
    form = form_of(cell, bounds, middle, x, weights, values.size)
    at = np.flatnonzero((np.abs(form.matrix(_uniform(form))[0]) <= _LARGEST).all(axis=(1, 2)))
    form = form.of(at)
    density = _uniform(form)
    best, error, chosen = np.full(values.size, np.inf), np.zeros(values.size), np.zeros((values.size, *density.shape[1:]))
    for step in range(_STEPS):
        if not at.size:
            break
        matrix, rounding = form.matrix(density)
        eigvals, vectors = np.linalg.eigh(matrix)
        better = eigvals[:, -1] < best[at]
        best[at[better]], error[at[better]], chosen[at[better]] = eigvals[better, -1], rounding[better], matrix[better]
        # Several vectors near the top lead to good multipliers much faster than one.
        top, share = eigvals[:, -1:], 2.0 / (step + 3.0)
        weight = np.exp((eigvals - top) / (_SHARPNESS / (step + 4.0) * np.abs(top) + 1e-200))
        weight = weight / weight.sum(axis=1, keepdims=True)
        # With the density's best multipliers its product with the form is below what any multipliers can reach.
        least = np.einsum("bpq,bpq->b", matrix, density)
        going = np.flatnonzero((least * (1.0 + _ROOM) < -values[at]) & (best[at] > least * (1.0 + _CLOSE)))
        density = (1.0 - share) * density + share * (vectors * weight[:, None, :]) @ vectors.swapaxes(-1, -2)
        if going.size < at.size:
            at, form, density = at[going], form.of(going), density[going]
    usable = np.flatnonzero(best * (1.0 + _ROOM) < -values)
    if usable.size:
        found = (np.maximum(0.0, eigvals_max_bound(chosen[usable])) + error[usable]) * (1.0 + _ROOM)
        # What is next to nothing needs no better bound, and is hard to prove again.
        values[usable] = np.where(found > _LEAST, np.fmax(values[usable], -found), values[usable])
    return values.reshape(known.shape)


def _uniform(form: Form) -> FloatArray:
    size = form.linear.shape[-1]
    return np.broadcast_to(np.eye(size) / size, form.linear.shape).copy()

"""The problem behind a result, in words and JSON-safe numbers."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._problems import network_fields, network_text
from ..model import MLP
from ..objective import Objective
from ..penalties import L2, Penalty
from ..regions import Ball, Box, Ordered, Region


def describe_problem(obj: Objective, region: Region, penalty: Penalty) -> dict[str, Any]:
    """Network, data, loss, region and penalty, and the symmetry that network and region share."""
    net, data = obj.net, obj.data
    return {
        "net": {**network_fields(net), "num_params": net.num_params, "text": network_text(net)},
        "data": {
            "name": data.name,
            "num_samples": data.num_samples,
            "num_features": data.num_features,
            "weighted": data.weights is not None,
            "content_hash": data.content_hash,
        },
        "loss": obj.loss,
        "dtype": obj.dtype,
        "region": region.to_dict(),
        "region_text": repr(region),
        "penalty": repr(penalty),
        "penalty_text": penalty.formula,
        "penalty_parameters": penalty.to_dict(),
        "unique_minimiser": not penalty.leaves_out(net.num_params).any(),
        "symmetry": shared_symmetry(net, region, penalty),
    }


def shared_symmetry(net: MLP, region: Region, penalty: Penalty | None = None) -> str:
    """Which exchange of hidden units leaves the loss, the region and the penalty (by default L2) as they are.

    Returns
    -------
    str
        ``"sign"``: odd activations, and the region allows flipping any hidden unit's sign; ``"permutation"``: the hidden
        units of a layer may be exchanged; ``"single units"``: one unit per hidden layer, nothing to exchange; ``"none"``.
    """
    if isinstance(region, Ordered):
        # The symmetric minimiser over the base has equal biases in a layer, so it lies in the cell and is the one there.
        region = region.region
    if isinstance(region, Box) and np.ptp(region.low) == 0.0 and np.ptp(region.high) == 0.0:
        # The methods of the region try unit after unit, which takes long for wide networks.
        permutation, sign = True, bool(region.low[0] == -region.high[0])
    elif isinstance(region, Ball) and np.ptp(region.center) == 0.0:
        permutation, sign = True, bool(region.center[0] == 0.0)
    else:
        permutation, sign = region.is_permutation_symmetric(net), region.is_sign_symmetric(net)
    if penalty is not None and not isinstance(penalty, L2):  # L2 has all symmetries
        permutation = permutation and penalty.is_permutation_symmetric(net)
        sign = sign and penalty.is_sign_symmetric(net)
    if sign and net.activations and all(name in ("tanh", "identity") for name in net.activations):
        return "sign"
    if max(net.widths[1:-1], default=1) == 1:
        return "single units"
    return "permutation" if permutation else "none"


def describe_rng(rng: np.random.Generator) -> int | str:
    """What reproduces the generator: the seed it was made from, as an integer where that fits in 53 bits."""
    sequence = rng.bit_generator.seed_seq
    entropy = getattr(sequence, "entropy", None)
    key = tuple(getattr(sequence, "spawn_key", ()))
    if isinstance(entropy, int) and not key and entropy < 2**53:
        return entropy
    return f"entropy {entropy}" + (f", spawn key {key}" if key else "")

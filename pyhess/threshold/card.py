"""A threshold result in words for a terminal."""

from __future__ import annotations

import math
import textwrap
from typing import TYPE_CHECKING

from .status import Status

if TYPE_CHECKING:
    from .result import ThresholdResult

_WIDTH = 96
_LABEL = 14


def render(result: ThresholdResult) -> str:
    """Return the card: problem, bracket, meaning, evidence, effort, next step."""
    lines = [f"Convexity threshold lam* of L(theta) + {result.problem['penalty_text']} on a region", ""]
    for label, text in (
        *_problem(result),
        ("", ""),
        *_bracket(result),
        ("", ""),
        ("meaning", _meaning(result)),
        *_evidence(result),
        ("effort", _effort(result)),
        ("next", result.status.advice),
    ):
        lines += _entry(label, text)
    return "\n".join(lines)


def _entry(label: str, text: str) -> list[str]:
    if not text:
        return [""]
    indent = " " * (_LABEL + 2)
    return textwrap.wrap(
        text,
        _WIDTH,
        initial_indent=f"  {label:<{_LABEL}}",
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def number(value: float) -> str:
    """Seven significant digits; infinities in words."""
    if math.isinf(value):
        return "infinite" if value > 0 else "-infinite"
    return f"{value:.7g}"


def _problem(result: ThresholdResult) -> list[tuple[str, str]]:
    problem = result.problem
    data = problem["data"]
    weighted = "weighted mean" if data["weighted"] else "mean"
    return [
        ("network", problem["net"]["text"]),
        (
            "data",
            f"{data['name'] or 'unnamed'}: {data['num_samples']} samples, {data['num_features']} features; "
            f"{problem['loss']} loss, {weighted} over the data",
        ),
        ("region", problem["region_text"]),
    ]


def _bracket(result: ThresholdResult) -> list[tuple[str, str]]:
    status = result.status.name
    if result.status is Status.INFINITE:
        head = f"infinite   ({status})"
    elif result.status is Status.EXACT:
        head = f"{number(result.lam_upper)}   ({status}; bracket [{result.lam_lower:.12g}, {result.lam_upper:.12g}])"
    else:
        ratio = f", upper/lower = {result.ratio:.4g}" if math.isfinite(result.ratio) else ""
        head = f"between {number(result.lam_lower)} and {number(result.lam_upper)}   ({status}{ratio})"
    upper = "no point evaluated" if math.isinf(result.psi_upper) else f"at most {number(result.psi_upper)}"
    lower = "not bounded below" if math.isinf(result.psi_lower) else f"at least {number(result.psi_lower)}"
    name, caveat = psi_in_words(result.scope)
    return [("lam*", head), ("psi", f"{name}: {lower}, {upper}" + (f" ({caveat})" if caveat else ""))]


def psi_in_words(scope: str) -> tuple[str, str]:
    """What psi is for results of this scope, and what it does not say."""
    if scope == "global":
        return "smallest Hessian eigenvalue over the region", ""
    return (
        "smallest eigenvalue of the almost-everywhere Hessian",
        "necessary, not sufficient: it bounds lam* from below but says nothing about the kinks",
    )


def _meaning(result: ThresholdResult) -> str:
    if result.status is Status.INFINITE and result.kink is None:
        return (
            "no penalty strength makes this objective convex: at the witness the loss bends downwards along a direction in the "
            "biases, which the penalty leaves out."
        )
    if result.status is Status.INFINITE:
        return (
            "no penalty strength makes this objective convex: at the kink below, moving to either side lowers the loss "
            "at once, and a quadratic penalty is too flat there to make up for it."
        )
    if result.lam_upper == 0.0:
        return "the loss is convex on the region as it is; every penalty keeps it so."
    if math.isfinite(result.lam_upper):
        threshold = number(result.lam_upper)
    elif result.scope == "global":
        finite = result.problem["unique_minimiser"]  # every coordinate is penalised
        threshold = "lam* (finite, but no upper end was computed)" if finite else "lam*, should it be finite,"
    else:
        threshold = "lam*, should it be finite,"
    text = {
        "sign": (
            f"above {threshold} the penalised objective has a single minimiser on the region, and for this network it is the "
            "constant predictor: the symmetries of the network and the region force every weight and hidden bias to zero."
        ),
        "permutation": (
            f"above {threshold} the penalised objective has a single minimiser on the region, and the symmetry between hidden "
            "units forces all units of a layer to be identical: the network computes what one unit per layer can."
        ),
        "single units": f"above {threshold} the penalised objective has a single minimiser on the region.",
        "none": (
            f"above {threshold} the penalised objective has a single minimiser on the region. The region or the penalty is not "
            "symmetric under exchanging hidden units, so the units may differ: this is a statement about the neighbourhood."
        ),
    }[result.problem["symmetry"]]
    if not result.problem["unique_minimiser"]:
        text = f"above {threshold} the penalised objective is convex on the region; with free biases it may have many minimisers."
    if result.lam_lower > 0.0:
        text += f" Below {number(result.lam_lower)} it is not convex, as the witness shows."
    return text


def _evidence(result: ThresholdResult) -> list[tuple[str, str]]:
    entries = []
    if result.witness is not None:
        family = result.stats.get("best_family")
        entries.append(
            (
                "witness",
                f"theta in the region and unit v with v'Hv <= {number(result.witness.eigval)}, rounding allowance "
                f"{result.witness.allowance:.1e} included" + (f" (start family: {family})" if family else ""),
            )
        )
    kink = result.kink
    if kink is not None:
        data = ", ".join(str(i) for i in kink.datum[:4]) + (", …" if len(kink.datum) > 4 else "")
        entries.append(
            (
                "kink",
                f"datum {data} at hidden layer {kink.layer}, unit {kink.unit} (counted from 0): slope jump {kink.jump:.6g} "
                f"along a unit direction; convexity on segments of half length 0.01 needs lam >= "
                f"{kink.lambda_at_scale(0.01):.4g}, of 0.0001 lam >= {kink.lambda_at_scale(0.0001):.4g}",
            )
        )
    elif result.scope != "global":
        entries.append(("kink", "no concave kink was found, and none could be excluded"))
    elif result.stats.get("relu_kinks") in ("kink_free", "convex_kinks"):
        kinds = {
            "kink_free": "every activation keeps its sign on the region, so the network is smooth there",
            "convex_kinks": "every kink on the region bends upwards, so kinks do not harm convexity",
        }
        entries.append(("kinks", f"{kinds[result.stats['relu_kinks']]}: the bracket holds without restriction"))
    rule = result.stats.get("upper_end")
    if rule and result.lam_upper > 0.0 and result.kink is None:
        entries.append(("upper end", rule))
    if result.certificate is not None:
        entries.append(("certificate", f"{result.certificate.method}: {result.certificate.statement}"))
    else:
        entries.append(("certificate", "none: nothing is known about an upper end"))
    return entries


def _effort(result: ThresholdResult) -> str:
    stats = result.stats
    text = f"{stats['seconds']['total']:.2f} s"
    counts = [
        f"{stats[key]} {words}"
        for key, words in (
            ("num_matvecs", "Hessian-vector products"),
            ("num_jets", "curvature jets"),
            ("num_starts", "starts"),
            ("threads", "threads"),
        )
        if stats.get(key)
    ]
    return ", ".join([text, *counts, f"seed {stats['seed']}"])

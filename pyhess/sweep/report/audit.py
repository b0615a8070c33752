"""Whether the brackets hold together, how wide they are, and which certificates made them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from .cells import Cells, FloatArray, IntArray, decoded_all

#: Brackets that are listed when the ends are the wrong way round.
_LISTED = 20


@dataclass(frozen=True)
class BracketAudit:
    """Brackets with both ends.

    Attributes
    ----------
    pairs : int
        Cells with a lower and an upper end.
    violations : list of int
        Cells with lam_lower > lam_upper, the first of them; ``num_violations`` of all. There should be none.
    infinite : int
        Of the pairs, those whose upper end is infinite and lower end finite.
    zero : int
        Of the pairs, those with a finite upper end and a lower end of zero, so that there is no ratio.
    ratios : (R,) array
        lam_upper / lam_lower of the others, with ``cells`` (R,) telling which these are.
    outcomes : dict
        Number of finished cells by outcome; "no outcome" are cells of which only one end was asked for.
    """

    pairs: int
    violations: list[int]
    num_violations: int
    infinite: int
    zero: int
    ratios: FloatArray
    cells: IntArray
    outcomes: dict[str, int]


def audit_brackets(cells: Cells) -> BracketAudit:
    """Compare the ends."""
    lower, upper = cells.lower, cells.upper
    both = ~np.isnan(lower) & ~np.isnan(upper)
    wrong = np.flatnonzero(both & (lower > upper))
    finite = both & np.isfinite(upper)
    comparable = np.flatnonzero(finite & (lower > 0.0))
    outcomes = Counter(
        str(outcome) if outcome is not None else "no outcome"
        for outcome, done in zip(cells.columns["outcome"], cells.done, strict=True)
        if done
    )
    return BracketAudit(
        pairs=int(both.sum()),
        violations=[int(i) for i in wrong[:_LISTED]],
        num_violations=len(wrong),
        infinite=int((both & np.isposinf(upper) & np.isfinite(lower)).sum()),
        zero=int((finite & (lower <= 0.0)).sum()),
        ratios=upper[comparable] / lower[comparable],
        cells=comparable,
        outcomes=dict(sorted(outcomes.items(), key=lambda item: (-item[1], item[0]))),
    )


@dataclass(frozen=True)
class MethodUse:
    """What one certificate did: cells it was tried in, those whose upper end it gave, seconds, and how much looser it was.

    ``looseness`` (tried,) is its psi_lower over the best psi_lower of the cell: 1 where it was as good.
    """

    method: str
    tried: int
    wins: int
    seconds: FloatArray
    looseness: FloatArray


@dataclass(frozen=True)
class Certificates:
    """Certificates by method, most wins first; ``winner`` (N,) is the place of each cell's method, -1 where there is none."""

    methods: list[MethodUse]
    winner: IntArray
    cells: int


def audit_certificates(cells: Cells) -> Certificates:
    """Count which method gave the upper end, and what each took."""
    tried: dict[str, list[float]] = {}
    spent: dict[str, list[float]] = {}
    wins: Counter[str] = Counter()
    texts, timings, methods = (cells.columns[name] for name in ("certificate", "timing", "method"))
    wins.update(str(methods[i]) for i in np.flatnonzero(cells.done) if methods[i] is not None)
    certified = [i for i in np.flatnonzero(cells.done) if texts[i] is not None]
    tables, spans = decoded_all(texts[i] for i in certified), decoded_all(timings[i] or "{}" for i in certified)
    for rows, seconds in zip(tables, spans, strict=True):
        bounds = {str(row["method"]): row["psi_lower"] for row in rows}
        best = max((bound for bound in bounds.values() if bound is not None), default=None)
        for method, bound in bounds.items():
            ratio = bound / best if bound is not None and best is not None and best < 0.0 else np.nan
            tried.setdefault(method, []).append(ratio)
            if f"certificate {method}" in seconds:
                spent.setdefault(method, []).append(float(seconds[f"certificate {method}"]))
    order = sorted({*tried, *wins}, key=lambda method: (-wins[method], method))
    place = {method: i for i, method in enumerate(order)}
    winner = np.array(
        [place.get(str(method), -1) if done else -1 for method, done in zip(methods, cells.done, strict=True)], dtype=np.int64
    )
    uses = [
        MethodUse(
            method=method,
            tried=len(tried.get(method, ())),
            wins=wins[method],
            seconds=np.array(spent.get(method, []), dtype=np.float64),
            looseness=np.array(tried.get(method, []), dtype=np.float64),
        )
        for method in order
    ]
    return Certificates(uses, winner, len(certified))

"""What `radius_path` returns."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from .card import number
from .result import SCHEMA_VERSION, ThresholdResult, json_safe

FloatArray = npt.NDArray[np.float64]

_COLUMNS = ("radius", "lam_lower", "lam_upper", "upper/lower", "exponent", "status")


@dataclass(frozen=True, eq=False)
class RadiusPath:
    """Brackets of the convexity threshold on concentric regions, by radius.

    ``str(path)`` is a table; in its column ``exponent`` stands the slope from the row above.

    Attributes
    ----------
    radii : (R,) array
        Half-widths of the boxes, or radii of the balls, ascending.
    lam_lower, lam_upper : (R,) arrays
        ``lam_lower <= lam* <= lam_upper`` at each radius, neither ever falling: what breaks convexity on a region breaks it on
        every larger one, and what is proved on a region holds on every smaller one.
    psi_upper, psi_lower : (R,) arrays
        ``psi_lower <= psi <= psi_upper``: the smallest eigenvalue of a witness so far, and the certified bound, neither ever
        rising.
    results : tuple of ThresholdResult
        What `lambda_threshold` found at each radius, witnesses of the neighbours included.
    shape : str
        ``"box"`` or ``"ball"``.
    interrupted : bool
        Whether Ctrl-C or the time limit ended it: then radii may be missing at the end, or brackets wider than necessary.
    seconds : float
        Wall time.
    """

    radii: FloatArray
    lam_lower: FloatArray
    lam_upper: FloatArray
    psi_upper: FloatArray
    psi_lower: FloatArray
    results: tuple[ThresholdResult, ...] = field(repr=False)
    shape: str
    interrupted: bool
    seconds: float

    def exponents(self) -> FloatArray:
        """Slopes of log lam_lower over log radius between neighbours, (R-1,); NaN where lam_lower is zero or infinite."""
        usable = (self.lam_lower > 0.0) & np.isfinite(self.lam_lower)
        logs = np.log(np.where(usable, self.lam_lower, np.nan))
        slopes: FloatArray = np.diff(logs) / np.diff(np.log(self.radii))
        return slopes

    def to_dict(self) -> dict[str, Any]:
        """Content as plain lists, strings and finite numbers; infinite or missing numbers are None."""
        content = json_safe(
            {
                "schema_version": SCHEMA_VERSION,
                "kind": "radius_path",
                "shape": self.shape,
                "radii": self.radii,
                "lam_lower": self.lam_lower,
                "lam_upper": self.lam_upper,
                "psi_upper": self.psi_upper,
                "psi_lower": self.psi_lower,
                "exponents": self.exponents(),
                "interrupted": self.interrupted,
                "seconds": self.seconds,
                "results": [result.to_dict() for result in self.results],
            }
        )
        assert isinstance(content, dict)
        return content

    def __str__(self) -> str:
        rows = [_COLUMNS]
        slopes = [math.nan, *self.exponents()]
        for radius, low, high, slope, result in zip(
            self.radii, self.lam_lower, self.lam_upper, slopes, self.results, strict=True
        ):
            ratio = high / low if 0.0 < low < math.inf else math.nan
            cells = (number(radius), number(low), number(high), _or_dash(ratio), _or_dash(slope), result.status.name)
            rows.append(cells)
        widths = [max(len(row[column]) for row in rows) for column in range(len(_COLUMNS))]
        lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
        penalty = f" of L(theta) + {self.results[0].problem['penalty_text']}" if self.results else ""
        title = f"Convexity threshold lam*{penalty} by the radius of the {self.shape}"
        return "\n".join([title + (" (interrupted)" if self.interrupted else ""), "", *lines])


def _or_dash(value: float) -> str:
    return f"{value:.4g}" if math.isfinite(value) else "–"

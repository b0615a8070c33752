"""The convexity threshold: the lower end of the bracket, ReLU kinks, and the bracket itself."""

from .bracket import lambda_threshold
from .kinks import KinkWitness
from .radius import radius_path
from .radius_table import RadiusPath
from .result import ThresholdResult
from .search import SearchResult, search
from .segment import Segment
from .status import Status
from .widening import widen
from .witness import Witness

__all__ = [
    "KinkWitness",
    "RadiusPath",
    "SearchResult",
    "Segment",
    "Status",
    "ThresholdResult",
    "Witness",
    "lambda_threshold",
    "radius_path",
    "search",
    "widen",
]

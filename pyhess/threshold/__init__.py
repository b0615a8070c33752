"""The convexity threshold: the lower end of the bracket, ReLU kinks, and the bracket itself."""

from .._claims import Check, Outcome
from .bracket import lambda_threshold
from .files import load_witness
from .kinks import KinkWitness
from .radius import radius_path
from .radius_table import RadiusPath
from .result import ThresholdResult
from .search import SearchResult, search
from .segment import Segment
from .status import Status
from .verification import Verification, verify_file
from .widening import widen
from .witness import Witness

__all__ = [
    "Check",
    "KinkWitness",
    "Outcome",
    "RadiusPath",
    "SearchResult",
    "Segment",
    "Status",
    "ThresholdResult",
    "Verification",
    "Witness",
    "lambda_threshold",
    "load_witness",
    "radius_path",
    "search",
    "verify_file",
    "widen",
]

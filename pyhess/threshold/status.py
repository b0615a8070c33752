"""How a threshold computation ended, in words that say what to do next."""

from __future__ import annotations

from enum import StrEnum


class Status(StrEnum):
    """Outcome of a threshold computation; ``status.advice`` says what it means and what to try next.

    Members compare equal to their lower-case names, so ``status == "bracketed"`` works and JSON
    output needs no conversion.

    Examples
    --------
    >>> from pyhess.threshold import Status
    >>> Status.EXACT == "exact"
    True
    >>> str(Status.INFINITE)
    'infinite'
    """

    BRACKETED = "bracketed"
    EXACT = "exact"
    INFINITE = "infinite"
    UNDECIDED = "undecided"
    INTERRUPTED = "interrupted"

    @property
    def advice(self) -> str:
        """One or two sentences: the meaning of this status and the next step."""
        return _ADVICE[self]


_ADVICE = {
    Status.BRACKETED: (
        "The threshold lies between the two ends: the lower one has a witness, the upper one a certificate. "
        "To narrow it, search longer (more starts, a larger time_limit) or shrink the region: the certificate "
        "tightens quickly on small regions."
    ),
    Status.EXACT: ("Both ends agree to six digits or better, so the threshold is known. Nothing more to do for this region."),
    Status.INFINITE: (
        "No finite penalty makes this objective convex on the region. With a kink witness: a ReLU kink that bends downwards "
        "lies in its interior; use a smooth activation such as softplus, a region small enough to keep every activation "
        "pattern fixed, or read the threshold at a finite scale with kink.lambda_at_scale(h). Otherwise the loss bends "
        "downwards along biases that the penalty leaves out (see the witness): penalise them too, or fix them by the region."
    ),
    Status.UNDECIDED: (
        "No finite upper end could be certified, and none was ruled out either. Ask for a certificate "
        "(certificate='auto') if it was switched off, give a user's region an enclosure, and penalise biases too; otherwise "
        "shrink the region, or use a smooth activation instead of ReLU."
    ),
    Status.INTERRUPTED: (
        "The run was stopped before its end. What is reported is valid, but the bracket may be wider than "
        "necessary; an upper end that was not computed is infinite. Run again with a larger time_limit."
    ),
}

"""Functions of one variable by polynomials through their values at nodes, for checking certificates.

With the means of f(s ± x) as even(x), and half the differences over x as odd(x), the polynomial f0 + f1 d + f2 d²/2 + f3 d³/6
with f's values at Chebyshev's nodes has

    third order, d = ±a, ±b:   f2/2 = (even(a) - even(b)) / (a² - b²), f0 = even(a) - a² f2/2, f3/6 and f1 from odd(x) likewise,
    second order, d = ±a, 0:   f0 = f(s), f1 = odd(a), f2/2 = (even(a) - f(s)) / a²,

and f is off from it by f^(4)/24 (d² - a²)(d² - b²), or by f'''/6 d (d² - a²), the derivative at some place in between.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from .reference_changes import grown
from .reference_interval import Range, Wide, middle_and_radius, wide

#: Some derivatives over a range, from the first of the given orders on.
Derivatives = Callable[[Sequence[int], Range], list[Range]]

#: Changes from which on functions are expanded through their values at nodes: below, the third order's derivatives are exact
#: enough, and differences lose too much.
_WIDE = {2: np.longdouble(1e-6), 3: np.longdouble(1e-3)}
#: The nodes for a change of one.
_NODES = {
    2: (np.longdouble("0.86602540378443864676"),),
    3: (np.longdouble("0.92387953251128675613"), np.longdouble("0.38268343236508977173")),
}
#: At least 2 / (3 sqrt 3), the largest d (1 - d²) for 0 <= d <= 1.
_HUMP = np.longdouble("0.384900179459750510")

_HALF, _TWO, _SIX = (Range(wide(x)) for x in (0.5, 2.0, 6.0))


def through_nodes(
    derivatives: Derivatives, order: int, s: Wide, move: Wide, degree: int
) -> tuple[list[tuple[Wide, Wide]], Wide]:
    """The coefficients of a polynomial for phi^(order)(s + d), |d| <= move, with their errors, and a bound of a product.

    The polynomial is off by at most phi^(order + degree + 1) / (degree + 1)! times that product. Where the change is small the
    coefficients are derivatives, and the product is |d|^(degree + 1).
    """
    near = derivatives(range(order, order + degree + 1), Range(s))
    far_ones = move > _WIDE[degree]
    width = np.maximum(move, _WIDE[degree])
    nodes = [Range(place * width) for place in _NODES[degree]]
    even, odd = [], []
    for x in nodes:
        above, below = (derivatives((order,), Range(s) + Range(side * x.lo))[0] for side in (1.0, -1.0))
        even.append(_HALF * (above + below))
        odd.append(_HALF * (above - below) / x)
    squares = [x.square() for x in nodes]
    end = Range(width).square()
    if degree == 2:
        far = [near[0], odd[0], _TWO * ((even[0] - near[0]) / squares[0])]
        humps = [Range(width) * (end - squares[0]), Range(_HUMP) * nodes[0] * squares[0]]
    else:
        apart = squares[0] - squares[1]
        second, third = (even[0] - even[1]) / apart, (odd[0] - odd[1]) / apart
        far = [even[0] - second * squares[0], odd[0] - third * squares[0], _TWO * second, _SIX * third]
        # At d = 0, at the ends, and at d² = (a² + b²)/2.
        humps = [squares[0] * squares[1], (end - squares[0]) * (end - squares[1]), (_HALF * apart).square()]
    found = []
    for one, other in zip(far, near, strict=True):
        (x, e), (y, off) = middle_and_radius(one), middle_and_radius(other)
        found.append((np.where(far_ones, x, y), np.where(far_ones, e, off)))
    largest = np.max([hump.size() for hump in humps], axis=0)
    return found, np.where(far_ones, largest, grown(move ** (degree + 1)))

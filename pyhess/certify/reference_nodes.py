"""Functions of one variable by polynomials through their values at nodes, for checking certificates.

The cubic polynomial f0 + f1 d + f2 d²/2 + f3 d³/6 has f's values at s ± a and s ± b, Chebyshev's nodes: with the means of
f(s ± x) as even(x), and half the differences over x as odd(x),

    f2/2 = (even(a) - even(b)) / (a² - b²),  f0 = even(a) - a² f2/2,   f3/6 and f1 from odd(x) likewise,

and f is off from it by f^(4)/24 at some place times (d² - a²)(d² - b²), which is largest at d = 0, at the ends, or in size at
d² = (a² + b²)/2. In the second order d³ becomes 3/4 w² d for |d| <= w, off by w³/4 at the most.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from .reference_changes import grown
from .reference_interval import Range, Wide, middle_and_radius, wide

#: Some derivatives over a range, from the first of the given orders on.
Derivatives = Callable[[Sequence[int], Range], list[Range]]

#: Changes from which on functions are expanded through their values at nodes, and those nodes for a change of one.
_WIDE = np.longdouble(1e-3)
_NODES = (np.longdouble("0.92387953251128675613"), np.longdouble("0.38268343236508977173"))


def expanded(
    derivatives: Derivatives, order: int, s: Wide, move: Wide, over: Range, degree: int
) -> tuple[list[tuple[Wide, Wide]], Wide]:
    """The coefficients of a polynomial for phi^(order)(s + d), |d| <= move, with their errors, and what it is off by beyond.

    ``over`` is the range of s + d, and the degree two or three.
    """
    found, product = _cubics(derivatives, order, s, move)
    off = derivatives((order + 4,), over)[0].size() * product / 24.0
    if degree == 3:
        return found, off
    (f0, f1, f2), (third, blur) = found[:3], found[3]
    square = Range(move).square()
    f1 = middle_and_radius(Range.about(*f1) + Range(third) * square * Range(wide(0.125)))
    return [f0, f1, f2], off + (np.abs(third) / 24.0 + blur / 6.0) * move * square.hi


def _cubics(derivatives: Derivatives, order: int, s: Wide, move: Wide) -> tuple[list[tuple[Wide, Wide]], Wide]:
    """f0 to f3 with their errors, and a bound of the product that phi^(order + 4) / 24 has in |phi^(order)(s + d) - polynomial|.

    For |d| <= move. Where that is small the f are derivatives, and the product is d⁴.
    """
    near = derivatives(range(order, order + 4), Range(s))
    far_ones = move > _WIDE
    width = np.maximum(move, _WIDE)
    half, two, six = (Range(wide(x)) for x in (0.5, 2.0, 6.0))
    nodes, squares, even, odd = [], [], [], []
    for place in _NODES:
        x = place * width
        above, below = (derivatives((order,), Range(s) + Range(side * x))[0] for side in (1.0, -1.0))
        nodes.append(Range(x))
        squares.append(Range(x).square())
        even.append(half * (above + below))
        odd.append(half * (above - below) / nodes[-1])
    apart = squares[0] - squares[1]
    second, third = (even[0] - even[1]) / apart, (odd[0] - odd[1]) / apart
    far = [even[0] - second * squares[0], odd[0] - third * squares[0], two * second, six * third]
    found = []
    for one, other in zip(far, near, strict=True):
        (x, e), (y, off) = middle_and_radius(one), middle_and_radius(other)
        found.append((np.where(far_ones, x, y), np.where(far_ones, e, off)))
    end = Range(width).square()
    products = [squares[0] * squares[1], (end - squares[0]) * (end - squares[1]), (half * apart).square()]
    largest = np.maximum(np.maximum(products[0].size(), products[1].size()), products[2].size())
    return found, np.where(far_ones, largest, grown(move * move * move * move))

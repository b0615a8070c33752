"""Which polynomials of the Hessian a problem has, and what they cost."""

from __future__ import annotations

from typing import Literal

from ..model import MLP
from .taylor_hessian import dense_polynomial_work
from .taylor_one_layer import has_unit_polynomials, pair_numbers, unit_polynomial_work

#: Of the third order by units of one hidden layer, with the form's matrices dense or in pairs of units; or of the third or second
#: order with dense derivatives.
Kind = Literal["units", "pairs", "third", "second"]

#: Most parameters (the form has P + P² unknowns), and most multiplications for a polynomial.
_MAX_PARAMS: dict[Kind, int] = {"units": 72, "pairs": 320, "third": 72, "second": 72}
_MAX_WORK = 3.5e11
#: Most numbers in the tensors of pairs of units, of which there are some four of H² D⁵.
_MAX_NUMBERS = 3e8
#: The same for dense derivatives of the third order.
_CUBIC_PARAMS, _CUBIC_WORK = 40, 2e11


def polynomial_kind(net: MLP, loss: str, num_samples: int, *, whole: bool = True) -> Kind:
    """What a ball as a ``whole`` has, or its slabs."""
    if whole and has_unit_polynomials(net, loss):
        return "units" if net.num_params <= _MAX_PARAMS["units"] else "pairs"
    cubic = net.num_params <= _CUBIC_PARAMS and dense_polynomial_work(net, num_samples, 3) <= _CUBIC_WORK
    return "third" if cubic else "second"


def polynomial_work(net: MLP, loss: str, num_samples: int, *, whole: bool = True) -> float:
    """Multiplications for that polynomial, roughly."""
    kind = polynomial_kind(net, loss, num_samples, whole=whole)
    by_units = kind in ("units", "pairs")
    return unit_polynomial_work(net, num_samples) if by_units else dense_polynomial_work(net, num_samples, order_of(kind))


def order_of(kind: Kind) -> int:
    """The order of such polynomials."""
    return 2 if kind == "second" else 3


def taylor_knows(net: MLP, loss: str, num_samples: int) -> bool:
    """Whether the bound by a Taylor polynomial is for such balls: few parameters, smooth activations."""
    kind = polynomial_kind(net, loss, num_samples)
    few = net.num_params <= _MAX_PARAMS[kind] and (kind != "pairs" or pair_numbers(net) <= _MAX_NUMBERS)
    return few and net.is_smooth and polynomial_work(net, loss, num_samples) <= _MAX_WORK


def slabs_know(net: MLP, loss: str, num_samples: int) -> bool:
    """Whether slabs of a ball are worth trying: not where their polynomials are of a lower order than the ball's."""
    if not taylor_knows(net, loss, num_samples):
        return False
    kinds = [polynomial_kind(net, loss, num_samples, whole=whole) for whole in (True, False)]
    return order_of(kinds[0]) == order_of(kinds[1]) and polynomial_work(net, loss, num_samples, whole=False) <= _MAX_WORK

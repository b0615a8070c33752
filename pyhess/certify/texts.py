"""What certificates say of themselves: how they were found, and how rounding is accounted for."""

from __future__ import annotations

from ..errors import InputError

ROUNDING = (
    "outward: intervals, matrix products with inner-product error bounds, eigenvalues by a Cholesky test or by quotients of "
    "non-negative vectors; assumes IEEE-754 doubles and library functions accurate to 4 units of the last place"
)
#: A method in a few words.
WHAT = {
    "moment": "layer-wise norm recursion with the data's second moments, the Gauss–Newton part dropped",
    "centre": "smallest eigenvalue at the region's centre minus a layer-wise bound of the matrix's change",
    "comparison": "comparison matrix of the residual part's interval enclosure",
    "deif": "middle of the residual part's interval enclosure less its scaled radius",
    "blocks": "middle of the residual part's block of one hidden unit less what each datum may change",
    "taylor": "Taylor polynomial of the Hessian about the centre, less what it leaves out",
    "slabs": "Taylor polynomials of the Hessian about the centres of slabs that cover the ball",
    "units": "branch and bound over the weights of one hidden unit, whatever the others do",
    "exact": "closed form for a two-layer linear network",
    "boxes": "branch and bound over the parameters, comparison matrix of the residual part",
    "cells": "branch and bound with norms or a form of the units, over a box's parameters or a ball's shares and output biases",
    "full": "branch and bound over the parameters, linear model of the Hessian with enclosed third derivatives",
}
_NEEDS = {
    "blocks": "it needs one hidden layer",
    "taylor": (
        "it needs a ball, smooth activations, few data, and at most 72 parameters (320 with one hidden layer and squared error)"
    ),
    "slabs": (
        "it needs a ball, smooth activations, few data, and at most 72 parameters (40 with one hidden layer and squared error)"
    ),
    "units": "it needs one smooth hidden layer and few inputs and outputs",
    "boxes": "it needs a box and a network of at most 150 parameters with few data",
    "cells": "it needs several hidden layers and a network of at most 150 parameters, or a ball and at most 4 outputs",
    "full": "it needs a smooth activation and at most 6 parameters",
    "exact": (
        "closed forms are known for two-layer linear networks with the squared error, the logistic loss or two classes, on balls "
        "about 0 and boxes that are the same for all hidden units"
    ),
}


class DoesNotApplyError(InputError):
    """A method that was asked for by name does not know the problem."""


def does_not_apply(method: str) -> DoesNotApplyError:
    """The error of a method that was asked for by name."""
    return DoesNotApplyError(f"method={method!r} does not apply to this problem: {_NEEDS[method]}. Use method='auto'.")

"""Regularizers: objects that return a penalty of a weight, which is added to the loss.

>>> from seqnet import regularizers
>>> from seqnet.layers import Dense
>>> layers = [Dense(8, kernel_regularizer=regularizers.L2(0.01)), Dense(8, kernel_regularizer="l1")]
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytensor.tensor as pt

from seqnet.common.checks import check_number
from seqnet.common.types import Tensor
from seqnet.registry import Configurable, Identifier, register
from seqnet.registry import get as _get

__all__ = [
    "L1",
    "L1L2",
    "L2",
    "get",
]


@register("regularizer", "l1_l2")
class L1L2(Configurable):
    """``l1 * sum|w| + l2 * sum w^2`` (Keras's definition: no factor one half).

    Examples
    --------
    >>> import seqnet
    >>> penalty = seqnet.regularizers.L1L2(l1=0.01, l2=0.001)
    >>> layer = seqnet.layers.LSTM(8, kernel_regularizer=penalty, recurrent_regularizer="l2")
    """

    def __init__(self, l1: float = 0.0, l2: float = 0.0):
        self.l1, self.l2 = check_number(l1, "l1"), check_number(l2, "l2")
        for name, value in (("l1", self.l1), ("l2", self.l2)):
            if not 0 <= value < np.inf:
                raise ValueError(f"{name} must be at least 0 and finite, got {value}.")

    def __call__(self, weight: Tensor) -> Tensor:
        """Return the penalty of one weight, a symbolic scalar of the weight's dtype."""
        penalty = pt.zeros((), dtype=weight.dtype)
        if self.l1:
            penalty = penalty + pt.cast(self.l1, weight.dtype) * pt.abs(weight).sum()
        if self.l2:
            penalty = penalty + pt.cast(self.l2, weight.dtype) * pt.sqr(weight).sum()
        return penalty


@register("regularizer", "l1")
class L1(L1L2):
    """``l1 * sum|w|``.

    Examples
    --------
    >>> import seqnet
    >>> layer = seqnet.layers.Dense(2, kernel_regularizer=seqnet.regularizers.L1(0.01))
    """

    def __init__(self, l1: float = 0.01):
        super().__init__(l1=l1)


@register("regularizer", "l2")
class L2(L1L2):
    """``l2 * sum w^2``.

    Examples
    --------
    >>> import seqnet
    >>> layer = seqnet.layers.Dense(3, kernel_regularizer=seqnet.regularizers.L2(1e-4))
    """

    def __init__(self, l2: float = 0.01):
        super().__init__(l2=l2)


def penalty(
    regularizer: Callable[[Tensor], Tensor], weight: Tensor, what: str | None = None
) -> Tensor:
    """Return the penalty of a weight or of an output, a symbolic scalar of its dtype.

    The regularizer is any function of it; `what` names it in messages.

    Raises
    ------
    TypeError, ValueError
        If the function does not return one number.
    """
    found, what = regularizer(weight), what or weight.name
    name = getattr(regularizer, "__name__", type(regularizer).__name__)
    if found is None:
        raise TypeError(f"The regularizer {name} of {what} returns None, not a number.")
    found = pt.as_tensor_variable(found)
    if found.ndim:
        raise ValueError(
            f"The regularizer {name} of {what} returns {found.ndim} axes: it must return "
            "one number, such as a sum."
        )
    return pt.cast(found, weight.dtype)


def get(identifier: Identifier | None) -> Callable | None:
    """Return the regularizer of a name, a saved configuration or an object; None stays None.

    Examples
    --------
    >>> import seqnet
    >>> seqnet.regularizers.get("l2")
    L2(l2=0.01)
    >>> seqnet.regularizers.get(None) is None
    True
    """
    return None if identifier is None else _get("regularizer", identifier)

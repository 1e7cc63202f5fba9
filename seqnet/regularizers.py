"""Penalties on weights: objects that turn a weight into a scalar added to the loss."""

from __future__ import annotations

import pytensor.tensor as pt

from seqnet.registry import Configurable, register
from seqnet.registry import get as _get


@register("regularizer", "l1_l2")
class L1L2(Configurable):
    """``l1 * sum|w| + l2 * sum w^2`` (Keras's definition: no factor one half)."""

    def __init__(self, l1: float = 0.0, l2: float = 0.0):
        self.l1, self.l2 = l1, l2

    def __call__(self, weight):
        """Return the penalty of one weight, a symbolic scalar of the weight's dtype."""
        penalty = pt.zeros((), dtype=weight.dtype)
        if self.l1:
            penalty = penalty + pt.cast(self.l1, weight.dtype) * pt.abs(weight).sum()
        if self.l2:
            penalty = penalty + pt.cast(self.l2, weight.dtype) * pt.sqr(weight).sum()
        return penalty


@register("regularizer", "l1")
class L1(L1L2):
    """``l1 * sum|w|``."""

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


def get(identifier):
    """Return the regularizer of a name, a saved configuration or an object; None stays None."""
    return None if identifier is None else _get("regularizer", identifier)

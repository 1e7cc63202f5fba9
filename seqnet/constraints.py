"""Constraints: functions that return the allowed value of a weight, applied after each update.

They are passed to layers as ``kernel_constraint=`` and so on, or to `Layer.add_weight`, and are
part of the compiled update. A table of embeddings with a constraint is updated as a whole, because
a constraint may depend on all rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytensor.tensor as pt

from seqnet import config
from seqnet.common.checks import check_not_negative
from seqnet.common.types import Tensor
from seqnet.registry import Configurable, Identifier, register
from seqnet.registry import get as _get

__all__ = ["MaxNorm", "MinMaxNorm", "NonNeg", "UnitNorm", "get"]


@register("constraint", "max_norm")
class MaxNorm(Configurable):
    """Scale a weight so that its L2 norms along `axis` are at most `max_value`.

    ``w * min(norm, max_value) / (norm + epsilon)`` with `seqnet.config.epsilon`. Source: Srivastava
    et al., "Dropout: a simple way to prevent neural networks from overfitting" (2014).

    Parameters
    ----------
    max_value : float
    axis : int or list of int
        The axes over which a norm is computed: 0 is the incoming weights of a unit in a kernel
        (features, units), 1 is a row of a table of embeddings.

    Examples
    --------
    >>> import seqnet
    >>> from seqnet.constraints import MaxNorm
    >>> layer = seqnet.layers.LSTM(3, recurrent_constraint=MaxNorm(1.5))
    """

    def __init__(self, max_value: float = 2.0, axis: int | Sequence[int] = 0):
        self.max_value = check_not_negative(max_value, "max_value")
        self.axis = check_axis(axis)

    def __call__(self, weight: Tensor) -> Tensor:
        """Return the constrained value of one weight."""
        norms = norms_of(weight, self.axis)
        return rescaled(weight, norms, pt.minimum(norms, number(self.max_value, weight)))


@register("constraint", "non_neg")
class NonNeg(Configurable):
    """Set negative values to zero: ``max(w, 0)``.

    Examples
    --------
    >>> import seqnet
    >>> layer = seqnet.layers.Dense(3, kernel_constraint="non_neg")
    """

    def __call__(self, weight: Tensor) -> Tensor:
        """Return the constrained value of one weight."""
        return pt.maximum(weight, number(0, weight))


@register("constraint", "unit_norm")
class UnitNorm(Configurable):
    """Scale a weight so that its L2 norms along `axis` are 1: ``w / (norm + epsilon)``.

    Parameters
    ----------
    axis : int or list of int
        The axes over which a norm is computed, as for `MaxNorm`.

    Examples
    --------
    >>> import seqnet
    >>> from seqnet.constraints import UnitNorm
    >>> layer = seqnet.layers.Embedding(100, 8, embeddings_constraint=UnitNorm(axis=1))
    """

    def __init__(self, axis: int | Sequence[int] = 0):
        self.axis = check_axis(axis)

    def __call__(self, weight: Tensor) -> Tensor:
        """Return the constrained value of one weight."""
        return rescaled(weight, norms_of(weight, self.axis), number(1, weight))


@register("constraint", "min_max_norm")
class MinMaxNorm(Configurable):
    """Move the L2 norms of a weight along `axis` towards ``[min_value, max_value]``.

    ``w * (rate * clip(norm, min_value, max_value) + (1 - rate) * norm) / (norm + epsilon)``.

    Parameters
    ----------
    min_value, max_value : float
    rate : float
        In [0, 1]; 1 enforces the bounds at each update.
    axis : int or list of int
        The axes over which a norm is computed, as for `MaxNorm`.

    Examples
    --------
    >>> import seqnet
    >>> from seqnet.constraints import MinMaxNorm
    >>> layer = seqnet.layers.Dense(3, kernel_constraint=MinMaxNorm(0.5, 1.0))
    """

    def __init__(
        self,
        min_value: float = 0.0,
        max_value: float = 1.0,
        rate: float = 1.0,
        axis: int | Sequence[int] = 0,
    ):
        self.min_value = check_not_negative(min_value, "min_value")
        self.max_value = check_not_negative(max_value, "max_value")
        self.rate = check_not_negative(rate, "rate")
        self.axis = check_axis(axis)
        if self.min_value > self.max_value:
            raise ValueError(
                f"min_value must not be above max_value, got {min_value!r} and {max_value!r}."
            )
        if self.rate > 1:
            raise ValueError(f"rate must be in [0, 1], got {rate!r}.")

    def __call__(self, weight: Tensor) -> Tensor:
        """Return the constrained value of one weight."""
        norms = norms_of(weight, self.axis)
        low, high = number(self.min_value, weight), number(self.max_value, weight)
        rate, rest = number(self.rate, weight), number(1 - self.rate, weight)
        return rescaled(weight, norms, rate * pt.clip(norms, low, high) + rest * norms)


def number(value: float, like: Tensor) -> Any:
    """Return a number of a weight's dtype."""
    return np.asarray(value, dtype=like.dtype)


def norms_of(weight: Tensor, axis: int | list[int]) -> Tensor:
    """Return the L2 norms of a weight, with axes of length 1 where they were computed."""
    axes = [axis] if isinstance(axis, int) else axis
    if not all(-weight.ndim <= a < weight.ndim for a in axes):
        raise ValueError(
            f"The constraint of {weight.name or 'a weight'} has axis={axis}, but the weight has "
            f"{weight.ndim} axes."
        )
    return pt.sqrt(pt.sum(pt.sqr(weight), axis=axes, keepdims=True))


def rescaled(weight: Tensor, norms: Tensor, desired: Any) -> Tensor:
    """Return a weight with other norms."""
    return weight * (desired / (norms + number(config.epsilon(), weight)))


def check_axis(axis: Any) -> int | list[int]:
    """Return an axis or a list of axes, or raise ``TypeError``."""
    axes = axis if isinstance(axis, (list, tuple)) else [axis]
    if not axes or any(isinstance(a, bool) or not isinstance(a, (int, np.integer)) for a in axes):
        raise TypeError(f"axis must be an integer or a list of integers, got {axis!r}.")
    return [int(a) for a in axes] if isinstance(axis, (list, tuple)) else int(axis)


def get(identifier: Identifier | None) -> Callable | None:
    """Return the constraint of a name, a saved configuration or an object; None stays None.

    Examples
    --------
    >>> import seqnet
    >>> seqnet.constraints.get("non_neg")
    NonNeg()
    >>> seqnet.constraints.get(None) is None
    True
    """
    return None if identifier is None else _get("constraint", identifier)


# ---- constraints of weights


def constrain(weight: Any, value: Tensor) -> Tensor:
    """Return the new value of a shared weight after its constraint, if it has one.

    Raises
    ------
    TypeError, ValueError
        If the constraint does not return an array of the weight's shape.
    """
    constraint = constraint_of(weight)
    if constraint is None:
        return value
    found = constraint(value)
    name = getattr(constraint, "__name__", type(constraint).__name__)
    what = f"The constraint {name} of {weight.name}"
    if found is None:
        raise TypeError(f"{what} returns None, not the new value of the weight.")
    found = pt.as_tensor_variable(found)
    if found.ndim != weight.ndim:
        raise ValueError(
            f"{what} returns {found.ndim} axes: it must return the new value of the weight, "
            f"which has {weight.ndim}."
        )
    return pt.cast(found, weight.dtype)


def constraint_of(weight: Any) -> Callable | None:
    """Return the constraint of a shared variable, None if it has none."""
    return getattr(weight.tag, "constraint", None)

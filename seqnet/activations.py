"""Activation functions of symbolic arrays: they keep the shape and work for any rank.

The names are Keras 3's. ``hard_sigmoid`` has Keras 3's slope of 1/6; Keras 1 and 2 and Theano
used 1/5 (see `docs/differences.md`).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytensor.tensor as pt

from seqnet.registry import Identifier, register
from seqnet.registry import get as _get
from seqnet.types import Array, Tensor


def constant(value: float, x: Tensor) -> Array:
    """Return a number in the float type of `x`: a plain 0.2 would make the result float64."""
    return np.asarray(value, dtype=x.dtype if x.dtype.startswith("float") else "float64")


@register("activation")
def linear(x: Tensor) -> Tensor:
    """Return `x` itself."""
    return x


@register("activation")
def tanh(x: Tensor) -> Tensor:
    """Hyperbolic tangent."""
    return pt.tanh(x)


@register("activation")
def sigmoid(x: Tensor) -> Tensor:
    """1 / (1 + exp(-x))."""
    return pt.sigmoid(x)


@register("activation")
def hard_sigmoid(x: Tensor) -> Tensor:
    """Piecewise linear sigmoid: x/6 + 1/2, cut to [0, 1] (Keras 3)."""
    return pt.clip(x / constant(6.0, x) + constant(0.5, x), constant(0.0, x), constant(1.0, x))


@register("activation")
def relu(x: Tensor) -> Tensor:
    """max(x, 0)."""
    return pt.maximum(x, 0)


@register("activation")
def leaky_relu(x: Tensor) -> Tensor:
    """Return x where it is positive, 0.2 x elsewhere (Keras 3's default slope)."""
    return pt.switch(x > 0, x, constant(0.2, x) * x)


@register("activation")
def elu(x: Tensor) -> Tensor:
    """Return x where it is positive, exp(x) - 1 elsewhere."""
    return pt.switch(x > 0, x, pt.expm1(pt.minimum(x, 0)))


@register("activation")
def softplus(x: Tensor) -> Tensor:
    """log(1 + exp(x))."""
    return pt.softplus(x)


@register("activation")
def softsign(x: Tensor) -> Tensor:
    """Return x / (1 + |x|)."""
    return x / (1 + pt.abs(x))


@register("activation")
def exponential(x: Tensor) -> Tensor:
    """exp(x)."""
    return pt.exp(x)


@register("activation", "swish")
def silu(x: Tensor) -> Tensor:
    """Return x sigmoid(x)."""
    return x * pt.sigmoid(x)


@register("activation")
def gelu(x: Tensor) -> Tensor:
    """Return x Phi(x), Phi the normal distribution function (Hendrycks and Gimpel, 2016)."""
    return constant(0.5, x) * x * (1 + pt.erf(x * constant(0.5**0.5, x)))


@register("activation")
def softmax(x: Tensor) -> Tensor:
    """Exponentials normalised over the last axis."""
    return pt.special.softmax(x, axis=-1)


@register("activation")
def log_softmax(x: Tensor) -> Tensor:
    """Logarithm of the softmax over the last axis."""
    return pt.special.log_softmax(x, axis=-1)


def apply(activation: Callable, x: Tensor) -> Tensor:
    """Return an activation of a variable, of the same number of axes, or raise.

    Raises
    ------
    TypeError, ValueError
        If a function returns nothing, or another number of axes.
    """
    found = activation(x)
    name = getattr(activation, "__name__", type(activation).__name__)
    if found is None:
        raise TypeError(f"The activation {name} returns None: it must return its output.")
    found = pt.as_tensor_variable(found)
    if found.ndim != x.ndim:
        raise ValueError(
            f"The activation {name} gives an output of {found.ndim} axes for an input of {x.ndim}: "
            "an activation keeps the shape. A function that changes it goes into a Lambda layer."
        )
    return found


def get(identifier: Identifier | None) -> Callable:
    """Return the activation of a name, a callable as it is, and `linear` for ``None``.

    Examples
    --------
    >>> from seqnet import activations
    >>> activations.get("tanh").__name__
    'tanh'
    >>> activations.get("tanhh")
    Traceback (most recent call last):
        ...
    ValueError: Unknown activation 'tanhh'. Did you mean 'tanh'? ...
    """
    return linear if identifier is None else _get("activation", identifier)

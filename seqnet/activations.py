"""Activation functions of symbolic arrays: they keep the shape and work for any rank.

The names are Keras 3's. ``hard_sigmoid`` has Keras 3's slope of 1/6; Keras 1 and 2 and Theano
used 1/5 (see `docs/differences.md`).

A layer takes the name or the function; a function can also be called on any variable, or on an
array, which gives an array:

>>> import pytensor.tensor as pt
>>> from seqnet import activations
>>> from seqnet.layers import Dense
>>> layers = [Dense(8, activation="gelu"), Dense(8, activation=activations.mish)]
>>> activations.softmax(pt.matrix("x"), axis=0).ndim
2
>>> activations.relu([-1.0, 2.0]).tolist()
[0.0, 2.0]
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

import numpy as np
import pytensor.tensor as pt
from pytensor.graph.basic import Variable

from seqnet import backend, config
from seqnet.common.types import Array, Tensor
from seqnet.registry import Identifier, register
from seqnet.registry import get as _get

__all__ = [
    "celu",
    "elu",
    "exponential",
    "gelu",
    "get",
    "hard_shrink",
    "hard_sigmoid",
    "hard_silu",
    "hard_tanh",
    "leaky_relu",
    "linear",
    "log_sigmoid",
    "log_softmax",
    "mish",
    "relu",
    "relu6",
    "selu",
    "sigmoid",
    "silu",
    "soft_shrink",
    "softmax",
    "softplus",
    "softsign",
    "squareplus",
    "tanh",
    "tanh_shrink",
]


Function = TypeVar("Function", bound=Callable)


def constant(value: float, x: Tensor) -> Array:
    """Return a number in the float type of `x`: a plain 0.2 would make the result float64."""
    return np.asarray(value, dtype=x.dtype if x.dtype.startswith("float") else "float64")


def above(x: Tensor, threshold: float = 0.0) -> Tensor:
    """Return ``x > threshold``.

    The gradient of PyTensor's comparisons is a zero of float64, which would make that of a float32
    graph float64. The gradient of its sign has the dtype of x.
    """
    return pt.gt(pt.sign(x if threshold == 0 else x - constant(threshold, x)), 0)


def activation(*names: str) -> Callable[[Function], Function]:
    """Decorator: register an activation, by its name and others, which takes arrays, too."""

    def enter(function: Function) -> Function:
        @wraps(function)
        def called(x: Any, *arguments: Any, **options: Any) -> Any:
            if isinstance(x, Variable):
                return function(x, *arguments, **options)
            values = np.asarray(x)
            if values.dtype.kind not in "fiub":
                raise TypeError(
                    f"The activation {function.__name__} takes a PyTensor variable or an array of "
                    f"numbers, got {str(x)[:100]!r} of type {type(x).__name__}."
                )
            values = values if values.dtype.kind == "f" else values.astype(config.floatx())
            x = pt.tensor(dtype=values.dtype, shape=(None,) * values.ndim)
            outputs = [function(x, *arguments, **options)]
            return backend.compile([x], outputs, name=function.__name__)(values)[0]

        return register("activation", *names)(called)

    return enter


@register("activation")
def linear(x: Tensor) -> Tensor:
    """Return `x` itself.

    Examples
    --------
    >>> import pytensor.tensor as pt, seqnet
    >>> y = seqnet.activations.linear(pt.as_tensor_variable([-1.0, 0.25, 2.0]))
    >>> y.eval(mode=seqnet.backend.mode()).round(3).tolist()
    [-1.0, 0.25, 2.0]
    """
    return x


@activation()
def tanh(x: Tensor) -> Tensor:
    """Hyperbolic tangent.

    Examples
    --------
    >>> import pytensor.tensor as pt, seqnet
    >>> y = seqnet.activations.tanh(pt.as_tensor_variable([-1.0, 0.25, 2.0]))
    >>> y.eval(mode=seqnet.backend.mode()).round(3).tolist()
    [-0.762, 0.245, 0.964]
    """
    return pt.tanh(x)


@activation()
def sigmoid(x: Tensor) -> Tensor:
    """1 / (1 + exp(-x)).

    Examples
    --------
    >>> import pytensor.tensor as pt, seqnet
    >>> y = seqnet.activations.sigmoid(pt.as_tensor_variable([-1.0, 0.25, 2.0]))
    >>> y.eval(mode=seqnet.backend.mode()).round(3).tolist()
    [0.269, 0.562, 0.881]
    """
    return pt.sigmoid(x)


@activation()
def hard_sigmoid(x: Tensor) -> Tensor:
    """Piecewise linear sigmoid: x/6 + 1/2, cut to [0, 1] (Keras 3).

    Examples
    --------
    >>> import pytensor.tensor as pt, seqnet
    >>> y = seqnet.activations.hard_sigmoid(pt.as_tensor_variable([-1.0, 0.25, 2.0]))
    >>> y.eval(mode=seqnet.backend.mode()).round(3).tolist()
    [0.333, 0.542, 0.833]
    """
    return pt.clip(x / constant(6.0, x) + constant(0.5, x), constant(0.0, x), constant(1.0, x))


@activation()
def hard_tanh(x: Tensor) -> Tensor:
    """Return x, cut to [-1, 1].

    Examples
    --------
    >>> import pytensor.tensor as pt, seqnet
    >>> y = seqnet.activations.hard_tanh(pt.as_tensor_variable([-1.0, 0.25, 2.0]))
    >>> y.eval(mode=seqnet.backend.mode()).round(3).tolist()
    [-1.0, 0.25, 1.0]
    """
    return pt.clip(x, constant(-1.0, x), constant(1.0, x))


@activation()
def tanh_shrink(x: Tensor) -> Tensor:
    """Return x - tanh(x).

    Examples
    --------
    >>> import pytensor.tensor as pt, seqnet
    >>> y = seqnet.activations.tanh_shrink(pt.as_tensor_variable([-1.0, 0.25, 2.0]))
    >>> y.eval(mode=seqnet.backend.mode()).round(3).tolist()
    [-0.238, 0.005, 1.036]
    """
    return x - pt.tanh(x)


@activation()
def log_sigmoid(x: Tensor) -> Tensor:
    """Logarithm of the sigmoid: -log(1 + exp(-x)).

    Examples
    --------
    >>> import pytensor.tensor as pt, seqnet
    >>> y = seqnet.activations.log_sigmoid(pt.as_tensor_variable([-1.0, 0.25, 2.0]))
    >>> y.eval(mode=seqnet.backend.mode()).round(3).tolist()
    [-1.313, -0.576, -0.127]
    """
    return -pt.softplus(-x)


@activation()
def relu(
    x: Tensor, negative_slope: float = 0.0, max_value: float | None = None, threshold: float = 0.0
) -> Tensor:
    """Return max(x, 0), or with arguments a piecewise linear function (Keras 3).

    It is ``max_value`` from there on, x above ``threshold``, and
    ``negative_slope * (x - threshold)`` elsewhere.

    Examples
    --------
    >>> import pytensor.tensor as pt, seqnet
    >>> y = seqnet.activations.relu(pt.as_tensor_variable([-1.0, 0.25, 2.0]))
    >>> y.eval(mode=seqnet.backend.mode()).round(3).tolist()
    [0.0, 0.25, 2.0]
    """
    if negative_slope == 0 and max_value is None and threshold == 0:
        return pt.maximum(x, 0)
    upper = x if max_value is None else pt.minimum(x, constant(max_value, x))
    lower = constant(negative_slope, x) * (x - constant(threshold, x))
    return pt.switch(above(x, threshold), upper, lower)


@activation()
def relu6(x: Tensor) -> Tensor:
    """Return x, cut to [0, 6].

    Examples
    --------
    >>> import pytensor.tensor as pt, seqnet
    >>> y = seqnet.activations.relu6(pt.as_tensor_variable([-1.0, 0.25, 8.0]))
    >>> y.eval(mode=seqnet.backend.mode()).round(3).tolist()
    [0.0, 0.25, 6.0]
    """
    return pt.clip(x, constant(0.0, x), constant(6.0, x))


@activation()
def leaky_relu(x: Tensor, negative_slope: float = 0.2) -> Tensor:
    """Return x where it is positive, negative_slope x elsewhere.

    Examples
    --------
    >>> import pytensor.tensor as pt, seqnet
    >>> y = seqnet.activations.leaky_relu(pt.as_tensor_variable([-1.0, 0.25, 2.0]))
    >>> y.eval(mode=seqnet.backend.mode()).round(3).tolist()
    [-0.2, 0.25, 2.0]
    """
    return pt.switch(above(x), x, constant(negative_slope, x) * x)


@activation()
def elu(x: Tensor, alpha: float = 1.0) -> Tensor:
    """Return x where it is positive, alpha (exp(x) - 1) elsewhere (Clevert et al., 2016).

    Examples
    --------
    >>> import pytensor.tensor as pt, seqnet
    >>> y = seqnet.activations.elu(pt.as_tensor_variable([-1.0, 0.25, 2.0]))
    >>> y.eval(mode=seqnet.backend.mode()).round(3).tolist()
    [-0.632, 0.25, 2.0]
    """
    below = pt.expm1(pt.minimum(x, 0))
    return pt.switch(above(x), x, below if alpha == 1 else constant(alpha, x) * below)


@activation()
def selu(x: Tensor) -> Tensor:
    """Return 1.0507 elu(x, 1.67326), which keeps mean 0 and variance 1 (Klambauer et al., 2017).

    Examples
    --------
    >>> import pytensor.tensor as pt, seqnet
    >>> y = seqnet.activations.selu(pt.as_tensor_variable([-1.0, 0.25, 2.0]))
    >>> y.eval(mode=seqnet.backend.mode()).round(3).tolist()
    [-1.111, 0.263, 2.101]
    """
    return constant(1.0507009873554805, x) * elu(x, 1.6732632423543772)


@activation()
def celu(x: Tensor, alpha: float = 1.0) -> Tensor:
    """Return x where it is positive, alpha (exp(x / alpha) - 1) elsewhere (Barron, 2017).

    Examples
    --------
    >>> import pytensor.tensor as pt, seqnet
    >>> y = seqnet.activations.celu(pt.as_tensor_variable([-1.0, 0.25, 2.0]))
    >>> y.eval(mode=seqnet.backend.mode()).round(3).tolist()
    [-0.632, 0.25, 2.0]
    """
    scale = constant(alpha, x)
    return pt.switch(above(x), x, scale * pt.expm1(pt.minimum(x, 0) / scale))


@activation()
def softplus(x: Tensor) -> Tensor:
    """log(1 + exp(x)).

    Examples
    --------
    >>> import pytensor.tensor as pt, seqnet
    >>> y = seqnet.activations.softplus(pt.as_tensor_variable([-1.0, 0.25, 2.0]))
    >>> y.eval(mode=seqnet.backend.mode()).round(3).tolist()
    [0.313, 0.826, 2.127]
    """
    return pt.softplus(x)


@activation()
def softsign(x: Tensor) -> Tensor:
    """Return ``x / (1 + |x|)``.

    Examples
    --------
    >>> import pytensor.tensor as pt, seqnet
    >>> y = seqnet.activations.softsign(pt.as_tensor_variable([-1.0, 0.25, 2.0]))
    >>> y.eval(mode=seqnet.backend.mode()).round(3).tolist()
    [-0.5, 0.2, 0.667]
    """
    return x / (1 + pt.abs(x))


@activation()
def exponential(x: Tensor) -> Tensor:
    """exp(x).

    Examples
    --------
    >>> import pytensor.tensor as pt, seqnet
    >>> y = seqnet.activations.exponential(pt.as_tensor_variable([-1.0, 0.25, 2.0]))
    >>> y.eval(mode=seqnet.backend.mode()).round(3).tolist()
    [0.368, 1.284, 7.389]
    """
    return pt.exp(x)


@activation("swish")
def silu(x: Tensor) -> Tensor:
    """Return x sigmoid(x).

    Examples
    --------
    >>> import pytensor.tensor as pt, seqnet
    >>> y = seqnet.activations.silu(pt.as_tensor_variable([-1.0, 0.25, 2.0]))
    >>> y.eval(mode=seqnet.backend.mode()).round(3).tolist()
    [-0.269, 0.141, 1.762]
    """
    return x * pt.sigmoid(x)


@activation("hard_swish")
def hard_silu(x: Tensor) -> Tensor:
    """Return x hard_sigmoid(x) (Howard et al., 2019).

    Examples
    --------
    >>> import pytensor.tensor as pt, seqnet
    >>> y = seqnet.activations.hard_silu(pt.as_tensor_variable([-1.0, 0.25, 2.0]))
    >>> y.eval(mode=seqnet.backend.mode()).round(3).tolist()
    [-0.333, 0.135, 1.667]
    """
    return x * hard_sigmoid(x)


@activation()
def mish(x: Tensor) -> Tensor:
    """Return x tanh(softplus(x)) (Misra, 2019).

    Examples
    --------
    >>> import pytensor.tensor as pt, seqnet
    >>> y = seqnet.activations.mish(pt.as_tensor_variable([-1.0, 0.25, 2.0]))
    >>> y.eval(mode=seqnet.backend.mode()).round(3).tolist()
    [-0.303, 0.17, 1.944]
    """
    return x * pt.tanh(pt.softplus(x))


@activation()
def squareplus(x: Tensor, b: float = 4.0) -> Tensor:
    """Return (x + sqrt(x^2 + b)) / 2 (Barron, 2021).

    Examples
    --------
    >>> import pytensor.tensor as pt, seqnet
    >>> y = seqnet.activations.squareplus(pt.as_tensor_variable([-1.0, 0.25, 2.0]))
    >>> y.eval(mode=seqnet.backend.mode()).round(3).tolist()
    [0.618, 1.133, 2.414]
    """
    return constant(0.5, x) * (x + pt.sqrt(pt.sqr(x) + constant(b, x)))


@activation()
def hard_shrink(x: Tensor, threshold: float = 0.5) -> Tensor:
    """Return x where its size is above the threshold, 0 elsewhere.

    Examples
    --------
    >>> import pytensor.tensor as pt, seqnet
    >>> y = seqnet.activations.hard_shrink(pt.as_tensor_variable([-1.0, 0.25, 2.0]))
    >>> y.eval(mode=seqnet.backend.mode()).round(3).tolist()
    [-1.0, 0.0, 2.0]
    """
    return pt.switch(above(pt.abs(x), threshold), x, constant(0.0, x))


@activation()
def soft_shrink(x: Tensor, threshold: float = 0.5) -> Tensor:
    """Move x towards 0 by the threshold: ``sign(x) max(|x| - threshold, 0)``.

    Examples
    --------
    >>> import pytensor.tensor as pt, seqnet
    >>> y = seqnet.activations.soft_shrink(pt.as_tensor_variable([-1.0, 0.25, 2.0]))
    >>> y.eval(mode=seqnet.backend.mode()).round(3).tolist()
    [-0.5, 0.0, 1.5]
    """
    limit = constant(threshold, x)
    return x - pt.clip(x, -limit, limit)


@activation()
def gelu(x: Tensor, approximate: bool = False) -> Tensor:
    """Return x Phi(x), Phi the normal distribution function (Hendrycks and Gimpel, 2016).

    The approximation is theirs: x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2.

    Examples
    --------
    >>> import pytensor.tensor as pt, seqnet
    >>> y = seqnet.activations.gelu(pt.as_tensor_variable([-1.0, 0.25, 2.0]))
    >>> y.eval(mode=seqnet.backend.mode()).round(3).tolist()
    [-0.159, 0.15, 1.954]
    """
    if approximate:
        inner = constant((2 / np.pi) ** 0.5, x) * (x + constant(0.044715, x) * x * x * x)
        return constant(0.5, x) * x * (1 + pt.tanh(inner))
    return constant(0.5, x) * x * (1 + pt.erf(x * constant(0.5**0.5, x)))


@activation()
def softmax(x: Tensor, axis: int = -1) -> Tensor:
    """Exponentials normalised over an axis, by default the last one.

    Examples
    --------
    >>> import pytensor.tensor as pt, seqnet
    >>> y = seqnet.activations.softmax(pt.as_tensor_variable([-1.0, 0.25, 2.0]))
    >>> y.eval(mode=seqnet.backend.mode()).round(3).tolist()
    [0.041, 0.142, 0.817]
    """
    return pt.special.softmax(x, axis=axis)


@activation()
def log_softmax(x: Tensor, axis: int = -1) -> Tensor:
    """Logarithm of the softmax over an axis, by default the last one.

    Examples
    --------
    >>> import pytensor.tensor as pt, seqnet
    >>> y = seqnet.activations.log_softmax(pt.as_tensor_variable([-1.0, 0.25, 2.0]))
    >>> y.eval(mode=seqnet.backend.mode()).round(3).tolist()
    [-3.202, -1.952, -0.202]
    """
    return pt.special.log_softmax(x, axis=axis)


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
            f"The activation {name} returns an output of {found.ndim} axes for an input of "
            f"{x.ndim}: an activation keeps the shape. A function that changes it "
            "goes into a Lambda layer."
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

"""Regression losses."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pytensor.tensor as pt
from pytensor.gradient import zero_grad

from seqnet import config
from seqnet.common.checks import check_number
from seqnet.common.types import Tensor
from seqnet.losses.loss import Loss, check_axis, function_of, number
from seqnet.registry import register


@register("loss", "mean_squared_error", "mse")
class MeanSquaredError(Loss):
    """Mean over the last axis of ``(y_true - y_pred)^2``.

    Examples
    --------
    >>> import seqnet
    >>> float(seqnet.losses.MeanSquaredError()([[0.0, 1.0]], [[1.0, 3.0]]))
    2.5
    """

    registered_name = "mean_squared_error"

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        y_true, y_pred = self.paired(y_true, y_pred)
        return pt.mean(pt.sqr(y_true - y_pred), axis=-1)


@register("loss", "mean_absolute_error", "mae")
class MeanAbsoluteError(Loss):
    """Mean over the last axis of ``|y_true - y_pred|``.

    Examples
    --------
    >>> import seqnet
    >>> float(seqnet.losses.MeanAbsoluteError()([[0.0, 1.0]], [[1.0, 3.0]]))
    1.5
    """

    registered_name = "mean_absolute_error"

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        y_true, y_pred = self.paired(y_true, y_pred)
        return pt.mean(pt.abs(y_true - y_pred), axis=-1)


@register("loss", "mean_absolute_percentage_error", "mape")
class MeanAbsolutePercentageError(Loss):
    """Mean over the last axis of ``100 |y_true - y_pred| / max(|y_true|, epsilon)``.

    epsilon is `seqnet.config.epsilon`, 1e-7 by default, as in Keras 3.

    Examples
    --------
    >>> import seqnet
    >>> float(seqnet.losses.MeanAbsolutePercentageError()([[2.0, 4.0]], [[1.0, 5.0]]))
    37.5
    """

    registered_name = "mean_absolute_percentage_error"

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        y_true, y_pred = self.paired(y_true, y_pred)
        error = pt.abs(y_true - y_pred) / pt.maximum(pt.abs(y_true), small(y_pred))
        return number(100, y_pred) * pt.mean(error, axis=-1)


@register("loss", "mean_squared_logarithmic_error", "msle")
class MeanSquaredLogarithmicError(Loss):
    """Mean over the last axis of ``(log(1 + y_true) - log(1 + y_pred))^2``.

    Targets and predictions below epsilon (`seqnet.config.epsilon`, 1e-7 by default) count as
    epsilon, as in Keras 3; the gradient is 0 there.

    Examples
    --------
    >>> import numpy as np, seqnet
    >>> loss = seqnet.losses.MeanSquaredLogarithmicError()
    >>> round(float(loss([[np.e - 1]], [[np.e**3 - 1]])), 5)
    4.0
    """

    registered_name = "mean_squared_logarithmic_error"

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        y_true, y_pred = self.paired(y_true, y_pred)
        low = small(y_pred)
        logs = [pt.log1p(pt.maximum(value, low)) for value in (y_true, y_pred)]
        return pt.mean(pt.sqr(logs[0] - logs[1]), axis=-1)


@register("loss", "log_cosh", "logcosh")
class LogCosh(Loss):
    """Mean over the last axis of ``log(cosh(y_pred - y_true))``.

    About ``e^2 / 2`` for small errors e and ``|e| - log 2`` for large ones. It is computed as
    ``|e| + log(1 + exp(-2 |e|)) - log 2``, which never overflows.

    Examples
    --------
    >>> import numpy as np, seqnet
    >>> float(seqnet.losses.LogCosh()([[0.0]], [[100.0]]) - (100 - np.log(2))) < 1e-5
    True
    """

    registered_name = "log_cosh"

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        y_true, y_pred = self.paired(y_true, y_pred)
        error = pt.abs(y_pred - y_true)
        values = error + pt.softplus(number(-2, error) * error) - number(np.log(2), error)
        return pt.mean(values, axis=-1)


@register("loss", "huber")
class Huber(Loss):
    """Mean over the last axis of ``e^2 / 2`` for errors e up to delta, and linear beyond.

    For ``|e| > delta`` it is ``delta |e| - delta^2 / 2`` (Huber, 1964: Robust estimation of a
    location parameter). With ``a = min(|e|, delta)`` both are ``a (|e| - a / 2)``.

    Parameters
    ----------
    delta : float
        The error from which the loss is linear; above 0.
    **kwargs
        ``name``, ``reduction`` and ``dtype`` of `Loss`.

    Examples
    --------
    >>> import seqnet
    >>> float(seqnet.losses.Huber(delta=1.0)([[0.0, 0.0]], [[0.5, 3.0]]))
    1.3125
    """

    registered_name = "huber"

    def __init__(self, delta: float = 1.0, **kwargs: Any):
        super().__init__(**kwargs)
        if not check_number(delta, "delta") > 0:
            raise ValueError(f"delta must be above 0, got {delta}.")
        self.delta = delta

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        y_true, y_pred = self.paired(y_true, y_pred)
        error = pt.abs(y_pred - y_true)
        near = pt.minimum(error, number(self.delta, error))
        return pt.mean(near * (error - number(0.5, error) * near), axis=-1)


@register("loss", "cosine_similarity")
class CosineSimilarity(Loss):
    """Minus the cosine of the angle between target and prediction: from -1 (the same) to 1.

    ``-sum(y_true y_pred) / (|y_true| |y_pred|)`` over an axis; norms below epsilon
    (`seqnet.config.epsilon`, 1e-7 by default) count as epsilon, so a row of zeros gives 0.

    Parameters
    ----------
    axis : int
        The axis of the vectors. In a model it is the last one, -1.
    **kwargs
        ``name``, ``reduction`` and ``dtype`` of `Loss`.

    Examples
    --------
    >>> import seqnet
    >>> loss = seqnet.losses.CosineSimilarity(reduction="none")
    >>> loss([[0.0, 1.0], [1.0, 1.0]], [[1.0, 0.0], [3.0, 3.0]]).round(4).tolist()
    [-0.0, -1.0]
    """

    registered_name = "cosine_similarity"

    def __init__(self, axis: int = -1, **kwargs: Any):
        super().__init__(**kwargs)
        self.axis = check_axis(axis)

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        y_true, y_pred = self.paired(y_true, y_pred)
        return -pt.sum(normalized(y_true) * normalized(y_pred), axis=-1)


def normalized(vectors: Tensor) -> Tensor:
    """Return vectors along the last axis divided by their L2 norms; the gradient stays finite."""
    low = small(vectors)
    # Divided by the largest entry first, so that squares do not overflow. The result does not
    # depend on this scale, so the scale needs no gradient.
    largest = pt.max(pt.abs(vectors), axis=-1, keepdims=True)
    scale = cast(Tensor, zero_grad(pt.maximum(largest, low)))
    scaled = vectors / scale
    squares = pt.sum(pt.sqr(scaled), axis=-1, keepdims=True)
    return scaled / pt.sqrt(pt.maximum(squares, pt.sqr(low / scale)))


def small(like: Tensor) -> np.ndarray:
    """Return epsilon in the float type of a variable, above 0."""
    return number(max(config.epsilon(), np.finfo(like.dtype).tiny), like)


mean_squared_error = function_of(MeanSquaredError)
mean_absolute_error = function_of(MeanAbsoluteError)
mean_absolute_percentage_error = function_of(MeanAbsolutePercentageError)
mean_squared_logarithmic_error = function_of(MeanSquaredLogarithmicError)
log_cosh = function_of(LogCosh)
huber = function_of(Huber)
cosine_similarity = function_of(CosineSimilarity)

"""Regression losses."""

from __future__ import annotations

import pytensor.tensor as pt

from seqnet.losses.loss import Loss
from seqnet.losses.targets import paired
from seqnet.registry import register
from seqnet.types import Tensor, TensorLike


@register("loss", "mean_squared_error", "mse")
class MeanSquaredError(Loss):
    """Mean over the last axis of ``(y_true - y_pred)^2``."""

    registered_name = "mean_squared_error"

    def __call__(self, y_true: TensorLike, y_pred: TensorLike) -> Tensor:
        y_true, y_pred = paired(y_true, y_pred, self.name)
        return pt.mean(pt.sqr(pt.cast(y_true, y_pred.dtype) - y_pred), axis=-1)


@register("loss", "mean_absolute_error", "mae")
class MeanAbsoluteError(Loss):
    """Mean over the last axis of ``|y_true - y_pred|``."""

    registered_name = "mean_absolute_error"

    def __call__(self, y_true: TensorLike, y_pred: TensorLike) -> Tensor:
        y_true, y_pred = paired(y_true, y_pred, self.name)
        return pt.mean(pt.abs(pt.cast(y_true, y_pred.dtype) - y_pred), axis=-1)

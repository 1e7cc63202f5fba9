"""Accuracies: the share of predictions that are right."""

from __future__ import annotations

import numpy as np
import pytensor.tensor as pt

from seqnet.checks import check_number
from seqnet.losses.targets import paired
from seqnet.metrics.mean import MeanMetric
from seqnet.metrics.metric import Metric
from seqnet.registry import register
from seqnet.types import Tensor


@register("metric", "sparse_categorical_accuracy", "sparse_accuracy")
class SparseCategoricalAccuracy(MeanMetric):
    """Share of steps whose most probable class is the target class number."""

    registered_name = "sparse_categorical_accuracy"

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        y_true, y_pred = paired(y_true, y_pred, self.name, classes=True)
        return pt.cast(pt.eq(pt.argmax(y_pred, axis=-1), y_true), y_pred.dtype)


@register("metric", "categorical_accuracy")
class CategoricalAccuracy(MeanMetric):
    """Share of steps whose most probable class is the target's largest entry."""

    registered_name = "categorical_accuracy"

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        y_true, y_pred = paired(y_true, y_pred, self.name)
        same = pt.eq(pt.argmax(y_pred, axis=-1), pt.argmax(y_true, axis=-1))
        return pt.cast(same, y_pred.dtype)


@register("metric", "binary_accuracy")
class BinaryAccuracy(MeanMetric):
    """Share of outputs on the target's side of `threshold`, averaged over the last axis."""

    registered_name = "binary_accuracy"

    def __init__(self, name: str | None = None, dtype: str | None = None, threshold: float = 0.5):
        super().__init__(name, dtype)
        if not np.isfinite(check_number(threshold, "threshold")):
            raise ValueError(f"threshold must be finite, got {threshold}.")
        self.threshold = threshold

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        y_true, y_pred = paired(y_true, y_pred, self.name)
        same = pt.eq(y_pred > np.asarray(self.threshold, y_pred.dtype), y_true > self.threshold)
        return pt.mean(pt.cast(same, y_pred.dtype), axis=-1)

    def of_logits(self) -> Metric:
        if not 0 < self.threshold < 1:
            raise ValueError(f"A probability to compare with is in (0, 1), got {self.threshold}.")
        logit = float(np.log(self.threshold) - np.log1p(-self.threshold))
        return BinaryAccuracy(self.name, self.dtype, logit)

"""Accuracies: the share of predictions that are right."""

from __future__ import annotations

import numpy as np
import pytensor.tensor as pt

from seqnet.checks import check_bool, check_count, check_number
from seqnet.losses.targets import paired
from seqnet.metrics.mean import MeanMetric
from seqnet.metrics.metric import Metric
from seqnet.registry import register
from seqnet.types import Tensor


class Accuracy(MeanMetric):
    """The base class of accuracies."""

    direction = "max"


@register("metric", "sparse_categorical_accuracy", "sparse_accuracy")
class SparseCategoricalAccuracy(Accuracy):
    """Share of steps whose most probable class is the target class number."""

    registered_name = "sparse_categorical_accuracy"

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        y_true, y_pred = paired(y_true, y_pred, self.name, classes=True)
        return pt.cast(pt.eq(pt.argmax(y_pred, axis=-1), y_true), y_pred.dtype)


@register("metric", "categorical_accuracy")
class CategoricalAccuracy(Accuracy):
    """Share of steps whose most probable class is the target's largest entry."""

    registered_name = "categorical_accuracy"

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        y_true, y_pred = paired(y_true, y_pred, self.name)
        same = pt.eq(pt.argmax(y_pred, axis=-1), pt.argmax(y_true, axis=-1))
        return pt.cast(same, y_pred.dtype)


@register("metric", "binary_accuracy")
class BinaryAccuracy(Accuracy):
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


class TopK(Accuracy):
    """The base class of accuracies among the k largest outputs."""

    def __init__(self, k: int = 5, name: str | None = None, dtype: str | None = None):
        super().__init__(name, dtype)
        self.k = check_count(k, "k")

    def found(self, classes: Tensor, y_pred: Tensor) -> Tensor:
        """Return 1 where fewer than k outputs are larger than that of a class, else 0."""
        own = pt.eq(pt.arange(y_pred.shape[-1]), classes[..., None])
        lowest = np.asarray(-np.inf, y_pred.dtype)
        value = pt.max(pt.switch(own, y_pred, lowest), axis=-1, keepdims=True)
        larger = pt.sum(y_pred > value, axis=-1)
        return pt.cast((larger < self.k) & pt.any(own, axis=-1), y_pred.dtype)


@register("metric", "top_k_categorical_accuracy")
class TopKCategoricalAccuracy(TopK):
    """Share of steps whose target's largest entry is among the k largest outputs.

    Parameters
    ----------
    k : int
    name, dtype : str, optional
        As in `Metric`.

    Examples
    --------
    >>> import seqnet
    >>> metric = seqnet.metrics.TopKCategoricalAccuracy(k=2)
    >>> metric([[0, 0, 1], [0, 1, 0]], [[0.5, 0.4, 0.1], [0.5, 0.4, 0.1]])
    0.5
    """

    registered_name = "top_k_categorical_accuracy"

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        y_true, y_pred = paired(y_true, y_pred, self.name)
        return self.found(pt.argmax(y_true, axis=-1), y_pred)


@register("metric", "sparse_top_k_categorical_accuracy")
class SparseTopKCategoricalAccuracy(TopK):
    """Share of steps whose target class number is among the k largest outputs.

    Parameters
    ----------
    k : int
    name, dtype : str, optional
        As in `Metric`.
    from_sorted_ids : bool
        Predictions are class numbers, the most probable first, and not a value for each class.

    Examples
    --------
    >>> import seqnet
    >>> metric = seqnet.metrics.SparseTopKCategoricalAccuracy(k=2)
    >>> metric([2, 1], [[0.5, 0.4, 0.1], [0.5, 0.4, 0.1]])
    0.5
    """

    registered_name = "sparse_top_k_categorical_accuracy"

    def __init__(
        self,
        k: int = 5,
        name: str | None = None,
        dtype: str | None = None,
        from_sorted_ids: bool = False,
    ):
        super().__init__(k, name, dtype)
        self.from_sorted_ids = check_bool(from_sorted_ids, "from_sorted_ids")

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        y_true, y_pred = paired(y_true, y_pred, self.name, classes=True)
        if self.from_sorted_ids:
            same = pt.any(pt.eq(y_true[..., None], y_pred[..., : self.k]), axis=-1)
            return pt.cast(same, y_pred.dtype)
        return self.found(y_true, y_pred)

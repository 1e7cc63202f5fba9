"""Accuracies: the share of predictions that are right."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytensor.tensor as pt
from pytensor.graph.basic import Variable

from seqnet import backend, config
from seqnet.common.checks import check_bool, check_count, check_number
from seqnet.common.types import Array, Tensor, TensorLike
from seqnet.losses.loss import as_numbers
from seqnet.losses.targets import paired
from seqnet.metrics.mean import MeanMetric
from seqnet.metrics.metric import Metric
from seqnet.registry import register

FUNCTIONS: dict[Callable, type[Metric]] = {}
"""The accuracies as functions, and the classes that stand for them in a model."""


class Accuracy(MeanMetric):
    """The base class of accuracies."""

    direction = "max"


@register("metric", "sparse_categorical_accuracy", "sparse_accuracy")
class SparseCategoricalAccuracy(Accuracy):
    """Share of steps whose most probable class is the target class number.

    Examples
    --------
    >>> import seqnet
    >>> seqnet.metrics.SparseCategoricalAccuracy()([1, 0], [[0.2, 0.8], [0.4, 0.6]])
    0.5
    """

    registered_name = "sparse_categorical_accuracy"

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        y_true, y_pred = paired(y_true, y_pred, self.name, classes=True)
        return pt.cast(pt.eq(pt.argmax(y_pred, axis=-1), y_true), y_pred.dtype)


@register("metric", "categorical_accuracy")
class CategoricalAccuracy(Accuracy):
    """Share of steps whose most probable class is the target's largest entry.

    Examples
    --------
    >>> import seqnet
    >>> seqnet.metrics.CategoricalAccuracy()([[0, 1], [1, 0]], [[0.2, 0.8], [0.4, 0.6]])
    0.5
    """

    registered_name = "categorical_accuracy"

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        y_true, y_pred = paired(y_true, y_pred, self.name)
        same = pt.eq(pt.argmax(y_pred, axis=-1), pt.argmax(y_true, axis=-1))
        return pt.cast(same, y_pred.dtype)


@register("metric", "binary_accuracy")
class BinaryAccuracy(Accuracy):
    """Share of outputs that are above `threshold` where the target is 1, and not where it is 0.

    It is averaged over the last axis. Targets above 0.5 count as 1. The threshold may be of logits.

    Examples
    --------
    >>> import seqnet
    >>> seqnet.metrics.BinaryAccuracy()([0, 1, 1, 1], [0.9, 0.2, 0.7, 0.8])
    0.5
    """

    registered_name = "binary_accuracy"

    def __init__(self, name: str | None = None, dtype: str | None = None, threshold: float = 0.5):
        super().__init__(name, dtype)
        if not np.isfinite(check_number(threshold, "threshold")):
            raise ValueError(f"threshold must be finite, got {threshold}.")
        self.threshold = threshold

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        y_true, y_pred = paired(y_true, y_pred, self.name)
        same = pt.eq(y_pred > np.asarray(self.threshold, y_pred.dtype), y_true > 0.5)
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


def function_of(cls: type[Accuracy]) -> Callable[..., Tensor | Array]:
    """Return an accuracy as a function of ``(y_true, y_pred, ...)`` that returns values."""

    def function(y_true: TensorLike, y_pred: TensorLike, **options: Any) -> Tensor | Array:
        metric = cls(**options)
        if isinstance(y_true, Variable) or isinstance(y_pred, Variable):
            return metric.call(pt.as_tensor_variable(y_true), pt.as_tensor_variable(y_pred))
        given = [
            as_numbers(value, name, config.floatx())
            for value, name in ((y_true, "y_true"), (y_pred, "y_pred"))
        ]
        variables = [pt.tensor(dtype=a.dtype, shape=a.shape) for a in given]
        return backend.compile(variables, [metric.call(*variables)], name=metric.name)(*given)[0][
            ()
        ]

    function.__name__ = function.__qualname__ = cls.registered_name
    function.__module__ = cls.__module__
    function.__doc__ = (
        f"Return the values of `{cls.__name__}` for each example or step.\n\n"
        f"Other arguments are those of `{cls.__name__}`, by name. Arrays give an array, PyTensor\n"
        "variables a variable. In `seqnet.Model.compile` it stands for the class."
    )
    FUNCTIONS[function] = cls
    return function


binary_accuracy = function_of(BinaryAccuracy)
categorical_accuracy = function_of(CategoricalAccuracy)
sparse_categorical_accuracy = function_of(SparseCategoricalAccuracy)
top_k_categorical_accuracy = function_of(TopKCategoricalAccuracy)
sparse_top_k_categorical_accuracy = function_of(SparseTopKCategoricalAccuracy)

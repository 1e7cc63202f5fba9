"""Metrics: a value per example or step, weighted and averaged like the loss.

Every batch returns sums and weights, so the value of an epoch is exact: the mean over all unmasked
steps, for any sizes of batches.
"""

from __future__ import annotations

import difflib
from abc import ABC, abstractmethod
from collections.abc import Callable

import numpy as np
import pytensor.tensor as pt

from seqnet import losses
from seqnet.checks import check_bool, check_number
from seqnet.losses.targets import paired
from seqnet.registry import Configurable, Identifier, register
from seqnet.registry import get as _get
from seqnet.types import Tensor, TensorLike


class Metric(Configurable, ABC):
    """The base class of metrics.

    ``metric(y_true, y_pred)`` returns a value for each step; `finish` converts their mean.
    """

    registered_name: str

    @abstractmethod
    def __call__(self, y_true: TensorLike, y_pred: TensorLike) -> Tensor:
        """Return the unreduced values, shape ``(batch, ...)``."""

    def finish(self, mean: float) -> float:
        """Return the reported value from the weighted mean over an epoch."""
        return mean

    def of_logits(self) -> Metric:
        """Return the same metric for predictions that are logits."""
        return self

    @property
    def name(self) -> str:
        """The name in the logs."""
        return getattr(self, "registered_name", type(self).__name__)


@register("metric", "sparse_categorical_accuracy", "sparse_accuracy")
class SparseCategoricalAccuracy(Metric):
    """Share of steps whose most probable class is the target class number."""

    registered_name = "sparse_categorical_accuracy"

    def __call__(self, y_true: TensorLike, y_pred: TensorLike) -> Tensor:
        y_true, y_pred = paired(y_true, y_pred, self.name, classes=True)
        return pt.cast(pt.eq(pt.argmax(y_pred, axis=-1), y_true), y_pred.dtype)


@register("metric", "categorical_accuracy")
class CategoricalAccuracy(Metric):
    """Share of steps whose most probable class is the target's largest entry."""

    registered_name = "categorical_accuracy"

    def __call__(self, y_true: TensorLike, y_pred: TensorLike) -> Tensor:
        y_true, y_pred = paired(y_true, y_pred, self.name)
        same = pt.eq(pt.argmax(y_pred, axis=-1), pt.argmax(y_true, axis=-1))
        return pt.cast(same, y_pred.dtype)


@register("metric", "binary_accuracy")
class BinaryAccuracy(Metric):
    """Share of outputs on the target's side of `threshold`, averaged over the last axis."""

    registered_name = "binary_accuracy"

    def __init__(self, threshold: float = 0.5):
        if not np.isfinite(check_number(threshold, "threshold")):
            raise ValueError(f"threshold must be finite, got {threshold}.")
        self.threshold = threshold

    def __call__(self, y_true: TensorLike, y_pred: TensorLike) -> Tensor:
        y_true, y_pred = paired(y_true, y_pred, self.name)
        same = pt.eq(y_pred > np.asarray(self.threshold, y_pred.dtype), y_true > self.threshold)
        return pt.mean(pt.cast(same, y_pred.dtype), axis=-1)

    def of_logits(self) -> Metric:
        if not 0 < self.threshold < 1:
            raise ValueError(f"A probability to compare with is in (0, 1), got {self.threshold}.")
        return BinaryAccuracy(float(np.log(self.threshold) - np.log1p(-self.threshold)))


@register("metric", "perplexity")
class Perplexity(Metric):
    """``exp`` of the mean cross-entropy in nats; targets are class numbers or distributions.

    Parameters
    ----------
    from_logits : bool
        The predictions are logits and not probabilities. Not needed for a model that ends with a
        softmax.
    """

    registered_name = "perplexity"

    def __init__(self, from_logits: bool = False):
        self.from_logits = check_bool(from_logits, "from_logits")

    def __call__(self, y_true: TensorLike, y_pred: TensorLike) -> Tensor:
        y_true, y_pred = pt.as_tensor_variable(y_true), pt.as_tensor_variable(y_pred)
        if y_true.ndim == y_pred.ndim - 1:
            return losses.SparseCategoricalCrossentropy(self.from_logits).call(y_true, y_pred)
        return losses.CategoricalCrossentropy(self.from_logits).call(y_true, y_pred)

    def finish(self, mean: float) -> float:
        return float(np.exp(min(mean, 700.0)))

    def of_logits(self) -> Metric:
        return Perplexity(from_logits=True)


class LossMetric(Metric):
    """A loss reported as a metric (``metrics=["mse"]``)."""

    def __init__(self, loss: Callable):
        self.loss = loss
        self.registered_name = getattr(loss, "name", getattr(loss, "__name__", "loss"))

    def __call__(self, y_true: TensorLike, y_pred: TensorLike) -> Tensor:
        return losses.values_function(self.loss)(y_true, y_pred)

    def of_logits(self) -> Metric:
        if isinstance(self.loss, losses.Loss) and "from_logits" in self.loss.get_config():
            return LossMetric(type(self.loss)(**{**self.loss.get_config(), "from_logits": True}))
        return self


def get(identifier: Identifier, loss: object = None) -> Metric:
    """Return a metric by name, or from an object or a custom function of (y_true, y_pred).

    ``"accuracy"`` is the accuracy for the `loss`: sparse, categorical or binary. A loss, or its
    name, reports that loss. A metric by name takes predictions as logits if the loss does; an
    object is used unchanged.

    Examples
    --------
    >>> from seqnet import losses, metrics
    >>> type(metrics.get("accuracy", losses.get("binary_crossentropy"))).__name__
    'BinaryAccuracy'
    >>> metrics.get("accuracy", losses.BinaryCrossentropy(from_logits=True)).threshold
    0.0
    """
    name = identifier if isinstance(identifier, str) else ""
    is_accuracy = name in ("accuracy", "acc")
    if is_accuracy:
        metric = accuracy_for(loss)
    else:
        found = metric_or_loss(identifier)
        metric = found if isinstance(found, Metric) else LossMetric(losses.get(found))
    if name and getattr(loss, "from_logits", False):
        metric = metric.of_logits()
    if is_accuracy:
        metric.registered_name = name
    return metric


def accuracy_for(loss: object) -> Metric:
    """Return the accuracy for a cross-entropy."""
    if isinstance(loss, losses.SparseCategoricalCrossentropy):
        return SparseCategoricalAccuracy()
    if isinstance(loss, losses.BinaryCrossentropy):
        return BinaryAccuracy()
    if isinstance(loss, losses.CategoricalCrossentropy):
        return CategoricalAccuracy()
    raise ValueError(
        "'accuracy' goes with a cross-entropy; with this loss name the metric itself: "
        "'sparse_categorical_accuracy', 'categorical_accuracy' or 'binary_accuracy'."
    )


def metric_or_loss(identifier: Identifier, custom_objects: dict | None = None) -> Callable:
    """Return the metric, or else the loss, of a name, a saved configuration or an object."""
    try:
        return _get("metric", identifier, custom_objects)
    except ValueError as unknown:
        try:
            return _get("loss", identifier, custom_objects)
        except ValueError:
            name = identifier if isinstance(identifier, str) else ""
            if difflib.get_close_matches(name.lower(), ["accuracy"], cutoff=0.7):
                raise ValueError(f"Unknown metric {name!r}. Did you mean 'accuracy'?") from None
            raise unknown from None

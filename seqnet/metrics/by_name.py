"""Metrics by name: the accuracy and the cross-entropy that fit a loss or the shapes."""

from __future__ import annotations

import difflib
from collections.abc import Callable

import pytensor.tensor as pt

from seqnet import losses, registry
from seqnet.common.types import Tensor
from seqnet.losses.crossentropy import DistributionLoss, ProbabilityLoss
from seqnet.metrics.accuracy import (
    FUNCTIONS,
    BinaryAccuracy,
    CategoricalAccuracy,
    SparseCategoricalAccuracy,
)
from seqnet.metrics.mean import MeanMetric, MeanMetricWrapper, ValuesMetric
from seqnet.metrics.metric import Metric
from seqnet.registry import Identifier

ACCURACY, CROSSENTROPY = ("accuracy", "acc"), ("crossentropy", "ce")


def get(identifier: Identifier, loss: object = None) -> Metric:
    """Return a metric by name, or from an object or a custom function of (y_true, y_pred).

    A metric by name has this name in the logs, and takes predictions as logits if the loss does.
    An object is used unchanged. A loss, or its name, reports that loss.

    ``"accuracy"`` or ``"acc"`` is the accuracy, and ``"crossentropy"`` or ``"ce"`` the
    cross-entropy, that fits a `loss` that is a cross-entropy. For other losses it is chosen by
    shapes: binary for one output, sparse for class numbers, otherwise categorical.

    Raises
    ------
    ValueError
        If a name is unknown; the message has the nearest ones.

    Examples
    --------
    >>> from seqnet import losses, metrics
    >>> type(metrics.get("accuracy", losses.get("binary_crossentropy"))).__name__
    'BinaryAccuracy'
    >>> metrics.get("accuracy", losses.BinaryCrossentropy(from_logits=True)).threshold
    0.0
    >>> metrics.get("mse").name
    'mse'
    """
    name = identifier if isinstance(identifier, str) else ""
    if name in ACCURACY + CROSSENTROPY:
        metric = fitting(loss, name)
    else:
        found = metric_or_loss(identifier)
        metric = found if isinstance(found, Metric) else MeanMetricWrapper(found)
    if isinstance(metric, ValuesMetric) and not isinstance(metric, MeanMetric):
        raise ValueError(
            f"{type(metric).__name__} is a metric of values and not of targets and predictions: "
            "call its update_state in your own code. For the mean of a function of (y_true, "
            "y_pred), pass the function."
        )
    if name and getattr(loss, "from_logits", False):
        metric = metric.of_logits()
    if name:
        metric.name = name
    return metric


def check_scalar(metric: Metric) -> None:
    """Raise ``ValueError`` if a metric's result is an array: a log is one number.

    Examples
    --------
    >>> from seqnet.metrics import F1Score, check_scalar
    >>> check_scalar(F1Score(average="macro"))
    """
    if not metric.scalar:
        raise ValueError(
            f"The metric {metric.name!r} gives an array, and a log is one number: pass "
            f"{type(metric).__name__} with an average, or with one threshold. For the array call "
            "the metric on targets and predictions."
        )


def fitting(loss: object, name: str) -> Metric:
    """Return the accuracy or the cross-entropy for a loss."""
    sparse = losses.SparseCategoricalCrossentropy
    for kind, of_loss, matching in (
        (sparse, sparse, SparseCategoricalAccuracy),
        (ProbabilityLoss, losses.BinaryCrossentropy, BinaryAccuracy),
        (DistributionLoss, losses.CategoricalCrossentropy, CategoricalAccuracy),
    ):
        if isinstance(loss, kind):
            return matching() if name in ACCURACY else MeanMetricWrapper(of_loss())
    return MeanMetricWrapper(accuracy if name in ACCURACY else crossentropy)


def accuracy(y_true: Tensor, y_pred: Tensor) -> Tensor:
    """Return the accuracy of each step; the kind is chosen by shapes, as in Keras 3."""

    def categorical(y_true: Tensor, y_pred: Tensor) -> Tensor:
        # A last axis of one, of class numbers, may be known only when this is computed.
        numbers = pt.eq(y_true.shape[-1], 1)
        classes = pt.switch(numbers, y_true[..., 0], pt.argmax(y_true, axis=-1))
        return SparseCategoricalAccuracy().call(pt.cast(classes, "int32"), y_pred)

    sparse = SparseCategoricalAccuracy().call
    return chosen(y_true, y_pred, BinaryAccuracy().call, sparse, categorical)


def crossentropy(y_true: Tensor, y_pred: Tensor) -> Tensor:
    """Return the cross-entropy of each step; the kind is chosen by shapes, as in Keras 3."""
    return chosen(
        y_true,
        y_pred,
        losses.BinaryCrossentropy().values,
        losses.SparseCategoricalCrossentropy().values,
        losses.CategoricalCrossentropy().values,
    )


def chosen(
    y_true: Tensor, y_pred: Tensor, binary: Callable, sparse: Callable, categorical: Callable
) -> Tensor:
    """Return the values of one of three functions: for one output, class numbers, or others."""
    outputs = y_pred.type.shape[-1]
    if outputs == 1:
        return binary(y_true, y_pred)
    if y_true.ndim < y_pred.ndim or y_true.type.shape[-1] == 1:
        return sparse(y_true, y_pred)
    values = categorical(y_true, y_pred)
    if outputs is None:  # one output is known only when this is computed
        return pt.switch(pt.eq(y_pred.shape[-1], 1), binary(y_true, y_pred), values)
    return values


def metric_or_loss(identifier: Identifier, custom_objects: dict | None = None) -> Callable:
    """Return the metric, or else the loss, of a name, a saved configuration or an object.

    Examples
    --------
    >>> from seqnet.metrics import metric_or_loss
    >>> [type(metric_or_loss(name)).__name__ for name in ("auc", "kl_divergence")]
    ['AUC', 'KLDivergence']
    """
    known = FUNCTIONS.get(identifier) if callable(identifier) else None
    try:
        return registry.get("metric", known or identifier, custom_objects)
    except ValueError as unknown:
        try:
            return registry.get("loss", identifier, custom_objects)
        except ValueError:
            if not isinstance(identifier, str):
                raise unknown from None
    found = {n for kind in ("metric", "loss") for n in registry.names(kind)}
    listed = sorted({n for n in found if n.islower()} | {*ACCURACY, *CROSSENTROPY})
    near = difflib.get_close_matches(identifier.lower(), listed, n=3, cutoff=0.4)
    hint = f" Did you mean {' or '.join(repr(n) for n in near)}?" if near else ""
    raise ValueError(
        f"Unknown metric {identifier!r}.{hint} Known: {', '.join(listed)}. One of your own "
        "is passed as an object, or by name in custom_objects= when it comes from a file."
    )

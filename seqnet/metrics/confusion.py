"""Metrics of true and false positives and negatives at one or several thresholds."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytensor.tensor as pt

from seqnet.common.checks import check_count, check_number
from seqnet.common.types import Array, ArrayLike, Tensor
from seqnet.losses.targets import paired
from seqnet.metrics.metric import Metric, divide_no_nan
from seqnet.ops.lookup import ScatterAdd
from seqnet.registry import register

LOWEST = -1e10
"""The threshold for the outputs that are not among the top k."""


def confusion_counts(
    y_true: Tensor, y_pred: Tensor, weights: Tensor, thresholds: ArrayLike, labels: bool = False
) -> dict[str, Tensor]:
    """Return the weighted numbers of true and false positives and negatives.

    A prediction above a threshold is positive; so is a target that is not 0. The predictions
    between each two thresholds are counted once, so the memory does not grow with the number of
    thresholds.

    Parameters
    ----------
    y_true, y_pred, weights : variable, of one shape
    thresholds : array (thresholds,), sorted
    labels : bool
        Count each entry of the last axis apart.

    Returns
    -------
    dict of float64 variables (thresholds,), or with `labels` (thresholds, labels)
    """
    thresholds = np.asarray(thresholds, y_pred.dtype)
    places = len(thresholds) + 1
    place = pt.searchsorted(pt.constant(thresholds), y_pred.ravel(), side="left")
    number = y_pred.shape[-1] if labels else 1
    if labels:
        label = pt.broadcast_arrays(pt.arange(y_pred.shape[-1]), y_pred)[0]
        place = place + places * label.ravel()
    positive = pt.cast(pt.neq(y_true, 0), "float64").ravel()
    weights = pt.cast(weights, "float64").ravel()
    rows = pt.stack([weights * positive, weights * (1 - positive)], axis=-1)
    found = ScatterAdd()(rows, place, pt.as_tensor_variable(places * number))
    if labels:
        found = found.reshape((number, places, 2)).dimshuffle(1, 0, 2)
    below = pt.cumsum(found, axis=0)[:-1]
    above = pt.cumsum(found[::-1], axis=0)[::-1][1:]
    return {
        "true_positives": above[..., 0],
        "false_positives": above[..., 1],
        "true_negatives": below[..., 1],
        "false_negatives": below[..., 0],
    }


def checked_thresholds(thresholds: Any) -> list[float]:
    """Return one threshold or several ones as a list, or raise if one is not in [0, 1]."""
    given = thresholds if isinstance(thresholds, (list, tuple, np.ndarray)) else [thresholds]
    numbers = [check_number(t, "A threshold") for t in given]
    if not numbers or not all(0 <= t <= 1 for t in numbers):
        raise ValueError(f"thresholds are numbers from 0 to 1, got {thresholds!r}.")
    return numbers


class ConfusionMetric(Metric):
    """The base class of metrics that compare outputs with thresholds.

    Parameters
    ----------
    thresholds : float or list of float, optional
        Outputs above it are positive, from 0 to 1. Default: 0.5. A list gives an array of results.
    name, dtype : str, optional
        As in `Metric`.
    """

    sums: tuple[str, ...]
    top_k: int | None = None
    class_id: int | None = None

    def __init__(
        self,
        thresholds: float | Sequence[float] | None = None,
        name: str | None = None,
        dtype: str | None = None,
    ):
        super().__init__(name, dtype)
        self.thresholds = thresholds
        if thresholds is not None:
            checked_thresholds(thresholds)

    @property
    def scalar(self) -> bool:
        return len(self.levels) == 1

    @property
    def levels(self) -> Array:
        """The thresholds as an array."""
        if self.thresholds is None:
            return np.array([0.5 if self.top_k is None else LOWEST])
        return np.array(checked_thresholds(self.thresholds))

    def statistics(
        self, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor
    ) -> dict[str, Tensor]:
        y_true, y_pred = paired(y_true, y_pred, self.name)
        outputs = y_pred.type.shape[-1]
        if self.top_k is not None:
            if outputs is not None and self.top_k > outputs:
                raise ValueError(
                    f"{self.name} has top_k={self.top_k}, but there are {outputs} outputs. One "
                    "example of several outputs has the shape (1, outputs)."
                )
            order = pt.argsort(pt.argsort(-y_pred, axis=-1, kind="stable"), axis=-1)
            y_pred = pt.switch(order < self.top_k, y_pred, np.asarray(LOWEST, y_pred.dtype))
        if self.class_id is not None:
            if outputs is not None and self.class_id >= outputs:
                raise ValueError(
                    f"{self.name} has class_id={self.class_id}, but there are {outputs} outputs."
                )
            y_true, y_pred = y_true[..., [self.class_id]], y_pred[..., [self.class_id]]
        weights = sample_weight[..., None] + pt.zeros_like(y_pred)
        order = np.argsort(self.levels)
        counts = confusion_counts(y_true, y_pred, weights, self.levels[order])
        return {name: counts[name][np.argsort(order)] for name in self.sums}

    @abstractmethod
    def ratio(self, *sums: Any) -> Array:
        """Return the result for each threshold from the totals."""

    def compute_result(self, *sums: Any) -> Any:
        result = self.ratio(*sums)
        return result[0] if self.scalar else result

    def of_logits(self) -> Metric:
        if self.thresholds is not None or self.top_k is not None:
            return self
        return type(self)(**{**self.get_config(), "thresholds": 0.0})


class Counted(ConfusionMetric):
    """The base class of the four weighted numbers of the confusion matrix.

    Parameters
    ----------
    thresholds : float or list of float, optional
        From 0 to 1, by default 0.5.
    name, dtype : str, optional
        As in `Metric`.
    """

    def ratio(self, count: Any) -> Array:
        return count


@register("metric", "true_positives")
class TruePositives(Counted):
    """The weighted number of positive targets with an output above the threshold.

    Examples
    --------
    >>> import seqnet
    >>> seqnet.metrics.TruePositives()([0, 1, 1, 1], [0.9, 0.2, 0.7, 0.8])
    2.0
    """

    registered_name = "true_positives"
    direction = "max"
    sums = ("true_positives",)


@register("metric", "true_negatives")
class TrueNegatives(Counted):
    """The weighted number of negative targets with an output not above the threshold.

    Examples
    --------
    >>> import seqnet
    >>> seqnet.metrics.TrueNegatives()([0, 1, 1, 1], [0.9, 0.2, 0.7, 0.8])
    0.0
    """

    registered_name = "true_negatives"
    direction = "max"
    sums = ("true_negatives",)


@register("metric", "false_positives")
class FalsePositives(Counted):
    """The weighted number of negative targets with an output above the threshold.

    Examples
    --------
    >>> import seqnet
    >>> seqnet.metrics.FalsePositives()([0, 1, 1, 1], [0.9, 0.2, 0.7, 0.8])
    1.0
    """

    registered_name = "false_positives"
    direction = "min"
    sums = ("false_positives",)


@register("metric", "false_negatives")
class FalseNegatives(Counted):
    """The weighted number of positive targets with an output not above the threshold.

    Examples
    --------
    >>> import seqnet
    >>> seqnet.metrics.FalseNegatives()([0, 1, 1, 1], [0.9, 0.2, 0.7, 0.8])
    1.0
    """

    registered_name = "false_negatives"
    direction = "min"
    sums = ("false_negatives",)


class Found(ConfusionMetric):
    """The base class of precision and recall."""

    direction = "max"

    def __init__(
        self,
        thresholds: float | Sequence[float] | None = None,
        top_k: int | None = None,
        class_id: int | None = None,
        name: str | None = None,
        dtype: str | None = None,
    ):
        super().__init__(thresholds, name, dtype)
        self.top_k = None if top_k is None else check_count(top_k, "top_k")
        self.class_id = None if class_id is None else check_count(class_id, "class_id", 0)

    def ratio(self, true_positives: Any, others: Any) -> Array:
        return divide_no_nan(true_positives, true_positives + others)


@register("metric", "precision")
class Precision(Found):
    """The fraction of positive predictions that are correct; 0 without positive predictions.

    ``sum(true positives) / sum(true positives + false positives)`` over all outputs of all
    unmasked steps.

    Parameters
    ----------
    thresholds : float or list of float, optional
        Outputs above it are positive, from 0 to 1. Default: 0.5, or none with `top_k`. A list gives
        an array of results.
    top_k : int, optional
        Only the k largest outputs of a step can be positive.
    class_id : int, optional
        Use only this output.
    name, dtype : str, optional
        As in `Metric`.

    Examples
    --------
    >>> import seqnet
    >>> metric = seqnet.metrics.Precision()
    >>> metric([0, 1, 1, 1], [0.9, 0.2, 0.7, 0.8], sample_weight=[2, 1, 1, 1])
    0.5
    """

    registered_name = "precision"
    sums = ("true_positives", "false_positives")


@register("metric", "recall")
class Recall(Found):
    """The fraction of positive targets that are predicted as positive; 0 without positive targets.

    ``sum(true positives) / sum(true positives + false negatives)`` over all outputs of all
    unmasked steps.

    Parameters
    ----------
    thresholds, top_k, class_id, name, dtype
        As in `Precision`.

    Examples
    --------
    >>> import seqnet
    >>> seqnet.metrics.Recall(thresholds=[0.1, 0.75])([0, 1, 1], [0.9, 0.2, 0.8]).tolist()
    [1.0, 0.5]
    """

    registered_name = "recall"
    sums = ("true_positives", "false_negatives")

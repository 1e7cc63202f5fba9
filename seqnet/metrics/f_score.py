"""F-scores."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytensor.tensor as pt

from seqnet.common.checks import check_number
from seqnet.common.types import Tensor
from seqnet.losses.reduction import weighted_sum
from seqnet.losses.targets import paired
from seqnet.metrics.metric import Metric, divide_no_nan
from seqnet.registry import register

AVERAGES = (None, "micro", "macro", "weighted")


@register("metric", "fbeta_score")
class FBetaScore(Metric):
    """The weighted harmonic mean of precision and recall.

    ``(1 + b^2) TP / ((1 + b^2) TP + b^2 FN + FP)`` for each class, 0 for a class without targets
    and predictions. (Keras 3 adds 1e-7 to its denominators.)

    Parameters
    ----------
    average : {None, "micro", "macro", "weighted"}
        None gives an array with a score for each class. ``"micro"`` computes one score from the
        sums over classes, ``"macro"`` averages the scores, and ``"weighted"`` averages them by the
        number of targets of each class. Logs hold one number, so `seqnet.Model.compile` needs an
        average.
    beta : float
        How many times as important recall is as precision.
    threshold : float, optional
        Outputs above it are positive, in (0, 1]. None: the largest output of each step is.
    name, dtype : str, optional
        As in `Metric`.

    Examples
    --------
    >>> import seqnet
    >>> y_true = [[1, 1, 1], [1, 0, 0], [1, 1, 0]]
    >>> y_pred = [[0.2, 0.6, 0.7], [0.2, 0.6, 0.6], [0.6, 0.8, 0.0]]
    >>> seqnet.metrics.FBetaScore(beta=2.0, threshold=0.5)(y_true, y_pred).round(4).tolist()
    [0.3846, 0.9091, 0.8333]
    """

    registered_name = "fbeta_score"
    direction = "max"
    sums = ("true_positives", "false_positives", "false_negatives")

    def __init__(
        self,
        average: str | None = None,
        beta: float = 1.0,
        threshold: float | None = None,
        name: str | None = None,
        dtype: str | None = None,
    ):
        super().__init__(name, dtype)
        if average not in AVERAGES:
            raise ValueError(
                f"average is one of {', '.join(map(repr, AVERAGES))}, got {average!r}."
            )
        if not check_number(beta, "beta") > 0:
            raise ValueError(f"beta must be above 0, got {beta}.")
        if threshold is not None and not 0 < check_number(threshold, "threshold") <= 1:
            raise ValueError(f"threshold is above 0 and at most 1, got {threshold}.")
        self.average, self.beta, self.threshold = average, beta, threshold

    @property
    def scalar(self) -> bool:
        return self.average is not None

    def statistics(
        self, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor
    ) -> dict[str, Tensor]:
        y_true, y_pred = paired(y_true, y_pred, self.name)
        if self.threshold is None:
            largest = pt.eq(y_pred, pt.max(y_pred, axis=-1, keepdims=True))
            found = largest & (pt.abs(y_pred) > np.asarray(1e-9, y_pred.dtype))  # not for [0, 0]
        else:
            found = y_pred > np.asarray(self.threshold, y_pred.dtype)
        found, true = pt.cast(found, "float64"), pt.cast(y_true, "float64")
        return {
            "true_positives": weighted_sum(found * true, sample_weight),
            "false_positives": weighted_sum(found * (1 - true), sample_weight),
            "false_negatives": weighted_sum((1 - found) * true, sample_weight),
        }

    def compute_result(
        self, true_positives: Any, false_positives: Any, false_negatives: Any
    ) -> Any:
        support = true_positives + false_negatives
        sums = (true_positives, false_positives, false_negatives)
        if self.average == "micro":
            sums = tuple(np.sum(each) for each in sums)
        tp, fp, fn = sums
        square = self.beta**2
        score = divide_no_nan((1 + square) * tp, (1 + square) * tp + square * fn + fp)
        if self.average == "weighted":
            return divide_no_nan(np.sum(score * support), np.sum(support))
        return score if self.average is None else np.mean(score)


@register("metric", "f1_score")
class F1Score(FBetaScore):
    """The harmonic mean of precision and recall: ``2 TP / (2 TP + FN + FP)``; see `FBetaScore`.

    Parameters
    ----------
    average, threshold, name, dtype
        As in `FBetaScore`.

    Examples
    --------
    >>> import seqnet
    >>> y_true = [[1, 1, 1], [1, 0, 0], [1, 1, 0]]
    >>> y_pred = [[0.2, 0.6, 0.7], [0.2, 0.6, 0.6], [0.6, 0.8, 0.0]]
    >>> seqnet.metrics.F1Score(threshold=0.5)(y_true, y_pred).round(4).tolist()
    [0.5, 0.8, 0.6667]
    """

    registered_name = "f1_score"

    def __init__(
        self,
        average: str | None = None,
        threshold: float | None = None,
        name: str | None = None,
        dtype: str | None = None,
    ):
        super().__init__(average, 1.0, threshold, name, dtype)

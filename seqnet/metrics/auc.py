"""The area under a curve."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytensor.tensor as pt

from seqnet import config
from seqnet.common.checks import check_bool, check_count
from seqnet.common.types import Array, Tensor
from seqnet.losses.targets import paired
from seqnet.metrics.confusion import checked_thresholds, confusion_counts
from seqnet.metrics.metric import Metric, divide_no_nan
from seqnet.registry import register

CURVES, SUMMATIONS = ("ROC", "PR"), ("interpolation", "minoring", "majoring")


@register("metric", "auc")
class AUC(Metric):
    """The area under the ROC or the precision-recall curve, by a sum over thresholds.

    Parameters
    ----------
    num_thresholds : int
        How many thresholds from 0 to 1; more are closer to the exact area.
    curve : {"ROC", "PR"}
        The true positive rate over the false positive rate, or precision over recall.
    summation_method : {"interpolation", "minoring", "majoring"}
        ``"interpolation"`` takes the middle of each interval, and for ``"PR"`` interpolates true
        and false positives instead of the precision (Davis and Goadrich, 2006, The relationship
        between precision-recall and ROC curves). The others take the lower and the higher end.
    name, dtype : str, optional
        As in `Metric`.
    thresholds : list of float, optional
        Use these, and one below 0 and one above 1, instead of `num_thresholds`.
    multi_label : bool
        Average the areas of the outputs. Otherwise all outputs are on one curve.
    num_labels : int, optional
        The number of outputs, with `multi_label`.
    label_weights : list of float, optional
        The weights of the outputs: in the average with `multi_label`, otherwise of their steps.
    from_logits : bool
        Predictions are logits, whose sigmoid is used.

    Examples
    --------
    >>> import seqnet
    >>> seqnet.metrics.AUC(num_thresholds=3)([0, 0, 1, 1], [0, 0.5, 0.3, 0.9])
    0.75
    >>> seqnet.metrics.AUC(curve="PR")([0, 0, 1, 1], [0.1, 0.2, 0.3, 0.9])
    1.0
    """

    registered_name = "auc"
    direction = "max"
    sums = ("true_positives", "false_positives", "true_negatives", "false_negatives")

    def __init__(
        self,
        num_thresholds: int = 200,
        curve: str = "ROC",
        summation_method: str = "interpolation",
        name: str | None = None,
        dtype: str | None = None,
        thresholds: Sequence[float] | None = None,
        multi_label: bool = False,
        num_labels: int | None = None,
        label_weights: Sequence[float] | None = None,
        from_logits: bool = False,
    ):
        super().__init__(name, dtype)
        if curve not in CURVES:
            raise ValueError(f"curve is 'ROC' or 'PR', got {curve!r}.")
        if summation_method not in SUMMATIONS:
            known = ", ".join(map(repr, SUMMATIONS))
            raise ValueError(f"summation_method is one of {known}, got {summation_method!r}.")
        if thresholds is not None:
            thresholds = sorted(checked_thresholds(thresholds))
            num_thresholds = len(thresholds) + 2
        self.num_thresholds = check_count(num_thresholds, "num_thresholds", 2)
        self.thresholds = thresholds
        self.curve, self.summation_method = curve, summation_method
        self.multi_label = check_bool(multi_label, "multi_label")
        if num_labels is not None and not multi_label:
            raise ValueError("num_labels goes with multi_label=True.")
        self.num_labels = num_labels
        self.label_weights = None if label_weights is None else [float(w) for w in label_weights]
        self.from_logits = check_bool(from_logits, "from_logits")

    @property
    def levels(self) -> Array:
        """The thresholds as an array, the first below 0 and the last above 1."""
        levels = np.arange(self.num_thresholds) / (self.num_thresholds - 1)
        if self.thresholds is not None:
            levels[1:-1] = self.thresholds
        levels[0], levels[-1] = -config.epsilon(), 1 + config.epsilon()
        return levels

    def statistics(
        self, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor
    ) -> dict[str, Tensor]:
        y_true, y_pred = paired(y_true, y_pred, self.name)
        self.check_labels(y_pred.type.shape[-1])
        y_pred = pt.sigmoid(y_pred) if self.from_logits else y_pred
        weights = sample_weight[..., None] + pt.zeros_like(y_pred)
        if self.label_weights is not None and not self.multi_label:
            weights = weights * np.asarray(self.label_weights, y_pred.dtype)
        return confusion_counts(y_true, y_pred, weights, self.levels, self.multi_label)

    def check_labels(self, outputs: int | None) -> None:
        """Raise if there are other numbers of labels than outputs."""
        for name, number in (
            ("num_labels", self.num_labels),
            ("label_weights", None if self.label_weights is None else len(self.label_weights)),
        ):
            if None not in (number, outputs) and number != outputs:
                raise ValueError(f"{self.name} has {name} for {number} outputs of {outputs}.")

    def compute_result(
        self,
        true_positives: Array,
        false_positives: Array,
        true_negatives: Array,
        false_negatives: Array,
    ) -> Any:
        recall = divide_no_nan(true_positives, true_positives + false_negatives)
        if self.curve == "PR" and self.summation_method == "interpolation":
            areas = interpolated(true_positives, false_positives, false_negatives)
        else:
            x, y = divide_no_nan(false_positives, false_positives + true_negatives), recall
            if self.curve == "PR":
                x, y = recall, divide_no_nan(true_positives, true_positives + false_positives)
            heights = {
                "interpolation": (y[:-1] + y[1:]) / 2,
                "minoring": np.minimum(y[:-1], y[1:]),
                "majoring": np.maximum(y[:-1], y[1:]),
            }[self.summation_method]
            areas = (x[:-1] - x[1:]) * heights
        area = np.sum(areas, axis=0)
        return np.average(area, weights=self.label_weights) if self.multi_label else area

    def of_logits(self) -> Metric:
        return AUC(**{**self.get_config(), "from_logits": True})


def interpolated(true_positives: Array, false_positives: Array, false_negatives: Array) -> Array:
    """Return the areas under the precision-recall curve between thresholds.

    True positives and positives P are linear in between, with the slope s = dTP / dP, so the
    integral of the precision TP / P over TP is ``s (dTP + (TP - s P) log(P_next / P))``.
    """
    positives = true_positives + false_positives
    rise, run = true_positives[:-1] - true_positives[1:], positives[:-1] - positives[1:]
    slope = divide_no_nan(rise, np.maximum(run, 0))
    intercept = true_positives[1:] - slope * positives[1:]
    both = (positives[:-1] > 0) & (positives[1:] > 0)
    ratio = np.where(both, divide_no_nan(positives[:-1], positives[1:]), 1.0)
    areas = slope * (rise + intercept * np.log(ratio))
    return divide_no_nan(areas, true_positives[1:] + false_negatives[1:])

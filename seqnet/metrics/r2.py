"""The coefficient of determination."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytensor.tensor as pt

from seqnet.common.checks import check_count
from seqnet.common.types import Array, Tensor
from seqnet.losses.reduction import weighted_sum
from seqnet.losses.targets import paired
from seqnet.metrics.metric import Metric, divide_no_nan
from seqnet.registry import register

AGGREGATIONS = (None, "uniform_average", "variance_weighted_average")


@register("metric", "r2_score")
class R2Score(Metric):
    """The coefficient of determination ``1 - sum (y - p)^2 / sum (y - mean y)^2``.

    It is computed for each output over all steps: 1 is the best, 0 that of predicting the mean.
    An output whose targets are all the same has 0.

    Parameters
    ----------
    class_aggregation : {"uniform_average", "variance_weighted_average", None}
        How the scores of the outputs are averaged. None gives an array. Logs hold one number, so
        `seqnet.Model.compile` needs an average.
    num_regressors : int
        The number p of independent regressors, for the adjusted score
        ``1 - (1 - R2) (n - 1) / (n - p - 1)`` with n steps of a weight above 0; 0 does not adjust,
        and neither does a p above ``n - 2``.
    name, dtype : str, optional
        As in `Metric`.

    Examples
    --------
    >>> import seqnet
    >>> round(seqnet.metrics.R2Score()([[1], [4], [3]], [[2], [4], [4]]), 4)
    0.5714
    """

    registered_name = "r2_score"
    direction = "max"
    sums = ("count", "total", "squares", "residuals", "steps")

    def __init__(
        self,
        class_aggregation: str | None = "uniform_average",
        num_regressors: int = 0,
        name: str | None = None,
        dtype: str | None = None,
    ):
        super().__init__(name, dtype)
        if class_aggregation not in AGGREGATIONS:
            known = ", ".join(map(repr, AGGREGATIONS))
            raise ValueError(f"class_aggregation is one of {known}, got {class_aggregation!r}.")
        self.class_aggregation = class_aggregation
        self.num_regressors = check_count(num_regressors, "num_regressors", 0)

    @property
    def scalar(self) -> bool:
        return self.class_aggregation is not None

    def statistics(
        self, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor
    ) -> dict[str, Tensor]:
        y_true, y_pred = paired(y_true, y_pred, self.name)
        # The difference of sums of squares would be wrong in float32 for a mean far from 0.
        y, p, weights = (pt.cast(v, "float64") for v in (y_true, y_pred, sample_weight))
        return {
            "count": pt.sum(weights),
            "total": weighted_sum(y, weights),
            "squares": weighted_sum(pt.sqr(y), weights),
            "residuals": weighted_sum(pt.sqr(y - p), weights),
            "steps": pt.sum(pt.gt(weights, 0)),
        }

    def compute_result(
        self, count: float, total: Array, squares: Array, residuals: Array, steps: float
    ) -> Any:
        variation = squares - divide_no_nan(total**2, count)
        score: Any = np.where(variation > 0, 1 - divide_no_nan(residuals, variation), 0.0)
        if self.class_aggregation == "uniform_average":
            score = np.mean(score)
        elif self.class_aggregation == "variance_weighted_average":
            score = divide_no_nan(np.sum(score * variation), np.sum(variation))
        free = steps - self.num_regressors - 1
        if self.num_regressors and free > 0:
            return 1 - (1 - score) * (steps - 1) / free
        return score

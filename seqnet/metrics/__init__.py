"""Metrics: sums over batches, weighted and masked like the loss, and a number from them.

Every batch returns sums, so the result of an epoch is exact for any sizes of batches: a mean is
taken over all unmasked steps, and a precision has all positives. In training the sums come from
the same compiled step as the loss. A metric can also be called on arrays::

    metric = seqnet.metrics.Recall()
    metric.update_state(y_true, y_pred, sample_weight=None)
    metric.result()
"""

from __future__ import annotations

from seqnet.losses.reduction import weighted_sum
from seqnet.metrics.accuracy import (
    BinaryAccuracy,
    CategoricalAccuracy,
    SparseCategoricalAccuracy,
    SparseTopKCategoricalAccuracy,
    TopKCategoricalAccuracy,
    binary_accuracy,
    categorical_accuracy,
    sparse_categorical_accuracy,
    sparse_top_k_categorical_accuracy,
    top_k_categorical_accuracy,
)
from seqnet.metrics.auc import AUC
from seqnet.metrics.by_name import check_scalar, get, metric_or_loss
from seqnet.metrics.confusion import (
    FalseNegatives,
    FalsePositives,
    Precision,
    Recall,
    TrueNegatives,
    TruePositives,
)
from seqnet.metrics.f_score import F1Score, FBetaScore
from seqnet.metrics.mean import Mean, MeanMetric, MeanMetricWrapper, Sum
from seqnet.metrics.metric import Metric, divide_no_nan
from seqnet.metrics.of_losses import (
    BinaryCrossentropy,
    CategoricalCrossentropy,
    CategoricalHinge,
    CosineSimilarity,
    Hinge,
    KLDivergence,
    LogCoshError,
    MeanAbsoluteError,
    MeanAbsolutePercentageError,
    MeanSquaredError,
    MeanSquaredLogarithmicError,
    Poisson,
    RootMeanSquaredError,
    SparseCategoricalCrossentropy,
    SquaredHinge,
)
from seqnet.metrics.perplexity import Perplexity
from seqnet.metrics.r2 import R2Score

__all__ = [
    "AUC",
    "BinaryAccuracy",
    "BinaryCrossentropy",
    "CategoricalAccuracy",
    "CategoricalCrossentropy",
    "CategoricalHinge",
    "CosineSimilarity",
    "F1Score",
    "FBetaScore",
    "FalseNegatives",
    "FalsePositives",
    "Hinge",
    "KLDivergence",
    "LogCoshError",
    "Mean",
    "MeanAbsoluteError",
    "MeanAbsolutePercentageError",
    "MeanMetric",
    "MeanMetricWrapper",
    "MeanSquaredError",
    "MeanSquaredLogarithmicError",
    "Metric",
    "Perplexity",
    "Poisson",
    "Precision",
    "R2Score",
    "Recall",
    "RootMeanSquaredError",
    "SparseCategoricalAccuracy",
    "SparseCategoricalCrossentropy",
    "SparseTopKCategoricalAccuracy",
    "SquaredHinge",
    "Sum",
    "TopKCategoricalAccuracy",
    "TrueNegatives",
    "TruePositives",
    "binary_accuracy",
    "categorical_accuracy",
    "check_scalar",
    "divide_no_nan",
    "get",
    "metric_or_loss",
    "sparse_categorical_accuracy",
    "sparse_top_k_categorical_accuracy",
    "top_k_categorical_accuracy",
    "weighted_sum",
]

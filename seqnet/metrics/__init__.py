"""Metrics: sums over batches, weighted and masked like the loss, and a number from them.

Every batch returns sums, so the result of an epoch is exact for any sizes of batches: a mean is
taken over all unmasked steps, and a precision has all positives. In training the sums come from
the same compiled step as the loss. On arrays a metric is used by itself::

    metric = seqnet.metrics.Recall()
    metric.update_state(y_true, y_pred, sample_weight=None)
    metric.result()
"""

from __future__ import annotations

from seqnet.losses.reduction import weighted_sum
from seqnet.metrics.accuracy import BinaryAccuracy, CategoricalAccuracy, SparseCategoricalAccuracy
from seqnet.metrics.by_name import get, metric_or_loss
from seqnet.metrics.mean import Mean, MeanMetric, MeanMetricWrapper, Sum
from seqnet.metrics.metric import Metric, divide_no_nan
from seqnet.metrics.perplexity import Perplexity

__all__ = [
    "BinaryAccuracy",
    "CategoricalAccuracy",
    "Mean",
    "MeanMetric",
    "MeanMetricWrapper",
    "Metric",
    "Perplexity",
    "SparseCategoricalAccuracy",
    "Sum",
    "divide_no_nan",
    "get",
    "metric_or_loss",
    "weighted_sum",
]

"""Metrics that are the mean of a loss, with the loss's formula."""

from __future__ import annotations

from typing import Any

import numpy as np

from seqnet import losses
from seqnet.metrics.mean import MeanMetricWrapper
from seqnet.registry import register


class LossMetric(MeanMetricWrapper):
    """The base class of metrics that are the mean of a loss over all steps.

    The formula is that of `loss`, a class of `seqnet.losses`.

    Parameters
    ----------
    name, dtype : str, optional
        As in `Metric`.
    """

    direction = "min"
    loss: type[losses.Loss]

    def __init__(self, name: str | None = None, dtype: str | None = None):
        super().__init__(self.loss(), name or self.registered_name, dtype)


@register("metric", "mean_squared_error", "mse")
class MeanSquaredError(LossMetric):
    """Mean of the squared errors, over the last axis and all steps.

    Examples
    --------
    >>> import seqnet
    >>> seqnet.metrics.MeanSquaredError()([[0.0, 1.0]], [[1.0, 3.0]])
    2.5
    """

    registered_name = "mean_squared_error"
    loss = losses.MeanSquaredError


@register("metric", "mean_absolute_error", "mae")
class MeanAbsoluteError(LossMetric):
    """Mean of the absolute errors, over the last axis and all steps.

    Examples
    --------
    >>> import seqnet
    >>> seqnet.metrics.MeanAbsoluteError()([[0.0, 1.0]], [[1.0, 3.0]])
    1.5
    """

    registered_name = "mean_absolute_error"
    loss = losses.MeanAbsoluteError


@register("metric", "mean_absolute_percentage_error", "mape")
class MeanAbsolutePercentageError(LossMetric):
    """Mean of the absolute errors in percent of the targets.

    Examples
    --------
    >>> import seqnet
    >>> round(seqnet.metrics.MeanAbsolutePercentageError()([[1.0, 2.0]], [[1.5, 2.0]]), 4)
    25.0
    """

    registered_name = "mean_absolute_percentage_error"
    loss = losses.MeanAbsolutePercentageError


@register("metric", "mean_squared_logarithmic_error", "msle")
class MeanSquaredLogarithmicError(LossMetric):
    """Mean of the squared differences of ``log(1 + y)``.

    Examples
    --------
    >>> import seqnet
    >>> round(seqnet.metrics.MeanSquaredLogarithmicError()([[0.0, 3.0]], [[1.0, 3.0]]), 4)
    0.2402
    """

    registered_name = "mean_squared_logarithmic_error"
    loss = losses.MeanSquaredLogarithmicError


@register("metric", "logcosh", "log_cosh", "log_cosh_error")
class LogCoshError(LossMetric):
    """Mean of ``log(cosh(y_pred - y_true))``.

    Examples
    --------
    >>> import seqnet
    >>> round(seqnet.metrics.LogCoshError()([[0.0, 1.0]], [[1.0, 1.0]]), 4)
    0.2169
    """

    registered_name = "logcosh"
    loss = losses.LogCosh


@register("metric", "hinge")
class Hinge(LossMetric):
    """Mean of ``max(0, 1 - y_true y_pred)`` for targets -1 and 1, or 0 and 1.

    Examples
    --------
    >>> import seqnet
    >>> round(seqnet.metrics.Hinge()([[-1.0, 1.0]], [[0.5, 0.5]]), 4)
    1.0
    """

    registered_name = "hinge"
    loss = losses.Hinge


@register("metric", "squared_hinge")
class SquaredHinge(LossMetric):
    """Mean of ``max(0, 1 - y_true y_pred)^2`` for targets -1 and 1, or 0 and 1.

    Examples
    --------
    >>> import seqnet
    >>> round(seqnet.metrics.SquaredHinge()([[-1.0, 1.0]], [[0.5, 0.5]]), 4)
    1.25
    """

    registered_name = "squared_hinge"
    loss = losses.SquaredHinge


@register("metric", "categorical_hinge")
class CategoricalHinge(LossMetric):
    """Mean of the margin between the target class and the best other class.

    Examples
    --------
    >>> import seqnet
    >>> round(seqnet.metrics.CategoricalHinge()([[0.0, 1.0, 0.0]], [[0.2, 0.5, 0.3]]), 4)
    0.8
    """

    registered_name = "categorical_hinge"
    loss = losses.CategoricalHinge


@register("metric", "poisson")
class Poisson(LossMetric):
    """Mean of ``y_pred - y_true log(y_pred)``.

    Examples
    --------
    >>> import seqnet
    >>> round(seqnet.metrics.Poisson()([[1.0, 2.0]], [[1.0, 4.0]]), 4)
    1.1137
    """

    registered_name = "poisson"
    loss = losses.Poisson


@register("metric", "kl_divergence", "kld", "kullback_leibler_divergence")
class KLDivergence(LossMetric):
    """Mean Kullback-Leibler divergence ``sum_k y_k log(y_k / p_k)``.

    Examples
    --------
    >>> import seqnet
    >>> round(seqnet.metrics.KLDivergence()([[0.5, 0.5]], [[0.25, 0.75]]), 4)
    0.1438
    """

    registered_name = "kl_divergence"
    loss = losses.KLDivergence


@register("metric", "root_mean_squared_error", "rmse")
class RootMeanSquaredError(LossMetric):
    """The square root of the mean squared error over the last axis and all steps.

    Examples
    --------
    >>> import seqnet
    >>> seqnet.metrics.RootMeanSquaredError()([[0.0, 1.0]], [[1.0, 8.0]])
    5.0
    """

    registered_name = "root_mean_squared_error"
    loss = losses.MeanSquaredError

    def compute_result(self, total: Any, count: Any) -> Any:
        return np.sqrt(super().compute_result(total, count))


@register("metric", "cosine_similarity")
class CosineSimilarity(MeanMetricWrapper):
    """The mean cosine of the angle between target and prediction: 1 for the same direction.

    As in Keras 3 it is minus the loss `seqnet.losses.CosineSimilarity`.

    Parameters
    ----------
    name, dtype : str, optional
        As in `Metric`.
    axis : int
        The axis of the vectors.

    Examples
    --------
    >>> import seqnet
    >>> metric = seqnet.metrics.CosineSimilarity()
    >>> round(metric([[0.0, 2.0], [1.0, 1.0]], [[1.0, 0.0], [2.0, 2.0]]), 6)
    0.5
    """

    registered_name = "cosine_similarity"
    direction = "max"

    def __init__(self, name: str | None = None, dtype: str | None = None, axis: int = -1):
        super().__init__(losses.CosineSimilarity(axis=axis), name or self.registered_name, dtype)
        self.axis = axis

    def compute_result(self, total: Any, count: Any) -> Any:
        return -super().compute_result(total, count)


@register("metric", "binary_crossentropy", "bce")
class BinaryCrossentropy(LossMetric):
    """Mean of the binary cross-entropy, see `seqnet.losses.BinaryCrossentropy`.

    Parameters
    ----------
    name, dtype : str, optional
        As in `Metric`.
    from_logits : bool
    label_smoothing : float

    Examples
    --------
    >>> import seqnet
    >>> round(seqnet.metrics.BinaryCrossentropy()([0, 1, 1], [0.1, 0.9, 0.6]), 4)
    0.2405
    """

    registered_name = "binary_crossentropy"

    def __init__(
        self,
        name: str | None = None,
        dtype: str | None = None,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
    ):
        fn = losses.BinaryCrossentropy(from_logits, label_smoothing)
        MeanMetricWrapper.__init__(self, fn, name or self.registered_name, dtype)
        self.from_logits, self.label_smoothing = from_logits, label_smoothing


@register("metric", "categorical_crossentropy")
class CategoricalCrossentropy(LossMetric):
    """Mean of the cross-entropy, see `seqnet.losses.CategoricalCrossentropy`.

    Parameters
    ----------
    name, dtype : str, optional
        As in `Metric`.
    from_logits : bool
    label_smoothing : float
    axis : int
        The axis of the classes.

    Examples
    --------
    >>> import seqnet
    >>> round(seqnet.metrics.CategoricalCrossentropy()([[0.0, 1.0, 0.0]], [[0.2, 0.5, 0.3]]), 4)
    0.6931
    """

    registered_name = "categorical_crossentropy"

    def __init__(
        self,
        name: str | None = None,
        dtype: str | None = None,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
        axis: int = -1,
    ):
        fn = losses.CategoricalCrossentropy(from_logits, label_smoothing, axis)
        MeanMetricWrapper.__init__(self, fn, name or self.registered_name, dtype)
        self.from_logits, self.label_smoothing, self.axis = from_logits, label_smoothing, axis


@register("metric", "sparse_categorical_crossentropy")
class SparseCategoricalCrossentropy(LossMetric):
    """Mean of the cross-entropy, see `seqnet.losses.SparseCategoricalCrossentropy`.

    Parameters
    ----------
    name, dtype : str, optional
        As in `Metric`.
    from_logits : bool
    ignore_class : int, optional
        Steps of this class do not count.
    axis : int
        The axis of the classes.

    Examples
    --------
    >>> import seqnet
    >>> round(seqnet.metrics.SparseCategoricalCrossentropy()([1, 0], [[0.2, 0.8], [0.6, 0.4]]), 4)
    0.367
    """

    registered_name = "sparse_categorical_crossentropy"

    def __init__(
        self,
        name: str | None = None,
        dtype: str | None = None,
        from_logits: bool = False,
        ignore_class: int | None = None,
        axis: int = -1,
    ):
        fn = losses.SparseCategoricalCrossentropy(
            from_logits=from_logits, ignore_class=ignore_class, axis=axis
        )
        MeanMetricWrapper.__init__(self, fn, name or self.registered_name, dtype)
        self.from_logits, self.ignore_class, self.axis = from_logits, ignore_class, axis

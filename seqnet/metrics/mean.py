"""Metrics that are a mean or a sum."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import pytensor.tensor as pt

from seqnet import losses
from seqnet.common.types import ArrayLike, Tensor
from seqnet.losses.reduction import name_of, step_weights, values_of, weighted_sum
from seqnet.metrics.metric import Metric, divide_no_nan
from seqnet.ops.count import count


class ValuesMetric(Metric):
    """The base class of `Sum` and `Mean`, which are called on values."""

    def update_state(self, values: ArrayLike, sample_weight: ArrayLike | None = None) -> None:  # type: ignore[override]
        """Add a batch of values of any shape; weights are for their first axes."""
        self.add_batch([values], sample_weight)

    def graph(self, values: Tensor, weight: Tensor | None, mask: Tensor | None) -> list[Tensor]:  # type: ignore[override]
        values = self.converted(values)
        return self.listed(self.statistics(values, step_weights(values, weight, mask)))

    @abstractmethod
    def statistics(self, values: Tensor, sample_weight: Tensor | None) -> dict[str, Tensor]:  # type: ignore[override]
        """Return the sums of values; their weights have the same shape, or None is 1."""


class Sum(ValuesMetric):
    """The weighted sum of values. It is called on values and not on targets and predictions.

    Parameters
    ----------
    name, dtype : str, optional
        As in `Metric`.

    Examples
    --------
    >>> import seqnet
    >>> seqnet.metrics.Sum()([1, 3, 5, 7], sample_weight=[1, 1, 0, 0])
    4.0
    """

    registered_name = "sum"
    sums = ("total",)

    def statistics(self, values: Tensor, sample_weight: Tensor | None) -> dict[str, Tensor]:  # type: ignore[override]
        return {"total": weighted_sum(values, sample_weight)}

    def compute_result(self, total: Any) -> Any:
        return total


class Mean(ValuesMetric):
    """The weighted mean of values. It is called on values and not on targets and predictions.

    Parameters
    ----------
    name, dtype : str, optional
        As in `Metric`.

    Examples
    --------
    >>> import seqnet
    >>> mean = seqnet.metrics.Mean()
    >>> mean.update_state([1, 3])
    >>> mean.update_state([5, 7, 100], sample_weight=[1, 1, 0])
    >>> mean.result()
    4.0
    """

    registered_name = "mean"
    sums = ("total", "count")

    def statistics(self, values: Tensor, sample_weight: Tensor | None) -> dict[str, Tensor]:  # type: ignore[override]
        number = count(values) if sample_weight is None else pt.sum(sample_weight)
        return {"total": weighted_sum(values, sample_weight), "count": number}

    def compute_result(self, total: Any, count: Any) -> Any:
        return divide_no_nan(total, count)


class MeanMetric(Mean):
    """The base class of metrics that are a weighted mean of a value for each step.

    A subclass defines `call`. It may change the mean in `compute_result`.

    Parameters
    ----------
    name, dtype : str, optional
        As in `Metric`.

    Examples
    --------
    >>> import numpy as np, pytensor.tensor as pt, seqnet
    >>> class EuclideanDistance(seqnet.metrics.MeanMetric):
    ...     def call(self, y_true, y_pred):
    ...         return pt.sqrt(pt.sum(pt.sqr(y_pred - y_true), axis=-1))
    >>> EuclideanDistance()([[0.0, 0.0], [1.0, 1.0]], [[3.0, 4.0], [1.0, 1.0]])
    2.5
    """

    @abstractmethod
    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """Return the value of each step as a symbolic variable.

        Predictions have the shape ``(batch, ..., features)``, the values ``(batch, ...)``.
        """

    def update_state(  # type: ignore[override]
        self, y_true: ArrayLike, y_pred: ArrayLike, sample_weight: ArrayLike | None = None
    ) -> None:
        """Add a batch of arrays, as `Metric.update_state`."""
        self.add_batch([y_true, y_pred], sample_weight)

    def graph(  # type: ignore[override]
        self, y_true: Tensor, y_pred: Tensor, weight: Tensor | None, mask: Tensor | None
    ) -> list[Tensor]:
        y_pred = self.converted(y_pred)
        values = values_of(self.call, y_true, y_pred, f"The metric {self.name!r}")
        values = pt.cast(values, y_pred.dtype)
        most = max(1, y_pred.ndim - 1)
        least = max(1, *[given.ndim for given in (weight, mask) if given is not None], 1)
        if not least <= values.ndim <= most:
            axes = "1 axis" if values.ndim == 1 else f"{values.ndim} axes"
            wanted = "(batch,)" if most == 1 else "(batch, time)"
            raise ValueError(
                f"The metric {self.name!r} gives {axes}, and the outputs have {y_pred.ndim}: a "
                f"metric gives one value for each example or step, {wanted}, and leaves the "
                "averaging to seqnet, which knows masks and weights."
            )
        return super().graph(values, weight, self.counting(y_true, values, mask))

    def counting(self, y_true: Tensor, values: Tensor, mask: Tensor | None) -> Tensor | None:
        """Return the mask of the values: here the mask of the steps."""
        return mask


class MeanMetricWrapper(MeanMetric):
    """The weighted mean of a function or a loss over all steps.

    Parameters
    ----------
    fn : str, Loss or function of (y_true, y_pred)
        Returns a value for each step: for predictions ``(batch, ..., features)``, values
        ``(batch, ...)``. A function is made of PyTensor's functions.
    name : str, optional
        The name in the logs. Default: that of the function.
    dtype : str, optional
        As in `Metric`.

    Examples
    --------
    >>> import pytensor.tensor as pt, seqnet
    >>> def largest_error(y_true, y_pred):
    ...     return pt.max(pt.abs(y_true - y_pred), axis=-1)
    >>> metric = seqnet.metrics.MeanMetricWrapper(largest_error)
    >>> metric.name, metric([[0.0, 1.0], [1.0, 1.0]], [[0.5, 1.0], [1.0, 2.0]])
    ('largest_error', 0.75)
    """

    def __init__(
        self, fn: str | dict | Callable, name: str | None = None, dtype: str | None = None
    ):
        self.fn = losses.get(fn)
        super().__init__(name or name_of(self.fn), dtype)

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        return losses.values_function(self.fn)(y_true, y_pred)

    def graph(  # type: ignore[override]
        self, y_true: Tensor, y_pred: Tensor, weight: Tensor | None, mask: Tensor | None
    ) -> list[Tensor]:
        if not isinstance(self.fn, losses.SequenceLoss):
            return super().graph(y_true, y_pred, weight, mask)
        values = self.fn.of_sequences(y_true, self.converted(y_pred), mask)
        sequences = None if mask is None else pt.any(mask, axis=1)
        return ValuesMetric.graph(self, values, weight, sequences)

    def counting(self, y_true: Tensor, values: Tensor, mask: Tensor | None) -> Tensor | None:
        counted = self.fn.counted(y_true) if isinstance(self.fn, losses.Loss) else None
        if counted is None or mask is None:
            return mask if counted is None else counted
        for _ in range(counted.ndim - mask.ndim):
            mask = mask[..., None]
        return counted & mask

    def of_logits(self) -> Metric:
        if isinstance(self.fn, losses.Loss) and "from_logits" in self.fn.get_config():
            fn = type(self.fn)(**{**self.fn.get_config(), "from_logits": True})
            return MeanMetricWrapper(fn, self.name, self.dtype)
        return self

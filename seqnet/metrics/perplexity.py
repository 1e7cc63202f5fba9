"""The perplexity."""

from __future__ import annotations

from typing import Any

import numpy as np

from seqnet import losses
from seqnet.common.checks import check_bool
from seqnet.common.types import Tensor
from seqnet.metrics.mean import MeanMetric
from seqnet.metrics.metric import Metric
from seqnet.registry import register


@register("metric", "perplexity")
class Perplexity(MeanMetric):
    """``exp`` of the mean cross-entropy in nats; targets are class numbers or distributions.

    Parameters
    ----------
    from_logits : bool
        The predictions are logits and not probabilities. Not needed for a model that ends with a
        softmax.
    name, dtype : str, optional
        As in `Metric`.

    Examples
    --------
    >>> import seqnet
    >>> round(seqnet.metrics.Perplexity()([0, 1], [[0.25, 0.75], [0.75, 0.25]]), 6)
    4.0
    """

    registered_name = "perplexity"
    direction = "min"

    def __init__(
        self, from_logits: bool = False, name: str | None = None, dtype: str | None = None
    ):
        super().__init__(name, dtype)
        self.from_logits = check_bool(from_logits, "from_logits")

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        if y_true.ndim == y_pred.ndim - 1:
            return losses.SparseCategoricalCrossentropy(self.from_logits).values(y_true, y_pred)
        return losses.CategoricalCrossentropy(self.from_logits).values(y_true, y_pred)

    def compute_result(self, total: Any, count: Any) -> Any:
        return np.exp(np.minimum(super().compute_result(total, count), 700.0))

    def of_logits(self) -> Metric:
        return Perplexity(True, self.name, self.dtype)

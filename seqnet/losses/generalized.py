"""A cross-entropy that is robust to wrong labels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytensor.tensor as pt

from seqnet.common.checks import check_number
from seqnet.common.types import Tensor
from seqnet.losses.crossentropy import SparseCategoricalCrossentropy
from seqnet.losses.logits import pick_class, softmax_logits
from seqnet.losses.loss import function_of, number
from seqnet.ops.sampled_softmax import sampled_crossentropy
from seqnet.registry import register


@register("loss", "categorical_generalized_cross_entropy")
class CategoricalGeneralizedCrossEntropy(SparseCategoricalCrossentropy):
    """``(1 - p^q) / q`` for the probability p of the target class: for labels with mistakes.

    Near q = 0 it is the cross-entropy ``-log p``, and with q = 1 it is ``1 - p``, half of the
    absolute error: the larger q is, the less a wrong label changes (Zhang and Sabuncu, "Generalized
    cross entropy loss for training deep neural networks with noisy labels", NeurIPS 2018, equation
    6). Targets are class numbers, as in `SparseCategoricalCrossentropy`. Predictions that are not
    known to be a softmax are used as they are.

    Parameters
    ----------
    q : float
        Above 0 and at most 1.
    from_logits, ignore_class, axis, **kwargs
        As in `SparseCategoricalCrossentropy`.

    Examples
    --------
    >>> import seqnet
    >>> loss = seqnet.losses.CategoricalGeneralizedCrossEntropy(q=0.5)
    >>> round(float(loss([1], [[0.75, 0.25]])), 6)  # (1 - 0.5) / 0.5
    1.0
    """

    registered_name = "categorical_generalized_cross_entropy"

    def __init__(
        self,
        q: float = 0.5,
        from_logits: bool = False,
        ignore_class: int | None = None,
        axis: int = -1,
        **kwargs: Any,
    ):
        super().__init__(from_logits, ignore_class, axis, **kwargs)
        if not 0 < check_number(q, "q") <= 1:
            raise ValueError(f"q is above 0 and at most 1, got {q}.")
        self.q = q

    def of_class(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        q, one = number(self.q, y_pred), number(1, y_pred)
        known = self.from_logits or softmax_logits(y_pred) is not None
        if known or sampled_crossentropy(y_pred, y_true) is not None:
            return -pt.expm1(-q * super().of_class(y_true, y_pred)) / q
        # The gradient of p^q at p = 0 is infinite, and that of the lowest number above it is 0.
        p = pt.maximum(pick_class(y_pred, y_true), np.finfo(y_pred.dtype).tiny)
        return (one - p**q) / q


categorical_generalized_cross_entropy = function_of(CategoricalGeneralizedCrossEntropy)

"""Losses: one value per example or step, not reduced here.

The training step weights and averages them: ``sum(w * m * l) / sum(w * m)`` with sample weights
``w`` and mask ``m``. Cross-entropies are computed from logits: if a prediction is the softmax or
sigmoid of a variable, that variable is used, so that a confident mistake neither saturates nor
loses its gradient.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from seqnet.losses.crossentropy import (
    BinaryCrossentropy,
    CategoricalCrossentropy,
    SparseCategoricalCrossentropy,
)
from seqnet.losses.identity import Identity
from seqnet.losses.logits import sigmoid_logits, softmax_logits
from seqnet.losses.loss import Loss
from seqnet.losses.masked import MaskedLoss, masked_loss
from seqnet.losses.regression import MeanAbsoluteError, MeanSquaredError
from seqnet.registry import Identifier
from seqnet.registry import get as _get
from seqnet.types import Tensor

__all__ = [
    "BinaryCrossentropy",
    "CategoricalCrossentropy",
    "Identity",
    "Loss",
    "MaskedLoss",
    "MeanAbsoluteError",
    "MeanSquaredError",
    "SparseCategoricalCrossentropy",
    "get",
    "guess",
    "masked_loss",
]


def __dir__() -> list[str]:
    return sorted(__all__)


def get(identifier: Identifier) -> Callable:
    """Return a loss by name, from a saved configuration, or from an object or custom function.

    Examples
    --------
    >>> from seqnet import losses
    >>> losses.get("mse").name
    'mean_squared_error'
    """
    if identifier is masked_loss:
        return MaskedLoss()
    return _get("loss", identifier)


def guess(y_pred: Tensor, y: np.ndarray) -> Loss:
    """Choose the loss for a model's last layer and the targets.

    For a softmax it is a categorical cross-entropy (sparse if the targets are class numbers), for a
    sigmoid the binary cross-entropy, otherwise the mean squared error.
    """
    if softmax_logits(y_pred) is not None:
        if y.ndim == y_pred.ndim - 1 and y.dtype.kind in "iu":
            return SparseCategoricalCrossentropy()
        return CategoricalCrossentropy()
    if sigmoid_logits(y_pred) is not None:
        return BinaryCrossentropy()
    return MeanSquaredError()

"""Losses: a value for each example or step, with sample weights and a reduction.

``Loss.call`` gives the values, and the training step averages them: ``sum(w m l) / sum(w m)`` with
sample weights ``w`` and mask ``m``. A loss that is called itself applies sample weights and the
reduction, on arrays and on variables.

Cross-entropies are computed from logits: if a prediction is the softmax or sigmoid of a variable,
that variable is used, so that a confident mistake neither saturates nor loses its gradient.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from seqnet.common.types import Tensor
from seqnet.losses.crf import CRFLoss
from seqnet.losses.crossentropy import (
    BinaryCrossentropy,
    CategoricalCrossentropy,
    SparseCategoricalCrossentropy,
    binary_crossentropy,
    categorical_crossentropy,
    sparse_categorical_crossentropy,
)
from seqnet.losses.ctc import CTC, ctc
from seqnet.losses.focal import (
    BinaryFocalCrossentropy,
    CategoricalFocalCrossentropy,
    binary_focal_crossentropy,
    categorical_focal_crossentropy,
)
from seqnet.losses.generalized import (
    CategoricalGeneralizedCrossEntropy,
    categorical_generalized_cross_entropy,
)
from seqnet.losses.hinge import (
    CategoricalHinge,
    Hinge,
    SquaredHinge,
    categorical_hinge,
    hinge,
    squared_hinge,
)
from seqnet.losses.identity import Identity
from seqnet.losses.logits import sigmoid_logits, softmax_logits
from seqnet.losses.loss import FUNCTIONS, Loss, SequenceLoss, values_function
from seqnet.losses.masked import MaskedLoss, masked_loss
from seqnet.losses.overlap import Dice, Tversky, dice, tversky
from seqnet.losses.probabilistic import KLDivergence, Poisson, kl_divergence, poisson
from seqnet.losses.regression import (
    CosineSimilarity,
    Huber,
    LogCosh,
    MeanAbsoluteError,
    MeanAbsolutePercentageError,
    MeanSquaredError,
    MeanSquaredLogarithmicError,
    cosine_similarity,
    huber,
    log_cosh,
    mean_absolute_error,
    mean_absolute_percentage_error,
    mean_squared_error,
    mean_squared_logarithmic_error,
)
from seqnet.losses.targets import aligned
from seqnet.ops.chain import chain_inputs
from seqnet.registry import Identifier
from seqnet.registry import get as _get

__all__ = [
    "CTC",
    "BinaryCrossentropy",
    "BinaryFocalCrossentropy",
    "CRFLoss",
    "CategoricalCrossentropy",
    "CategoricalFocalCrossentropy",
    "CategoricalGeneralizedCrossEntropy",
    "CategoricalHinge",
    "CosineSimilarity",
    "Dice",
    "Hinge",
    "Huber",
    "Identity",
    "KLDivergence",
    "LogCosh",
    "Loss",
    "MaskedLoss",
    "MeanAbsoluteError",
    "MeanAbsolutePercentageError",
    "MeanSquaredError",
    "MeanSquaredLogarithmicError",
    "Poisson",
    "SequenceLoss",
    "SparseCategoricalCrossentropy",
    "SquaredHinge",
    "Tversky",
    "binary_crossentropy",
    "binary_focal_crossentropy",
    "categorical_crossentropy",
    "categorical_focal_crossentropy",
    "categorical_generalized_cross_entropy",
    "categorical_hinge",
    "cosine_similarity",
    "ctc",
    "dice",
    "get",
    "guess",
    "hinge",
    "huber",
    "kl_divergence",
    "log_cosh",
    "masked_loss",
    "mean_absolute_error",
    "mean_absolute_percentage_error",
    "mean_squared_error",
    "mean_squared_logarithmic_error",
    "poisson",
    "sparse_categorical_crossentropy",
    "squared_hinge",
    "tversky",
    "values_function",
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
    known = FUNCTIONS.get(identifier) if callable(identifier) else None
    return _get("loss", known or identifier)


def guess(y_pred: Tensor, y: np.ndarray) -> Loss:
    """Choose the loss for a model's last layer and the targets.

    For a `CRF` layer it is minus the log probability of the targets, for a softmax a categorical
    cross-entropy (sparse if the targets are class numbers), for a sigmoid the binary cross-entropy,
    otherwise the mean squared error.

    Examples
    --------
    >>> import numpy as np, pytensor.tensor as pt
    >>> from seqnet.losses import guess
    >>> guess(pt.sigmoid(pt.matrix()), np.zeros((2, 1))).name
    'binary_crossentropy'
    """
    if chain_inputs(y_pred) is not None:
        return CRFLoss()
    if softmax_logits(y_pred) is not None:
        classes = y_pred.type.shape
        if y.dtype.kind in "iu" and aligned(y, classes[:-1]).ndim == y_pred.ndim - 1:
            return SparseCategoricalCrossentropy()
        return CategoricalCrossentropy()
    if sigmoid_logits(y_pred) is not None:
        return BinaryCrossentropy()
    return MeanSquaredError()

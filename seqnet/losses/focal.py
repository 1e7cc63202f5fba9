"""Focal cross-entropies: examples that are predicted well have less weight."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytensor.tensor as pt

from seqnet.common.checks import check_bool, check_number
from seqnet.common.types import Tensor
from seqnet.losses.crossentropy import DistributionLoss, ProbabilityLoss
from seqnet.losses.logits import log_probabilities, sigmoid_logits
from seqnet.losses.loss import check_share, function_of, number
from seqnet.registry import register


@register("loss", "binary_focal_crossentropy")
class BinaryFocalCrossentropy(ProbabilityLoss):
    """Mean over the last axis of ``(1 - p_t)^gamma`` times the binary cross-entropy.

    ``p_t = y p + (1 - y)(1 - p)`` is the probability of the target (Lin et al., 2017: Focal loss
    for dense object detection). Logits are used as in `BinaryCrossentropy`.

    Parameters
    ----------
    apply_class_balancing : bool
        Multiply by ``y alpha + (1 - y)(1 - alpha)``.
    alpha : float
        The weight of class 1, from 0 to 1.
    gamma : float
        How much examples that are predicted well are reduced; 0 or more.
    from_logits : bool
        The predictions are logits. Not needed for a model that ends with a sigmoid.
    label_smoothing : float
        A number s from 0 to 1: targets become ``y (1 - s) + s / 2``.
    axis : int
        The axis of the mean. In a model it is the last one, -1.
    **kwargs
        ``name``, ``reduction`` and ``dtype`` of `Loss`.

    Examples
    --------
    >>> import seqnet
    >>> loss = seqnet.losses.BinaryFocalCrossentropy(gamma=2.0)
    >>> round(float(loss([[0, 1]], [[0.5, 0.75]])), 5)
    0.09563
    """

    registered_name = "binary_focal_crossentropy"

    def __init__(
        self,
        apply_class_balancing: bool = False,
        alpha: float = 0.25,
        gamma: float = 2.0,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
        axis: int = -1,
        **kwargs: Any,
    ):
        super().__init__(from_logits, label_smoothing, axis, **kwargs)
        self.apply_class_balancing = check_bool(apply_class_balancing, "apply_class_balancing")
        self.alpha = check_share(alpha, "alpha")
        self.gamma = check_gamma(gamma)

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        y, y_pred = self.paired(y_true, y_pred)
        one = number(1, y_pred)
        logits = y_pred if self.from_logits else sigmoid_logits(y_pred)
        if logits is None:
            p, rest = y_pred, one - y_pred
        else:
            p, rest = pt.sigmoid(logits), pt.sigmoid(-logits)
        values = focus(y * rest + (one - y) * p, self.gamma) * self.crossentropy(y, y_pred)
        if self.apply_class_balancing:
            alpha, other = number(self.alpha, y_pred), number(1 - self.alpha, y_pred)
            values = (y * alpha + (one - y) * other) * values
        return pt.mean(values, axis=-1)


@register("loss", "categorical_focal_crossentropy")
class CategoricalFocalCrossentropy(DistributionLoss):
    """Focal cross-entropy with target distributions: ``-sum_k alpha (1 - p_k)^gamma y_k log p_k``.

    Lin et al., 2017: Focal loss for dense object detection. Predictions are treated as in
    `CategoricalCrossentropy`.

    Parameters
    ----------
    alpha : float or list of float
        The weight of all classes, or of each class.
    gamma : float
        How much classes that are predicted well are reduced; 0 or more.
    from_logits : bool
        The predictions are logits. Not needed for a model that ends with a softmax.
    label_smoothing : float
        A number s from 0 to 1: targets become ``y (1 - s) + s / classes``.
    axis : int
        The axis of the classes. In a model it is the last one, -1.
    **kwargs
        ``name``, ``reduction`` and ``dtype`` of `Loss`.

    Examples
    --------
    >>> import seqnet
    >>> loss = seqnet.losses.CategoricalFocalCrossentropy(alpha=1.0, gamma=2.0)
    >>> round(float(loss([[0, 1]], [[1.0, 3.0]])), 5)  # (1 / 4)^2 times -log(3 / 4)
    0.01798
    """

    registered_name = "categorical_focal_crossentropy"

    def __init__(
        self,
        alpha: float | Sequence[float] = 0.25,
        gamma: float = 2.0,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
        axis: int = -1,
        **kwargs: Any,
    ):
        super().__init__(from_logits, label_smoothing, axis, **kwargs)
        self.alpha: float | list[float]
        if isinstance(alpha, (Sequence, np.ndarray)) and not isinstance(alpha, str):
            self.alpha = [check_number(a, "alpha") for a in alpha]
        else:
            self.alpha = check_number(alpha, "alpha")
        self.gamma = check_gamma(gamma)

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        y, y_pred = self.paired(y_true, y_pred)
        log_p = log_probabilities(y_pred, self.from_logits)
        alpha = np.asarray(self.alpha, dtype=y_pred.dtype)
        classes = y_pred.type.shape[-1]
        if alpha.ndim and classes not in (None, len(alpha)):
            raise ValueError(
                f"alpha of {self.name} has {len(alpha)} weights, but the predictions have "
                f"{classes} classes."
            )
        values = alpha * focus(-pt.expm1(log_p), self.gamma) * y * log_p
        return -pt.sum(values, axis=-1)


def focus(rest: Tensor, gamma: float) -> Tensor:
    """Return ``rest^gamma`` with a finite gradient."""
    if gamma == 0:
        return pt.ones_like(rest)
    low = number(np.finfo(rest.dtype).tiny, rest)
    return pt.maximum(rest, low) ** number(gamma, rest)


def check_gamma(gamma: float) -> float:
    """Return an exponent, or raise."""
    if not check_number(gamma, "gamma") >= 0:
        raise ValueError(f"gamma must be 0 or more, got {gamma}.")
    return gamma


binary_focal_crossentropy = function_of(BinaryFocalCrossentropy)
categorical_focal_crossentropy = function_of(CategoricalFocalCrossentropy)

"""Losses of the overlap of targets and predictions: for outputs that are rarely positive."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import pytensor.tensor as pt

from seqnet import config
from seqnet.common.checks import check_number
from seqnet.common.types import Tensor, TensorLike
from seqnet.losses.loss import SequenceLoss, check_axis, function_of, number
from seqnet.losses.targets import paired
from seqnet.registry import register


class OverlapLoss(SequenceLoss):
    """The base class of losses of sums over several axes.

    Parameters
    ----------
    axis : int or tuple of int, optional
        The axes of the sums. By default these are all axes, and the loss is one number for the
        batch.
    **kwargs
        ``name``, ``reduction`` and ``dtype`` of `Loss`.
    """

    def __init__(self, axis: int | Sequence[int] | None = None, **kwargs: Any):
        super().__init__(**kwargs)
        self.axis: Any = None
        if isinstance(axis, Sequence):
            self.axis = tuple(check_axis(each) for each in axis)
        elif axis is not None:
            self.axis = check_axis(axis)

    @property
    def of_batch(self) -> bool:  # type: ignore[override]
        return self.axis is None or 0 in (
            self.axis if isinstance(self.axis, tuple) else (self.axis,)
        )

    def call(self, y_true: Tensor, y_pred: Tensor, mask: TensorLike | None = None) -> Tensor:
        y, p = paired(y_true, y_pred, self.name)
        y = pt.cast(y, p.dtype)
        if mask is not None:
            present = pt.as_tensor_variable(mask)
            for _ in range(p.ndim - present.ndim):
                present = present[..., None]
            y, p = (pt.switch(present, value, pt.zeros_like(value)) for value in (y, p))
        both = pt.sum(y * p, axis=self.axis)
        share = self.share(both, pt.sum(y, axis=self.axis), pt.sum(p, axis=self.axis))
        return number(1, p) - share

    @abstractmethod
    def share(self, both: Tensor, targets: Tensor, predictions: Tensor) -> Tensor:
        """Return the overlap, at most 1, from the sums of ``y p``, y and p."""

    def check_last_axis(self) -> None:
        """Accept any axes in a model."""


@register("loss", "dice")
class Dice(OverlapLoss):
    """``1 - 2 sum(y p) / (sum(y) + sum(p))``: one minus the F1 score of probabilities.

    Steps that are rightly predicted as negative count nothing, so it suits outputs that are rarely
    positive, such as a few tags in long sequences (Milletari, Navab and Ahmadi, "V-Net", 3DV 2016;
    Li et al., "Dice loss for data-imbalanced NLP tasks", ACL 2020). Epsilon
    (`seqnet.config.epsilon`) is added to the divisor, as in Keras 3. Masked steps are in no sum.

    Targets have the shape of the outputs: 0 and 1, or one-hot rows. By default the sums are over
    the whole batch, which has one loss, and sample weights are an error; with ``axis=(1, 2)``
    each sequence has its loss. Axes that are left out are averaged: ``axis=(0, 1)`` is a mean over
    the tags.

    Parameters
    ----------
    axis : int or tuple of int, optional
        The axes of the sums, by default all.
    **kwargs
        ``name``, ``reduction`` and ``dtype`` of `Loss`.

    Examples
    --------
    >>> import seqnet
    >>> round(float(seqnet.losses.Dice()([[0, 1], [0, 0]], [[0.0, 0.5], [0.0, 0.5]])), 5)
    0.5
    """

    registered_name = "dice"

    def share(self, both: Tensor, targets: Tensor, predictions: Tensor) -> Tensor:
        epsilon = number(config.epsilon(), both)
        return number(2, both) * both / (targets + predictions + epsilon)


@register("loss", "tversky")
class Tversky(OverlapLoss):
    """``1 - sum(y p) / (sum(y p) + alpha sum(y (1 - p)) + beta sum((1 - y) p))``.

    With alpha and beta of 0.5 it is `Dice` (Salehi, Erdogmus and Gholipour, "Tversky loss function
    for image segmentation using 3D fully convolutional deep networks", MLMI 2017). As computed by
    Keras 3, alpha is the weight of positive targets that are missed, and beta that of negative ones
    that are found; the paper's letters are the other way round. Masks, targets, axes and sample
    weights are as in `Dice`.

    Parameters
    ----------
    alpha, beta : float
        0 or more.
    axis : int or tuple of int, optional
        The axes of the sums, by default all.
    **kwargs
        ``name``, ``reduction`` and ``dtype`` of `Loss`.

    Examples
    --------
    >>> import seqnet
    >>> loss = seqnet.losses.Tversky(alpha=0.75, beta=0.25)
    >>> round(float(loss([[0, 1], [0, 0]], [[0.0, 0.5], [0.0, 0.5]])), 5)
    0.5
    """

    registered_name = "tversky"

    def __init__(
        self,
        alpha: float = 0.5,
        beta: float = 0.5,
        axis: int | Sequence[int] | None = None,
        **kwargs: Any,
    ):
        super().__init__(axis, **kwargs)
        for value, name in ((alpha, "alpha"), (beta, "beta")):
            if not 0 <= check_number(value, name) < float("inf"):
                raise ValueError(f"{name} must be at least 0 and finite, got {value}.")
        self.alpha, self.beta = alpha, beta

    def share(self, both: Tensor, targets: Tensor, predictions: Tensor) -> Tensor:
        missed, wrong = targets - both, predictions - both
        weighted = number(self.alpha, both) * missed + number(self.beta, both) * wrong
        return both / (both + weighted + number(config.epsilon(), both))


dice = function_of(Dice)
tversky = function_of(Tversky)

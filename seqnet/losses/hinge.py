"""Hinge losses: margins between classes."""

from __future__ import annotations

import pytensor.tensor as pt

from seqnet.common.types import Array, Shape, Tensor
from seqnet.losses.loss import Loss, function_of, number
from seqnet.losses.targets import check_signs
from seqnet.registry import register


@register("loss", "hinge")
class Hinge(Loss):
    """Mean over the last axis of ``max(0, 1 - y_true y_pred)``, for targets -1 and 1.

    A target 0 counts as -1, so 0 and 1 can be given. Predictions are values on the two sides of
    0, such as those of a last layer without an activation or with tanh.

    Examples
    --------
    >>> import seqnet
    >>> seqnet.losses.Hinge(reduction="none")([[-1], [1], [0]], [[-3.0], [0.5], [0.5]]).tolist()
    [0.0, 0.5, 1.5]
    """

    registered_name = "hinge"

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        return pt.mean(margins(*self.paired(y_true, y_pred)), axis=-1)

    def check_targets(self, y: Array, output_shape: Shape, name: str) -> None:
        super().check_targets(y, output_shape, name)
        check_signs(y, name, self.name)


@register("loss", "squared_hinge")
class SquaredHinge(Hinge):
    """Mean over the last axis of ``max(0, 1 - y_true y_pred)^2``; see `Hinge`.

    Examples
    --------
    >>> import seqnet
    >>> float(seqnet.losses.SquaredHinge()([[-1.0, 1.0]], [[1.0, 0.0]]))
    2.5
    """

    registered_name = "squared_hinge"

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        return pt.mean(pt.sqr(margins(*self.paired(y_true, y_pred))), axis=-1)


@register("loss", "categorical_hinge")
class CategoricalHinge(Loss):
    """The margin between the target class and the best other class, for one-hot targets.

    ``max(0, 1 + max((1 - y_true) y_pred) - sum(y_true y_pred))``, both over the last axis.

    Examples
    --------
    >>> import seqnet
    >>> float(seqnet.losses.CategoricalHinge()([[0, 1, 0]], [[0.5, 0.25, 0.25]]))
    1.25
    """

    registered_name = "categorical_hinge"

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        y_true, y_pred = self.paired(y_true, y_pred)
        one, zero = number(1, y_pred), number(0, y_pred)
        others = pt.max((one - y_true) * y_pred, axis=-1)
        return pt.maximum(others - pt.sum(y_true * y_pred, axis=-1) + one, zero)


def margins(y_true: Tensor, y_pred: Tensor) -> Tensor:
    """Return ``max(0, 1 - y_true y_pred)``, where a target 0 counts as -1."""
    one, zero = number(1, y_pred), number(0, y_pred)
    return pt.maximum(one - pt.switch(pt.eq(y_true, zero), -one, y_true) * y_pred, zero)


hinge = function_of(Hinge)
squared_hinge = function_of(SquaredHinge)
categorical_hinge = function_of(CategoricalHinge)

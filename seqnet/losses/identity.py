"""The loss of models that compute it themselves."""

from __future__ import annotations

import pytensor.tensor as pt

from seqnet.common.types import Array, Shape, Tensor, TensorLike
from seqnet.losses.loss import Loss
from seqnet.registry import register


@register("loss", "identity")
class Identity(Loss):
    """The output itself: for a model whose output is the loss of each example or step.

    There are no targets: what the loss is computed from are inputs of the model.

    Examples
    --------
    >>> import numpy as np, pytensor.tensor as pt, seqnet
    >>> x, y = seqnet.Input((3,)), seqnet.Input((1,))
    >>> error = pt.sqr(seqnet.layers.Dense(1)(x) - y).sum(axis=1)
    >>> model = seqnet.Model([x, y], error)
    >>> model.compile("adam", "identity")
    >>> history = model.fit([np.ones((8, 3)), np.ones((8, 1))], epochs=2, verbose=0)
    >>> len(history.history["loss"])
    2
    """

    registered_name = "identity"
    needs_targets = False

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        return y_pred

    def values(self, y_true: TensorLike | None, y_pred: TensorLike) -> Tensor:
        return pt.as_tensor_variable(y_pred)

    def check_targets(self, y: Array, output_shape: Shape, name: str) -> None:
        raise ValueError(
            f"The output of the model is its own loss (identity), so it takes no {name}. Pass what "
            "the loss is computed from as inputs."
        )

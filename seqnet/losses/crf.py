"""The loss of a linear-chain conditional random field."""

from __future__ import annotations

import pytensor.tensor as pt

from seqnet.common.types import Array, Shape, Tensor, TensorLike
from seqnet.losses.loss import SequenceLoss
from seqnet.losses.targets import check_class_numbers, paired
from seqnet.ops.chain import ChainLogSum, chain_inputs
from seqnet.registry import register


@register("loss", "crf_loss")
class CRFLoss(SequenceLoss):
    """Minus the log probability of the targets of a sequence, for a model that ends with a `CRF`.

    ``l = log(sum_y' exp(S(y'))) - S(y)`` for the score S of a path, see `seqnet.layers.CRF`
    (Lafferty, McCallum and Pereira, ICML 2001). There is one value for each sequence, and not for
    each step: the loss is a mean over sequences, and sample weights are (batch,). Targets are class
    numbers ``(batch, time)``; they may hold anything at masked steps.

    The loss takes the scores and weights from the layer's output, so it cannot be called on arrays.

    Parameters
    ----------
    **kwargs
        ``name``, ``reduction`` and ``dtype`` of `Loss`.

    Raises
    ------
    ValueError
        If the predictions are not the output of a `CRF` layer.

    Examples
    --------
    >>> import numpy as np, seqnet
    >>> model = seqnet.Model([seqnet.layers.CRF()])
    >>> model.compile("adam", "crf_loss", metrics=["accuracy"])
    >>> X, y = np.zeros((1, 3, 2)), np.array([[0, 1, 1]])
    >>> loss, accuracy = model.evaluate(X, y)
    >>> round(float(loss / np.log(2)), 5)  # each of the 2 ** 3 paths is as probable
    3.0
    """

    registered_name = "crf_loss"

    def values(
        self, y_true: TensorLike, y_pred: TensorLike, mask: TensorLike | None = None
    ) -> Tensor:
        return self.call(pt.as_tensor_variable(y_true), pt.as_tensor_variable(y_pred), mask)

    def call(self, y_true: Tensor, y_pred: Tensor, mask: TensorLike | None = None) -> Tensor:
        chain = chain_inputs(y_pred)
        if chain is None:
            raise ValueError(
                f"{self.name} needs the scores of a CRF layer: the model's last layer must be "
                "seqnet.layers.CRF, and y_pred its output."
            )
        y_true, _ = paired(y_true, y_pred, self.name, classes=True)
        return ChainLogSum()(*chain, y_true)

    def target_shape(self, output_shape: Shape) -> Shape:
        return output_shape[:-1]

    def check_targets(self, y: Array, output_shape: Shape, name: str) -> None:
        check_class_numbers(y, output_shape, name, self.name)

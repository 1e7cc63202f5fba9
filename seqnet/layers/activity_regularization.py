"""A penalty on the inputs."""

from __future__ import annotations

from typing import Any

from seqnet.common.types import Shape, Tensor
from seqnet.layers.context import CallContext
from seqnet.layers.layer import Layer
from seqnet.registry import register
from seqnet.regularizers import L1L2


@register("layer")
class ActivityRegularization(Layer):
    """Return the input, and add ``(l1 * sum|x| + l2 * sum x^2) / examples`` to the loss.

    The sums are over the unmasked steps of a batch, and are divided by its number of examples.

    Parameters
    ----------
    l1, l2 : float

    Examples
    --------
    >>> import seqnet
    >>> model = seqnet.Model([seqnet.layers.ActivityRegularization(l1=0.5)])
    >>> model.compile("sgd", "mse")
    >>> model.evaluate([[1.0, -2.0]], [[1.0, -2.0]], verbose=0)
    1.5
    """

    takes_several_inputs = False

    def __init__(self, l1: float = 0.0, l2: float = 0.0, **kwargs: Any):
        super().__init__(activity_regularizer=L1L2(l1, l2), **kwargs)
        self.l1, self.l2 = float(l1), float(l2)

    @classmethod
    def signature(cls) -> dict[str, Any]:
        return {k: v for k, v in super().signature().items() if k != "activity_regularizer"}

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return input_shape

    def call(self, inputs: Tensor, mask: Tensor | None, context: CallContext) -> Tensor:
        return inputs
